//! The stored form of mailboxes: keys are fixed-width and big-endian, so that they sort as they are read. They never change; values start
//! with a kind, so that new ones can be told apart.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `bodies` | position, conversation | kind, (owner, seq) of each mailbox it is in, Protobuf |
//! | `mailbox` | owner, seq | position, conversation |
//! | `history` | conversation, position | sender; nothing in rows of older builds |
//! | `keys` | message id, sender, conversation \[, refused hash\] | (owner, seq, position, body hash) of each owner |
//! | `conversations` | owner, conversation | position of the last message |
//! | `heads` | owner | head, floor |
//! | `receipts` | owner, conversation, member | delivered, read, revision |
//! | `receipts` | owner | seq up to which deliveries are told |
//! | `revisions` | owner, revision | conversation, member of the receipt that changed then |
//! | `checkpoints` | shard \[, source\] | owner epoch, offset; or a link |
//!
//! Bodies lie in the order of arrival: new ones only ever go to the end, so the engine has nothing to merge there, and retention is one
//! range from the front. So does `keys`, by the time in the id.

use std::sync::Arc;

use protocol::receipt::{Marks, Receipt};
use protocol::record::{BodyHash, EventBody, Identity, Link, Message, Record, Refusal, Source};
use protocol::{ConversationId, Position, Seq, UserId};

use crate::receipt::ReceiptKey;
use crate::store::{Checkpoint, Head, KeyOf, KeyRow, StoreError};

const CONVERSATION: usize = ConversationId::KEY_LEN;
/// Length of keys made of one number and a conversation.
pub(super) const NUMBERED: usize = 8 + CONVERSATION;
const MESSAGE: u8 = 1;
const REFUSAL: u8 = 2;
const HAS_SEQ: u8 = 1;

/// A key in `bodies`; also the value in `mailbox`.
pub(super) type BodyKey = [u8; NUMBERED];

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

pub(super) fn body_key(position: Position, conversation: ConversationId) -> BodyKey {
    numbered(position.get(), conversation)
}

pub(super) fn conversation_key(owner: UserId, conversation: ConversationId) -> [u8; NUMBERED] {
    numbered(owner.get(), conversation)
}

fn numbered(number: u64, conversation: ConversationId) -> [u8; NUMBERED] {
    let mut key = [0; NUMBERED];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&conversation.key());
    key
}

pub(super) fn history_key(conversation: ConversationId, position: Position) -> [u8; NUMBERED] {
    let mut key = [0; NUMBERED];
    key[..CONVERSATION].copy_from_slice(&conversation.key());
    key[CONVERSATION..].copy_from_slice(&position.get().to_be_bytes());
    key
}

pub(super) fn mailbox_key(owner: UserId, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&owner.get().to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

pub(super) fn head_key(owner: UserId) -> [u8; 8] {
    owner.get().to_be_bytes()
}

/// The sender in a history row; none in a row of an older build.
pub(super) fn sender_of(value: &[u8]) -> Result<Option<UserId>, StoreError> {
    if value.is_empty() { Ok(None) } else { Take(value).u64().map(|number| Some(UserId::from_stored(number))) }
}

pub(super) fn receipt_key(key: &ReceiptKey) -> [u8; NUMBERED + 8] {
    let mut bytes = [0; NUMBERED + 8];
    bytes[..NUMBERED].copy_from_slice(&numbered(key.owner.get(), key.conversation));
    bytes[NUMBERED..].copy_from_slice(&key.member.get().to_be_bytes());
    bytes
}

pub(super) fn receipt_value(receipt: &Receipt) -> [u8; 24] {
    let mut value = [0; 24];
    value[..16].copy_from_slice(&two(receipt.marks.delivered.get(), receipt.marks.read.get()));
    value[16..].copy_from_slice(&receipt.rev.to_be_bytes());
    value
}

/// The watermarks and the revision in a row.
pub(super) fn receipt_of(value: &[u8]) -> Result<(Marks, u64), StoreError> {
    let mut take = Take(value);
    let mut position = || take.u64().map(Position::from_stored);
    Ok((Marks { delivered: position()?, read: position()? }, take.u64()?))
}

pub(super) fn revision_key(owner: UserId, rev: u64) -> [u8; 16] {
    two(owner.get(), rev)
}

pub(super) fn revision_value(receipt: &Receipt) -> [u8; NUMBERED] {
    numbered(receipt.member.get(), receipt.conversation)
}

pub(super) fn revision_of(value: &[u8]) -> Result<(ConversationId, UserId), StoreError> {
    Ok((conversation_of(value)?, UserId::from_stored(Take(value).u64()?)))
}

/// One row for each identity, whoever the owners are; a refusal has its own.
pub(super) fn identity_key(identity: &Identity, refused: Option<u128>) -> Vec<u8> {
    let mut key = Vec::with_capacity(16 + 8 + CONVERSATION + 16);
    key.extend_from_slice(identity.id.bytes());
    key.extend_from_slice(&identity.sender.get().to_be_bytes());
    key.extend_from_slice(&identity.conversation.key());
    if let Some(hash) = refused {
        key.extend_from_slice(&hash.to_be_bytes());
    }
    key
}

/// The first key of an id whose own time is this or later.
pub(super) fn first_key_at(time_ms: u64) -> [u8; 6] {
    let mut key = [0; 6];
    key.copy_from_slice(&time_ms.min((1 << 48) - 1).to_be_bytes()[2..]);
    key
}

pub(super) fn source_key(shard: u16, source: Source) -> [u8; 6] {
    let mut key = [0; 6];
    key[..2].copy_from_slice(&shard.to_be_bytes());
    key[2..4].copy_from_slice(&source.partition.to_be_bytes());
    key[4..].copy_from_slice(&source.epoch.to_be_bytes());
    key
}

pub(super) fn source_of(key: &[u8]) -> Result<Source, StoreError> {
    let mut take = Take(key.get(2..).ok_or_else(|| damaged("a source key"))?);
    Ok(Source { partition: u16::from_be_bytes(take.array()?), epoch: u16::from_be_bytes(take.array()?) })
}

/// Reads fixed-width fields from the front.
struct Take<'a>(&'a [u8]);

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| damaged("a row is cut short"))?;
        self.0 = rest;
        Ok(*front)
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }
}

fn two(one: u64, other: u64) -> [u8; 16] {
    (u128::from(one) << 64 | u128::from(other)).to_be_bytes()
}

pub(super) fn head_value(head: Head) -> [u8; 16] {
    two(head.head, head.floor)
}

pub(super) fn head_of(value: &[u8]) -> Result<Head, StoreError> {
    let mut take = Take(value);
    Ok(Head { head: take.u64()?, floor: take.u64()? })
}

pub(super) fn checkpoint_value(checkpoint: Checkpoint) -> [u8; 16] {
    two(checkpoint.owner_epoch, checkpoint.offset)
}

pub(super) fn checkpoint_of(value: &[u8]) -> Result<Checkpoint, StoreError> {
    let mut take = Take(value);
    Ok(Checkpoint { owner_epoch: take.u64()?, offset: take.u64()? })
}

pub(super) fn link_value(link: Link) -> [u8; 16] {
    two(link.next_offset, link.digest)
}

pub(super) fn link_of(value: &[u8]) -> Result<Link, StoreError> {
    let mut take = Take(value);
    Ok(Link { next_offset: take.u64()?, digest: take.u64()? })
}

pub(super) fn position_of(value: &[u8]) -> Result<Position, StoreError> {
    Take(value).u64().map(Position::from_stored)
}

/// A conversation from the end of a key that starts with a number.
pub(super) fn conversation_of(key: &[u8]) -> Result<ConversationId, StoreError> {
    key.get(8..).and_then(ConversationId::from_key).ok_or_else(|| damaged("a conversation key"))
}

/// The position at the end of a history key.
pub(super) fn history_position(key: &[u8]) -> Result<Position, StoreError> {
    position_of(key.get(CONVERSATION..).ok_or_else(|| damaged("a history key"))?)
}

/// The body key in a mailbox row.
pub(super) fn body_key_of(value: &[u8]) -> Result<BodyKey, StoreError> {
    value.try_into().map_err(|_| damaged("a mailbox row"))
}

/// One owner's entry in a row of `keys`.
pub(super) type KeyEntry = (UserId, KeyRow);

pub(super) fn keys_value(entries: &[KeyEntry]) -> Vec<u8> {
    let mut value = Vec::with_capacity(entries.len() * 41);
    for (owner, row) in entries {
        value.push(if row.seq.is_some() { HAS_SEQ } else { 0 });
        value.extend_from_slice(&owner.get().to_be_bytes());
        value.extend_from_slice(&row.seq.unwrap_or(0).to_be_bytes());
        value.extend_from_slice(&row.position.get().to_be_bytes());
        value.extend_from_slice(&row.body_hash.0.to_be_bytes());
    }
    value
}

pub(super) fn keys_of(value: &[u8]) -> Result<Vec<KeyEntry>, StoreError> {
    let mut take = Take(value);
    let mut entries = Vec::with_capacity(2);
    while !take.0.is_empty() {
        let [flags] = take.array()?;
        let owner = UserId::from_stored(take.u64()?);
        let seq = take.u64()?;
        let position = Position::from_stored(take.u64()?);
        let body_hash = BodyHash(u128::from_be_bytes(take.array()?));
        entries.push((owner, KeyRow { seq: (flags & HAS_SEQ != 0).then_some(seq), body_hash, position }));
    }
    Ok(entries)
}

pub(super) fn find_key(value: &[u8], key: &KeyOf) -> Result<Option<KeyRow>, StoreError> {
    Ok(keys_of(value)?.into_iter().find(|(owner, _)| *owner == key.owner).map(|(_, row)| row))
}

/// A row of `bodies`.
pub(super) struct Body {
    /// Mailboxes it is in.
    pub(super) places: Vec<(UserId, Seq)>,
    /// What it is.
    pub(super) body: EventBody,
}

pub(super) fn body_value(body: &EventBody, places: &[(UserId, Seq)]) -> Vec<u8> {
    let (kind, bytes) = match body {
        EventBody::Message(message) => (MESSAGE, message.record.encode()),
        EventBody::Refused(refusal) => (REFUSAL, refusal.encode()),
    };
    let count = u16::try_from(places.len()).expect("a body goes to at most 1,024 members of a group");
    let mut value = Vec::with_capacity(3 + places.len() * 16 + bytes.len());
    value.push(kind);
    value.extend_from_slice(&count.to_be_bytes());
    for (owner, seq) in places {
        value.extend_from_slice(&mailbox_key(*owner, *seq));
    }
    value.extend_from_slice(&bytes);
    value
}

pub(super) fn body_of(key: &[u8], value: &[u8]) -> Result<Body, StoreError> {
    let mut take = Take(value);
    let [kind] = take.array()?;
    let count = u16::from_be_bytes(take.array()?);
    let mut places = Vec::with_capacity(count.into());
    for _ in 0..count {
        places.push((UserId::from_stored(take.u64()?), take.u64()?));
    }
    let undecodable = |why: protocol::record::Undecodable| StoreError::Damaged(why.to_string());
    let body = match kind {
        MESSAGE => {
            let record = Record::decode(take.0).map_err(undecodable)?;
            EventBody::Message(Arc::new(Message::new(record, position_of(key)?)))
        }
        REFUSAL => EventBody::Refused(Arc::new(Refusal::decode(take.0).map_err(undecodable)?)),
        _ => return Err(damaged("a body of a kind this build does not know")),
    };
    Ok(Body { places, body })
}

/// When the gateway took it.
pub(super) fn taken_ms(body: &EventBody) -> u64 {
    match body {
        EventBody::Message(message) => message.record.at_ms,
        EventBody::Refused(refusal) => refusal.at_ms,
    }
}
