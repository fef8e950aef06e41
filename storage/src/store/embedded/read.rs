//! Reads: each one snapshot.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use fjall::{Readable, Snapshot};
use protocol::record::{Event, EventBody, Message};
use protocol::{ConversationId, Position, Seq, UserId};

use super::Mailboxes;
use super::engine::unreadable;
use super::layout::{self, Body, NUMBERED};
use crate::store::{Head, KeyOf, KeyRow, Page, Slice, StoreError, weight};

/// Conversations kept while a page of them is chosen: well above the largest page.
const CANDIDATES: usize = 512;

impl Mailboxes {
    /// The head, from memory if it is there.
    pub(super) fn head_now(&self, owner: UserId) -> Result<Head, StoreError> {
        let ticket = match self.heads.get(owner) {
            Ok(head) => return Ok(head),
            Err(ticket) => ticket,
        };
        let head = self.head_in(&self.engine.database.snapshot(), owner)?;
        self.heads.fill(owner, head, ticket);
        Ok(head)
    }

    pub(super) fn head_in(&self, snapshot: &Snapshot, owner: UserId) -> Result<Head, StoreError> {
        let value = snapshot.get(&self.engine.heads, layout::head_key(owner)).map_err(unreadable)?;
        value.map_or(Ok(Head::default()), |value| layout::head_of(&value))
    }

    /// The row of each key, in order; owners of one identity share a look-up.
    pub(super) fn keys_now(&self, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError> {
        let snapshot = self.engine.database.snapshot();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|at| (keys[*at].identity, keys[*at].refused));
        let mut rows = vec![None; keys.len()];
        let mut last: Option<(&KeyOf, Option<fjall::UserValue>)> = None;
        for at in order {
            let key = &keys[at];
            let same = last.as_ref().is_some_and(|(other, _)| other.identity == key.identity && other.refused == key.refused);
            if !same {
                let bytes = layout::identity_key(&key.identity, key.refused);
                last = Some((key, snapshot.get(&self.engine.keys, bytes).map_err(unreadable)?));
            }
            if let Some((_, Some(value))) = &last {
                rows[at] = layout::find_key(value, key)?;
            }
        }
        Ok(rows)
    }

    pub(super) fn body_in(&self, snapshot: &Snapshot, key: &[u8]) -> Result<Option<Body>, StoreError> {
        let value = snapshot.get(&self.engine.bodies, key).map_err(unreadable)?;
        value.map(|value| layout::body_of(key, &value)).transpose()
    }

    fn message_in(
        &self,
        snapshot: &Snapshot,
        position: Position,
        conversation: ConversationId,
    ) -> Result<Option<Arc<Message>>, StoreError> {
        let body = self.body_in(snapshot, &layout::body_key(position, conversation))?;
        Ok(body.and_then(|body| match body.body {
            EventBody::Message(message) => Some(message),
            EventBody::Refused(_) => None,
        }))
    }

    /// The events after a seq. Below the floor there are none to go on with: only the head is told.
    pub(super) fn read_now(&self, owner: UserId, after: Seq, max_events: u32, max_bytes: u32) -> Result<Slice, StoreError> {
        let snapshot = self.engine.database.snapshot();
        let head = self.head_in(&snapshot, owner)?;
        let mut slice = Slice { epoch: 0, events: Vec::new(), head };
        if after >= head.head || after < head.floor || max_events == 0 {
            return Ok(slice);
        }
        let range = layout::mailbox_key(owner, after + 1)..=layout::mailbox_key(owner, head.head);
        let (mut bytes, mut next) = (0_u32, after + 1);
        for guard in snapshot.range(&self.engine.mailbox, range) {
            let (key, value) = guard.into_inner().map_err(unreadable)?;
            if *key != layout::mailbox_key(owner, next) {
                return Err(layout::damaged("a mailbox has a hole"));
            }
            let body = self.body_in(&snapshot, &layout::body_key_of(&value)?)?;
            let body = body.ok_or_else(|| layout::damaged("an event without its body"))?.body;
            bytes = bytes.saturating_add(weight(&body));
            if bytes > max_bytes && !slice.events.is_empty() {
                return Ok(slice);
            }
            slice.events.push(Event { seq: next, body });
            if slice.events.len() >= max_events as usize {
                return Ok(slice);
            }
            next += 1;
        }
        if next <= head.head {
            return Err(layout::damaged("a mailbox ends before its head"));
        }
        Ok(slice)
    }

    pub(super) fn history_now(&self, conversation: ConversationId, before: Position, limit: u32) -> Result<Page, StoreError> {
        let snapshot = self.engine.database.snapshot();
        let range = layout::history_key(conversation, Position::default())..layout::history_key(conversation, before);
        let (mut page, mut weighs) = (Page::default(), 0);
        for guard in snapshot.range(&self.engine.history, range).rev() {
            let position = layout::history_position(&guard.key().map_err(unreadable)?)?;
            let message = self.message_in(&snapshot, position, conversation)?;
            let message = message.ok_or_else(|| layout::damaged("a history row without its message"))?;
            if page.messages.len() >= limit as usize || !page.has_room(&mut weighs, &message) {
                page.before = page.messages.last().map(|message| message.position);
                break;
            }
            page.messages.push(message);
        }
        page.messages.reverse();
        Ok(page)
    }

    /// Walks all conversations of the owner, which is linear in their number; memory is not: it keeps [`CANDIDATES`] at most.
    pub(super) fn conversations_now(&self, owner: UserId, before: Position, limit: u32) -> Result<Page, StoreError> {
        let snapshot = self.engine.database.snapshot();
        let (mut page, mut weighs, mut before) = (Page::default(), 0, before);
        loop {
            let newest = self.newest_in(&snapshot, owner, before, CANDIDATES)?;
            // another walk only if so many conversations have lost their last message to retention and are not tidied yet
            let more = newest.len() == CANDIDATES;
            for (position, conversation) in newest {
                before = position;
                let Some(message) = self.message_in(&snapshot, position, conversation)? else { continue };
                if page.messages.len() >= limit as usize || !page.has_room(&mut weighs, &message) {
                    page.before = page.messages.last().map(|message| message.position);
                    return Ok(page);
                }
                page.messages.push(message);
            }
            if !more {
                return Ok(page);
            }
        }
    }

    /// The newest conversations of an owner before a position, at most so many, newest first.
    fn newest_in(
        &self,
        snapshot: &Snapshot,
        owner: UserId,
        before: Position,
        count: usize,
    ) -> Result<Vec<(Position, ConversationId)>, StoreError> {
        // the oldest of those kept is on top
        let mut newest = BinaryHeap::with_capacity(count + 1);
        for guard in snapshot.prefix(&self.engine.conversations, owner.get().to_be_bytes()) {
            let (key, value) = guard.into_inner().map_err(unreadable)?;
            debug_assert_eq!(key.len(), NUMBERED);
            let position = layout::position_of(&value)?;
            if position < before {
                newest.push(Reverse((position, layout::conversation_of(&key)?)));
                if newest.len() > count {
                    newest.pop();
                }
            }
        }
        Ok(newest.into_sorted_vec().into_iter().map(|Reverse(one)| one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EmbeddedStore, Options};
    use super::*;
    use crate::store::contract::{Writer, message, user};

    #[tokio::test]
    async fn the_newest_are_chosen_whatever_the_order_of_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
        let mut writer = Writer::acquire(&store).await;
        // positions 1 to 9, in an order that is not that of the conversations
        let with = [7, 3, 9, 2, 8, 4, 10, 6, 5];
        for (with, number) in with.into_iter().zip(1..) {
            writer.message(&message(with, 1, number), &[(1, number)]);
        }
        writer.commit().await.unwrap();
        let chosen = |before, count| {
            let snapshot = store.mailboxes.engine.database.snapshot();
            let newest = store.mailboxes.newest_in(&snapshot, user(1), before, count).unwrap();
            newest.into_iter().map(|(_, conversation)| conversation).collect::<Vec<_>>()
        };
        let of = |with: &[u64]| with.iter().map(|with| ConversationId::direct(user(1), user(*with))).collect::<Vec<_>>();
        assert_eq!(chosen(Position::MAX, 3), of(&[5, 6, 10]));
        assert_eq!(chosen(message(6, 1, 8).position, 4), of(&[10, 4, 8, 2]), "before is excluded");
        assert_eq!(chosen(Position::MAX, 100).len(), 9);
        assert_eq!(chosen(Position::MAX, 0), []);
    }
}
