//! Which races happened: counted by the simulation where it causes them, and by the real code's own counters where only it knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

/// Races that must happen in every longer run; the others are counted too.
pub const REQUIRED: [&str; 80] = [
    "process killed",
    "process died at a call",
    "process stood still",
    "network partition",
    "call to the log in a partition",
    "call to a database in a partition",
    "call to Redis in a partition",
    "link cut by a partition",
    "link broke",
    "link jumped: heads are compared",
    "pushes lost with a link",
    "push without a link or room",
    "push lost",
    "push doubled",
    "push overtaken by others",
    "registry did not answer",
    "registry lied: nobody is there",
    "registry lied: an old answer",
    "registry forgot everything",
    "Redis failed over to an old replica",
    "entry of a dead boot is void",
    "lease not renewed",
    "hold-off: nothing new is taken",
    "a member that does not reach what it needs has no share",
    "session entered again",
    "session entered again met a newer entry",
    "device attached while its older session lives elsewhere",
    "node was told of a device that attached elsewhere",
    "device came back at another gateway",
    "session closed: the device is elsewhere (4409)",
    "session closed: its stream is another one now (4410)",
    "cursor of another epoch: resync",
    "mailboxes numbered anew",
    "old connection's late goodbye",
    "half-open connection",
    "event sent again after a lost acknowledgement",
    "send refused and came again",
    "send refused for its rate",
    "send refused: too many on their way",
    "send fenced behind one that must come again",
    "send with an unknown outcome came again",
    "send told unknown was accepted late",
    "record appended twice by a retry",
    "append of a send that failed but appeared",
    "append of a router that failed but appeared",
    "older router checkpoint appeared late",
    "notification that failed but appeared",
    "notification of a message for who is away",
    "notification repeated",
    "router died with records on their way",
    "two routers of one partition",
    "two owners of one shard",
    "stale commit refused by the compare-and-set",
    "commit met a known key: keys are asked",
    "commit that failed but was done later",
    "commit that came too late and was refused",
    "shard moved to another database",
    "mover died while it copied",
    "mover died in the pause",
    "move broken off in its pause was ended",
    "move given up: another one has begun",
    "commit met a shard that has moved",
    "reader turned away from a shard that has moved",
    "shard set back to a backup: the log is replayed",
    "rewind asked for by a person",
    "request to rewind lost",
    "head_comparisons link",
    "head_comparisons time",
    "drops attach_try replay",
    "drops attach_try store",
    "storage_records repeat",
    "storage_records hole",
    "storage_commits unknown_done",
    "storage_commits unknown_again",
    "storage_commits unknown_late",
    "storage_commits fenced",
    "storage_messages repeat",
    "storage_messages reused",
    "router_rewinds begun",
    "router_rewinds ignored",
];

#[derive(Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }
    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Takes the counters of the real code while a world runs on this thread.
#[derive(Default)]
pub struct Counters {
    counts: Mutex<BTreeMap<String, Arc<Count>>>,
}

impl Counters {
    /// Name and labels without decoration, and the count.
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.counts.lock().iter().map(|(name, count)| (name.clone(), count.0.load(Ordering::Relaxed))).collect()
    }
}

fn plain(key: &Key) -> String {
    let name = key.name().trim_start_matches("switchboard_").trim_end_matches("_total");
    let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
    [&[name][..], &labels].concat().join(" ")
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.counts.lock().entry(plain(key)).or_default()))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Counts of many worlds.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<String, u64>);

impl Table {
    /// Adds one world's.
    pub fn add(&mut self, races: &BTreeMap<String, u64>) {
        for (race, count) in races {
            *self.0.entry(race.clone()).or_default() += count;
        }
    }

    /// Required races that never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        REQUIRED.into_iter().filter(|race| self.0.get(*race).is_none_or(|count| *count == 0)).collect()
    }

    /// One line for each race.
    pub fn lines(&self) -> Vec<String> {
        let required = REQUIRED.into_iter().map(|race| format!("{:>10}  {race}", self.0.get(race).unwrap_or(&0)));
        let others = self.0.iter().filter(|(race, _)| !REQUIRED.contains(&race.as_str()));
        required.chain(others.map(|(race, count)| format!("{count:>10}  ({race})"))).collect()
    }
}
