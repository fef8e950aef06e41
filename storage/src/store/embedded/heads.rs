//! Heads of recent mailboxes in memory, readable from any thread: so that a device that is at its head costs no read.
//!
//! Bounded: each part keeps two generations; when the young one is full it becomes the old one, and what was old is forgotten.

use std::collections::HashMap;

use parking_lot::Mutex;
use protocol::UserId;

use crate::store::Head;

const PARTS: usize = 64;

#[derive(Debug, Default)]
struct Part {
    young: HashMap<UserId, Head>,
    old: HashMap<UserId, Head>,
    /// Grows with each write, so that a reader who looked into the store before it does not put back what it read.
    version: u64,
}

impl Part {
    fn put(&mut self, owner: UserId, head: Head, room: usize) {
        if self.young.len() >= room && !self.young.contains_key(&owner) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(owner, head);
    }

    fn get(&mut self, owner: UserId, room: usize) -> Option<Head> {
        if let Some(head) = self.young.get(&owner) {
            return Some(*head);
        }
        let head = self.old.remove(&owner)?;
        self.put(owner, head, room);
        Some(head)
    }
}

/// A promise to fill in a missing head, void as soon as anybody wrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(u64);

/// The heads.
#[derive(Debug)]
pub(super) struct Heads {
    parts: Box<[Mutex<Part>]>,
    room: usize,
}

impl Heads {
    /// Keeps at least the `count` heads used last, at most twice as many.
    pub(super) fn new(count: usize) -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), room: count.div_ceil(PARTS).max(1) }
    }

    fn part(&self, owner: UserId) -> &Mutex<Part> {
        // Fibonacci hashing: neighbouring ids go to different parts
        let spread = owner.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        &self.parts[spread as usize % PARTS]
    }

    /// The head, or a ticket with which to fill it in after reading the store.
    pub(super) fn get(&self, owner: UserId) -> Result<Head, Ticket> {
        let mut part = self.part(owner).lock();
        part.get(owner, self.room).ok_or(Ticket(part.version))
    }

    /// Fills in what was read from the store, unless somebody wrote meanwhile.
    pub(super) fn fill(&self, owner: UserId, head: Head, ticket: Ticket) {
        let mut part = self.part(owner).lock();
        if part.version == ticket.0 {
            part.put(owner, head, self.room);
        }
    }

    /// Sets what has been committed.
    pub(super) fn set(&self, owner: UserId, head: Head) {
        let mut part = self.part(owner).lock();
        part.version += 1;
        part.old.remove(&owner);
        part.put(owner, head, self.room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u64) -> UserId {
        UserId::from_stored(number)
    }

    #[test]
    fn a_late_reader_does_not_put_back_an_old_head() {
        let heads = Heads::new(1);
        let ticket = heads.get(user(1)).unwrap_err();
        heads.set(user(1), Head { head: 5, floor: 0 });
        // pushed out again by others of its part
        (2..2000).for_each(|other| heads.set(user(other), Head::default()));
        heads.fill(user(1), Head { head: 4, floor: 0 }, ticket);
        assert!(heads.get(user(1)).is_err());
    }

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let heads = Heads::new(640);
        for round in 0..20_000 {
            heads.set(user(round + 2), Head { head: 1, floor: 0 });
            if round == 0 {
                heads.set(user(1), Head { head: 7, floor: 0 });
            }
            assert_eq!(heads.get(user(1)).unwrap().head, 7);
        }
        let size = |part: &Mutex<Part>| {
            let part = part.lock();
            part.young.len() + part.old.len()
        };
        let kept: usize = heads.parts.iter().map(size).sum();
        assert!(kept <= 2 * 640 + PARTS, "{kept}");
    }
}
