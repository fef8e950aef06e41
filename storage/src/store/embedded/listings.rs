//! Who may list conversations now. A listing costs what the user has, not what it answers, so listings have a few of the readers and never all, and
//! one user has one at a time: an attach or a page of history waits for no listing.

use std::hash::{BuildHasher as _, RandomState};

use protocol::UserId;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::store::StoreError;

/// Listings at once.
const LISTINGS: usize = 2;
/// Users share a queue with one in so many others.
const QUEUES: usize = 1024;

/// The turns.
#[derive(Debug)]
pub(super) struct Listings {
    queues: Box<[Semaphore]>,
    at_once: Semaphore,
    hasher: RandomState,
}

/// Held while a listing runs.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _all: SemaphorePermit<'a>,
    _own: SemaphorePermit<'a>,
}

impl Listings {
    /// Leaves at least one of so many readers, if there are two.
    pub(super) fn new(readers: usize) -> Self {
        let at_once = LISTINGS.min(readers.saturating_sub(1)).max(1);
        let queues = (0..QUEUES).map(|_| Semaphore::new(1)).collect();
        Self { queues, at_once: Semaphore::new(at_once), hasher: RandomState::new() }
    }

    /// Waits until this user may list: behind the own ones first, so that who asks often is in the common queue once.
    pub(super) async fn turn(&self, user: UserId) -> Result<Turn<'_>, StoreError> {
        let closed = |error: tokio::sync::AcquireError| StoreError::Unavailable(error.to_string());
        let own = self.queues[self.queue(user)].acquire().await.map_err(closed)?;
        let all = self.at_once.acquire().await.map_err(closed)?;
        Ok(Turn { _all: all, _own: own })
    }

    fn queue(&self, user: UserId) -> usize {
        // seeded: nobody can choose a number that waits behind another's
        usize::try_from(self.hasher.hash_one(user) % QUEUES as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn users(listings: &Listings) -> [UserId; 3] {
        let mut users: Vec<UserId> = Vec::new();
        for user in (1..).filter_map(UserId::new) {
            if users.iter().all(|other| listings.queue(*other) != listings.queue(user)) {
                users.push(user);
            }
            if users.len() == 3 {
                break;
            }
        }
        users.try_into().unwrap()
    }

    #[tokio::test]
    async fn one_of_a_user_and_a_few_of_all() {
        let listings = Listings::new(16);
        let [one, two, three] = users(&listings);
        let first = listings.turn(one).now_or_never().expect("free").unwrap();
        assert!(listings.turn(one).now_or_never().is_none(), "one of a user");
        let second = listings.turn(two).now_or_never().expect("the other one").unwrap();
        assert!(listings.turn(three).now_or_never().is_none(), "two of all");
        drop(first);
        let third = listings.turn(three).now_or_never().expect("free again").unwrap();
        drop((second, third));
        assert!(listings.turn(one).now_or_never().is_some());
    }

    #[tokio::test]
    async fn readers_are_left_for_the_others() {
        let listings = Listings::new(2);
        let [one, two, _] = users(&listings);
        let _first = listings.turn(one).await.unwrap();
        assert!(listings.turn(two).now_or_never().is_none());
    }
}
