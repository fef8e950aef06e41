//! Sends that go out several times under one id, as those of impatient clients do.

use std::collections::VecDeque;

use tokio::time::Instant;
use uuid::Uuid;

use crate::actor::Item;

/// So many repeated sends are remembered: more than can be unanswered on a connection.
const KEPT: usize = 64;

/// The repeated sends of one lane.
///
/// A copy may be refused for the moment after the first attempt was accepted. The server then waits for that id before
/// it takes anything else for the conversation, so the copy must come again.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    sent: VecDeque<Item>,
    again: VecDeque<(Instant, Item)>,
}

impl Echoes {
    /// This item went out more than once.
    pub(super) fn remember(&mut self, item: Item) {
        if self.sent.len() >= KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back(item);
    }

    /// A copy was refused though its send is settled: it is to come again at `at`.
    pub(super) fn put_back(&mut self, id: Uuid, at: Instant) {
        if let Some(item) = self.sent.iter().find(|item| item.id == id) {
            self.again.push_back((at, item.clone()));
        }
    }

    /// The next copy whose time has come.
    pub(super) fn take(&mut self, now: Instant) -> Option<Item> {
        self.again.front().filter(|(at, _)| *at <= now)?;
        self.again.pop_front().map(|(_, item)| item)
    }

    /// When the next copy is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.again.front().map(|(at, _)| *at)
    }

    /// The connection is gone, and what it refused with it.
    pub(super) fn clear(&mut self) {
        self.again.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_copy_comes_again_until_the_connection_ends() {
        let mut echoes = Echoes::default();
        let (id, now) = (Uuid::now_v7(), Instant::now());
        echoes.remember(Item { id, to: "u:1".to_owned(), text: "x".to_owned() });
        echoes.put_back(Uuid::now_v7(), now);
        assert!(echoes.take(now).is_none(), "an id that was not repeated");
        echoes.put_back(id, now);
        assert_eq!(echoes.take(now).map(|item| item.id), Some(id));
        echoes.put_back(id, now);
        echoes.clear();
        assert!(echoes.next_at().is_none());
    }
}
