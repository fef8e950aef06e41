//! What waits for one peer: bounded by pushes and bytes, numbered as it is offered. Pure.

use std::collections::VecDeque;

use bytes::Bytes;
use router::consume::Rewind;

use super::batch::Sealed;
use super::frame;

/// Requests to rewind that wait.
const REWINDS_MAX: usize = 256;
/// Sessions to close that wait.
const SUPERSEDES_MAX: usize = 1024;

/// Why pushes are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// There is no link now.
    Down,
    /// The peer takes less than comes.
    Full,
}

impl Dropped {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Down => "link_down",
            Self::Full => "link_full",
        }
    }
}

#[derive(Debug)]
struct Waiting {
    counter: u64,
    pushes: usize,
    frame: Bytes,
}

/// The queue of one peer. Pushes are taken only while the link is up; requests to rewind wait for it.
#[derive(Debug)]
pub(super) struct Queue {
    up: bool,
    /// Frames of pushes offered on this link, dropped ones included.
    counter: u64,
    /// The counter the peer knows of.
    told: u64,
    waiting: VecDeque<Waiting>,
    pushes: usize,
    bytes: usize,
    /// Pushes taken by the last [`Self::take`]: on their way into the socket until the next one.
    in_flight: usize,
    rewinds: Vec<Rewind>,
    superseded: Vec<frame::WireSuperseded>,
    max: (usize, usize),
}

/// What a turn of the writer has put into its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Taken {
    pub(super) pushes: usize,
    pub(super) rewinds: usize,
}

impl Queue {
    /// With room for so many pushes and bytes.
    pub(super) fn new(pushes_max: usize, bytes_max: usize) -> Self {
        Self {
            up: false,
            counter: 0,
            told: 0,
            waiting: VecDeque::new(),
            pushes: 0,
            bytes: 0,
            in_flight: 0,
            rewinds: Vec::new(),
            superseded: Vec::new(),
            max: (pushes_max, bytes_max),
        }
    }

    /// A link is there: counting begins again.
    pub(super) const fn up(&mut self) {
        (self.up, self.counter, self.told) = (true, 0, 0);
    }

    /// The link is gone, and with it the pushes that wait or were being written. Says how many.
    pub(super) fn down(&mut self) -> usize {
        self.up = false;
        self.waiting = VecDeque::new();
        self.bytes = 0;
        std::mem::take(&mut self.pushes) + std::mem::take(&mut self.in_flight)
    }

    /// Whether so many pushes would be taken now: asked before they are encoded. When not, they count as dropped.
    pub(super) const fn admits(&mut self, pushes: usize) -> Result<(), Dropped> {
        if !self.up {
            return Err(Dropped::Down);
        }
        // a batch that is larger than the queue is judged frame by frame
        let pushes = if pushes > self.max.0 { 1 } else { pushes };
        if self.pushes + pushes > self.max.0 || self.bytes >= self.max.1 {
            self.counter = self.counter.wrapping_add(1);
            return Err(Dropped::Full);
        }
        Ok(())
    }

    /// Takes a frame of pushes, or drops it and counts on.
    pub(super) fn offer(&mut self, sealed: Sealed) -> Result<(), Dropped> {
        if !self.up {
            return Err(Dropped::Down);
        }
        self.counter = self.counter.wrapping_add(1);
        let Sealed { pushes, frame } = sealed;
        if self.pushes + pushes > self.max.0 || self.bytes + frame.len() > self.max.1 {
            return Err(Dropped::Full);
        }
        self.pushes += pushes;
        self.bytes += frame.len();
        self.waiting.push_back(Waiting { counter: self.counter, pushes, frame });
        Ok(())
    }

    /// Takes a request to rewind, also while the link is down. Says whether there was room.
    pub(super) fn ask(&mut self, rewind: Rewind) -> bool {
        let room = self.rewinds.len() < REWINDS_MAX;
        if room {
            self.rewinds.push(rewind);
        }
        room
    }

    /// Takes a session to close, also while the link is down. Says whether there was room.
    pub(super) fn supersede(&mut self, superseded: frame::WireSuperseded) -> bool {
        let room = self.superseded.len() < SUPERSEDES_MAX;
        if room {
            self.superseded.push(superseded);
        }
        room
    }

    /// Moves frames into an empty buffer, the last one being written, until it has `enough` bytes; behind the last one a beat, when frames were dropped after it.
    pub(super) fn take(&mut self, buffer: &mut Vec<u8>, enough: usize) -> Taken {
        let mut taken = Taken { pushes: 0, rewinds: self.rewinds.len() };
        if !self.rewinds.is_empty() {
            let rewinds = std::mem::take(&mut self.rewinds).into_iter().map(Into::into).collect();
            frame::write(buffer, self.told, &frame::encode(frame::Kind::Rewinds(frame::Rewinds { rewinds })));
        }
        if !self.superseded.is_empty() {
            let superseded = std::mem::take(&mut self.superseded);
            frame::write(buffer, self.told, &frame::encode(frame::Kind::Supersedes(frame::Supersedes { superseded })));
        }
        while buffer.len() < enough {
            let Some(next) = self.waiting.pop_front() else { break };
            self.pushes -= next.pushes;
            self.bytes -= next.frame.len();
            taken.pushes += next.pushes;
            self.told = next.counter;
            frame::write(buffer, next.counter, &next.frame);
        }
        if self.waiting.is_empty() && self.told != self.counter {
            self.beat(buffer);
        }
        self.in_flight = taken.pushes;
        taken
    }

    /// A sign of life, which tells the counter. Only when nothing waits.
    pub(super) fn beat(&mut self, buffer: &mut Vec<u8>) {
        if self.waiting.is_empty() {
            self.told = self.counter;
        }
        frame::write(buffer, self.told, &frame::encode(frame::Kind::Beat(frame::Beat {})));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::frame::{Cutter, Kind};
    use super::super::track::{Gap, Track};
    use super::*;

    const MAX: (usize, usize) = (10, 1000);

    fn sealed(pushes: usize, bytes: usize) -> Sealed {
        // stands for pushes: only its length matters here
        let frame = frame::encode(Kind::Challenge(frame::Token { bytes: vec![0; bytes.saturating_sub(6)] }));
        Sealed { pushes, frame }
    }

    fn queue() -> Queue {
        let mut queue = Queue::new(MAX.0, MAX.1);
        queue.up();
        queue
    }

    #[test]
    fn down_drops_at_once_and_forgets_what_waits() {
        let mut queue = Queue::new(MAX.0, MAX.1);
        assert_eq!(queue.admits(1), Err(Dropped::Down));
        assert_eq!(queue.offer(sealed(1, 10)), Err(Dropped::Down));
        queue.up();
        assert_eq!(queue.offer(sealed(3, 10)), Ok(()));
        assert_eq!(queue.take(&mut Vec::new(), 1).pushes, 3);
        assert_eq!(queue.offer(sealed(2, 10)), Ok(()));
        assert_eq!(queue.down(), 5, "waiting or on its way into the socket");
        queue.up();
        let mut buffer = Vec::new();
        assert_eq!(queue.take(&mut buffer, 1000), Taken::default());
        assert!(buffer.is_empty());
    }

    #[test]
    fn full_by_pushes_and_by_bytes() {
        let mut queue = queue();
        assert_eq!(queue.offer(sealed(10, 10)), Ok(()));
        assert_eq!(queue.admits(1), Err(Dropped::Full));
        assert_eq!(queue.offer(sealed(1, 10)), Err(Dropped::Full));
        let mut queue = self::queue();
        assert_eq!(queue.offer(sealed(1, 1000)), Ok(()));
        assert_eq!(queue.offer(sealed(1, 100)), Err(Dropped::Full));
        let mut queue = self::queue();
        assert_eq!(queue.admits(25), Ok(()), "a batch larger than the queue is judged by its frames");
    }

    #[test]
    fn rewinds_wait_for_a_link_and_are_bounded() {
        let rewind = frame::WireRewind::default().rewind().unwrap();
        let mut queue = Queue::new(MAX.0, MAX.1);
        let taken = (0..REWINDS_MAX + 5).filter(|_| queue.ask(rewind)).count();
        assert_eq!(taken, REWINDS_MAX);
        assert_eq!(queue.down(), 0);
        queue.up();
        assert_eq!(queue.take(&mut Vec::new(), 1000), Taken { pushes: 0, rewinds: REWINDS_MAX });
        assert_eq!(queue.take(&mut Vec::new(), 1000), Taken::default());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Offer(usize, usize),
        Take(usize),
        Beat,
    }

    proptest! {
        /// The receiver is told of a gap exactly where something was dropped: behind as many frames as were taken before. The accounts are right.
        #[test]
        fn every_drop_is_a_gap_and_no_gap_without_a_drop(steps in proptest::collection::vec(prop_oneof![
            3 => (1..6_usize, 2..100_usize).prop_map(|(pushes, bytes)| Step::Offer(pushes, bytes)),
            1 => (1..300_usize).prop_map(Step::Take),
            1 => Just(Step::Beat),
        ], 0..80)) {
            let (mut queue, mut track) = (queue(), Track::default());
            prop_assert_eq!(track.beat(0), Some(Gap::New));
            let (mut drops, mut gaps) = (BTreeSet::new(), BTreeSet::new());
            let (mut accepted, mut received, mut offered) = (0, 0, 0);
            for step in steps.into_iter().chain([Step::Take(usize::MAX)]) {
                let mut buffer = Vec::new();
                match step {
                    Step::Offer(pushes, bytes) => match queue.admits(pushes).and_then(|()| queue.offer(sealed(pushes, bytes))) {
                        Ok(()) => (offered, accepted) = (offered + pushes, accepted + 1),
                        Err(why) => {
                            prop_assert_eq!(why, Dropped::Full);
                            drops.insert(accepted);
                        }
                    },
                    Step::Take(enough) => offered -= queue.take(&mut buffer, enough).pushes,
                    Step::Beat => queue.beat(&mut buffer),
                }
                prop_assert!(queue.pushes == offered && queue.pushes <= MAX.0 && queue.bytes <= MAX.1);
                prop_assert_eq!(queue.bytes, queue.waiting.iter().map(|waiting| waiting.frame.len()).sum::<usize>());
                let mut cutter = Cutter::new();
                cutter.trust();
                cutter.feed(&buffer);
                while let Some(frame) = cutter.next().unwrap() {
                    let beat = matches!(frame.kind, Some(Kind::Beat(_)));
                    let gap = if beat { track.beat(frame.counter) } else { track.pushes(frame.counter) };
                    gaps.extend(gap.map(|_| received));
                    received += usize::from(!beat);
                }
            }
            prop_assert_eq!(received, accepted);
            prop_assert_eq!(gaps, drops);
        }
    }
}
