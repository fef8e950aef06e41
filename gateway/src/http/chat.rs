//! The web chat: files that `web/chat` was built into, in the binary. Those with a hash in their name never change and are kept by browsers for a year;
//! the others are asked for again each time, and are not sent again while they are the same.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

include!(concat!(env!("OUT_DIR"), "/chat_files.rs"));

/// One file of the page; its compressed forms where they are smaller.
struct File {
    path: &'static str,
    bytes: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

/// What the page may do: its own files, sockets and API; scripts only from files; no text becomes markup or a script (Trusted Types) but one address.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; connect-src 'self'; manifest-src 'self'; \
     worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types switchboard",
);
/// What the service worker may do: read files of its own.
const POLICY_OF_WORKER: HeaderValue =
    HeaderValue::from_static("default-src 'none'; connect-src 'self'; script-src 'self'; frame-ancestors 'none'");
const FOR_A_YEAR: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// Where the page was not built in: what to do about it, and what there is beside it.
const NOT_BUILT: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Switchboard</title>\
    <h1>Switchboard</h1><p>The server runs. The web chat is not in this build: <code>scripts/start</code> builds and serves it, \
    <code>scripts/setup web</code> builds it for the next <code>cargo build</code>.</p>\
    <p>The API is at <a href=\"/docs\">/docs</a>.</p>";

/// `/` and every file of the page.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut routes = Router::new().route("/", get(serve));
    for file in FILES.iter().filter(|file| file.path != "/index.html") {
        routes = routes.route(file.path, get(serve));
    }
    routes
}

async fn serve(request: Request) -> Response {
    answer(FILES, request.uri().path(), request.headers())
}

fn answer(files: &[File], path: &str, asked: &HeaderMap) -> Response {
    let path = if path == "/" { "/index.html" } else { path };
    let Some(file) = files.iter().find(|file| file.path == path) else {
        return not_there(path);
    };
    let (encoding, bytes) = encoded(file, asked);
    let mut headers = HeaderMap::new();
    if file.brotli.is_some() || file.gzip.is_some() {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if path.starts_with("/assets/") {
        headers.insert(header::CACHE_CONTROL, FOR_A_YEAR);
    } else {
        headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
        let tag = tag_of(bytes);
        let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let same = known.flat_map(|value| value.split(',')).any(|value| value.trim().trim_start_matches("W/") == tag);
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        if same {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind_of(path)));
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    match path {
        "/index.html" => headers.insert(header::CONTENT_SECURITY_POLICY, POLICY),
        "/sw.js" => headers.insert(header::CONTENT_SECURITY_POLICY, POLICY_OF_WORKER),
        _ => None,
    };
    (headers, bytes).into_response()
}

fn not_there(path: &str) -> Response {
    if path != "/index.html" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let headers: [(HeaderName, HeaderValue); 2] =
        [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")), (header::CACHE_CONTROL, ASK_AGAIN)];
    (headers, NOT_BUILT).into_response()
}

/// The smallest form the client takes.
fn encoded(file: &File, asked: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
    match (file.brotli, file.gzip) {
        (Some(bytes), _) if accepts(asked, "br") => (Some("br"), bytes),
        (_, Some(bytes)) if accepts(asked, "gzip") => (Some("gzip"), bytes),
        _ => (None, file.bytes),
    }
}

/// Whether `Accept-Encoding` names this coding, and not with a weight of zero.
fn accepts(asked: &HeaderMap, coding: &str) -> bool {
    let values = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
        named
            && !parts
                .any(|part| part.strip_prefix("q=").is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0)))
    })
}

/// A hash of the bytes that are sent, as an `ETag`.
fn tag_of(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let mut tag = String::from("\"");
    for byte in hash.iter().take(12) {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

fn kind_of(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    const PAGE: &[File] = &[
        File { path: "/index.html", bytes: b"<p>page", brotli: Some(b"br"), gzip: Some(b"gz") },
        File { path: "/assets/main-ABC.js", bytes: b"script", brotli: None, gzip: None },
        File { path: "/sw.js", bytes: b"worker", brotli: None, gzip: None },
    ];

    fn asking(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    async fn body(response: Response) -> Vec<u8> {
        to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()
    }

    #[tokio::test]
    async fn the_shell_is_asked_for_again_and_files_with_a_hash_are_not() {
        let shell = answer(PAGE, "/", &HeaderMap::new());
        assert_eq!(shell.headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(shell.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = shell.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        let tag = shell.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(body(shell).await, b"<p>page");
        let again = answer(PAGE, "/", &asking(header::IF_NONE_MATCH, &format!("\"other\", W/{tag}")));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(body(again).await, b"");

        let script = answer(PAGE, "/assets/main-ABC.js", &HeaderMap::new());
        assert_eq!(script.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(answer(PAGE, "/sw.js", &HeaderMap::new()).headers()[header::CONTENT_SECURITY_POLICY], POLICY_OF_WORKER);
        assert_eq!(answer(PAGE, "/assets/main-OLD.js", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn the_smallest_form_the_client_takes() {
        for (accepted, wanted, encoding) in [
            ("gzip, deflate, br", "br", Some("br")),
            ("gzip", "gz", Some("gzip")),
            ("br;q=0, gzip;q=0.5", "gz", Some("gzip")),
            ("identity", "<p>page", None),
        ] {
            let response = answer(PAGE, "/", &asking(header::ACCEPT_ENCODING, accepted));
            assert_eq!(
                response.headers().get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap()),
                encoding,
                "{accepted}"
            );
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
            assert_eq!(body(response).await, wanted.as_bytes(), "{accepted}");
        }
    }

    #[tokio::test]
    async fn without_the_page_the_server_says_how_to_get_it() {
        let response = answer(&[], "/", &HeaderMap::new());
        assert_eq!(response.status(), StatusCode::OK);
        assert!(String::from_utf8(body(response).await).unwrap().contains("scripts/setup web"));
        assert_eq!(answer(&[], "/sw.js", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }
}
