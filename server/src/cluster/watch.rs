//! Whether the partitions of this process go on, and how far they are behind. Every process looks at its own share and says in its lease entry
//! which of them must not get more: those that have stopped for good, and those whose oldest waiting record is older than half of what the log
//! keeps. Gateways refuse sends into those before they accept them. Of a role that nobody has, gateways look themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use router::assign::Kind;
use router::log::Log;
use router::members::{Trouble, Troubles};

use super::Process;
use super::config::Role;
use super::shares::lease_of;
use super::standing::{Looker, Standing};

/// How often it is looked how far the partitions are.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Partitions that are named; of more the number is told.
const NAMED_MAX: usize = 8;

/// What is wrong with the partitions of this process.
#[derive(Debug, Default)]
pub(super) struct Troubled {
    stopped: Mutex<BTreeSet<(Kind, u16)>>,
    late: Mutex<BTreeMap<Kind, BTreeSet<u16>>>,
    behind: Mutex<BTreeMap<Kind, BTreeSet<u16>>>,
    /// Sources some of whose records have not arrived for that long.
    standing: Mutex<BTreeSet<u16>>,
}

impl Troubled {
    /// A partition's task cannot go on.
    pub(super) fn stopped(&self, kind: Kind, partition: u16) {
        self.stopped.lock().insert((kind, partition));
    }

    /// It goes on, or is another process's matter now.
    pub(super) fn goes_on(&self, kind: Kind, partition: u16) {
        self.stopped.lock().remove(&(kind, partition));
    }

    fn set_late(&self, kind: Kind, partitions: BTreeSet<u16>) {
        self.late.lock().insert(kind, partitions);
    }

    /// Partitions worked on here into which more comes than is worked in.
    pub(super) fn set_behind(&self, kind: Kind, partitions: BTreeSet<u16>) {
        self.behind.lock().insert(kind, partitions);
    }

    /// Partitions of `messages` of which some records have not come to their mailboxes for half of what the log keeps.
    pub(super) fn set_standing(&self, partitions: BTreeSet<u16>) {
        *self.standing.lock() = partitions;
    }

    /// All of it.
    pub(super) fn all(&self) -> Troubles {
        let mut troubles = Troubles::default();
        for (kind, partition) in self.stopped.lock().iter() {
            troubles.set(*kind, *partition, Trouble::Stopped);
        }
        for (kind, partitions) in self.late.lock().iter() {
            partitions.iter().for_each(|partition| troubles.set(*kind, *partition, Trouble::Late));
        }
        for (kind, partitions) in self.behind.lock().iter() {
            partitions.iter().for_each(|partition| troubles.set(*kind, *partition, Trouble::Behind));
        }
        for partition in self.standing.lock().iter() {
            troubles.set(Kind::Messages, *partition, Trouble::Late);
        }
        troubles
    }
}

impl Process {
    /// The partitions this process looks at: those it is to work on; of a role that nobody has, in a gateway, all of them.
    pub(super) fn watched(&self, kind: Kind) -> BTreeSet<u16> {
        let role = match kind {
            Kind::Messages => Role::Router,
            Kind::Mailbox => Role::Storage,
        };
        let count = self.cluster.kafka.partitions.of(kind.topic());
        let view = self.members.view();
        let live = view.live(lease_of(kind));
        if self.cluster.has(role) && live.contains(&self.node) {
            return self.assigned(kind);
        }
        let nobody = view.known && live.is_empty();
        if nobody && self.cluster.has(Role::Gateway) { (0..count).collect() } else { BTreeSet::new() }
    }
}

/// Looks, for as long as the process runs.
pub(super) async fn watch(process: Arc<Process>) {
    let log: Arc<dyn Log> = process.log.clone();
    let looker = Looker::new(log, process.store.clone(), process.cluster.kafka.partitions.messages);
    let late_after = process.cluster.kafka.retention / 2;
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        for kind in [Kind::Messages, Kind::Mailbox] {
            let standings = looker.look(kind, &process.watched(kind)).await;
            measure(kind, &standings);
            let late: BTreeSet<_> =
                standings.iter().filter(|(_, one)| one.waits >= late_after).map(|(partition, _)| *partition).collect();
            let why = (!late.is_empty()).then(|| {
                let waits = standings.values().map(|one| one.waits).max().unwrap_or_default();
                format!("{} wait, the oldest record for {} s: half of what the log keeps", named(&late), waits.as_secs())
            });
            process.gateway.health.part(&format!("lag of {}", kind.topic().name()), why);
            process.troubled.set_late(kind, late);
        }
    }
}

fn measure(kind: Kind, standings: &BTreeMap<u16, Standing>) {
    let lags = || standings.values().filter_map(Standing::lag);
    let (sum, max) = (lags().sum::<u64>() as f64, lags().max().unwrap_or_default() as f64);
    let oldest = standings.values().map(|one| one.waits).max().unwrap_or_default().as_secs_f64();
    let (records, seconds) = match kind {
        Kind::Messages => ("switchboard_router_lag_records", "switchboard_router_lag_seconds"),
        Kind::Mailbox => ("switchboard_storage_lag_records", "switchboard_storage_lag_seconds"),
    };
    metrics::gauge!(records, "of" => "sum").set(sum);
    metrics::gauge!(records, "of" => "max").set(max);
    metrics::gauge!(seconds).set(oldest);
}

/// Partitions for people: the first of them, and how many there are.
pub(super) fn named(partitions: &BTreeSet<u16>) -> String {
    let first: Vec<_> = partitions.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    match partitions.len().checked_sub(NAMED_MAX) {
        Some(more @ 1..) => format!("{} and {more} more", first.join(", ")),
        _ => first.join(", "),
    }
}

/// What a gateway says of the sends it refuses; none: it refuses none.
pub(super) fn refused(troubles: &Troubles) -> Option<String> {
    let of = |kind: Kind| {
        let all = troubles.all_of(kind);
        (!all.is_empty()).then(|| format!("{} {}", kind.topic().name(), named(&all)))
    };
    let said: Vec<_> = [Kind::Messages, Kind::Mailbox].into_iter().filter_map(of).collect();
    (!said.is_empty()).then(|| format!("refused where they would not get through: {}", said.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_troubles_are_said_and_taken_back() {
        let troubled = Troubled::default();
        troubled.stopped(Kind::Mailbox, 3);
        troubled.set_late(Kind::Mailbox, (3..20).collect());
        troubled.set_standing([5].into());
        troubled.set_behind(Kind::Messages, [9].into());
        let all = troubled.all();
        assert_eq!(all.of(Kind::Mailbox, 3), Some(Trouble::Stopped));
        assert_eq!(all.of(Kind::Messages, 5), Some(Trouble::Late));
        assert_eq!(all.of(Kind::Messages, 9), Some(Trouble::Behind));
        let said = refused(&all).unwrap();
        assert!(said.ends_with("messages 5; mailbox 3, 4, 5, 6, 7, 8, 9, 10 and 9 more"), "{said}");
        troubled.goes_on(Kind::Mailbox, 3);
        troubled.set_late(Kind::Mailbox, BTreeSet::new());
        troubled.set_standing(BTreeSet::new());
        assert_eq!(refused(&troubled.all()), None);
    }
}
