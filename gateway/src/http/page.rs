//! Pages that are in the binary as they are in the repository. What a page may do is said for every one in `headers`.

use axum::http::{HeaderName, header};
use axum::response::IntoResponse;

pub(super) fn file(kind: &'static str, bytes: &'static [u8]) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 2] = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    (headers, bytes)
}
