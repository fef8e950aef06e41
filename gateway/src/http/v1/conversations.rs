//! Conversations and what was said in them: the pages of the socket, `{items, before}`. An item is written by the codec of frames, so that both say the same.

use std::sync::Arc;

use axum::extract::State;
use protocol::codec::Encoding;
use protocol::{ConversationId, ErrorCode, Position};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::{Named, Parameters};
use super::error::{ApiError, Errors, MayBeForbidden, MayBeMissing, NeedsToken};
use super::paging::{Paged, Paging};
use super::reply::{Reply, Success, ok};
use crate::command::query::{Query, answer, bounds, may_read};
use crate::node::Gateway;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(messages))
}

/// A text.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, written by the codec")]
pub(super) struct Text {
    /// UTF-8, as it was sent: escape it.
    #[schema(example = "hi")]
    text: String,
}

/// What a message answers.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, written by the codec")]
pub(super) struct ReplyTo {
    /// Its sender.
    #[schema(example = "43")]
    from: String,
    /// Its id.
    #[schema(example = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e")]
    id: String,
}

/// A message.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, written by the codec")]
struct Message {
    /// Always `message`.
    #[schema(example = "message", pattern = "^message$")]
    event: String,
    /// Where it was said.
    #[schema(example = "d:42:43", pattern = "^d:[0-9]+:[0-9]+$")]
    conversation: String,
    /// Its place in the conversation, a 64-bit number.
    #[schema(example = "281474976710674", pattern = "^[0-9]+$")]
    position: String,
    /// Who said it.
    #[schema(example = "42", pattern = "^[0-9]+$")]
    from: String,
    /// The id that its sender gave it.
    #[schema(example = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e")]
    id: String,
    /// What `body` is.
    #[schema(example = "text", pattern = "^text$")]
    kind: String,
    /// What was said.
    body: Text,
    /// What it answers.
    #[schema(nullable = false)]
    reply_to: Option<ReplyTo>,
    /// When the server took it in.
    #[schema(format = DateTime)]
    at: String,
}

/// A conversation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, written by the codec")]
struct Conversation {
    /// Its id.
    #[schema(example = "d:42:43", pattern = "^d:[0-9]+:[0-9]+$")]
    conversation: String,
    /// Its last message.
    last: Message,
    /// Messages of others behind `read`, at most 1000.
    #[schema(minimum = 0, maximum = 1000)]
    unread: u32,
    /// Your own read position, `0` if none.
    #[schema(example = "281474976710674", pattern = "^[0-9]+$")]
    read: String,
    /// How far the others have come.
    receipts: Vec<Standing>,
}

/// How far a member of a conversation has come.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, written by the codec")]
struct Standing {
    /// Who.
    #[schema(example = "43", pattern = "^[0-9]+$")]
    member: String,
    /// Everything up to here reached one of their devices; `0`: nothing did.
    #[schema(example = "281474976710674", pattern = "^[0-9]+$")]
    delivered: String,
    /// Everything up to here was read; `0`: nothing was.
    #[schema(example = "281474976710674", pattern = "^[0-9]+$")]
    read: String,
}

/// List your conversations
///
/// The one that was active last comes first.
#[utoipa::path(get, path = "/v1/conversations", tag = "Messages", security(("bearer" = [])), params(Paging),
    responses((status = 200, description = "Conversations, each with its last message.", body = Success<Paged<Conversation>>), NeedsToken, Errors))]
async fn list(State(node): State<Arc<Gateway>>, bearer: Bearer, Parameters(paging): Parameters<Paging>) -> Page {
    let (before, limit) = bounds_of(&node, &paging)?;
    page(&node, &bearer, Query::Conversations(before, limit)).await
}

/// Read a conversation
///
/// The newest page first; inside a page the order is ascending. One in which nothing was said is an empty page.
#[utoipa::path(get, path = "/v1/conversations/{id}/messages", tag = "Messages", security(("bearer" = [])),
    params(("id" = String, Path, description = "The conversation, `d:<lower user>:<higher user>`"), Paging),
    responses((status = 200, description = "Messages.", body = Success<Paged<Message>>), NeedsToken, MayBeForbidden, MayBeMissing, Errors))]
async fn messages(
    State(node): State<Arc<Gateway>>,
    bearer: Bearer,
    Named(conversation): Named<ConversationId>,
    Parameters(paging): Parameters<Paging>,
) -> Page {
    may_read(bearer.user, conversation).map_err(|why| ApiError::frame(why, None))?;
    let (before, limit) = bounds_of(&node, &paging)?;
    page(&node, &bearer, Query::History(conversation, before, limit)).await
}

type Page = Result<Reply<Paged<Box<RawValue>>>, ApiError>;

fn bounds_of(node: &Gateway, paging: &Paging) -> Result<(Position, u32), ApiError> {
    let before = paging.before().map(str::parse::<Position>).transpose();
    let before = before.map_err(|_| ApiError::bad_field("before", "what the page before said"))?;
    bounds(before, paging.asked(), node.config.limits.page_events).map_err(|why| ApiError::frame(why, None))
}

async fn page(node: &Gateway, bearer: &Bearer, query: Query) -> Page {
    let frame = answer(&*node.ports.store, bearer.user, query).await.map_err(|why| {
        tracing::warn!(user = %bearer.user, %why, "a page could not be read");
        ApiError::unavailable("the store does not answer")
    })?;
    let mut bytes = Vec::new();
    Encoding::Json.encode(&frame, &mut bytes);
    let read: Encoded = serde_json::from_slice(&bytes).map_err(|why| {
        tracing::error!(%why, "a page of the codec is none");
        ApiError::new(ErrorCode::Unavailable.into(), "the page cannot be shown")
    })?;
    Ok(ok(Paged { items: read.items, before: read.before }))
}

/// A page as the codec writes it.
#[derive(Deserialize)]
struct Encoded {
    #[serde(alias = "events", alias = "conversations")]
    items: Vec<Box<RawValue>>,
    before: Option<String>,
}
