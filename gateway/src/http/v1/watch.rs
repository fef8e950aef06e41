//! `watch` by POST: whose presence comes down the stream of a device. It belongs to the session, so it goes to the one that is here.

use std::sync::Arc;

use axum::extract::State;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::FrameBody;
use super::error::{ApiError, Errors, MayBeForbidden, MayBeMissing, NeedsToken};
use super::received::to_session;
use super::reply::{Done, Reply, Success, ok};
use crate::node::Gateway;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(watch))
}

/// Whose presence a device wants to hear of.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, read by the codec")]
struct Watch {
    /// These users, in place of those before; at most as many as `limits.watch_users` of `welcome` says.
    #[schema(example = json!(["43", "44"]))]
    users: Vec<String>,
    /// The device; absent: the token's, or `default`.
    #[schema(example = "phone-1", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    device: Option<String>,
}

/// Watch presence
///
/// `presence` of these users comes down the stream of the device from now on: once at once, then on each change. Of users with whom you never wrote
/// nothing comes. It lasts as long as the stream: say it again on the next one. 404: no stream of the device is open at the node that answers; open one
/// first.
#[utoipa::path(post, path = "/v1/watch", tag = "Messages", security(("bearer" = [])), request_body = Watch,
    responses((status = 200, description = "Their presence comes.", body = Success<Done>), NeedsToken, MayBeForbidden, MayBeMissing, Errors))]
async fn watch(State(node): State<Arc<Gateway>>, bearer: Bearer, body: FrameBody) -> Result<Reply<Done>, ApiError> {
    let device = bearer.speaks_for(body.device()?)?;
    let frame = body.read("watch")?;
    match to_session(&node, &bearer, &device, frame).await? {
        Some(watched) => watched.map(|()| ok(Done {})).map_err(|why| ApiError::frame(why, None)),
        None => Err(ApiError::not_found("no stream of this device is open here")),
    }
}
