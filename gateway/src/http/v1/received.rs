//! Acknowledgements by POST: to the session of the device, if it is here; else straight to the store, where a session on another node looks while its
//! window is full, and where the next session begins.

use std::sync::Arc;

use axum::extract::State;
use protocol::frame::{ClientFrame, FrameError};
use protocol::{DeviceName, Seq};
use storage::store::{Place, StoreError};
use tokio::sync::oneshot;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::FrameBody;
use super::error::{ApiError, Errors, MayBeForbidden, NeedsToken};
use super::reply::{Done, Reply, Success, ok};
use crate::node::Gateway;
use crate::outbox::Posted;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(received))
}

/// How far a device has come.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described here, read by the codec")]
struct Received {
    /// Everything up to here is stored at the client.
    #[schema(example = 18, minimum = 0)]
    seq: u64,
    /// The device; absent: the token's, or `default`.
    #[schema(example = "phone-1", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    device: Option<String>,
}

/// Acknowledge events
///
/// Everything up to `seq` is stored at the client: the stream goes on if its window was full, and the next one begins behind it. Backwards changes nothing.
#[utoipa::path(post, path = "/v1/received", tag = "Messages", security(("bearer" = [])), request_body = Received,
    responses((status = 200, description = "Noted.", body = Success<Done>), NeedsToken, MayBeForbidden, Errors))]
async fn received(State(node): State<Arc<Gateway>>, bearer: Bearer, body: FrameBody) -> Result<Reply<Done>, ApiError> {
    let device = bearer.speaks_for(body.device()?)?;
    let frame = body.read("received")?;
    let ClientFrame::Received(seq) = frame else { return Err(ApiError::bad_request("not an acknowledgement")) };
    // what this session has not sent yet, the one before it may have
    if !matches!(to_session(&node, &bearer, &device, frame).await?, Some(Ok(()))) {
        to_store(&node, &bearer, &device, seq).await?;
    }
    Ok(ok(Done {}))
}

/// Says something to the session of a device, if it is here.
pub(super) async fn to_session(
    node: &Gateway,
    bearer: &Bearer,
    device: &DeviceName,
    frame: ClientFrame,
) -> Result<Option<Result<(), FrameError>>, ApiError> {
    let Some(outbox) = node.sessions.holder(bearer.user, device) else { return Ok(None) };
    let (answer, answered) = oneshot::channel();
    if outbox.post(Posted { frame, answer }).is_some() {
        let gone = outbox.is_gone();
        return if gone { Ok(None) } else { Err(ApiError::rate(200)) };
    }
    // no answer: it ended before it heard this
    Ok(answered.await.ok())
}

async fn to_store(node: &Gateway, bearer: &Bearer, device: &DeviceName, seq: Seq) -> Result<(), ApiError> {
    let unavailable = |why: StoreError| {
        tracing::debug!(user = %bearer.user, %why, "an acknowledgement is refused");
        ApiError::unavailable("the store does not answer")
    };
    let newest = node.ports.store.newest(&[bearer.user]).await.map_err(unavailable)?;
    let Some(Some(newest)) = newest.first() else { return Err(ApiError::unavailable("the store does not answer")) };
    if seq > newest.seq {
        return Err(ApiError::bad_field("seq", "there is no such event"));
    }
    let known = node.ports.store.cursor(bearer.user, device, Some(seq)).await.map_err(unavailable)?;
    if seq > known.seq {
        node.cursors.acknowledged(bearer.user, device, Place { seq, ..known });
        node.receipts.acknowledged(bearer.user, Place { seq, ..known });
    }
    Ok(())
}
