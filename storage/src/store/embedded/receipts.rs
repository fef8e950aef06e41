//! Receipts of mailboxes: rows, their order by revision, and what can be told of a mailbox that is not in them yet.

use std::collections::HashMap;
use std::ops::Bound;

use fjall::{OwnedWriteBatch, Readable, Snapshot};
use protocol::limits::UNREAD_MAX;
use protocol::receipt::{Marks, Receipt};
use protocol::record::EventBody;
use protocol::{ConversationId, Position, Seq, UserId};
use router::expand::owners;

use super::Mailboxes;
use super::engine::unreadable;
use super::layout;
use crate::receipt::{ReceiptKey, ReceiptRow};
use crate::store::{DELIVERED_ROWS, Delivered, Head, Standing, StoreError, UNREAD_ROWS};

impl Mailboxes {
    pub(super) fn receipts_now(&self, keys: &[ReceiptKey]) -> Result<Vec<Option<Marks>>, StoreError> {
        let snapshot = self.engine.database.snapshot();
        keys.iter().map(|key| Ok(self.receipt_in(&snapshot, key)?.map(|(marks, _)| marks))).collect()
    }

    fn receipt_in(&self, snapshot: &Snapshot, key: &ReceiptKey) -> Result<Option<(Marks, u64)>, StoreError> {
        let value = snapshot.get(&self.engine.receipts, layout::receipt_key(key)).map_err(unreadable)?;
        value.map(|value| layout::receipt_of(&value)).transpose()
    }

    /// Into the batch of a commit: the rows, each in the place of its revision; and how far deliveries are told. For the one writer.
    pub(super) fn put_receipts(&self, batch: &mut OwnedWriteBatch, rows: &[ReceiptRow]) -> Result<(), StoreError> {
        let engine = &self.engine;
        for ReceiptRow { owner, receipt } in rows {
            let key = ReceiptKey { owner: *owner, conversation: receipt.conversation, member: receipt.member };
            let bytes = layout::receipt_key(&key);
            if let Some(before) = engine.receipts.get(bytes).map_err(unreadable)? {
                let (_, rev) = layout::receipt_of(&before)?;
                batch.remove(&engine.revisions, layout::revision_key(*owner, rev));
            }
            batch.insert(&engine.receipts, bytes, layout::receipt_value(receipt));
            batch.insert(&engine.revisions, layout::revision_key(*owner, receipt.rev), layout::revision_value(receipt));
        }
        Ok(())
    }

    /// Returns those that are raised.
    pub(super) fn put_through(
        &self,
        batch: &mut OwnedWriteBatch,
        through: &[(UserId, Seq)],
    ) -> Result<Vec<(UserId, Seq)>, StoreError> {
        let mut raised = Vec::with_capacity(through.len());
        for (member, seq) in through {
            if *seq > self.through_now(*member)? {
                batch.insert(&self.engine.receipts, layout::head_key(*member), seq.to_be_bytes());
                raised.push((*member, *seq));
            }
        }
        Ok(raised)
    }

    /// Up to where deliveries are told, from memory if it is there.
    pub(super) fn through_now(&self, member: UserId) -> Result<Seq, StoreError> {
        let ticket = match self.through.get(member) {
            Ok(known) => return Ok(known.head),
            Err(ticket) => ticket,
        };
        let seq = self.through_in(&self.engine.database.snapshot(), member)?;
        self.through.fill(member, Head { head: seq, floor: 0 }, ticket);
        Ok(seq)
    }

    fn through_in(&self, snapshot: &Snapshot, member: UserId) -> Result<Seq, StoreError> {
        let value = snapshot.get(&self.engine.receipts, layout::head_key(member)).map_err(unreadable)?;
        value.map_or(Ok(0), |value| layout::position_of(&value).map(Position::get))
    }

    pub(super) fn receipts_since_now(&self, owner: UserId, rev: u64, limit: u32) -> Result<Vec<Receipt>, StoreError> {
        let snapshot = self.engine.database.snapshot();
        let (after, last) = (layout::revision_key(owner, rev), layout::revision_key(owner, u64::MAX));
        let range = snapshot.range(&self.engine.revisions, (Bound::Excluded(after), Bound::Included(last)));
        let mut receipts = Vec::new();
        for guard in range.take(limit as usize) {
            let (conversation, member) = layout::revision_of(&guard.value().map_err(unreadable)?)?;
            let row = self.receipt_in(&snapshot, &ReceiptKey { owner, conversation, member })?;
            let (marks, rev) = row.ok_or_else(|| layout::damaged("a revision without its receipt"))?;
            receipts.push(Receipt { conversation, member, marks, rev });
        }
        Ok(receipts)
    }

    /// Newest first, so that of each conversation one row of others is enough.
    pub(super) fn delivered_now(&self, owner: UserId, acknowledged: Seq, after: Seq) -> Result<Option<Delivered>, StoreError> {
        let snapshot = self.engine.database.snapshot();
        let told = self.through_in(&snapshot, owner)?.max(after);
        let head = self.head_in(&snapshot, owner)?;
        let from = told.max(head.floor);
        let through = acknowledged.min(head.head).min(from.saturating_add(DELIVERED_ROWS as u64));
        if through <= told {
            return Ok(None);
        }
        if through <= from {
            return Ok(Some(Delivered { through, newest: Vec::new() }));
        }
        let mut newest = HashMap::new();
        let range = layout::mailbox_key(owner, from + 1)..=layout::mailbox_key(owner, through);
        for guard in snapshot.range(&self.engine.mailbox, range).rev() {
            let body = layout::body_key_of(&guard.value().map_err(unreadable)?)?;
            let (position, conversation) = (layout::position_of(&body)?, layout::conversation_of(&body)?);
            if newest.contains_key(&conversation) || owners(conversation).len() < 2 {
                continue;
            }
            // none: a refusal, or a message that retention has taken meanwhile
            let row = snapshot.get(&self.engine.history, layout::history_key(conversation, position)).map_err(unreadable)?;
            if let Some(row) = row
                && self.is_of_others(&snapshot, owner, (conversation, position), &row)?
            {
                newest.insert(conversation, position);
            }
        }
        Ok(Some(Delivered { through, newest: newest.into_iter().collect() }))
    }

    /// Whether a row of the history is a message of somebody else. It says so itself; one written by an older build doesn't, but its body does.
    fn is_of_others(
        &self,
        snapshot: &Snapshot,
        owner: UserId,
        (conversation, position): (ConversationId, Position),
        row: &[u8],
    ) -> Result<bool, StoreError> {
        if let Some(sender) = layout::sender_of(row)? {
            return Ok(sender != owner);
        }
        let body = self.body_in(snapshot, &layout::body_key(position, conversation))?;
        Ok(body.is_some_and(|body| matches!(body.body, EventBody::Message(message) if message.record.identity.sender != owner)))
    }

    pub(super) fn last_positions_now(
        &self,
        owner: UserId,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Position>>, StoreError> {
        let last = |conversation: &ConversationId| {
            let value = self.engine.conversations.get(layout::conversation_key(owner, *conversation)).map_err(unreadable)?;
            value.map(|value| layout::position_of(&value)).transpose()
        };
        conversations.iter().map(last).collect()
    }

    pub(super) fn standings_now(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Standing>, StoreError> {
        let snapshot = self.engine.database.snapshot();
        let (mut rows, mut standings) = (Rows::of(conversations.len()), Vec::with_capacity(conversations.len()));
        for conversation in conversations {
            let (standing, looked_at) = self.standing_in(&snapshot, owner, *conversation, rows.next())?;
            rows.took(looked_at);
            standings.push(standing);
        }
        Ok(standings)
    }

    /// Counts among at most so many rows, and says how many it looked at.
    fn standing_in(
        &self,
        snapshot: &Snapshot,
        owner: UserId,
        conversation: ConversationId,
        rows: usize,
    ) -> Result<(Standing, usize), StoreError> {
        let mut standing = Standing::default();
        for member in owners(conversation) {
            let row = self.receipt_in(snapshot, &ReceiptKey { owner, conversation, member })?;
            let marks = row.map(|(marks, _)| marks).unwrap_or_default();
            if member == owner {
                standing.read = marks.read;
            } else {
                standing.others.push((member, marks));
            }
        }
        let behind = Bound::Excluded(layout::history_key(conversation, standing.read));
        let end = Bound::Included(layout::history_key(conversation, Position::MAX));
        let mut looked_at = 0;
        for guard in snapshot.range(&self.engine.history, (behind, end)).rev().take(rows) {
            looked_at += 1;
            let (key, value) = guard.into_inner().map_err(unreadable)?;
            let position = layout::history_position(&key)?;
            standing.unread += u32::from(self.is_of_others(snapshot, owner, (conversation, position), &value)?);
            if standing.unread == UNREAD_MAX {
                break;
            }
        }
        Ok((standing, looked_at))
    }
}

/// Rows of history that one page of standings may look at: [`UNREAD_ROWS`] in all. A few are kept for each conversation still to come, so that
/// full ones hide no other's.
struct Rows {
    left: usize,
    to_come: usize,
    kept: usize,
}

/// Rows kept for each conversation of a page, if the page is not too long for it.
const ROWS_KEPT: usize = UNREAD_ROWS / 100;

impl Rows {
    fn of(conversations: usize) -> Self {
        let kept = ROWS_KEPT.min(UNREAD_ROWS / conversations.max(1));
        Self { left: UNREAD_ROWS, to_come: conversations, kept }
    }

    /// How many the next conversation may take.
    fn next(&mut self) -> usize {
        self.to_come = self.to_come.saturating_sub(1);
        self.left.saturating_sub(self.to_come * self.kept)
    }

    fn took(&mut self, rows: usize) {
        self.left = self.left.saturating_sub(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EmbeddedStore, Options};
    use super::*;
    use crate::store::contract::{Writer, message, user};
    use crate::store::{Place, Store};

    #[test]
    fn a_page_looks_at_so_many_rows_in_all() {
        assert_eq!(Rows::of(1).next(), UNREAD_ROWS, "alone it has all");
        for conversations in [1, 2, 7, 100, 5000] {
            let (mut rows, mut all) = (Rows::of(conversations), 0);
            for _ in 0..conversations {
                let may = rows.next();
                assert!(may >= ROWS_KEPT || conversations > 100, "each has a few");
                rows.took(may);
                all += may;
            }
            assert_eq!(all, UNREAD_ROWS);
        }
        let mut rows = Rows::of(2);
        let first = rows.next();
        rows.took(10);
        assert_eq!((first, rows.next()), (UNREAD_ROWS - ROWS_KEPT, UNREAD_ROWS - 10), "what is not taken goes on");
    }

    /// One whose rows are many leaves the others' counts what they can be.
    #[tokio::test]
    async fn a_full_conversation_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
        let mut writer = Writer::acquire(&store).await;
        // what one has sent oneself is looked at and not counted: it would use all rows up
        let own = UNREAD_ROWS as u64 + 100;
        for number in 1..=own {
            writer.message(&message(1, 2, number), &[(1, number)]);
        }
        for number in own + 1..=own + 3 {
            writer.message(&message(3, 1, number), &[(1, number)]);
        }
        writer.commit().await.unwrap();
        let names = [2, 3].map(|with| ConversationId::direct(user(1), user(with)));
        let unread: Vec<_> = store.standings(user(1), &names).await.unwrap().iter().map(|one| one.unread).collect();
        assert_eq!(unread, [0, 3]);
    }

    /// A folder of an older build has no sender in the rows of its history.
    #[tokio::test]
    async fn rows_of_older_builds_are_looked_up_in_the_body() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Options::default()).await.unwrap();
        let mut writer = Writer::acquire(&store).await;
        let messages = [message(2, 1, 1), message(1, 2, 2), message(2, 1, 3), message(1, 2, 4)];
        for (message, seq) in messages.iter().zip(1..) {
            writer.message(message, &[(1, seq)]);
        }
        writer.commit().await.unwrap();
        let conversation = messages[0].record.identity.conversation;
        let engine = &store.mailboxes.engine;
        let mut batch = engine.batch(4, Some(fjall::PersistMode::SyncData));
        for message in &messages {
            batch.insert(&engine.history, layout::history_key(conversation, message.position), []);
        }
        engine.commit(batch).unwrap();
        let delivered = store.delivered(user(1), Place { epoch: 1, seq: 4 }, 0).await.unwrap().unwrap();
        assert_eq!(delivered.newest, [(conversation, messages[2].position)]);
        assert_eq!(store.standings(user(1), &[conversation]).await.unwrap()[0].unread, 2);
    }
}
