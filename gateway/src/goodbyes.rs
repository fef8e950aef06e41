//! Entries of connections that have ended go out of the registry. What it does not take, or may have put back (it was away, failed over, set back), is
//! doubted: its user's entries are looked at until none is left that names this process and has no session here. One left behind would show its user
//! as here, and take one of its places.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use protocol::{DeviceName, UserId};
use router::registry::{Registration, RegistryError};

use crate::node::Gateway;

/// Between two rounds of looking.
const EVERY: Duration = Duration::from_secs(1);
/// Users looked at at once.
const AT_ONCE: usize = 32;

/// Removes exactly this entry, now or later.
pub(crate) async fn say(node: &Gateway, user: UserId, device: &DeviceName, registration: Registration) {
    if let Err(why) = node.ports.registry.deregister(user, device, registration).await {
        tracing::debug!(%user, %why, "not deregistered, and will be");
        node.sessions.doubt(user);
    }
}

/// Looks at who is doubted, once.
pub async fn settle(node: &Gateway) {
    let doubted = node.sessions.take_doubted();
    let look = async |user| {
        if let Err(why) = clear(node, user).await {
            tracing::debug!(%user, %why, "entries could not be looked at and will be");
            node.sessions.doubt(user);
        }
    };
    stream::iter(doubted).for_each_concurrent(AT_ONCE, look).await;
}

/// Removes this process's entries of a user that no session has. A session enters here before it registers: one without a session is nobody's.
async fn clear(node: &Gateway, user: UserId) -> Result<(), RegistryError> {
    for (device, registration) in node.ports.registry.entries(user).await? {
        if registration.node == node.node && node.sessions.holder(user, &device).is_none() {
            node.ports.registry.deregister(user, &device, registration).await?;
        }
    }
    Ok(())
}

/// Looks for ever.
pub(crate) async fn run(node: &Gateway) {
    let mut second = tokio::time::interval(EVERY);
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        settle(node).await;
    }
}
