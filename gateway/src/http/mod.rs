//! HTTP beside the socket: health, metrics, the web chat, the API under `/v1`, and in development mode tokens for the asking.

mod chat;
mod dev;
pub(crate) mod headers;
mod page;
pub mod v1;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::node::Gateway;

/// Renders the metrics of the process.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// The routes of one gateway.
pub fn routes(node: &Arc<Gateway>, metrics: RenderMetrics) -> Router {
    let mut routes = Router::new()
        .merge(chat::routes())
        .route("/docs", get(v1::openapi::docs_html))
        .route("/docs.js", get(v1::openapi::docs_script))
        .route("/docs.css", get(v1::openapi::docs_style))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics()) }));
    if node.config.sockets {
        routes = routes.merge(v1::router(node));
    }
    if node.config.dev {
        routes = routes.route("/dev/token", post(dev::token));
    }
    routes.with_state(Arc::clone(node))
}

/// 200 while a message of our own went the whole path within the last seconds.
async fn ready(State(node): State<Arc<Gateway>>) -> Response {
    match node.health.not_ready() {
        None => match node.health.wrong_parts() {
            parts if parts.is_empty() => "ready\n".into_response(),
            parts => format!("ready, but {parts}\n").into_response(),
        },
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

/// Whether a `Host` names this machine by a loopback name: a page of another site that points its own name at 127.0.0.1 does not.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback_host;

    #[test]
    fn loopback_names_only() {
        for good in ["localhost", "localhost:8080", "127.0.0.1:8080", "127.0.0.2", "[::1]:8080", "[::1]"] {
            assert!(is_loopback_host(good), "{good}");
        }
        for bad in ["", "example.org", "127.0.0.1.example.org:8080", "localhost.example.org", "10.0.0.1:80", "localhost:80:80x"] {
            assert!(!is_loopback_host(bad), "{bad}");
        }
    }
}
