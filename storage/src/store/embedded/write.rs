//! Commits: one batch, one fsync, compare-and-set first. One writer at a time.

use std::collections::HashMap;
use std::time::Instant;

use fjall::{OwnedWriteBatch, PersistMode, Readable};
use protocol::plant::{Bug, planted};
use protocol::record::EventBody;
use protocol::{Position, Seq, UserId};
use router::expand::{ShardId, owners};

use super::Mailboxes;
use super::engine::unreadable;
use super::layout::{self, BodyKey, KeyEntry};
use crate::store::{Checkpoint, Commit, Head, HighWater, KeyOf, KeyRow, Row, StoreError};

/// What the committer knows already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: look for each key and each body.
    Nothing,
    /// It has just looked for every key, and positions are its own and new. Whoever writes between moves the checkpoint, so it is enough
    /// to compare that.
    Keys,
}

/// What only the one writer may touch.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Of each shard that was acquired or asked for.
    pub(super) checkpoints: HashMap<u16, Checkpoint>,
}

type Bodies<'a> = HashMap<BodyKey, (&'a EventBody, Vec<(UserId, Seq)>)>;

impl Mailboxes {
    pub(super) fn acquire_now(&self, shard: ShardId) -> Result<(Checkpoint, Vec<HighWater>), StoreError> {
        let mut writer = self.writer.lock();
        let mut checkpoint = self.load_checkpoint(&mut writer, shard)?;
        checkpoint.owner_epoch += 1;
        let mut batch = self.engine.batch(1, Some(PersistMode::SyncData));
        batch.insert(&self.engine.checkpoints, shard.0.to_be_bytes(), layout::checkpoint_value(checkpoint));
        self.engine.commit(batch)?;
        writer.checkpoints.insert(shard.0, checkpoint);
        let mut high_waters = Vec::new();
        for guard in self.engine.database.snapshot().prefix(&self.engine.checkpoints, shard.0.to_be_bytes()) {
            let (key, value) = guard.into_inner().map_err(unreadable)?;
            if key.len() == 6 {
                high_waters.push(HighWater { source: layout::source_of(&key)?, link: layout::link_of(&value)? });
            }
        }
        Ok((checkpoint, high_waters))
    }

    pub(super) fn checkpoint_now(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        self.load_checkpoint(&mut self.writer.lock(), shard)
    }

    fn load_checkpoint(&self, writer: &mut Writer, shard: ShardId) -> Result<Checkpoint, StoreError> {
        if let Some(checkpoint) = writer.checkpoints.get(&shard.0) {
            return Ok(*checkpoint);
        }
        let value = self.engine.checkpoints.get(shard.0.to_be_bytes()).map_err(unreadable)?;
        let checkpoint = value.map_or(Ok(Checkpoint::default()), |value| layout::checkpoint_of(&value))?;
        writer.checkpoints.insert(shard.0, checkpoint);
        Ok(checkpoint)
    }

    /// Writes a batch; when it has returned, the batch is on disk and every read sees it.
    pub(super) fn commit_now(&self, shard: ShardId, commit: &Commit, known: Known) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        if self.load_checkpoint(&mut writer, shard)? != commit.expect && !planted(Bug::NoFence) {
            return Err(StoreError::Fenced(shard.0));
        }
        let mode = (!planted(Bug::NoFsync)).then_some(PersistMode::SyncData);
        let mut batch = self.engine.batch(commit.rows.len() * 5 + commit.receipts.len() * 3 + commit.through.len() + 8, mode);
        let heads = self.put_rows(&mut batch, shard, &commit.rows)?;
        self.put_bodies(&mut batch, &commit.rows, known)?;
        self.put_conversations(&mut batch, &commit.rows, known)?;
        self.put_keys(&mut batch, shard, &commit.keys, known)?;
        self.put_receipts(&mut batch, &commit.receipts)?;
        let through = self.put_through(&mut batch, &commit.through)?;
        for high_water in &commit.high_waters {
            let key = layout::source_key(shard.0, high_water.source);
            batch.insert(&self.engine.checkpoints, key, layout::link_value(high_water.link));
        }
        let checkpoint = Checkpoint { owner_epoch: commit.expect.owner_epoch, offset: commit.next_offset };
        batch.insert(&self.engine.checkpoints, shard.0.to_be_bytes(), layout::checkpoint_value(checkpoint));
        let start = Instant::now();
        self.engine.commit(batch)?;
        self.engine.fsync.record(start.elapsed());
        writer.checkpoints.insert(shard.0, checkpoint);
        for (owner, head) in heads {
            self.heads.set(owner, head);
        }
        for (member, seq) in through {
            self.through.set(member, Head { head: seq, floor: 0 });
        }
        Ok(())
    }

    /// Mailbox rows and heads. A row that is not the next of its mailbox means that the writer's view is old.
    fn put_rows(&self, batch: &mut OwnedWriteBatch, shard: ShardId, rows: &[Row]) -> Result<HashMap<UserId, Head>, StoreError> {
        let mut heads: HashMap<UserId, Head> = HashMap::with_capacity(rows.len());
        for row in rows {
            let head = match heads.get_mut(&row.owner) {
                Some(head) => head,
                None => {
                    let head = self.head_now(row.owner)?;
                    heads.entry(row.owner).or_insert(head)
                }
            };
            head.head += 1;
            if row.event.seq != head.head {
                return Err(StoreError::Fenced(shard.0));
            }
            let body = layout::body_key(row.event.body.position(), row.event.body.conversation());
            batch.insert(&self.engine.mailbox, layout::mailbox_key(row.owner, row.event.seq), body);
        }
        for (owner, head) in &heads {
            batch.insert(&self.engine.heads, layout::head_key(*owner), layout::head_value(*head));
        }
        Ok(heads)
    }

    /// Each body once, with the mailboxes it is in.
    fn put_bodies(&self, batch: &mut OwnedWriteBatch, rows: &[Row], known: Known) -> Result<(), StoreError> {
        let mut bodies: Bodies<'_> = HashMap::with_capacity(rows.len());
        for row in rows {
            let body = &row.event.body;
            let key = layout::body_key(body.position(), body.conversation());
            bodies.entry(key).or_insert((body, Vec::with_capacity(2))).1.push((row.owner, row.event.seq));
        }
        for (key, (body, places)) in &mut bodies {
            if known == Known::Nothing
                && let Some(value) = self.engine.bodies.get(key).map_err(unreadable)?
            {
                let before = layout::body_of(key, &value)?;
                if before.body != **body {
                    return Err(layout::damaged("another body has this position"));
                }
                places.splice(0..0, before.places);
            }
            batch.insert(&self.engine.bodies, *key, layout::body_value(body, places));
            if let EventBody::Message(message) = body {
                let key = layout::history_key(message.record.identity.conversation, message.position);
                batch.insert(&self.engine.history, key, message.record.identity.sender.get().to_be_bytes());
            }
        }
        Ok(())
    }

    fn put_conversations(&self, batch: &mut OwnedWriteBatch, rows: &[Row], known: Known) -> Result<(), StoreError> {
        let mut last: HashMap<BodyKey, Position> = HashMap::with_capacity(rows.len());
        for row in rows {
            let EventBody::Message(message) = &row.event.body else { continue };
            let at = last.entry(layout::conversation_key(row.owner, message.record.identity.conversation)).or_default();
            *at = message.position.max(*at);
        }
        for (key, position) in last {
            let mut position = position;
            if known == Known::Nothing
                && let Some(value) = self.engine.conversations.get(key).map_err(unreadable)?
            {
                position = position.max(layout::position_of(&value)?);
            }
            batch.insert(&self.engine.conversations, key, position.get().to_be_bytes());
        }
        Ok(())
    }

    fn put_keys(
        &self,
        batch: &mut OwnedWriteBatch,
        shard: ShardId,
        keys: &[(KeyOf, KeyRow)],
        known: Known,
    ) -> Result<(), StoreError> {
        let mut rows: HashMap<Vec<u8>, (KeyOf, Vec<KeyEntry>)> = HashMap::with_capacity(keys.len());
        for (key, row) in keys {
            let entries = rows.entry(layout::identity_key(&key.identity, key.refused)).or_insert((*key, Vec::with_capacity(2)));
            entries.1.push((key.owner, *row));
        }
        for (bytes, (key, mut entries)) in rows {
            let complete = key.refused.is_some() || entries.len() == owners(key.identity.conversation).len();
            if (known == Known::Nothing || !complete)
                && let Some(value) = self.engine.keys.get(&bytes).map_err(unreadable)?
            {
                entries.splice(0..0, layout::keys_of(&value)?);
            }
            let twice = entries.iter().enumerate().any(|(at, (owner, _))| entries[..at].iter().any(|(other, _)| other == owner));
            if twice {
                return Err(StoreError::Conflict(shard.0));
            }
            batch.insert(&self.engine.keys, bytes, layout::keys_value(&entries));
        }
        Ok(())
    }
}
