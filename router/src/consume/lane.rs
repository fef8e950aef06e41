//! What is on its way to one mailbox partition: pure. In order, several in flight; reported in order, so that a record counts as durable only
//! with all before it. A failed append takes the lane back to the oldest record that is not reported, and everything after it goes out again.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use protocol::record::Link;

/// Appends in flight at once.
const FLIGHTS_MAX: usize = 32;
/// Most records a rewind holds in memory.
const REPLAY_MAX: usize = 256;
/// First pause after a failed append; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The pause after so many failures in a row: from 50 ms, doubled each time, to 5 s.
pub fn pause(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX)
}

/// A mailbox record on its way.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    /// Its record's offset in the source partition.
    pub(super) offset: u64,
    /// The link before it.
    pub(super) previous: Link,
    /// Its stored form.
    pub(super) payload: Bytes,
}

/// An append that is in flight: of which life of the lane, and which of it. Reports to an earlier life do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) life: u64,
    serial: u64,
}

/// The second reader: makes again what storage has missed, up to where the main one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    /// The next source offset it reads.
    pub(super) next: u64,
    /// It ends before this source offset.
    pub(super) until: u64,
    /// The last link it made.
    pub(super) link: Link,
    /// The link it must arrive at.
    pub(super) arrive: Link,
}

/// One lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Made by the main reader, oldest first; told to the tracker when reported.
    queue: VecDeque<Sending>,
    /// Made by the second reader; goes before the queue.
    replay: VecDeque<Sending>,
    walk: Option<Walk>,
    walk_reads: bool,
    /// Of the records in front, how many are in flight or reported, and which of them are reported.
    reported: VecDeque<bool>,
    life: u64,
    /// Number of the first record in front.
    front: u64,
    failures: u32,
    paused: bool,
    /// Where the first record of this life stands in the mailbox partition.
    base: Option<u64>,
}

impl Lane {
    /// A record made by the main reader.
    pub(super) fn push(&mut self, sending: Sending) {
        self.queue.push_back(sending);
    }

    /// The life it is in.
    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    /// Whether the second reader runs, or what it made is not yet reported.
    pub(super) fn is_rewinding(&self) -> bool {
        self.walk.is_some() || !self.replay.is_empty()
    }

    fn active(&mut self) -> &mut VecDeque<Sending> {
        if self.is_rewinding() { &mut self.replay } else { &mut self.queue }
    }

    /// The next append to make now.
    pub(super) fn send(&mut self) -> Option<(Flight, Bytes)> {
        let sent = self.reported.len();
        if self.paused || sent >= FLIGHTS_MAX {
            return None;
        }
        let payload = self.active().get(sent)?.payload.clone();
        let flight = Flight { life: self.life, serial: self.front + sent as u64 };
        self.reported.push_back(false);
        Some((flight, payload))
    }

    /// An append is durable at this mailbox offset. Returns the records of the main reader that now are, with all before them.
    pub(super) fn reported(&mut self, flight: Flight, mailbox_offset: u64) -> Vec<Sending> {
        let mut passed = Vec::new();
        let Some(at) = self.in_flight(flight) else { return passed };
        self.reported[at] = true;
        self.base = Some(self.base.map_or(mailbox_offset, |base| base.min(mailbox_offset)));
        let of_main = !self.is_rewinding();
        while self.reported.front() == Some(&true) {
            self.reported.pop_front();
            self.front += 1;
            self.failures = 0;
            let done = self.active().pop_front();
            passed.extend(done.filter(|_| of_main));
        }
        passed
    }

    /// An append failed, or its outcome is unknown: everything not reported with all before it goes out again after a pause, if this
    /// flight still counts.
    pub(super) fn failed(&mut self, flight: Flight) -> Option<Duration> {
        self.in_flight(flight)?;
        self.failures += 1;
        self.begin_life();
        self.paused = true;
        Some(pause(self.failures))
    }

    /// The pause is over, if it is the one of this life.
    pub(super) fn resume(&mut self, life: u64) {
        if life == self.life {
            self.paused = false;
        }
    }

    fn in_flight(&self, flight: Flight) -> Option<usize> {
        let at = usize::try_from(flight.serial.checked_sub(self.front)?).ok()?;
        (flight.life == self.life && at < self.reported.len()).then_some(at)
    }

    fn begin_life(&mut self) {
        self.life += 1;
        self.reported.clear();
        self.base = None;
    }

    /// Whether a request about a hole at this mailbox offset is answered already: by what is going out again now, or has since.
    pub(super) fn answers(&self, hole: u64) -> bool {
        let going_out = self.base.is_none() && !self.reported.is_empty();
        self.is_rewinding() || self.paused || going_out || self.base.is_some_and(|base| hole < base)
    }

    /// Begins a rewind from the last link storage has. `main`: where the main reader stands, and its newest link to this shard. Nothing else
    /// goes out until the second reader has arrived. False: there is nothing between.
    pub(super) fn rewind(&mut self, high_water: Link, main: (u64, Link)) -> bool {
        let (until, arrive) = self.queue.front().map_or(main, |first| (first.offset, first.previous));
        if high_water.next_offset >= arrive.next_offset {
            return false;
        }
        self.begin_life();
        self.walk = Some(Walk { next: high_water.next_offset, until, link: high_water, arrive });
        true
    }

    /// What the second reader reads next, if it has room and does not read already. To be answered by [`Self::walked`] or
    /// [`Self::walk_failed`].
    pub(super) fn walk_on(&mut self) -> Option<Walk> {
        let walk = self.walk.filter(|_| !self.walk_reads && self.replay.len() < REPLAY_MAX)?;
        self.walk_reads = true;
        Some(walk)
    }

    /// The second reader's read failed.
    pub(super) fn walk_failed(&mut self) {
        self.walk_reads = false;
    }

    /// What the second reader made, and where it is now. True: it has arrived.
    pub(super) fn walked(&mut self, made: Vec<Sending>, walk: Walk) -> bool {
        self.walk_reads = false;
        self.replay.extend(made);
        self.walk = Some(walk).filter(|walk| walk.next < walk.until);
        self.walk.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sending(offset: u64) -> Sending {
        Sending {
            offset,
            previous: Link { next_offset: offset, digest: 0 },
            payload: Bytes::copy_from_slice(&offset.to_be_bytes()),
        }
    }

    fn offset_of(payload: &Bytes) -> u64 {
        u64::from_be_bytes(payload.as_ref().try_into().unwrap())
    }

    #[test]
    fn a_report_counts_only_with_all_before_it_and_a_failure_sends_it_again() {
        let mut lane = Lane::default();
        (0..3).for_each(|offset| lane.push(sending(offset)));
        let flights: Vec<_> = std::iter::from_fn(|| lane.send()).map(|(flight, _)| flight).collect();
        assert!(lane.reported(flights[1], 11).is_empty(), "the one before is not reported");
        assert!(lane.failed(flights[0]).is_some());
        assert!(lane.failed(flights[2]).is_none(), "an earlier life does not fail the lane twice");
        assert!(lane.reported(flights[2], 12).is_empty(), "nor is it reported");
        assert!(lane.send().is_none(), "it pauses");
        lane.resume(lane.life());
        let again: Vec<_> = std::iter::from_fn(|| lane.send()).collect();
        assert_eq!(again.iter().map(|(_, payload)| offset_of(payload)).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(lane.answers(12), "what goes out now repairs the hole");
        assert_eq!(lane.reported(again[0].0, 20).len(), 1);
        assert!(lane.answers(12), "a hole older than what went out again");
        assert!(!lane.answers(21), "a new hole");
    }

    #[test]
    fn a_rewind_goes_before_everything_else() {
        let mut lane = Lane::default();
        (5..7).for_each(|offset| lane.push(sending(offset)));
        assert!(!lane.rewind(Link { next_offset: 5, digest: 0 }, (7, Link::default())), "nothing lies between");
        assert!(lane.rewind(Link { next_offset: 2, digest: 9 }, (7, Link::default())));
        assert!(lane.answers(u64::MAX), "one at a time");
        assert!(lane.send().is_none());
        let walk = lane.walk_on().unwrap();
        assert_eq!((walk.next, walk.until, walk.link.digest), (2, 5, 9));
        assert_eq!(lane.walk_on(), None, "one read at a time");
        assert!(!lane.walked(vec![sending(2)], Walk { next: 4, ..walk }));
        let (flight, payload) = lane.send().unwrap();
        assert_eq!(offset_of(&payload), 2);
        assert!(lane.reported(flight, 30).is_empty(), "the tracker does not count what it has passed");
        assert!(lane.send().is_none(), "the second reader has not arrived");
        assert!(lane.walked(vec![], Walk { next: 5, ..walk }));
        assert_eq!(offset_of(&lane.send().unwrap().1), 5);
    }

    proptest! {
        /// Whatever fails, every record passes once, in order; and those that pass stand in the partition in order behind the one before.
        #[test]
        fn everything_passes_once_in_order(count in 1..40_u64, luck in proptest::collection::vec(0..4_u8, 0..200)) {
            let mut lane = Lane::default();
            (0..count).for_each(|offset| lane.push(sending(offset)));
            let (mut luck, mut log, mut passed) = (luck.into_iter(), Vec::new(), Vec::new());
            let mut flights = VecDeque::new();
            while passed.len() < count as usize {
                lane.resume(lane.life());
                flights.extend(std::iter::from_fn(|| lane.send()));
                let Some((flight, payload)) = flights.pop_front() else { continue };
                match luck.next().unwrap_or(0) {
                    0 | 1 => {
                        log.push(offset_of(&payload));
                        passed.extend(lane.reported(flight, log.len() as u64 - 1).iter().map(|done| done.offset));
                    }
                    2 => { lane.failed(flight); }
                    _ => { log.push(offset_of(&payload)); lane.failed(flight); }
                }
                // what a chain would take of the log
                let taken = log.iter().fold(0, |next, offset| if *offset == next { next + 1 } else { next });
                prop_assert!(passed.len() as u64 <= taken, "{passed:?} passed, the chain took {taken} of {log:?}");
            }
            prop_assert_eq!(passed, (0..count).collect::<Vec<_>>());
        }
    }
}
