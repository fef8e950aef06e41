//! Removing what is too old, in small steps: a step holds the writer for some milliseconds, then a commit may go first.

use std::collections::HashMap;
use std::ops::Bound;

use fjall::{OwnedWriteBatch, PersistMode, Readable, Snapshot, UserKey};
use protocol::UserId;
use protocol::record::EventBody;

use super::Mailboxes;
use super::engine::unreadable;
use super::layout::{self, Body, BodyKey};
use crate::store::{Cutoff, Head, Retained, StoreError};

/// Bodies or keys a step looks at.
const STEP: usize = 128;
/// Bodies in a row that are too new before a pass takes it that all others are too. Not one: a clock that once ran ahead must not stop it.
const NEWER_IN_A_ROW: usize = 1024;

/// How far a pass has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What it removed.
    pub(super) retained: Retained,
    begun: bool,
    from: Option<BodyKey>,
    /// Something was left standing: the next pass has to begin there.
    left: bool,
    newer: usize,
    bodies_done: bool,
    keys_done: bool,
}

impl Progress {
    pub(super) fn done(&self) -> bool {
        self.bodies_done && self.keys_done
    }
}

/// Up to where earlier passes removed everything, so that a pass need not walk over what they left behind until it is compacted away.
/// Forgotten with the process: then one pass walks.
#[derive(Debug, Default)]
pub(super) struct Resume {
    bodies: Option<BodyKey>,
    keys: Option<UserKey>,
}

/// One step's view: what it reads, and what it is about to write.
struct Step<'a> {
    mailboxes: &'a Mailboxes,
    snapshot: Snapshot,
    batch: OwnedWriteBatch,
    heads: HashMap<UserId, Head>,
    cutoff_ms: u64,
    retained: Retained,
}

impl Mailboxes {
    /// Goes on a little. Synced like every batch, though nobody waits for it: so only the last batch of a journal can be torn ([`super::torn`]).
    pub(super) fn retain_step(&self, cutoff: Cutoff, progress: &mut Progress) -> Result<(), StoreError> {
        if !progress.begun {
            progress.begun = true;
            progress.from = self.resume.lock().bodies;
            progress.bodies_done = cutoff.events_before_ms == 0;
        }
        if progress.bodies_done { self.keys_step(cutoff, progress) } else { self.bodies_step(cutoff, progress) }
    }

    fn bodies_step(&self, cutoff: Cutoff, progress: &mut Progress) -> Result<(), StoreError> {
        // looked for without holding up the writer, read again with it
        let from = progress.from.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.engine.database.snapshot().range::<BodyKey, _>(&self.engine.bodies, (from, Bound::Unbounded));
        let found: Result<Vec<_>, _> =
            range.take(STEP).map(|guard| layout::body_key_of(&guard.key().map_err(unreadable)?)).collect();
        let found = found?;
        let _writer = self.writer.lock();
        let mut step = Step {
            mailboxes: self,
            snapshot: self.engine.database.snapshot(),
            batch: self.engine.batch(STEP * 6, Some(PersistMode::SyncData)),
            heads: HashMap::new(),
            cutoff_ms: cutoff.events_before_ms,
            retained: Retained::default(),
        };
        let mut resume = None;
        for key in &found {
            progress.from = Some(*key);
            let Some(body) = self.body_in(&step.snapshot, key)? else { continue };
            if layout::taken_ms(&body.body) < step.cutoff_ms {
                progress.newer = 0;
                progress.left |= !step.remove(key, &body)?;
            } else {
                progress.newer += 1;
                progress.left = true;
            }
            resume = if progress.left { resume } else { Some(*key) };
        }
        progress.bodies_done = found.len() < STEP || progress.newer >= NEWER_IN_A_ROW;
        let Step { mut batch, heads, retained, .. } = step;
        for (owner, head) in &heads {
            batch.insert(&self.engine.heads, layout::head_key(*owner), layout::head_value(*head));
        }
        self.engine.commit(batch)?;
        for (owner, head) in heads {
            self.heads.set(owner, head);
        }
        progress.retained.events += retained.events;
        progress.retained.messages += retained.messages;
        if resume.is_some() {
            self.resume.lock().bodies = resume;
        }
        Ok(())
    }

    fn keys_step(&self, cutoff: Cutoff, progress: &mut Progress) -> Result<(), StoreError> {
        let from = self.resume.lock().keys.clone();
        let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let before = layout::first_key_at(cutoff.keys_before_ms);
        let nothing = matches!(from, Bound::Excluded(from) if *from >= before[..]);
        let bounds = (from, Bound::Excluded(&before[..]));
        let range = (!nothing).then(|| self.engine.database.snapshot().range::<&[u8], _>(&self.engine.keys, bounds));
        let mut batch = self.engine.batch(STEP, Some(PersistMode::SyncData));
        let (mut seen, mut last) = (0, None);
        for guard in range.into_iter().flatten().take(STEP) {
            let (key, value) = guard.into_inner().map_err(unreadable)?;
            progress.retained.keys += layout::keys_of(&value)?.len() as u64;
            batch.remove(&self.engine.keys, key.clone());
            (seen, last) = (seen + 1, Some(key));
        }
        progress.keys_done = seen < STEP;
        let _writer = self.writer.lock();
        self.engine.commit(batch)?;
        if last.is_some() {
            self.resume.lock().keys = last;
        }
        Ok(())
    }
}

impl Step<'_> {
    /// Lifts the floors of all mailboxes an old body is in; gone from all of them, it goes itself. Says whether it does.
    fn remove(&mut self, key: &BodyKey, body: &Body) -> Result<bool, StoreError> {
        let mut gone = true;
        for (owner, seq) in &body.places {
            let mut head = match self.heads.get(owner) {
                Some(head) => *head,
                None => self.mailboxes.head_in(&self.snapshot, *owner)?,
            };
            let before = head.floor;
            while head.floor < *seq && self.may_go(*owner, head.floor + 1, key)? {
                head.floor += 1;
                self.batch.remove(&self.mailboxes.engine.mailbox, layout::mailbox_key(*owner, head.floor));
                self.retained.events += 1;
            }
            gone &= head.floor >= *seq;
            if head.floor > before {
                self.heads.insert(*owner, head);
            }
        }
        if gone {
            self.remove_body(key, body)?;
        }
        Ok(gone)
    }

    /// Whether the event at this place is old too: a floor rises over old events only.
    fn may_go(&self, owner: UserId, seq: u64, key: &BodyKey) -> Result<bool, StoreError> {
        let engine = &self.mailboxes.engine;
        let row = self.snapshot.get(&engine.mailbox, layout::mailbox_key(owner, seq)).map_err(unreadable)?;
        let other = layout::body_key_of(&row.ok_or_else(|| layout::damaged("a mailbox has a hole"))?)?;
        if other == *key {
            return Ok(true);
        }
        let body = self.mailboxes.body_in(&self.snapshot, &other)?;
        Ok(body.is_none_or(|body| layout::taken_ms(&body.body) < self.cutoff_ms))
    }

    fn remove_body(&mut self, key: &BodyKey, body: &Body) -> Result<(), StoreError> {
        let engine = &self.mailboxes.engine;
        self.batch.remove(&engine.bodies, *key);
        let EventBody::Message(message) = &body.body else { return Ok(()) };
        self.retained.messages += 1;
        let conversation = message.record.identity.conversation;
        self.batch.remove(&engine.history, layout::history_key(conversation, message.position));
        for (owner, _) in &body.places {
            let row = layout::conversation_key(*owner, conversation);
            let last = self.snapshot.get(&engine.conversations, row).map_err(unreadable)?;
            if last.is_some_and(|last| last[..] == message.position.get().to_be_bytes()) {
                self.batch.remove(&engine.conversations, row);
            }
        }
        Ok(())
    }
}
