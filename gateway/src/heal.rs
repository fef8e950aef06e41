//! A lost hint heals: every ten seconds, and at once when a link from storage broke, the heads of all mailboxes with a session here are asked of
//! the store, and each session hears how far its mailbox goes. Pushes are hints; this is why losing one is a delay and nothing else.

use std::collections::HashMap;
use std::time::Duration;

use protocol::UserId;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::metrics;
use crate::node::Gateway;

/// How often heads are compared when nothing calls for it.
const EVERY: Duration = Duration::from_secs(10);
/// Mailboxes asked for at once.
const BATCH: usize = 2_000;
/// Between the batches of one comparison.
const PACE: Duration = Duration::from_millis(20);

/// Compares for ever.
pub async fn run(node: &Gateway) {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every.tick().await;
    loop {
        let why = tokio::select! {
            _ = every.tick() => "time",
            () = node.sessions.links_broke.notified() => "link",
        };
        metrics::compared(why);
        compare(node).await;
    }
}

/// Tells every session of this node how far its mailbox goes.
async fn compare(node: &Gateway) {
    let mut outboxes: HashMap<UserId, Vec<_>> = HashMap::new();
    for (user, outbox) in node.sessions.by_user() {
        outboxes.entry(user).or_default().push(outbox);
    }
    let users: Vec<_> = outboxes.keys().copied().collect();
    for users in users.chunks(BATCH) {
        match node.ports.store.newest(users).await {
            Ok(places) => {
                let found = users.iter().zip(places).filter_map(|(user, place)| Some((user, place?)));
                for (user, place) in found {
                    outboxes.get(user).into_iter().flatten().for_each(|outbox| outbox.newest(place));
                }
            }
            Err(why) => tracing::warn!(%why, mailboxes = users.len(), "heads could not be compared and will be"),
        }
        sleep(PACE).await;
    }
}
