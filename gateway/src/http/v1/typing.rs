//! `typing` by POST. It belongs to the user, so no session is needed; the rate at which it is passed on is kept for each user and conversation.

use std::sync::Arc;

use axum::extract::State;
use protocol::frame::ClientFrame;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::FrameBody;
use super::error::{ApiError, Errors, NeedsToken};
use super::reply::{Done, Reply, Success, ok};
use crate::command::typing::{conversation_of, tell};
use crate::metrics;
use crate::node::Gateway;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(typing))
}

/// Where you are writing.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, read by the codec")]
struct Typing {
    /// A user, or a direct conversation of yours.
    #[schema(example = "u:43", pattern = "^(u:[0-9]+|d:[0-9]+:[0-9]+)$")]
    to: String,
}

/// Tell that you are writing
///
/// Say it again every few seconds while it is so. One each 3 seconds a conversation is passed on, more are dropped; so is what goes to somebody with whom
/// you never wrote. The answer is always the same.
#[utoipa::path(post, path = "/v1/typing", tag = "Messages", security(("bearer" = [])), request_body = Typing,
    responses((status = 200, description = "Heard.", body = Success<Done>), NeedsToken, Errors))]
async fn typing(State(node): State<Arc<Gateway>>, bearer: Bearer, body: FrameBody) -> Result<Reply<Done>, ApiError> {
    let ClientFrame::Typing(to) = body.read("typing")? else { return Err(ApiError::bad_request("not what it should be")) };
    let conversation = conversation_of(bearer.user, to).map_err(|why| ApiError::frame(why, None))?;
    if node.limiter.typing(bearer.user, conversation) {
        // beside the request: how long it takes would say whether they know each other
        tokio::spawn(async move { tell(&node, conversation, bearer.user).await });
    } else {
        metrics::dropped("typing", "rate");
    }
    Ok(ok(Done {}))
}
