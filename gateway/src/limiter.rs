//! Rates and counts, by name: sends of a user, handshakes of the node and of an address, requests of an address and of a user, `typing` by request,
//! sockets of an address. GCRA by the `governor` crate; counts are our own map. What a user has on all nodes together: [`crate::shared_rate`].

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accounts::limits::{Address, Keyed};
use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use protocol::limits::TYPING_EVERY_S;
use protocol::{ConversationId, UserId};
use router::registry::{Budgets, Rate};

use crate::shared_rate::SharedRate;

/// All limiters of a node.
pub struct Limiter {
    sends: DefaultKeyedRateLimiter<UserId>,
    handshakes: DefaultDirectRateLimiter,
    requests_by_address: Keyed<Address>,
    requests_by_user: Keyed<UserId>,
    typing: Keyed<(UserId, ConversationId)>,
    handshakes_by_address: Keyed<Address>,
    sockets: DashMap<Address, u32>,
    sockets_per_ip: u32,
    /// In a cluster: what a user has of a rate on all nodes together.
    shared: Option<Shared>,
    clock: DefaultClock,
}

struct Shared {
    sends: SharedRate,
    requests: SharedRate,
    budgets: Arc<dyn Budgets>,
}

const ONE: NonZeroU32 = NonZeroU32::MIN;

/// So many a second, and twice as many at once after a pause.
fn per_second(count: u32) -> Quota {
    let count = NonZeroU32::new(count).unwrap_or(ONE);
    Quota::per_second(count).allow_burst(count.saturating_mul(ONE.saturating_add(1)))
}

/// One, and then one each so many seconds.
fn typing_quota() -> Quota {
    let every = Duration::from_secs(TYPING_EVERY_S.into());
    Quota::with_period(every).unwrap_or(Quota::per_second(ONE)).allow_burst(ONE)
}

impl Limiter {
    /// With these settings; with budgets, users have their rates on all nodes together.
    pub fn new(config: &crate::config::Config, budgets: Option<Arc<dyn Budgets>>) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(ONE);
        let sends =
            Quota::per_second(at_least_one(config.limits.sends_per_s)).allow_burst(at_least_one(config.limits.sends_burst));
        let shared = |budgets| Shared {
            sends: SharedRate::new(Rate { name: "sends", per_s: config.limits.sends_per_s, burst: config.limits.sends_burst }),
            requests: SharedRate::new(Rate {
                name: "requests",
                per_s: config.requests_per_user,
                burst: config.requests_per_user.saturating_mul(2),
            }),
            budgets,
        };
        Self {
            sends: RateLimiter::keyed(sends),
            handshakes: RateLimiter::direct(Quota::per_second(at_least_one(config.handshakes_per_s))),
            requests_by_address: Keyed::new(per_second(config.requests_per_address), DefaultClock::default()),
            requests_by_user: Keyed::new(per_second(config.requests_per_user), DefaultClock::default()),
            typing: Keyed::new(typing_quota(), DefaultClock::default()),
            handshakes_by_address: Keyed::new(per_second(config.handshakes_per_ip), DefaultClock::default()),
            sockets: DashMap::new(),
            sockets_per_ip: config.sockets_per_ip,
            shared: budgets.map(shared),
            clock: DefaultClock::default(),
        }
    }

    /// One send of a user.
    ///
    /// # Errors
    /// Milliseconds after which it may be tried again.
    pub fn send(&self, user: UserId) -> Result<(), u64> {
        let here = || {
            self.sends.check_key(&user).map_err(|until| {
                let wait = until.wait_time_from(self.clock.now());
                u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
            })
        };
        both(self.shared.as_ref().map(|shared| &shared.sends), user, here)
    }

    /// One upgrade, or no.
    pub fn handshake(&self) -> bool {
        self.handshakes.check().is_ok()
    }

    /// One upgrade by an address, or no.
    pub fn handshake_of(&self, address: IpAddr) -> bool {
        self.handshakes_by_address.check(&address.into()).is_ok()
    }

    /// One request of the HTTP API by an address.
    ///
    /// # Errors
    /// Milliseconds after which it may be tried again.
    pub fn request(&self, address: Address) -> Result<(), u64> {
        self.requests_by_address.check(&address)
    }

    /// One request of the HTTP API by a user.
    ///
    /// # Errors
    /// Milliseconds after which it may be tried again.
    pub fn request_of(&self, user: UserId) -> Result<(), u64> {
        both(self.shared.as_ref().map(|shared| &shared.requests), user, || self.requests_by_user.check(&user))
    }

    /// Whether a `typing` that came by request is passed on.
    pub fn typing(&self, user: UserId, conversation: ConversationId) -> bool {
        self.typing.check(&(user, conversation)).is_ok()
    }

    /// Counts a socket of an address, or refuses it.
    pub fn socket(&self, address: IpAddr) -> bool {
        let mut count = self.sockets.entry(address.into()).or_insert(0);
        if *count >= self.sockets_per_ip {
            return false;
        }
        *count += 1;
        true
    }

    /// A socket of an address is gone.
    pub fn socket_gone(&self, address: IpAddr) {
        let address = Address::from(address);
        if let Some(mut count) = self.sockets.get_mut(&address) {
            *count = count.saturating_sub(1);
        }
        self.sockets.remove_if(&address, |_, count| *count == 0);
    }

    /// Charges users for what they use, for ever.
    pub async fn run(&self) {
        if let Some(Shared { sends, requests, budgets }) = &self.shared {
            tokio::join!(sends.run(&**budgets), requests.run(&**budgets));
        }
    }

    /// Forgets users who could send a full burst again: keeps the map as small as the set of recent senders.
    pub fn tidy(&self) {
        self.sends.retain_recent();
        self.sends.shrink_to_fit();
        self.handshakes_by_address.tidy();
        self.requests_by_address.tidy();
        self.requests_by_user.tidy();
        self.typing.tidy();
    }
}

/// A rate of all nodes, if there is one, and of this.
fn both(shared: Option<&SharedRate>, user: UserId, here: impl FnOnce() -> Result<(), u64>) -> Result<(), u64> {
    let Some(shared) = shared else { return here() };
    shared.check(user, Instant::now())?;
    here()?;
    shared.used(user);
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use router::registry::RegistryError;

    use super::*;

    /// Whoever is charged for sends has overdrawn.
    struct Overdrawn;

    #[async_trait]
    impl Budgets for Overdrawn {
        fn gateways(&self) -> usize {
            2
        }

        async fn charge(&self, rate: Rate, _within: Duration, used: &[(UserId, u32)]) -> Result<Vec<Duration>, RegistryError> {
            let by = if rate.name == "sends" { Duration::from_secs(30) } else { Duration::ZERO };
            Ok(vec![by; used.len()])
        }
    }

    #[tokio::test]
    async fn who_has_overdrawn_waits_on_this_node_too() {
        let limiter = Limiter::new(&crate::config::Config::default(), Some(Arc::new(Overdrawn)));
        let (busy, quiet) = (UserId::new(1).unwrap(), UserId::new(2).unwrap());
        let charging = async {
            loop {
                // the first round may fall between two sends
                for _ in 0..20 {
                    let _ = limiter.send(busy);
                    assert_eq!(limiter.request_of(busy), Ok(()));
                }
                assert_eq!(limiter.send(quiet), Ok(()));
                tokio::time::sleep(Duration::from_millis(1_000)).await;
                if let Err(wait) = limiter.send(busy).and_then(|()| limiter.send(busy))
                    && wait > 5_000
                {
                    return;
                }
            }
        };
        tokio::select! {
            () = limiter.run() => panic!("it runs for ever"),
            done = tokio::time::timeout(Duration::from_secs(60), charging) => done.expect("it is charged"),
        }
    }
}
