//! Tokens for the asking: development mode only, which is only on a loopback address (or by `--dev`). The request must be JSON, from our own
//! page or no page, under a loopback name: another site in the developer's browser gets nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use protocol::{DeviceName, UserId};
use serde::{Deserialize, Serialize};

use super::is_loopback_host;
use crate::config::Config;
use crate::node::{Gateway, now_ms};
use crate::token::Claims;

#[derive(Deserialize)]
pub(super) struct Wanted {
    user: UserId,
    device: Option<DeviceName>,
}

#[derive(Serialize)]
pub(super) struct Token {
    token: String,
}

#[derive(Serialize)]
pub(super) struct Success<T> {
    success: bool,
    data: T,
}

pub(super) async fn token(
    State(node): State<Arc<Gateway>>,
    headers: HeaderMap,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Success<Token>>, StatusCode> {
    if !is_at_this_machine(&node.config, &headers) {
        return Err(StatusCode::FORBIDDEN);
    }
    let claims = Claims::new(wanted.user, wanted.device, now_ms() / 1000);
    let token = node.tokens.sign(&claims).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Success { success: true, data: Token { token } }))
}

/// Whether a request comes from a page of ours or no page, under a loopback name, through no proxy.
pub(super) fn is_at_this_machine(config: &Config, headers: &HeaderMap) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).unwrap_or_default();
    let ours = header(header::ORIGIN).is_none_or(|origin| config.is_own_origin(origin, host));
    // a proxy in front means that anybody may stand behind it
    let forwarded = headers.keys().any(|name| name == "forwarded" || name.as_str().starts_with("x-forwarded-"));
    is_loopback_host(host) && ours && !forwarded
}
