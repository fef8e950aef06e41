//! Which receipts a session was told: pure. They go out ascending by revision, and everything up to the newest one told was told: so a client
//! that keeps the newest revision misses nothing. Pushes are told as they come; where some were missed (before the session was live, or more than
//! its outbox holds) they are read from the store, and pushes wait behind that.

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Wait,
    /// Read the receipts above this revision, and hand the answer to [`Told::read`].
    Read(u64),
    /// Open the outbox to pushes, and hand what it says to [`Told::opened`].
    Open,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// The session is not live.
    #[default]
    Before,
    /// Those above `after` are to be read.
    Due,
    /// They are being read.
    Reading,
    /// All there are have been read.
    Complete,
    /// Pushes are told as they come.
    Open,
}

/// How far one session was told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    phase: Phase,
    /// Whether there is a place behind which all are wanted.
    wanted: bool,
    /// Everything up to here was told, or is not wanted.
    after: u64,
}

impl Told {
    /// A hello with this revision: those above it are wanted. None: only what changes from now on.
    pub fn hello(&mut self, rev: Option<u64>) {
        *self = Self { phase: Phase::Before, wanted: rev.is_some(), after: rev.unwrap_or(0) };
    }

    /// The session is live. What the client wants again comes first.
    pub fn live(&mut self) {
        if self.phase == Phase::Before {
            self.phase = if self.wanted { Phase::Due } else { Phase::Complete };
        }
    }

    /// What to do now.
    pub fn next_step(&mut self) -> Next {
        match self.phase {
            Phase::Due => {
                self.phase = Phase::Reading;
                Next::Read(self.after)
            }
            Phase::Complete => Next::Open,
            Phase::Before | Phase::Reading | Phase::Open => Next::Wait,
        }
    }

    /// A read is answered: the newest revision in it, and whether there may be more. `None`: it failed and is due again.
    pub fn read(&mut self, answer: Option<(Option<u64>, bool)>) {
        if self.phase != Phase::Reading {
            return; // another hello has come meanwhile
        }
        let Some((newest, more)) = answer else {
            self.phase = Phase::Due;
            return;
        };
        self.after = newest.unwrap_or(self.after);
        self.phase = if more { Phase::Due } else { Phase::Complete };
    }

    /// The outbox is open to pushes; or it was not opened, because a push with this revision was let go before.
    pub fn opened(&mut self, missed: Option<u64>) {
        match missed {
            None => self.phase = Phase::Open,
            Some(missed) => self.missed(missed),
        }
    }

    /// Pushes from this revision on were let go. All below have been told.
    pub fn missed(&mut self, rev: u64) {
        let before = rev.saturating_sub(1);
        self.after = if self.wanted { self.after.min(before) } else { before };
        self.wanted = true;
        if matches!(self.phase, Phase::Open | Phase::Complete) {
            self.phase = Phase::Due;
        }
    }

    /// A push was told.
    pub fn pushed(&mut self, rev: u64) {
        (self.wanted, self.after) = (true, self.after.max(rev));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ROOM: usize = 3;
    const PAGE: usize = 2;

    /// A mailbox's receipts, an outbox with little room, and a client that keeps what it is told.
    #[derive(Default)]
    struct World {
        stored: BTreeMap<u8, u64>,
        rev: u64,
        waits: BTreeMap<u8, u64>,
        open: bool,
        missed: Option<u64>,
        told: Told,
        reading: Option<u64>,
        client: BTreeMap<u8, u64>,
        newest: u64,
        /// What changed before is not wanted.
        unwanted: u64,
    }

    impl World {
        fn change(&mut self, key: u8) {
            self.rev += 1;
            self.stored.insert(key, self.rev);
            let room = self.waits.len() < ROOM || self.waits.contains_key(&key);
            if self.open && self.missed.is_none() && room {
                self.waits.insert(key, self.rev);
            } else {
                self.missed.get_or_insert(self.rev);
            }
        }

        fn tell(&mut self, key: u8, rev: u64) {
            self.client.insert(key, rev);
            self.newest = self.newest.max(rev);
            // a client that stops here and comes back with `newest` must not have lost anything
            for (key, rev) in &self.stored {
                let known = self.client.get(key) == Some(rev) || *rev <= self.unwanted;
                assert!(
                    known || *rev > self.newest || self.waits.get(key).is_some_and(|waits| waits == rev),
                    "{key} at {rev} is lost"
                );
            }
        }

        /// The session is woken.
        fn wake(&mut self) {
            let mut waits: Vec<_> = std::mem::take(&mut self.waits).into_iter().collect();
            waits.sort_by_key(|(_, rev)| *rev);
            // taken together: those that still wait are told by the same system call
            for (at, (key, rev)) in waits.iter().enumerate() {
                self.waits = waits[at + 1..].iter().copied().collect();
                self.tell(*key, *rev);
                self.told.pushed(*rev);
            }
            if self.open
                && let Some(missed) = self.missed.take()
            {
                self.open = false;
                self.told.missed(missed);
            }
            match self.told.next_step() {
                Next::Wait => {}
                Next::Read(after) => self.reading = Some(after),
                Next::Open => {
                    let missed = self.missed.take();
                    self.open = missed.is_none();
                    self.told.opened(missed);
                }
            }
        }

        fn answer(&mut self, fail: bool) {
            let Some(after) = self.reading.take() else { return };
            if fail {
                return self.told.read(None);
            }
            let mut page: Vec<_> = self.stored.iter().filter(|(_, rev)| **rev > after).map(|(key, rev)| (*key, *rev)).collect();
            page.sort_by_key(|(_, rev)| *rev);
            page.truncate(PAGE);
            for (key, rev) in &page {
                self.tell(*key, *rev);
            }
            self.told.read(Some((page.last().map(|(_, rev)| *rev), page.len() == PAGE)));
        }
    }

    proptest! {
        #[test]
        fn a_client_that_keeps_the_newest_revision_misses_nothing(
            before in 0..8_u8,
            inputs in proptest::collection::vec((0..4_u8, 0..6_u8), 0..120),
        ) {
            let mut world = World::default();
            world.told.hello(Some(0));
            (0..before).for_each(|key| world.change(key));
            // those changed while it was away: nobody noted them
            world.missed = None;
            for (what, key) in inputs {
                match what {
                    0 => world.change(key),
                    1 => world.wake(),
                    2 => world.answer(key == 0),
                    _ => world.told.live(),
                }
            }
            world.told.live();
            for _ in 0..40 {
                world.wake();
                world.answer(false);
            }
            prop_assert_eq!(&world.client, &world.stored, "in the end it has all of them");
            prop_assert!(world.open);
        }
    }

    #[test]
    fn without_a_revision_only_what_changes_is_told() {
        let mut world = World::default();
        (0..5).for_each(|key| world.change(key));
        (world.missed, world.unwanted) = (None, world.rev);
        world.told.hello(None);
        world.told.live();
        world.wake();
        assert!(world.open, "nothing is read");
        world.change(9);
        world.wake();
        assert_eq!(world.client.keys().collect::<Vec<_>>(), [&9]);
    }

    #[test]
    fn what_came_while_it_caught_up_is_read_even_without_a_revision() {
        let mut world = World::default();
        world.told.hello(None);
        world.change(1);
        world.told.live();
        world.wake();
        world.wake();
        world.answer(false);
        assert_eq!(world.client.keys().collect::<Vec<_>>(), [&1]);
    }
}
