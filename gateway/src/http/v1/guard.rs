//! Around every request of the API: its time and status are counted, an address that asks too often is refused, and so is a token in the URL.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;
use crate::handshake::{ClientAddress, is_token_in};
use crate::metrics;
use crate::node::Gateway;

pub(super) async fn layer(State(node): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", known).to_owned();
    let method = name(request.method());
    let refused = if is_token_in(request.uri().query().unwrap_or_default()) {
        Some(ApiError::bad_request("no token in the URL: send it in the header Authorization"))
    } else {
        node.limiter.request(address(&request).into()).err().map(ApiError::rate)
    };
    let mut response = match refused {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    // tokens and profiles are nobody else's
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    metrics::answered((method, &route), response.status().as_u16(), began.elapsed());
    response
}

/// The address it is from.
fn address(request: &Request) -> IpAddr {
    request.extensions().get::<ClientAddress>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.0)
}

fn known(path: &MatchedPath) -> &str {
    if path.as_str().contains("{*") { "unknown" } else { path.as_str() }
}

/// A closed list, so that no client makes a label.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
