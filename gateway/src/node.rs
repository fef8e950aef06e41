//! One gateway: its settings, the ports it stands on, and the sessions it holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use accounts::Accounts;
use parking_lot::Mutex;
use router::registry::{Budgets, NodeId, Registry};
use router::submit::Submit;
use storage::lag::Lag;
use storage::push::Elsewhere;
use storage::receipt::TakeMarks;
use storage::store::Store;

use crate::config::Config;
use crate::cursors::Cursors;
use crate::deliver::Sessions;
use crate::known::Known;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::presence::{self, Presences};
use crate::pressure::Pressure;
use crate::receipts::Receipts;
use crate::token::Tokens;
use crate::wheel::Wheel;

/// The ports of a gateway.
#[derive(Clone)]
pub struct Ports {
    /// Makes sends durable.
    pub submit: Arc<dyn Submit>,
    /// Which user is where.
    pub registry: Arc<dyn Registry>,
    /// What users use of their rates on all nodes, in a cluster.
    pub budgets: Option<Arc<dyn Budgets>>,
    /// Makes receipts durable.
    pub marks: Arc<dyn TakeMarks>,
    /// Mailboxes.
    pub store: Arc<dyn Store>,
    /// Whether a mailbox is complete, where that can be in question: in a cluster.
    pub lag: Option<Arc<Lag>>,
    /// The way to other nodes, in a cluster.
    pub links: Option<Arc<dyn Elsewhere>>,
}

/// What the process knows of its own state: readiness tells it truthfully.
#[derive(Debug, Default)]
pub struct Health {
    /// When a canary message last came the whole way, by the monotonic clock.
    canary: Mutex<Option<Instant>>,
    /// Whether the node is being drained.
    pub draining: AtomicBool,
    /// What is wrong with the parts of this process that are no gateway, by name.
    wrong: Mutex<BTreeMap<String, String>>,
    /// Whether readiness stands on a canary: not in a process that serves no clients.
    without_canary: AtomicBool,
}

impl Health {
    /// How old the last canary may be.
    const CANARY_AGE_MAX: Duration = Duration::from_secs(15);

    /// A canary has come the whole way.
    pub fn canary_came(&self) {
        *self.canary.lock() = Some(Instant::now());
    }

    /// This process serves no clients: it is ready when none of its parts has a reason against it.
    pub fn stands_without_canary(&self) {
        self.without_canary.store(true, Ordering::Relaxed);
    }

    /// A part of the process says why it does not do its work; none: it does.
    pub fn part(&self, name: &str, why: Option<String>) {
        let mut wrong = self.wrong.lock();
        match why {
            Some(why) => drop(wrong.insert(name.to_owned(), why)),
            None => drop(wrong.remove(name)),
        }
    }

    /// Whether this part has a reason against readiness.
    pub fn is_against(&self, name: &str) -> bool {
        self.wrong.lock().contains_key(name)
    }

    /// What is wrong with parts of the process, ready or not; empty: nothing.
    pub fn wrong_parts(&self) -> String {
        self.wrong.lock().iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>().join("; ")
    }

    /// Nothing, or why the node should get no new connections.
    pub fn not_ready(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("draining".into());
        }
        let parts = self.wrong_parts();
        if self.without_canary.load(Ordering::Relaxed) {
            return Some(parts).filter(|parts| !parts.is_empty());
        }
        let parts = if parts.is_empty() { parts } else { format!(" ({parts})") };
        match self.canary.lock().map(|at| at.elapsed()) {
            None => Some(format!("no message has gone the whole path yet{parts}")),
            Some(age) if age > Self::CANARY_AGE_MAX => {
                Some(format!("the last message that went the whole path is {age:.1?} old{parts}"))
            }
            Some(_) => None,
        }
    }
}

/// One gateway.
pub struct Gateway {
    /// Settings.
    pub config: Config,
    /// Ports.
    pub ports: Ports,
    /// This node in this life.
    pub node: NodeId,
    /// Its sessions.
    pub sessions: Arc<Sessions>,
    /// Its timers.
    pub wheel: Wheel,
    /// Its limits.
    pub limiter: Limiter,
    /// How hard it is pressed.
    pub pressure: Pressure,
    /// Its keys.
    pub tokens: Tokens,
    /// Devices the store is known to know.
    pub known: Known,
    /// Cursors on their way to the store.
    pub cursors: Cursors,
    /// Receipts on their way to the mailboxes.
    pub receipts: Receipts,
    /// Who is watched.
    pub presences: Presences,
    /// Its counters.
    pub metrics: Metrics,
    /// Its health.
    pub health: Arc<Health>,
    /// Open sockets.
    pub sockets: AtomicUsize,
    /// Accounts; none: here there are none. Set before the port opens.
    pub accounts: OnceLock<Arc<Accounts>>,
}

impl Gateway {
    /// A gateway on these ports. The sessions are made first, because storage delivers to them.
    pub fn new(config: Config, ports: Ports, node: NodeId, sessions: Arc<Sessions>, tokens: Tokens) -> Arc<Self> {
        Arc::new(Self {
            limiter: Limiter::new(&config, ports.budgets.clone()),
            pressure: Pressure::default(),
            known: Known::default(),
            cursors: Cursors::new(Arc::clone(&ports.store)),
            receipts: Receipts::new(Arc::clone(&ports.store), Arc::clone(&ports.marks)),
            presences: Presences::new(Arc::clone(&sessions)),
            config,
            ports,
            node,
            sessions,
            wheel: Wheel::default(),
            tokens,
            metrics: Metrics::default(),
            health: Arc::default(),
            sockets: AtomicUsize::new(0),
            accounts: OnceLock::new(),
        })
    }

    /// What runs beside the connections, for ever: timers, cursors, the canary, tidying.
    pub async fn run_background(self: Arc<Self>) {
        let pressure = async {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                second.tick().await;
                self.pressure.second();
            }
        };
        let tidy = async {
            let mut minute = tokio::time::interval(Duration::from_secs(60));
            loop {
                minute.tick().await;
                self.limiter.tidy();
            }
        };
        tokio::join!(
            self.wheel.run(),
            self.limiter.run(),
            crate::goodbyes::run(&self),
            self.cursors.run(),
            self.receipts.run(),
            presence::run(&self),
            crate::canary::run(&self),
            crate::heal::run(&self),
            pressure,
            tidy
        );
    }

    /// Whether new connections are taken.
    pub fn is_draining(&self) -> bool {
        self.health.draining.load(Ordering::Relaxed)
    }
}

/// Milliseconds since 1970. Shown to people and compared with ids' own times; it orders nothing.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
