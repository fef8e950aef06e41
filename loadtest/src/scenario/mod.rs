//! What a run does: small TOML files, the built-in ones, and the mistakes that are found in them.
//!
//! A scenario is put together from parts that do not know each other: who is there, what they send, and what becomes
//! of their connections meanwhile. `docs/load-testing.md` is its reference.

pub mod expect;
mod file;
mod smoke;
pub mod units;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use file::{BUILT_IN, Mistake, check, load, parse};
pub use units::{Span, duration};

use crate::frame::Encoding;

/// So many devices of one user at the most: the ledger keeps a bit for each.
pub const DEVICES_MAX: u32 = 16;

/// One scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name in reports.
    pub name: String,
    /// What it shows, in a line.
    pub about: String,
    /// Connections in all.
    pub sockets: usize,
    /// Connections of each user.
    #[serde(default = "one")]
    pub devices: u32,
    /// How frames are written: `json` or `proto`.
    #[serde(default)]
    pub encoding: Encoding,
    /// What is measured.
    pub duration: Span,
    /// What goes before it and is judged, but not measured.
    #[serde(default)]
    pub warmup: Span,
    /// At the end, messages may take this long without any progress.
    #[serde(default = "grace")]
    pub grace: Span,
    /// How they come.
    #[serde(default)]
    pub connect: Connect,
    /// What they send; absent: nothing.
    pub load: Option<Load>,
    /// There is more of it for a while.
    pub surge: Option<Surge>,
    /// How long messages are.
    #[serde(default)]
    pub body: Body,
    /// Whom they write to.
    #[serde(default)]
    pub contacts: Contacts,
    /// Many connections are cut at once.
    pub cut: Option<Cut>,
    /// Connections come and go all the time.
    pub churn: Option<Churn>,
    /// Some do not read for a while.
    pub slow: Option<Slow>,
    /// Some are away while they are written to.
    pub offline: Option<Offline>,
    /// Sends are repeated though they were answered.
    pub retry: Option<Retry>,
    /// Receivers say what they have read.
    pub reads: Option<Reads>,
    /// Something is done to the server.
    pub fault: Option<Fault>,
    /// What must hold, or the run fails: `delivered.p99 < 100ms`.
    #[serde(default)]
    pub expect: Vec<expect::Expectation>,
}

/// How connections are made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connect {
    /// Connections a second, in open loop; absent: as fast as `at_once` allows.
    pub rate: Option<f64>,
    /// How many handshakes are under way at once; not with `rate`.
    pub at_once: usize,
    /// Everybody comes so often; after all but the last time everybody leaves again.
    pub rounds: u32,
    /// How long the server may give memory back before it is measured, between rounds and at the end; needs its process.
    pub settle: Span,
    /// The first bound of the back-off after a failure; it doubles with each.
    pub backoff: Span,
    /// The bound of the back-off.
    pub backoff_max: Span,
    /// By then everybody must have come.
    pub deadline: Span,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            rate: None,
            at_once: 128,
            rounds: 1,
            settle: Span::default(),
            backoff: Span::millis(500),
            backoff_max: Span::seconds(5),
            deadline: Span::seconds(120),
        }
    }
}

/// What is sent, in open loop: every send has its time, whatever became of the others.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Sends a second, of all connections together.
    pub rate: Option<f64>,
    /// Or: every connection sends once in so long, on the average.
    pub think: Option<Span>,
    /// The rate rises from this one over the warm-up.
    pub ramp_from: Option<f64>,
    /// `even`, or `poisson`: as people come, at random times.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// A send that has found no room on its connection for so long is given up, as people do; absent: never.
    pub give_up: Option<Span>,
    /// A connection has no room beside so many sends that are not settled; absent: as many as the server takes unanswered.
    pub unsettled: Option<usize>,
}

/// For a while the rate is a multiple of what it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surge {
    /// So many times the rate.
    pub factor: f64,
    /// From so long after measuring began.
    pub after: Span,
    /// For so long.
    pub lasts: Span,
}

/// How sends are spread over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// At equal distances.
    #[default]
    Even,
    /// At exponentially distributed distances.
    Poisson,
}

/// The length of messages, in bytes: log-normal, as those of chats are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Body {
    /// Half of the messages are shorter.
    pub median: usize,
    /// The standard deviation of the logarithm; 0: all have the same length.
    pub spread: f64,
    /// None is shorter (nor shorter than the mark each carries, about 30 bytes).
    pub least: usize,
    /// None is longer.
    pub most: usize,
}

impl Default for Body {
    fn default() -> Self {
        Self { median: 80, spread: 1.0, least: 32, most: 8192 }
    }
}

/// Whom a user writes to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Contacts {
    /// How many each user has; 1: users come in pairs that write to each other.
    pub count: usize,
    /// The k-th contact is written to in proportion to 1/k^zipf; 0: all alike.
    pub zipf: f64,
}

impl Default for Contacts {
    fn default() -> Self {
        Self { count: 20, zipf: 1.0 }
    }
}

/// Connections are cut without a word, all at one moment, and come back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// So much of the connections, 0 to 1.
    #[serde(default = "whole")]
    pub share: f64,
    /// So often.
    pub every: Span,
    /// They come back at a random time within this one.
    #[serde(default)]
    pub back_within: Span,
}

/// Connections leave and come back all the time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// So many leave a second.
    pub rate: f64,
    /// They are away for so long.
    pub away: Span,
}

/// Some connections stop reading, and go on later.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// So much of the connections, 0 to 1.
    pub share: f64,
    /// They do not read for so long; the server closes after its `stall_deadline`.
    pub freeze: Span,
    /// Then they read for so long, and so on.
    pub thaw: Span,
}

/// Some users are away for the whole load and come back at its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offline {
    /// So much of the users, 0 to 1.
    pub share: f64,
    /// They come back at a random time within this one.
    #[serde(default)]
    pub back_within: Span,
}

/// Sends are repeated under their id, as after a lost answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// So much of the sends, 0 to 1.
    pub share: f64,
    /// Each of them is sent so often in all.
    pub copies: u32,
}

/// Devices acknowledge and read what they were shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reads {
    /// So long after the first message that is not read, all of it is.
    pub every: Span,
}

/// A command that does something to the server while the load runs; it is given by `--fault-command`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// So long after the first send.
    pub after: Span,
    /// And so often from then on; absent: once.
    pub every: Option<Span>,
}

fn one() -> u32 {
    1
}

fn whole() -> f64 {
    1.0
}

fn grace() -> Span {
    Span::seconds(10)
}

impl Scenario {
    /// How many users it needs.
    #[must_use]
    pub fn users(&self) -> usize {
        self.sockets / self.devices.max(1) as usize
    }

    /// Sends a second, of all connections together; 0 without a load.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of sockets")]
    pub fn rate(&self) -> f64 {
        let Some(load) = &self.load else { return 0.0 };
        load.rate.or_else(|| load.think.map(|think| self.sockets as f64 / think.0.as_secs_f64())).unwrap_or_default()
    }

    /// The highest rate: that of its surge, if it has one.
    #[must_use]
    pub fn peak(&self) -> f64 {
        self.rate() * self.surge.as_ref().map_or(1.0, |surge| surge.factor.max(1.0))
    }

    /// When the surge is over and nothing of it may wait for room any more, after the beginning of the load; absent without a surge.
    #[must_use]
    pub fn recovered_at(&self) -> Option<Duration> {
        let surge = self.surge.as_ref()?;
        let give_up = self.load.as_ref().and_then(|load| load.give_up).unwrap_or_default();
        Some(self.warmup.0 + surge.after.0 + surge.lasts.0 + give_up.0)
    }

    /// Whether connections may break without anything being wrong.
    #[must_use]
    pub fn may_break(&self) -> bool {
        self.fault.is_some() || self.slow.is_some()
    }
}
