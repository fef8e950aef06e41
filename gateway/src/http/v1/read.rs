//! Read marks by POST: what `read` is on the socket. They belong to the user, so no session is needed.

use std::sync::Arc;

use axum::extract::State;
use protocol::{ConversationId, ErrorCode, Position};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::{Body, Named};
use super::error::{ApiError, Errors, MayBeForbidden, MayBeMissing, NeedsToken};
use super::reply::{Done, Reply, Success, ok};
use crate::command::read::{RETRY_MS, mark};
use crate::node::Gateway;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(read))
}

/// How far a conversation was read.
#[derive(Deserialize, ToSchema)]
struct Read {
    /// The position of the last message that was read. Beyond the last one there is, it means that one.
    #[schema(value_type = String, example = "281474976710674", pattern = "^[0-9]+$")]
    position: Position,
}

/// Mark as read
///
/// Everything in the conversation up to `position` was read. Backwards changes nothing. The other member and your own devices are told by `receipt`.
#[utoipa::path(post, path = "/v1/conversations/{id}/read", tag = "Messages", security(("bearer" = [])), request_body = Read,
    params(("id" = String, Path, description = "The conversation, `d:<lower user>:<higher user>`")),
    responses((status = 200, description = "Noted, and stored within a second.", body = Success<Done>), NeedsToken, MayBeForbidden, MayBeMissing, Errors))]
async fn read(
    State(node): State<Arc<Gateway>>,
    bearer: Bearer,
    Named(conversation): Named<ConversationId>,
    Body(Read { position }): Body<Read>,
) -> Result<Reply<Done>, ApiError> {
    mark(&node, bearer.user, conversation, position).map_err(|why| {
        let retry_after_ms = (why.code == ErrorCode::Rate).then_some(RETRY_MS);
        ApiError::frame(why, retry_after_ms)
    })?;
    Ok(ok(Done {}))
}
