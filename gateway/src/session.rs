//! What a session writes next: pure. It knows the seq it wrote last; a push is a repeat, the next one, or tells of a hole; the window says
//! whether there is room. Everything it must read, it asks for in [`Session::next_step`].

use std::collections::VecDeque;

use protocol::Seq;
use protocol::limits::Limits;
use storage::store::{Head, Place};

/// Most events asked of the store at once.
const READ_EVENTS_MAX: u32 = 128;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something happens.
    Wait,
    /// Read the store, and hand the answer to [`Session::take`] event by event, then to [`Session::read_done`].
    Read {
        /// After this seq.
        after: Seq,
        /// At most so many events.
        max_events: u32,
        /// At most about so many bytes; one event always fits.
        max_bytes: u32,
    },
    /// Tell the client that catch-up is done up to this head.
    Live(Seq),
}

/// Why an acknowledgement is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeverSent;

/// One attached device: a dense run of events, c+1, c+2, …, each once.
#[derive(Debug, Clone)]
pub struct Session {
    /// Incarnation of the mailbox.
    epoch: u64,
    /// Seq to write next.
    next: Seq,
    /// The client has stored everything up to here.
    acked: Seq,
    /// The newest seq known to exist.
    known_head: Seq,
    /// Weights of the events that are written and unacknowledged. Holds no memory while there are none.
    weights: VecDeque<u32>,
    unacked_bytes: u32,
    window_events: u32,
    window_bytes: u32,
    reading: bool,
    /// The store has answered at least once: before that nobody knows the head.
    has_read: bool,
    live: bool,
}

impl Session {
    /// A session that goes on after `cursor`. Its first step is to read.
    pub fn new(Place { epoch, seq: cursor }: Place, limits: &Limits) -> Self {
        Self {
            epoch,
            next: cursor + 1,
            acked: cursor,
            known_head: cursor,
            weights: VecDeque::new(),
            unacked_bytes: 0,
            window_events: limits.window_events,
            window_bytes: limits.window_bytes,
            reading: false,
            has_read: false,
            live: false,
        }
    }

    /// The incarnation of the mailbox it goes through.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last place acknowledged.
    pub const fn acked(&self) -> Place {
        Place { epoch: self.epoch, seq: self.acked }
    }

    /// Seq to be written next.
    pub const fn next(&self) -> Seq {
        self.next
    }

    /// Whether the client was told that it has everything.
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// Whether a push could be written now. If not, only its seq matters ([`Self::heard_of`]).
    pub fn listens(&self) -> bool {
        self.live && !self.reading && self.has_room()
    }

    /// Whether nothing more is written until something is acknowledged.
    pub fn is_full(&self) -> bool {
        !self.has_room()
    }

    fn has_room(&self) -> bool {
        self.weights.is_empty() || (self.weights.len() < self.window_events as usize && self.unacked_bytes < self.window_bytes)
    }

    /// An event is at hand, pushed or read. True: write it now. False: it is a repeat, is too early, or does not fit.
    pub fn take(&mut self, seq: Seq, weight: u32) -> bool {
        self.known_head = self.known_head.max(seq);
        if seq != self.next || !self.has_room() {
            return false;
        }
        self.next += 1;
        self.weights.push_back(weight);
        self.unacked_bytes = self.unacked_bytes.saturating_add(weight);
        true
    }

    /// The mailbox has grown to this seq.
    pub fn heard_of(&mut self, head: Seq) {
        self.known_head = self.known_head.max(head);
    }

    /// A read is answered; its events were taken. `None`: it failed and will be asked for again. A mailbox whose floor rose over what is
    /// wanted cannot be continued: then this says so, and the session is at its end.
    pub fn read_done(&mut self, head: Option<Head>) -> Result<(), Head> {
        self.reading = false;
        let Some(head) = head else { return Ok(()) };
        if head.floor >= self.next {
            return Err(head);
        }
        self.has_read = true;
        self.known_head = self.known_head.max(head.head);
        Ok(())
    }

    /// The client has stored everything up to `seq`. Backwards is ignored. True: it moved.
    ///
    /// # Errors
    /// [`NeverSent`] when that event was never written here.
    pub fn received(&mut self, seq: Seq) -> Result<bool, NeverSent> {
        if seq >= self.next {
            return Err(NeverSent);
        }
        let moved = seq > self.acked;
        while self.acked < seq {
            self.acked += 1;
            let weight = self.weights.pop_front().unwrap_or(0);
            self.unacked_bytes = self.unacked_bytes.saturating_sub(weight);
        }
        if self.weights.is_empty() {
            self.weights = VecDeque::new();
        }
        Ok(moved)
    }

    /// What to do now. A [`Step::Read`] is under way until [`Self::read_done`]; [`Step::Live`] comes once.
    pub fn next_step(&mut self) -> Step {
        if self.reading {
            return Step::Wait;
        }
        if self.has_read && self.next > self.known_head {
            if self.live {
                return Step::Wait;
            }
            self.live = true;
            return Step::Live(self.next - 1);
        }
        if !self.has_room() {
            return Step::Wait;
        }
        self.reading = true;
        let written = u32::try_from(self.weights.len()).unwrap_or(u32::MAX);
        Step::Read {
            after: self.next - 1,
            max_events: self.window_events.saturating_sub(written).clamp(1, READ_EVENTS_MAX),
            max_bytes: self.window_bytes.saturating_sub(self.unacked_bytes).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A mailbox, a session over it and what the client was given.
    struct World {
        session: Session,
        head: Seq,
        floor: Seq,
        reading: Option<(Seq, u32, Head)>,
        got: Vec<Seq>,
        lives: usize,
    }

    const WEIGHT: u32 = 300;

    impl World {
        fn new(cursor: Seq, head: Seq) -> Self {
            let limits = Limits { window_events: 8, window_bytes: 2000, ..Limits::default() };
            Self {
                session: Session::new(Place { epoch: 1, seq: cursor }, &limits),
                head,
                floor: 0,
                reading: None,
                got: Vec::new(),
                lives: 0,
            }
        }

        fn step(&mut self) {
            match self.session.next_step() {
                Step::Wait => {}
                Step::Live(_) => self.lives += 1,
                Step::Read { after, max_events, .. } => {
                    self.reading = Some((after, max_events, Head { head: self.head, floor: self.floor }));
                }
            }
        }

        fn answer(&mut self, fail: bool) {
            let Some((after, max_events, head)) = self.reading.take() else { return };
            if fail {
                self.session.read_done(None).unwrap();
                return;
            }
            for seq in after + 1..=head.head.min(after + u64::from(max_events)) {
                if self.session.take(seq, WEIGHT) {
                    self.got.push(seq);
                }
            }
            self.session.read_done(Some(head)).unwrap();
        }

        fn push(&mut self, seq: Seq) {
            if self.session.take(seq, WEIGHT) {
                self.got.push(seq);
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Input {
        Grow { pushed: bool },
        PushAgain(u64),
        Answer { fail: bool },
        Ack,
        Heal,
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            4 => any::<bool>().prop_map(|pushed| Input::Grow { pushed }),
            1 => (1..50_u64).prop_map(Input::PushAgain),
            3 => any::<bool>().prop_map(|fail| Input::Answer { fail }),
            3 => Just(Input::Ack),
            1 => Just(Input::Heal),
        ]
    }

    proptest! {
        /// Whatever is pushed, lost, doubled or fails: every event once, in order, and all of them in the end.
        #[test]
        fn a_dense_run_whatever_happens(cursor in 0..5_u64, more in 0..30_u64, inputs in proptest::collection::vec(input(), 0..200)) {
            let mut world = World::new(cursor, cursor + more);
            for input in inputs {
                world.step();
                match input {
                    Input::Grow { pushed } => {
                        world.head += 1;
                        if pushed { world.push(world.head) }
                    }
                    Input::PushAgain(seq) => if seq <= world.head { world.push(seq) },
                    Input::Answer { fail } => world.answer(fail),
                    Input::Ack => { world.session.received(world.session.next() - 1).unwrap(); }
                    Input::Heal => world.session.heard_of(world.head),
                }
                prop_assert!(world.session.weights.len() <= 8);
            }
            for _ in 0..2 * world.head + 10 {
                // nobody pushes: the comparison of heads alone must find what is missing
                world.session.heard_of(world.head);
                world.step();
                world.answer(false);
                world.session.received(world.session.next() - 1).unwrap();
            }
            prop_assert_eq!(world.got, (cursor + 1..=world.head).collect::<Vec<_>>());
            prop_assert_eq!(world.lives, 1);
        }
    }

    #[test]
    fn acknowledgements_only_grow_and_only_for_what_was_sent() {
        let mut world = World::new(0, 3);
        world.step();
        world.answer(false);
        assert_eq!(world.session.received(4), Err(NeverSent));
        assert_eq!(world.session.received(2), Ok(true));
        assert_eq!(world.session.received(1), Ok(false));
        assert_eq!(world.session.acked(), Place { epoch: 1, seq: 2 });
    }

    #[test]
    fn a_floor_over_the_next_event_ends_the_session() {
        let mut world = World::new(0, 9);
        world.step();
        world.reading = None;
        assert!(world.session.read_done(Some(Head { head: 9, floor: 4 })).is_err());
    }
}
