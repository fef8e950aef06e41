//! What a crew counts, and what it says of it every second: sums since the beginning, latencies since the last time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::offence::Found;
use crate::process::Process;
use crate::series::{Buckets, Kind, Series};

/// Counters of a crew since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Connections that are live now.
    pub sockets: i64,
    /// Sends that were due.
    pub due: u64,
    /// Sends that were accepted.
    pub accepted: u64,
    /// Of those, the ones whose time lay in the measured part.
    pub measured: u64,
    /// When the last of them was accepted, in microseconds after the load began.
    pub last_measured_us: u64,
    /// Messages shown to their receivers' devices.
    pub delivered: u64,
    /// Attempts that were put off by the server.
    pub put_back: u64,
    /// Sends that were given up by their senders before they went out.
    pub given_up: u64,
    /// Devices that became live for the first time.
    pub connects: u64,
    /// Devices that became live again.
    pub resumes: u64,
    /// Connections that broke or were closed by the server.
    pub broken: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Messages of other runs that were shown.
    pub foreign: u64,
    /// Sends that are due and wait for room on their connection.
    pub late: u64,
}

impl Counts {
    /// Adds those of another crew.
    pub fn add(&mut self, other: &Self) {
        self.sockets += other.sockets;
        self.due += other.due;
        self.accepted += other.accepted;
        self.measured += other.measured;
        self.last_measured_us = self.last_measured_us.max(other.last_measured_us);
        self.delivered += other.delivered;
        self.put_back += other.put_back;
        self.given_up += other.given_up;
        self.connects += other.connects;
        self.resumes += other.resumes;
        self.broken += other.broken;
        self.failed += other.failed;
        self.foreign += other.foreign;
        self.late += other.late;
    }
}

/// What a crew says every second, and once more at the end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tick {
    /// Sums since the beginning.
    pub counts: Counts,
    /// Latencies since the last tick, by kind; empty ones are left out.
    pub series: BTreeMap<Kind, Buckets>,
    /// Anonymous memory of the crew's process, in bytes.
    pub memory: u64,
    /// Its processor seconds so far.
    pub cpu: f64,
    /// What was found so far.
    pub found: Found,
    /// Why the first connection broke or could not be had.
    pub first_trouble: Option<String>,
}

/// Counts from many tasks.
#[derive(Debug, Default)]
pub(super) struct Meters {
    series: [Mutex<Series>; Kind::ALL.len()],
    pub(super) sockets: AtomicI64,
    pub(super) due: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) measured: AtomicU64,
    pub(super) last_measured_us: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) put_back: AtomicU64,
    pub(super) given_up: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) resumes: AtomicU64,
    pub(super) broken: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) foreign: AtomicU64,
    pub(super) late: AtomicI64,
    trouble: Mutex<Option<String>>,
}

impl Meters {
    pub(super) fn add(&self, kind: Kind, latency: Duration) {
        if let Some(series) = self.series.get(kind as usize) {
            // A histogram is only added to: nothing in it can be half done.
            series.lock().unwrap_or_else(PoisonError::into_inner).add(latency);
        }
    }

    /// Keeps the first trouble.
    pub(super) fn trouble(&self, what: impl FnOnce() -> String) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(what);
    }

    pub(super) fn first_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next tick.
    pub(super) fn tick(&self, found: Found) -> Tick {
        let take = |kind: Kind| {
            let buckets = self.series.get(kind as usize)?.lock().unwrap_or_else(PoisonError::into_inner).take();
            (!buckets.is_empty()).then_some((kind, buckets))
        };
        let process = Process::own();
        Tick {
            counts: self.counts(),
            series: Kind::ALL.into_iter().filter_map(take).collect(),
            // Without /proc there is nothing to say.
            memory: process.memory().unwrap_or_default(),
            cpu: process.cpu_seconds().unwrap_or_default(),
            found,
            first_trouble: self.first_trouble(),
        }
    }

    fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sockets: self.sockets.load(Ordering::Relaxed),
            due: read(&self.due),
            accepted: read(&self.accepted),
            measured: read(&self.measured),
            last_measured_us: read(&self.last_measured_us),
            delivered: read(&self.delivered),
            put_back: read(&self.put_back),
            given_up: read(&self.given_up),
            connects: read(&self.connects),
            resumes: read(&self.resumes),
            broken: read(&self.broken),
            failed: read(&self.failed),
            foreign: read(&self.foreign),
            late: self.late.load(Ordering::Relaxed).max(0).unsigned_abs(),
        }
    }
}
