//! A rate that a user has in the whole cluster. Each node limits by itself, which costs nothing; who uses more than its share here is charged for it
//! once a second, to one budget of all nodes in the registry, and waits while that is overdrawn. So a user on many nodes is held to one rate, and sends ask
//! nobody: how near to it, docs/decisions/0017. Without the registry each node's own limit is what is left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::{DashMap, Entry};
use protocol::UserId;
use router::registry::{Budgets, Rate};

use crate::metrics;

/// How often users are charged.
const EVERY: Duration = Duration::from_secs(1);
/// All nodes together leave at most a rate divided by this uncharged.
const UNCHARGED: usize = 4;
/// Users that are remembered for a second; of more a node limits by itself.
const USERS_MAX: usize = 100_000;
/// Users charged by one call.
const CHARGED_MAX: usize = 256;

/// The rate, and who uses it.
#[derive(Debug)]
pub(crate) struct SharedRate {
    rate: Rate,
    used: DashMap<UserId, u32>,
    /// How many there are in `used`, or a few more: its own count looks at all of it.
    users: AtomicUsize,
    overdrawn: DashMap<UserId, Instant>,
}

impl SharedRate {
    /// Nobody has used it.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, used: DashMap::new(), users: AtomicUsize::new(0), overdrawn: DashMap::new() }
    }

    /// Whether the user's budget stands.
    ///
    /// # Errors
    /// Milliseconds after which it does again.
    pub(crate) fn check(&self, user: UserId, now: Instant) -> Result<(), u64> {
        let until = self.overdrawn.get(&user).map(|until| *until);
        let wait = until.and_then(|until| until.checked_duration_since(now)).filter(|wait| !wait.is_zero());
        wait.map_or(Ok(()), |wait| Err(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)))
    }

    /// The user has used one.
    pub(crate) fn used(&self, user: UserId) {
        match self.used.entry(user) {
            Entry::Occupied(mut used) => *used.get_mut() = used.get().saturating_add(1),
            Entry::Vacant(place) if self.users.fetch_add(1, Ordering::Relaxed) < USERS_MAX => drop(place.insert(1)),
            Entry::Vacant(_) => metrics::dropped("charge", "full"),
        }
    }

    /// Who is to be charged for what they used within this time, on one of so many nodes. Those below a node's share are not: all nodes together
    /// would leave no more than a part of one rate.
    fn due(&self, within: Duration, nodes: usize) -> Vec<(UserId, u32)> {
        let share = f64::from(self.rate.per_s) * within.as_secs_f64() / (UNCHARGED * nodes.max(1)) as f64;
        let mut due = Vec::new();
        self.users.store(0, Ordering::Relaxed);
        self.used.retain(|user, used| {
            if f64::from(*used) > share {
                due.push((*user, *used));
            }
            false
        });
        due
    }

    /// Charges once.
    async fn charge(&self, budgets: &dyn Budgets, within: Duration) {
        let now = Instant::now();
        self.overdrawn.retain(|_, until| *until > now);
        let nodes = budgets.gateways();
        let due = self.due(within, nodes);
        for due in due.chunks(CHARGED_MAX).filter(|_| nodes > 1) {
            match budgets.charge(self.rate, within, due).await {
                Ok(overdrawn) => {
                    for ((user, _), by) in due.iter().zip(overdrawn).filter(|(_, by)| !by.is_zero()) {
                        metrics::overdrawn(self.rate.name);
                        self.overdrawn.insert(*user, now + by);
                    }
                }
                Err(why) => {
                    tracing::debug!(%why, users = due.len(), rate = self.rate.name, "not charged");
                    metrics::dropped("charge", "registry");
                }
            }
        }
    }

    /// Charges for ever.
    pub(crate) async fn run(&self, budgets: &dyn Budgets) {
        let mut charged = Instant::now();
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let now = Instant::now();
            self.charge(budgets, now - std::mem::replace(&mut charged, now)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn user(number: u64) -> UserId {
        UserId::new(number).unwrap()
    }

    fn rate() -> SharedRate {
        SharedRate::new(Rate { name: "sends", per_s: 40, burst: 80 })
    }

    #[test]
    fn who_uses_more_than_its_share_is_charged_once() {
        let rate = rate();
        (0..6).for_each(|_| rate.used(user(1)));
        (0..5).for_each(|_| rate.used(user(2)));
        assert_eq!(rate.due(SECOND, 2), [(user(1), 6)]);
        assert_eq!(rate.due(SECOND, 2), []);
        (0..6).for_each(|_| rate.used(user(1)));
        assert_eq!(rate.due(SECOND * 2, 2), [], "in two seconds it is no more than its share");
    }

    #[test]
    fn an_overdrawn_budget_says_when_it_stands_again() {
        let (rate, now) = (rate(), Instant::now());
        assert_eq!(rate.check(user(1), now), Ok(()));
        rate.overdrawn.insert(user(1), now + SECOND);
        assert_eq!(rate.check(user(1), now), Err(1000));
        assert_eq!(rate.check(user(2), now), Ok(()));
        assert_eq!(rate.check(user(1), now + SECOND), Ok(()));
    }

    /// Two nodes over one budget, kept here as the script in Redis keeps it: by the shares they are charged for, what they let through together is the
    /// rate, and not twice as much. (Over the script itself: row L1 of `faults`.)
    #[test]
    fn a_user_on_two_nodes_has_one_rate() {
        let nodes = [rate(), rate()];
        let (began, mut paid, mut taken) = (Instant::now(), Duration::ZERO, 0_u32);
        for tenth in 0..600 {
            let now = SECOND * tenth / 10;
            for node in &nodes {
                // as much as a node's own limit lets through
                for _ in (0..4).filter(|_| node.check(user(1), began + now).is_ok()) {
                    node.used(user(1));
                    taken += 1;
                }
                for (user, used) in if tenth % 10 == 9 { node.due(SECOND, 2) } else { Vec::new() } {
                    paid = paid.max(now.saturating_sub(SECOND)) + SECOND * used / node.rate.per_s;
                    let by = paid.saturating_sub(now + SECOND * node.rate.burst / node.rate.per_s);
                    node.overdrawn.insert(user, began + now + by);
                }
            }
        }
        assert!((2_300..=2_700).contains(&taken), "{taken} in a minute, of 2,400; each by itself would have let through as many");
    }
}
