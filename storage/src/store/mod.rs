//! The port to where mailboxes are kept. [`embedded`] (fjall and SQLite) serves; [`memory`] is the simulation's; [`postgres`] a cluster's.
//! `contract` (behind the feature of that name) is the suite that all of them run.

use std::sync::Arc;

use async_trait::async_trait;
use protocol::limits::UNREAD_MAX;
use protocol::receipt::{Marks, Receipt};
use protocol::record::{BodyHash, Event, EventBody, Identity, Link, Message, Source};
use protocol::{ConversationId, DeviceName, Position, Seq, UserId};
use router::expand::ShardId;

use crate::receipt::{ReceiptKey, ReceiptRow};

#[cfg(feature = "contract")]
pub mod contract;
pub mod embedded;
pub mod memory;
pub mod postgres;

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another owner has the shard, or this one's view of its checkpoint is old. Drop everything in memory and stop.
    #[error("fenced: the checkpoint of shard {0} is not the expected one")]
    Fenced(u16),
    /// A key of the commit exists already: nothing was done. Ask for the keys, leave out what is known, and go again.
    #[error("a key of the commit in shard {0} is known already")]
    Conflict(u16),
    /// Nothing was done; later it may work.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A commit that may have been done: read the checkpoint, never guess.
    #[error("the outcome of a commit is unknown")]
    Unknown,
    /// Stored bytes cannot be read.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// How far a shard's log is worked in, and by whom. The compare-and-set that makes one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Which owner: grows by one with each acquire.
    pub owner_epoch: u64,
    /// The next offset of the shard's mailbox log to be worked in.
    pub offset: u64,
}

/// A shard that was taken: where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acquired {
    /// The checkpoint, with the owner epoch of the taker.
    pub checkpoint: Checkpoint,
    /// Fingerprint of the log record before [`Checkpoint::offset`], so that a log that was cut and refilled is noticed. 0 at the beginning, and
    /// from a store that stands behind no log.
    pub fingerprint: u64,
    /// Incarnation of the shard's mailboxes; a person raises it when they were restored to another numbering.
    pub stream_epoch: u64,
    /// The high-waters written last.
    pub high_waters: Vec<HighWater>,
}

/// Newest and oldest of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The newest seq; 0: empty.
    pub head: Seq,
    /// Everything up to here is gone by retention; 0: nothing is.
    pub floor: Seq,
}

/// Key by which a repeat is known: one row of it for each owner. With `refused` it marks the refusal of that body, so that it is written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyOf {
    /// Whose mailbox.
    pub owner: UserId,
    /// Which message.
    pub identity: Identity,
    /// Which body was refused; none: the message itself.
    pub refused: Option<u128>,
}

/// What a key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRow {
    /// Its event in the owner's mailbox; none: it was left out there.
    pub seq: Option<Seq>,
    /// The body that was first.
    pub body_hash: BodyHash,
    /// Where it was first.
    pub position: Position,
}

/// One new event of one mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose mailbox.
    pub owner: UserId,
    /// The event.
    pub event: Event,
}

/// High-water of one source at one shard: the last link taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HighWater {
    /// Which source partition.
    pub source: Source,
    /// The last link taken from it.
    pub link: Link,
}

/// One batch of one shard: all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Compare: the checkpoint must be this.
    pub expect: Checkpoint,
    /// And set: this offset, same owner.
    pub next_offset: u64,
    /// Fingerprint of the log record before `next_offset`.
    pub fingerprint: u64,
    /// New events, ascending seq for each owner. A message that several owners get is shared by its `Arc`, and stored once.
    pub rows: Vec<Row>,
    /// New keys. One that exists already fails the whole commit with [`StoreError::Conflict`].
    pub keys: Vec<(KeyOf, KeyRow)>,
    /// New high-waters, if they are to be written with this batch.
    pub high_waters: Vec<HighWater>,
    /// Receipts that have changed, as they are now: each row once.
    pub receipts: Vec<ReceiptRow>,
    /// Mailboxes of which everything delivered up to a seq is in receipts. Raised, never lowered.
    pub through: Vec<(UserId, Seq)>,
}

/// Part of a mailbox, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// Incarnation of the mailbox that the seqs belong to.
    pub epoch: u64,
    /// Events after the asked-for seq, dense.
    pub events: Vec<Event>,
    /// The mailbox at the time of reading.
    pub head: Head,
}

/// A page of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages; order by the call that made it.
    pub messages: Vec<Arc<Message>>,
    /// Where the next page continues; none: there is none.
    pub before: Option<Position>,
}

/// What was delivered to a member and is not in receipts yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Up to which seq of the member's mailbox that is looked at.
    pub through: Seq,
    /// The newest message of others in each conversation.
    pub newest: Vec<(ConversationId, Position)>,
}

/// What one's list of conversations says of one of them, beside its last message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Messages of others behind one's own read position: at most [`UNREAD_MAX`], and among the newest [`UNREAD_ROWS`] of the conversation; a store
    /// may look at so many in all of one page, then this is what it found.
    pub unread: u32,
    /// One's own read position.
    pub read: Position,
    /// The watermarks of the other members.
    pub others: Vec<(UserId, Marks)>,
}

/// Messages looked at in one conversation to count what is unread: so who only ever sends, and never reads, costs no more.
pub const UNREAD_ROWS: usize = 4 * UNREAD_MAX as usize;

/// Mailbox rows one call of [`Store::delivered`] looks at.
pub const DELIVERED_ROWS: usize = 4096;

/// When a device was last there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whose.
    pub owner: UserId,
    /// Which device.
    pub device: DeviceName,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
}

/// A device's cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Whose.
    pub owner: UserId,
    /// Which device.
    pub device: DeviceName,
    /// Incarnation of the mailbox that the seq belongs to.
    pub epoch: u64,
    /// Everything up to here is acknowledged.
    pub seq: Seq,
}

/// A place in one incarnation of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The incarnation.
    pub epoch: u64,
    /// The seq.
    pub seq: Seq,
}

/// What retention did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retained {
    /// Mailbox events removed.
    pub events: u64,
    /// Messages removed.
    pub messages: u64,
    /// Identity keys removed.
    pub keys: u64,
}

/// What retention removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    /// Events whose message was taken before this, milliseconds since 1970. Floors rise over them; never over a newer event.
    pub events_before_ms: u64,
    /// Keys whose id's own time is before this. At least [`protocol::limits::KEY_DAYS_MIN`] ago, or a repeat could come again.
    pub keys_before_ms: u64,
}

/// A page ends when its messages weigh this much ([`EventBody::weight`]); one message always fits.
pub const PAGE_BYTES: usize = 192 * 1024;

impl Page {
    /// Whether this one still fits behind those there are.
    pub(crate) fn has_room(&self, weighs: &mut usize, message: &Message) -> bool {
        *weighs += message.weight();
        self.messages.is_empty() || *weighs <= PAGE_BYTES
    }
}

/// Where mailboxes are kept. Reads see a commit at once when it has returned; every read is one snapshot.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Takes a shard: raises its owner epoch, so that every commit of the owner before is fenced, and says where to go on.
    async fn acquire(&self, shard: ShardId) -> Result<Acquired, StoreError>;

    /// The checkpoint as it is: to learn what became of a commit with an unknown outcome.
    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError>;

    /// Writes one batch atomically and durably, the compare-and-set first.
    async fn commit(&self, shard: ShardId, commit: Commit) -> Result<(), StoreError>;

    /// How far the shard's follower has come in its log; 0 at the beginning.
    async fn followed(&self, shard: ShardId) -> Result<u64, StoreError>;

    /// Remembers how far the follower has come. Any follower may write it, that of a former owner
    /// too, in any order: the furthest stays.
    async fn save_followed(&self, shard: ShardId, offset: u64) -> Result<(), StoreError>;

    /// The row of each key, in order.
    async fn keys(&self, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError>;

    /// Whether some device of each key's owner has acknowledged its event, in order; true also when there is no such event (any more). A store that
    /// cannot say believes so, which is the default.
    async fn reached(&self, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<bool>, StoreError> {
        let _ = shard;
        Ok(vec![true; keys.len()])
    }

    /// The head of each mailbox, in order.
    async fn heads(&self, shard: ShardId, owners: &[UserId]) -> Result<Vec<Head>, StoreError>;

    /// Events after `after`, at most `max_events` and about `max_bytes` ([`EventBody::weight`]), at least one if there is one.
    async fn read(&self, owner: UserId, after: Seq, max_events: u32, max_bytes: u32) -> Result<Slice, StoreError>;

    /// The newest messages of a conversation before a position, ascending: `limit` of them, or as many as fit into [`PAGE_BYTES`]. `reader` names the shard to ask.
    async fn history(
        &self,
        reader: UserId,
        conversation: ConversationId,
        before: Position,
        limit: u32,
    ) -> Result<Page, StoreError>;

    /// The last message of each of a user's conversations, most recently active first. `before` is what the page before said, and means
    /// nothing else: positions of different conversations do not compare.
    async fn conversations(&self, owner: UserId, before: Position, limit: u32) -> Result<Page, StoreError>;

    /// A device's cursor in the present stream epoch. A device never seen (in it) is born now, durably, before this returns: at the seq it says
    /// it has, else at the present head.
    async fn cursor(&self, owner: UserId, device: &DeviceName, says: Option<Seq>) -> Result<Place, StoreError>;

    /// Raises cursors; a lower one, or one of another stream epoch, changes nothing. May be lost by a crash: then events come again, and the
    /// client drops them by seq. An error may mean that some are saved and others not: save them all again.
    async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError>;

    /// The newest place of each mailbox, in order; none: the part of the store that has it does not answer now.
    async fn newest(&self, owners: &[UserId]) -> Result<Vec<Option<Place>>, StoreError>;

    /// The stream epoch of a mailbox as this process knows it, without asking: what a client is told before its shard has answered.
    fn known_epoch(&self, owner: UserId) -> u64;

    /// The watermarks of each row, in order; none: nothing was ever marked. As all that follows: a store that keeps no receipts says so, which is
    /// the default.
    async fn receipts(&self, shard: ShardId, keys: &[ReceiptKey]) -> Result<Vec<Option<Marks>>, StoreError> {
        let _ = shard;
        Ok(vec![None; keys.len()])
    }

    /// Receipts of a mailbox with a revision above this one, ascending by it, at most `limit`.
    async fn receipts_since(&self, owner: UserId, rev: u64, limit: u32) -> Result<Vec<Receipt>, StoreError> {
        let _ = (owner, rev, limit);
        Ok(Vec::new())
    }

    /// What of a mailbox has been delivered when its owner has acknowledged up to a place, and is not in receipts yet: between [`Commit::through`] and
    /// that place, at most [`DELIVERED_ROWS`] of it. Up to `after` it is told by marks that are on their way. None: nothing, or a place of another
    /// stream epoch.
    async fn delivered(&self, owner: UserId, acknowledged: Place, after: Seq) -> Result<Option<Delivered>, StoreError> {
        let _ = (owner, acknowledged, after);
        Ok(None)
    }

    /// The position of the last message of each of these conversations in the owner's mailbox, in order; none: nothing was said there.
    async fn last_positions(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Option<Position>>, StoreError>;

    /// What the owner's list says of these conversations, in order.
    async fn standings(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Standing>, StoreError> {
        let _ = owner;
        Ok(vec![Standing::default(); conversations.len()])
    }

    /// Remembers when devices were there. May be lost by a crash.
    async fn save_seen(&self, seen: &[Seen]) -> Result<(), StoreError> {
        let _ = seen;
        Ok(())
    }

    /// When the last device of each user was there, as far as it is remembered, in order, milliseconds since 1970.
    async fn last_seen(&self, users: &[UserId]) -> Result<Vec<Option<u64>>, StoreError> {
        Ok(vec![None; users.len()])
    }

    /// Removes what is too old.
    async fn retain(&self, cutoff: Cutoff) -> Result<Retained, StoreError>;
}

/// Bytes an event counts for in [`Store::read`].
pub fn weight(body: &EventBody) -> u32 {
    u32::try_from(body.weight()).unwrap_or(u32::MAX)
}
