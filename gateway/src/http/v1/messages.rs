//! Messages by POST: each request is one attempt, answered when its message is durable. The message's own id is its idempotency key: the same one
//! again is accepted again and is one message; with another body it is `id_reused`.
//!
//! **Order.** None is promised between requests that are under way at the same time. Whoever wants one waits for each answer before the next message of
//! that conversation, and repeats one that was refused for now or whose answer was lost before any other.

use std::sync::Arc;

use axum::extract::State;
use parking_lot::Mutex;
use protocol::frame::{ClientFrame, FrameError, Send};
use protocol::record::Record;
use protocol::{ConversationId, ErrorCode, MessageId};
use router::submit::{Outcome, Report, ReportSink};
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::FrameBody;
use super::conversations::{ReplyTo, Text};
use super::error::{ApiError, Errors, NeedsToken};
use super::reply::{Reply, Success, ok};
use crate::command::error;
use crate::command::send::check;
use crate::metrics;
use crate::node::{Gateway, now_ms};

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(send))
}

/// A message to be sent.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, read by the codec")]
struct NewMessage {
    /// A UUID of version 7, chosen by the client and kept in every retry.
    #[schema(example = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e")]
    id: String,
    /// A user, or a direct conversation of yours.
    #[schema(example = "u:43", pattern = "^(u:[0-9]+|d:[0-9]+:[0-9]+)$")]
    to: String,
    /// What `body` is.
    #[schema(example = "text", pattern = "^text$")]
    kind: String,
    /// What is said.
    body: Text,
    /// What it answers.
    reply_to: Option<ReplyTo>,
}

/// A message that is durable.
#[derive(Serialize, ToSchema)]
struct Accepted {
    /// Its id.
    #[schema(value_type = String, example = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e")]
    id: MessageId,
    /// Where it went.
    #[schema(value_type = String, example = "d:42:43")]
    conversation: ConversationId,
}

/// Send a message
///
/// Answers when the message is durable. `outcome_unknown`, or no answer: it may be a message or not; send it again, with the same id. No order is
/// promised between requests under way at the same time: wait for each answer. An `Idempotency-Key` says nothing here, the id is it.
#[utoipa::path(post, path = "/v1/messages", tag = "Messages", security(("bearer" = [])), request_body = NewMessage,
    responses((status = 200, description = "The message is durable.", body = Success<Accepted>), NeedsToken, Errors))]
async fn send(State(node): State<Arc<Gateway>>, bearer: Bearer, body: FrameBody) -> Result<Reply<Accepted>, ApiError> {
    node.metrics.sends.increment(1);
    let sent = match body.read("send") {
        Ok(ClientFrame::Send(send)) => submit(&node, &bearer, send).await,
        Ok(_) => return Err(ApiError::bad_request("not a message")),
        Err(refused) => return Err(refused),
    };
    sent.map(|accepted| {
        node.metrics.accepted.increment(1);
        node.pressure.accepted();
        ok(accepted)
    })
    .map_err(|(why, retry_after_ms)| {
        metrics::refused(why.code);
        let retry_after_ms = retry_after_ms.or_else(|| node.pressure.refused(why.code));
        ApiError::frame(why, retry_after_ms)
    })
}

type Refused = (FrameError, Option<u64>);

async fn submit(node: &Gateway, bearer: &Bearer, send: Send) -> Result<Accepted, Refused> {
    let refused = |code, message| (error(code, None, message), None);
    let record = check(send, bearer.user, node.config.limits.body_bytes, now_ms()).map_err(|why| (why, None))?;
    if node.is_draining() {
        return Err(refused(ErrorCode::Unavailable, "the server is stopping"));
    }
    let rate = |ms| (error(ErrorCode::Rate, None, "too many sends"), Some(ms));
    node.limiter.send(bearer.user).map_err(rate)?;
    let accepted = Accepted { id: record.identity.id, conversation: record.identity.conversation };
    match attempt(node, record).await {
        Outcome::Accepted => Ok(accepted),
        Outcome::Refused(code) => Err(refused(code, "the message is not taken")),
        Outcome::Unknown => Err(refused(ErrorCode::OutcomeUnknown, "no report in time: send it again with the same id")),
    }
}

/// One attempt to make a record durable. It goes on when nobody waits for it any more.
async fn attempt(node: &Gateway, record: Record) -> Outcome {
    let (settle, settled) = oneshot::channel();
    node.ports.submit.submit(record, Report::new(Arc::new(Attempt(Mutex::new(Some(settle)))), 0));
    match tokio::time::timeout(node.config.report_deadline, settled).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Outcome::Unknown,
    }
}

/// Where the report of one attempt arrives.
struct Attempt(Mutex<Option<oneshot::Sender<Outcome>>>);

impl ReportSink for Attempt {
    fn settled(&self, _ticket: u64, outcome: Outcome) {
        if let Some(settle) = self.0.lock().take() {
            // nobody waits any more: the id will tell
            let _ = settle.send(outcome);
        }
    }
}
