//! Which races happened: counted by the simulation where it causes them, and by the real code's own counters where only it knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

/// Races that must happen in every longer run; the others are counted too.
pub const REQUIRED: [&str; 35] = [
    "event committed while its owner attached",
    "event pushed that was read or pushed before",
    "push before its time: the hole is read",
    "push lost",
    "push doubled",
    "push to a gateway that has died",
    "lost hint healed by heads",
    "registry did not answer",
    "registry lied",
    "registry forgot everything",
    "device attached while its older session lives elsewhere",
    "old connection's late goodbye",
    "half-open connection",
    "event sent again after a lost acknowledgement",
    "cursor of another epoch: resync",
    "send refused and came again",
    "send fenced behind one that must come again",
    "send with an unknown outcome came again",
    "append of a send that failed but appeared",
    "append of a router that failed but appeared",
    "older router checkpoint appeared late",
    "commit that failed but was done later",
    "router died with records on their way",
    "two routers of one partition",
    "two owners of one shard",
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
