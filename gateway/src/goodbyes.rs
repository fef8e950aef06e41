//! Entries of connections that have ended, on their way out of the registry. What it does not take now is kept and told again, until it does or this
//! process ends: an entry left behind shows its user as here, and counts as one of its sockets.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use protocol::{DeviceName, UserId};
use router::registry::{Registration, Registry};

use crate::metrics;

/// Between two rounds of telling again.
const EVERY: Duration = Duration::from_secs(1);
/// Entries that wait; of more the oldest are left to the end of this process.
const OWED_MAX: usize = 100_000;
/// Entries told in one round; the rest waits for the next.
const ROUND: usize = 4_096;
/// Entries told at once.
const AT_ONCE: usize = 32;

type Entry = (UserId, DeviceName, Registration);

/// Entries that are to go.
#[derive(Debug, Default)]
pub struct Goodbyes {
    owed: Mutex<VecDeque<Entry>>,
}

impl Goodbyes {
    /// Removes exactly this entry, now or later.
    pub async fn say(&self, registry: &dyn Registry, (user, device, registration): Entry) {
        if let Err(why) = registry.deregister(user, &device, registration).await {
            tracing::debug!(%user, %why, "not deregistered, and will be");
            self.owe((user, device, registration));
        }
    }

    fn owe(&self, entry: Entry) {
        let mut owed = self.owed.lock();
        if owed.len() >= OWED_MAX {
            owed.pop_front();
            metrics::dropped("goodbye", "full");
        }
        owed.push_back(entry);
    }

    /// Tells again what was not taken.
    pub async fn settle(&self, registry: &dyn Registry) {
        let round: Vec<_> = {
            let mut owed = self.owed.lock();
            let count = owed.len().min(ROUND);
            owed.drain(..count).collect()
        };
        stream::iter(round).for_each_concurrent(AT_ONCE, |entry| self.say(registry, entry)).await;
    }

    /// Tells again for ever.
    pub async fn run(&self, registry: &dyn Registry) {
        let mut second = tokio::time::interval(EVERY);
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            second.tick().await;
            self.settle(registry).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use router::registry::memory::MemoryRegistry;
    use router::registry::{NodeId, Nodes, Registered, RegistryError};

    use super::*;

    const NODE: NodeId = NodeId { node: 1, boot: 1 };

    /// A registry that can be away.
    #[derive(Default)]
    struct Away {
        inner: MemoryRegistry,
        away: AtomicBool,
    }

    #[async_trait]
    impl Registry for Away {
        async fn register(&self, user: UserId, device: &DeviceName, node: NodeId) -> Result<Registered, RegistryError> {
            self.inner.register(user, device, node).await
        }

        async fn deregister(&self, user: UserId, device: &DeviceName, entry: Registration) -> Result<bool, RegistryError> {
            if self.away.load(Ordering::Relaxed) {
                return Err(RegistryError("away".into()));
            }
            self.inner.deregister(user, device, entry).await
        }

        async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
            self.inner.nodes(users).await
        }

        async fn bury(&self, node: NodeId) -> Result<(), RegistryError> {
            self.inner.bury(node).await
        }
    }

    #[tokio::test]
    async fn what_the_registry_did_not_take_goes_when_it_is_back_and_nothing_newer_with_it() {
        let (registry, goodbyes) = (Away::default(), Goodbyes::default());
        let user = |number| UserId::new(number).unwrap();
        let phone: DeviceName = "phone".parse().unwrap();
        registry.away.store(true, Ordering::Relaxed);
        for number in 1..=3 {
            let entry = registry.register(user(number), &phone, NODE).await.unwrap().registration;
            goodbyes.say(&registry, (user(number), phone.clone(), entry)).await;
        }
        // one of them is here again
        registry.register(user(3), &phone, NODE).await.unwrap();
        goodbyes.settle(&registry).await;
        assert_eq!((registry.inner.users(), goodbyes.owed.lock().len()), (3, 3), "still away: still owed");
        registry.away.store(false, Ordering::Relaxed);
        goodbyes.settle(&registry).await;
        assert_eq!((registry.inner.users(), goodbyes.owed.lock().len()), (1, 0));
        assert_eq!(registry.nodes(&[user(3)]).await.unwrap()[0].to_vec(), [NODE]);
    }
}
