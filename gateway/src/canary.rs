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

/// Sends canaries for ever.
pub async fn run(node: &Arc<Gateway>) {
    let outbox = Outbox::new();
    let (user, device) = (UserId::SERVER, DeviceName::default());
    let request = Attach { user, device: device.clone(), epoch: None, cursor: Some(0), max_events: 1, max_bytes: 1 };
    if node.sessions.enter(user, &device, &outbox, 1).is_err() {
        return;
    }
    while let Err(why) = attach(&*node.ports.registry, &*node.ports.store, node.node, &request).await {
        tracing::warn!(%why, "the canary waits for the store");
        tokio::time::sleep(EVERY).await;
    }
    outbox.listen(true);
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let id = fresh_id();
        let since = std::time::Instant::now();
        node.ports.submit.submit(canary(id), Report::new(Arc::clone(&outbox) as _, 0));
        match tokio::time::timeout(WAIT, arrival(&outbox, id)).await {
            Ok(()) => {
                node.health.canary_came();
                metrics::histogram!("switchboard_canary_seconds").record(since.elapsed().as_secs_f64());
            }
            Err(_) => {
                tracing::error!("the canary did not come back: messages are not delivered");
                metrics::counter!("switchboard_canaries_lost_total").increment(1);
            }
        }
    }
}

fn canary(id: MessageId) -> Record {
    let conversation = ConversationId::direct(UserId::SERVER, UserId::SERVER);
    let identity = Identity { sender: UserId::SERVER, conversation, id };
    Record { identity, content: Content::Text("canary".into()), reply_to: None, at_ms: now_ms() }
}

fn fresh_id() -> MessageId {
    MessageId::new(uuid::Uuid::now_v7()).expect("now_v7 makes version 7")
}

/// Waits until the event of this id was pushed.
async fn arrival(outbox: &Outbox, id: MessageId) {
    poll_fn(|cx| {
        outbox.register(cx.waker());
        let ours = |body: &EventBody| matches!(body, EventBody::Message(message) if message.record.identity.id == id);
        if outbox.take().pushes.iter().any(|event| ours(&event.body)) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
