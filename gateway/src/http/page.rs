//! The plain page: two people in two tabs. Its files are in the binary. What its page may do is said for every page in `headers`.

use axum::http::{HeaderName, header};
use axum::response::IntoResponse;

pub(super) fn file(kind: &'static str, bytes: &'static [u8]) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 2] = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    (headers, bytes)
}

pub(super) async fn html() -> impl IntoResponse {
    file("text/html; charset=utf-8", include_bytes!("../page/index.html"))
}

pub(super) async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_bytes!("../page/page.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_bytes!("../page/page.css"))
}
