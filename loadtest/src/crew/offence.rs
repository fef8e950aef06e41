//! What was wrong: a count of each fault, and the first offenders.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// So many offenders of each fault are kept.
const KEPT: u64 = 10;

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// Accepted, but never shown to a device that must show it.
    Lost,
    /// Neither accepted nor finally refused.
    Silent,
    /// Shown twice, or under two numbers.
    Duplicate,
    /// Two orders of one conversation, or two sends of one device inverted.
    Order,
    /// A hole in a mailbox.
    Gap,
    /// Shown but never sent, changed, or to somebody else.
    Phantom,
    /// Finally refused.
    Refused,
    /// Due, but the connection had no room for it until the end.
    Unsent,
    /// A connection broke that had no reason to.
    Broken,
}

impl Fault {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Silent,
        Self::Duplicate,
        Self::Order,
        Self::Gap,
        Self::Phantom,
        Self::Refused,
        Self::Unsent,
        Self::Broken,
    ];

    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Duplicate => "duplicate",
            Self::Order => "order",
            Self::Gap => "gap",
            Self::Phantom => "phantom",
            Self::Refused => "refused",
            Self::Unsent => "unsent",
            Self::Broken => "broken",
        }
    }

    /// Whether it breaks a promise of the server. An overloaded one may answer late or refuse; it may not do these.
    #[must_use]
    pub fn is_untrue(self) -> bool {
        matches!(self, Self::Lost | Self::Duplicate | Self::Order | Self::Gap | Self::Phantom)
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// How often each fault was seen.
    pub counts: BTreeMap<Fault, u64>,
    /// The first offenders, in words.
    pub samples: Vec<String>,
}

impl Found {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.values().all(|count| *count == 0)
    }

    /// How often this fault was seen.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or_default()
    }

    /// Adds what another crew found.
    pub fn merge(&mut self, other: Self) {
        for (fault, count) in other.counts {
            *self.counts.entry(fault).or_default() += count;
        }
        self.samples.extend(other.samples);
    }
}

/// Takes offences from many tasks.
#[derive(Debug, Default)]
pub(super) struct Offences(Mutex<Found>);

impl Offences {
    /// Counts one; only the first ones are put into words.
    pub(super) fn note(&self, fault: Fault, what: impl FnOnce() -> String) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = found.counts.entry(fault).or_default();
        *count += 1;
        if *count <= KEPT {
            found.samples.push(format!("{}: {}", fault.name(), what()));
        }
    }

    pub(super) fn snapshot(&self) -> Found {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
