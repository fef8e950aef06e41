//! Partitions that must not get more (pure): what the process that works on one says of it in its lease entry, and what gateways go by before
//! they take a send. A word lasts as long as the entry: said again with each renewal, so a store that forgot hears it again within half a second.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::assign::Kind;

/// Why a partition must not get more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trouble {
    /// It cannot go on without a person.
    Stopped,
    /// What waits in it is so old that the log may forget it before it is worked in.
    Late,
    /// More comes than is worked in: what is sent now would only wait. It lasts for seconds, and is nothing a person must do.
    Behind,
}

impl Trouble {
    /// In metrics and for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Late => "late",
            Self::Behind => "behind",
        }
    }
}

/// Partitions of both kinds. Bounded by how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Partitions {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    messages: BTreeSet<u16>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    mailbox: BTreeSet<u16>,
}

impl Partitions {
    const fn of(&self, kind: Kind) -> &BTreeSet<u16> {
        match kind {
            Kind::Messages => &self.messages,
            Kind::Mailbox => &self.mailbox,
        }
    }

    const fn of_mut(&mut self, kind: Kind) -> &mut BTreeSet<u16> {
        match kind {
            Kind::Messages => &mut self.messages,
            Kind::Mailbox => &mut self.mailbox,
        }
    }
}

/// The partitions in trouble; mostly none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Troubles {
    stopped: Partitions,
    late: Partitions,
    behind: Partitions,
}

impl Troubles {
    /// Whether all is well.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with a partition, the worse first.
    pub fn of(&self, kind: Kind, partition: u16) -> Option<Trouble> {
        if self.stopped.of(kind).contains(&partition) {
            return Some(Trouble::Stopped);
        }
        if self.late.of(kind).contains(&partition) {
            return Some(Trouble::Late);
        }
        self.behind.of(kind).contains(&partition).then_some(Trouble::Behind)
    }

    /// Says it of a partition.
    pub fn set(&mut self, kind: Kind, partition: u16, trouble: Trouble) {
        let set = match trouble {
            Trouble::Stopped => &mut self.stopped,
            Trouble::Late => &mut self.late,
            Trouble::Behind => &mut self.behind,
        };
        set.of_mut(kind).insert(partition);
    }

    /// Adds what somebody else says.
    pub fn merge(&mut self, other: &Self) {
        for kind in [Kind::Messages, Kind::Mailbox] {
            self.stopped.of_mut(kind).extend(other.stopped.of(kind));
            self.late.of_mut(kind).extend(other.late.of(kind));
            self.behind.of_mut(kind).extend(other.behind.of(kind));
        }
    }

    /// Those of a kind that a person is to hear of, ascending, each once: not those that are only behind.
    pub fn all_of(&self, kind: Kind) -> BTreeSet<u16> {
        self.stopped.of(kind).union(self.late.of(kind)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_word_counts_and_an_older_build_says_nothing() {
        let mut troubles = Troubles::default();
        troubles.set(Kind::Messages, 3, Trouble::Late);
        troubles.set(Kind::Messages, 3, Trouble::Stopped);
        troubles.set(Kind::Mailbox, 5, Trouble::Behind);
        assert_eq!(troubles.of(Kind::Messages, 3), Some(Trouble::Stopped));
        assert_eq!((troubles.of(Kind::Mailbox, 3), troubles.of(Kind::Mailbox, 5)), (None, Some(Trouble::Behind)));
        assert!(troubles.all_of(Kind::Mailbox).is_empty(), "nothing that a person must do");
        let text = serde_json::to_string(&troubles).unwrap();
        assert_eq!(serde_json::from_str::<Troubles>(&text).unwrap(), troubles);
        assert!(serde_json::from_str::<Troubles>("{}").unwrap().is_empty());
    }
}
