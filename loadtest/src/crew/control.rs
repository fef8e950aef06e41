//! What the director tells a lane: where it is to be, and which sends are due.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A lane that has no room for its sends keeps so many due times; more are unsent.
const DUE_MAX: usize = 1 << 16;
/// No time was set.
const UNSET: u64 = u64::MAX;

/// Where a lane is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Want {
    /// Not here yet, or said goodbye.
    Left,
    /// Cut off without a word.
    Cut,
    /// Here, but it does not read.
    Frozen,
    /// Here.
    Here,
    /// The run is over.
    Gone,
}

impl Want {
    /// Whether a lane with this wish has a connection.
    pub(super) fn connected(self) -> bool {
        matches!(self, Self::Here | Self::Frozen)
    }
}

/// The wishes for one lane.
#[derive(Debug)]
pub(super) struct Control {
    want: AtomicU8,
    /// How often it was sent away: it may be wanted back before it has noticed.
    departures: AtomicU32,
    /// When it was to set out, in microseconds of the crew's clock.
    since_us: AtomicU64,
    due: Mutex<VecDeque<u64>>,
    pub(super) changed: Notify,
}

impl Default for Control {
    fn default() -> Self {
        let (want, since_us) = (AtomicU8::new(Want::Left as u8), AtomicU64::new(UNSET));
        Self { want, departures: AtomicU32::new(0), since_us, due: Mutex::default(), changed: Notify::new() }
    }
}

impl Control {
    pub(super) fn want(&self) -> Want {
        match self.want.load(Ordering::Acquire) {
            0 => Want::Left,
            1 => Want::Cut,
            2 => Want::Frozen,
            3 => Want::Here,
            _ => Want::Gone,
        }
    }

    /// How often it was sent away so far.
    pub(super) fn departures(&self) -> u32 {
        self.departures.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, want: Want) {
        if !want.connected() {
            self.departures.fetch_add(1, Ordering::AcqRel);
        }
        self.want.store(want as u8, Ordering::Release);
        self.changed.notify_one();
    }

    /// It is to come; its latency counts from `since_us`.
    pub(super) fn come(&self, since_us: u64) {
        self.since_us.store(since_us, Ordering::Release);
        self.set(Want::Here);
    }

    /// When it was to set out; `now_us` if nobody said so. The next time counts anew.
    pub(super) fn take_since(&self, now_us: u64) -> u64 {
        match self.since_us.swap(UNSET, Ordering::AcqRel) {
            UNSET => now_us,
            since => since,
        }
    }

    /// Its connection broke: it is on its way from now, unless it was on its way already.
    pub(super) fn set_out(&self, now_us: u64) {
        // Somebody else's time is the earlier one.
        let _ = self.since_us.compare_exchange(UNSET, now_us, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// A send is due. Returns whether it was taken.
    pub(super) fn push_due(&self, due_us: u64) -> bool {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if due.len() >= DUE_MAX {
            return false;
        }
        due.push_back(due_us);
        drop(due);
        self.changed.notify_one();
        true
    }

    pub(super) fn pop_due(&self) -> Option<u64> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(super) fn due_left(&self) -> usize {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
