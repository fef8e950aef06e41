//! The canary: every five seconds a message of the server to itself goes the whole path (submit, commit, look-up, delivery, session) and
//! readiness stands on its arrival. A process that answers but delivers nothing is not ready.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_fn;
use protocol::record::{Content, EventBody, Identity, Record};
use protocol::{ConversationId, DeviceName, MessageId, UserId};
use router::submit::Report;
use std::task::Poll;

use crate::attach::{Attach, attach};
use crate::node::{Gateway, now_ms};
use crate::outbox::Outbox;

const EVERY: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(5);
/// Name of the part of readiness that speaks of the registry: while it is away pushes cannot come, and a gateway serves all the same.
pub const REGISTRY: &str = "Redis";
/// A canary that was not pushed is looked for among so many of the mailbox's newest: those of all gateways.
const NEAR: u64 = 256;

/// Sends canaries for ever: each through a mailbox of its own, so that a part of the store that is away does not hide that the rest works.
pub async fn run(node: &Arc<Gateway>) {
    futures_util::future::join_all((0..node.config.canaries).map(|number| one(node, UserId::canary(number)))).await;
}

/// What this node is called as a device.
fn device(node: &Gateway) -> DeviceName {
    format!("canary-{}", node.config.name).parse().unwrap_or_default()
}

async fn one(node: &Arc<Gateway>, user: UserId) {
    let outbox = Outbox::new();
    let request =
        Attach { user, device: device(node), epoch: None, cursor: Some(0), max_events: 1, max_bytes: 1, devices_max: usize::MAX };
    if node.sessions.enter(user, &request.device, &outbox, 1).is_err() {
        return;
    }
    let attached = loop {
        match attach(&*node.ports.registry, &*node.ports.store, &node.known, node.node, &request).await {
            Ok(attached) => break attached,
            Err(why) => {
                tracing::warn!(%why, "a canary waits for the store");
                tokio::time::sleep(EVERY).await;
            }
        }
    };
    // entered again with the others when the registry has forgotten
    node.sessions.registered(user, &outbox, attached.registration().map_or(1, |registration| registration.counter));
    outbox.listen(true);
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut lost_since, mut unpushed) = (None, false);
    let part = format!("pushes of canary {}", user.get());
    loop {
        every.tick().await;
        let id = fresh_id();
        let since = std::time::Instant::now();
        node.ports.submit.submit(canary(user, id), Report::new(Arc::clone(&outbox) as _, 0));
        match tokio::time::timeout(WAIT, arrival(&outbox, id)).await {
            Ok(()) => {
                node.health.canary_came();
                if unpushed {
                    node.health.part(&part, None);
                    tracing::info!(canary = user.get(), "the canary is pushed again");
                    unpushed = false;
                }
                metrics::histogram!("switchboard_canary_seconds").record(since.elapsed().as_secs_f64());
                if let Some(lost_since) = lost_since.take() {
                    tracing::info!(canary = user.get(), after = ?std::time::Instant::elapsed(&lost_since), "the canary comes back again");
                }
            }
            // nobody can say who is where, but the message came: sessions get theirs by the comparison of heads, seconds later
            Err(_) if node.health.is_against(REGISTRY) && is_stored(node, user, id).await => {
                node.health.canary_came();
                metrics::counter!("switchboard_canaries_unpushed_total").increment(1);
                if !unpushed {
                    tracing::warn!(
                        canary = user.get(),
                        "the canary was stored and not pushed: events come with the comparison of heads"
                    );
                    node.health.part(&part, Some("stored messages are not pushed: they come seconds late".into()));
                    unpushed = true;
                }
            }
            Err(_) => {
                metrics::counter!("switchboard_canaries_lost_total").increment(1);
                if lost_since.is_none() {
                    tracing::error!(canary = user.get(), "the canary did not come back: messages of its shard are not delivered");
                    lost_since = Some(since);
                }
            }
        }
    }
}

/// Whether the message is in the mailbox, near its end.
async fn is_stored(node: &Gateway, user: UserId, id: MessageId) -> bool {
    let newest = node.ports.store.newest(&[user]).await.ok().and_then(|places| places.first().copied().flatten());
    let Some(newest) = newest else { return false };
    let slice = node.ports.store.read(user, newest.seq.saturating_sub(NEAR), NEAR as u32, u32::MAX).await;
    slice.is_ok_and(|slice| slice.events.iter().any(|event| is(&event.body, id)))
}

fn is(body: &EventBody, id: MessageId) -> bool {
    matches!(body, EventBody::Message(message) if message.record.identity.id == id)
}

fn canary(user: UserId, id: MessageId) -> Record {
    let identity = Identity { sender: user, conversation: ConversationId::direct(user, user), id };
    Record { identity, content: Content::Text("canary".into()), reply_to: None, at_ms: now_ms() }
}

fn fresh_id() -> MessageId {
    MessageId::new(uuid::Uuid::now_v7()).expect("now_v7 makes version 7")
}

/// Waits until the event of this id was pushed.
async fn arrival(outbox: &Outbox, id: MessageId) {
    poll_fn(|cx| {
        outbox.register(cx.waker());
        if outbox.take().pushes.iter().any(|event| is(&event.body, id)) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
