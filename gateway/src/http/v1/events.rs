//! The stream of a device's events: what a WebSocket brings, for networks that break WebSockets. A session like any other behind it
//! ([`crate::event_stream`]): newest wins, window, drain, revocation, expiry, all of it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use protocol::frame::Hello;
use protocol::{DeviceName, Position, Seq};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::Parameters;
use super::error::{ApiError, Errors, MayBeForbidden, NeedsToken};
use crate::connection::Client;
use crate::event_stream::Streams;
use crate::handshake::{ClientAddress, admit};
use crate::metrics;
use crate::node::Gateway;

const LAST_EVENT_ID: &str = "last-event-id";
/// Tells nginx, and those who do as it does, to pass each event on as it comes.
const NO_BUFFERING: (HeaderName, HeaderValue) = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(open))
}

/// Where to go on: the fields of `hello`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct From {
    /// The device; absent: the token's, or `default`.
    #[param(value_type = Option<String>, example = "phone-1", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    device: Option<DeviceName>,
    /// The last seq that is stored at the client; absent: what the server knows of the device. `Last-Event-ID` goes before it.
    #[param(minimum = 0)]
    cursor: Option<Seq>,
    /// The epoch of the cursor.
    #[param(value_type = Option<String>, pattern = "^[0-9]+$")]
    epoch: Option<Position>,
    /// The newest `rev` of a receipt that is stored at the client: later ones are told after `live`. `0`: all; absent: none.
    #[param(value_type = Option<String>, pattern = "^[0-9]+$")]
    rev: Option<Position>,
}

/// Receive events
///
/// Server-sent events: `event` is a frame's type, `data` the frame in JSON, `id` the seq of an `event`, the cursor. `: ` comes at least every 15 seconds. The
/// last event, `close`, says why the stream ends: `{"type":"close","code":4409,"reason":"superseded"}`, with the codes of the WebSocket. Acknowledge by
/// `POST /v1/received`; choose whose presence comes by `POST /v1/watch`.
#[utoipa::path(get, path = "/v1/events", tag = "Messages", security(("bearer" = [])),
    params(From, ("Last-Event-ID" = Option<String>, Header, description = "The last seq that is stored at the client")),
    responses((status = 200, description = "The stream.", content_type = "text/event-stream", body = String), NeedsToken, MayBeForbidden, Errors))]
async fn open(
    State(node): State<Arc<Gateway>>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    (method, headers): (Method, HeaderMap),
    bearer: Bearer,
    Parameters(from): Parameters<From>,
) -> Result<Response, ApiError> {
    if method != Method::GET {
        return Err(ApiError::method_not_allowed());
    }
    bearer.speaks_for(from.device.clone())?;
    let hello = Hello {
        device: from.device,
        epoch: from.epoch.map(Position::get),
        rev: from.rev.map(Position::get),
        cursor: last_event_id(&headers)?.or(from.cursor),
        ..Hello::default()
    };
    admit(address, &node).map_err(|why| ApiError::no_room(&why))?;
    metrics::streamed();
    let client = Client::of_stream(node, address, bearer.claims, Box::new(hello));
    let mut response = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")].into_response();
    response.headers_mut().extend([(Some(NO_BUFFERING.0), NO_BUFFERING.1)]);
    response.extensions_mut().insert(Streams::new(client));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Seq>, ApiError> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let seq = id.to_str().ok().and_then(|id| id.parse().ok());
    seq.map(Some).ok_or_else(|| ApiError::bad_field("Last-Event-ID", "the seq of an event"))
}
