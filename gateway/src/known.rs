//! Devices that the store is known to know: one of these that attaches with a cursor of its own need not be made known to the store again.
//!
//! Bounded in number and in time. Two generations: when the young one is full or an hour old it becomes the old one, and what was old is forgotten.
//! Being asked for keeps nobody here: after two hours at most the store is asked again, which is also how it hears that a quiet device is alive, and how
//! one comes back that a database set back has lost. Kept are hashes under a random key: one entry is eight bytes, and nobody can choose a name that is
//! taken for another's.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::{DeviceName, UserId};
use tokio::time::Instant;

/// Devices in a generation.
const ROOM: usize = 100_000;
/// A generation becomes old after this.
const AGE: Duration = Duration::from_secs(3600);

/// Keys are hashes already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only hashes are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Hashes = HashSet<u64, BuildHasherDefault<AsItIs>>;

#[derive(Debug)]
struct Generations {
    young: Hashes,
    old: Hashes,
    since: Instant,
}

/// The devices of late.
#[derive(Debug)]
pub struct Known {
    key: RandomState,
    generations: Mutex<Generations>,
}

impl Default for Known {
    fn default() -> Self {
        let generations = Generations { young: Hashes::default(), old: Hashes::default(), since: Instant::now() };
        Self { key: RandomState::new(), generations: Mutex::new(generations) }
    }
}

impl Known {
    fn hash(&self, user: UserId, device: &DeviceName, epoch: u64) -> u64 {
        self.key.hash_one((user, device, epoch))
    }

    /// Whether the store has this device in this incarnation of its mailbox.
    pub fn has(&self, user: UserId, device: &DeviceName, epoch: u64) -> bool {
        let hash = self.hash(user, device, epoch);
        let mut generations = self.generations.lock();
        generations.turn(Instant::now());
        generations.young.contains(&hash) || generations.old.contains(&hash)
    }

    /// The store has it.
    pub fn add(&self, user: UserId, device: &DeviceName, epoch: u64) {
        let hash = self.hash(user, device, epoch);
        let mut generations = self.generations.lock();
        generations.turn(Instant::now());
        generations.young.insert(hash);
    }
}

impl Generations {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= 2 * AGE {
            // nobody has come for so long: both are too old
            self.young.clear();
        }
        if age >= AGE || self.young.len() >= ROOM {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceName {
        name.parse().unwrap()
    }

    #[test]
    fn known_is_who_was_added() {
        let known = Known::default();
        let (user, other) = (UserId::from_stored(1), UserId::from_stored(2));
        known.add(user, &device("phone"), 1);
        assert!(known.has(user, &device("phone"), 1));
        assert!(!known.has(user, &device("phone"), 2), "another incarnation");
        assert!(!known.has(user, &device("tablet"), 1) && !known.has(other, &device("phone"), 1));
    }

    #[test]
    fn it_is_bounded_in_number() {
        let known = Known::default();
        for user in 1..=3 * ROOM as u64 {
            known.add(UserId::from_stored(user), &device("phone"), 1);
        }
        let generations = known.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * ROOM);
        drop(generations);
        assert!(known.has(UserId::from_stored(3 * ROOM as u64), &device("phone"), 1));
        assert!(!known.has(UserId::from_stored(1), &device("phone"), 1));
    }

    #[test]
    fn it_is_bounded_in_time() {
        let known = Known::default();
        let user = UserId::from_stored(1);
        known.add(user, &device("phone"), 1);
        let mut now = Instant::now();
        for still in [true, false] {
            now += AGE;
            known.generations.lock().turn(now);
            assert_eq!(known.has(user, &device("phone"), 1), still);
        }
        known.add(user, &device("phone"), 1);
        known.generations.lock().turn(now + 2 * AGE);
        assert!(!known.has(user, &device("phone"), 1), "also when nobody came meanwhile");
    }
}
