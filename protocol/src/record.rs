//! What the log and the mailboxes keep. Domain types here; their stored form is Protobuf (tags never reused), in [`wire`].

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::error_code::ErrorCode;
use crate::id::{ConversationId, MessageId, Position, Seq, UserId};

mod wire;

pub use wire::Undecodable;

/// What a message says. Kinds are added, never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Plain text, 1 byte to `limits.body_bytes`, without NUL.
    Text(String),
}

impl Content {
    /// Bytes of the body.
    pub const fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
        }
    }

    /// The `kind` on the wire.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
        }
    }

    /// Bytes the body counts for.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The message that is answered, by its identity inside the same conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// Its sender.
    pub from: UserId,
    /// Its id.
    pub id: MessageId,
}

/// Identity of a message: the same for every retry, whatever way it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Who sent it.
    pub sender: UserId,
    /// Into which conversation.
    pub conversation: ConversationId,
    /// The client's id of it.
    pub id: MessageId,
}

/// One attempt to send a message, as it is appended to the log. Everything a later decision may read is in here (or is its position).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Identity.
    pub identity: Identity,
    /// What it says.
    pub content: Content,
    /// What it answers.
    pub reply_to: Option<ReplyTo>,
    /// The gateway's clock when it took the record, milliseconds since 1970. Shown to people; decides nothing.
    pub at_ms: u64,
}

/// Fingerprint of all that must be equal for two attempts to be the same message (128 bits, XXH3 over the stored form without time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyHash(pub u128);

impl Record {
    /// Fingerprint of content and reference; equal for honest retries.
    pub fn body_hash(&self) -> BodyHash {
        BodyHash(xxh3_128(&wire::body_bytes(self)))
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        wire::encode_record(self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Undecodable`] when the bytes are no record this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        wire::decode_record(bytes)
    }
}

/// A record with its place in the conversation: what all members see alike. Shared by every mailbox and socket it goes to.
#[derive(Debug)]
pub struct Message {
    /// What was sent.
    pub record: Record,
    /// Its place in the conversation.
    pub position: Position,
    json: OnceLock<Bytes>,
    proto: OnceLock<Box<[u8]>>,
}

impl Message {
    /// A record at its position.
    pub const fn new(record: Record, position: Position) -> Self {
        Self { record, position, json: OnceLock::new(), proto: OnceLock::new() }
    }

    /// Bytes counted for everything but the body.
    const FRAME: usize = 256;

    /// Bytes it is counted with in windows and pages.
    pub fn weight(&self) -> usize {
        self.record.content.len() + Self::FRAME
    }

    /// Its JSON fields behind `seq`, encoded once for all who get it (see [`crate::codec::json`]).
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| crate::codec::json::message_fields(self))
    }

    /// Its Protobuf fields beside `seq`, encoded once for all who get it so (see [`crate::codec::proto`]).
    pub fn proto(&self) -> &[u8] {
        self.proto.get_or_init(|| crate::codec::proto::message_fields(self))
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position && self.record == other.record
    }
}
impl Eq for Message {}

/// An attempt that came to nothing after it was accepted into the log. Only its sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The identity that was tried.
    pub identity: Identity,
    /// The attempt's place in the log.
    pub position: Position,
    /// The attempt's body.
    pub body_hash: BodyHash,
    /// Why.
    pub code: ErrorCode,
    /// When the gateway took the attempt, milliseconds since 1970.
    pub at_ms: u64,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    /// A message, sent or received.
    Message(Arc<Message>),
    /// A send of one's own that was refused after `accepted`.
    Refused(Arc<Refusal>),
}

impl EventBody {
    /// Its place in its conversation.
    pub fn position(&self) -> Position {
        match self {
            Self::Message(message) => message.position,
            Self::Refused(refusal) => refusal.position,
        }
    }

    /// Its conversation.
    pub fn conversation(&self) -> ConversationId {
        match self {
            Self::Message(message) => message.record.identity.conversation,
            Self::Refused(refusal) => refusal.identity.conversation,
        }
    }

    /// Bytes it is counted with in windows and pages.
    pub fn weight(&self) -> usize {
        match self {
            Self::Message(message) => message.weight(),
            Self::Refused(_) => Message::FRAME,
        }
    }

    /// The stored form, without the seq: the same bytes for every mailbox it is in.
    pub fn encode(&self) -> Bytes {
        wire::encode_event_body(self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Undecodable`] when the bytes are no event this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        wire::decode_event_body(bytes)
    }
}

/// One entry of one mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number in the mailbox.
    pub seq: Seq,
    /// What it is.
    pub body: EventBody,
}

/// A message whose owner had no device attached: for whoever wakes phones. Repeats are told by (owner, conversation, position). No body: what
/// wakes a phone goes through other people's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Who is to be woken.
    pub owner: UserId,
    /// The message.
    pub identity: Identity,
    /// Its place in the conversation.
    pub position: Position,
    /// When the gateway took it, milliseconds since 1970.
    pub at_ms: u64,
}

impl Notification {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        wire::encode_notification(self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Undecodable`] when the bytes are no notification this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        wire::decode_notification(bytes)
    }
}

impl Event {
    /// The stored form: seq and body.
    pub fn encode(&self) -> Bytes {
        wire::encode_event(self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Undecodable`] when the bytes are no event this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        wire::decode_event(bytes)
    }
}

/// What an expanded record says to one virtual shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver the message to these owners of this shard, ascending.
    Deliver(Record, Vec<UserId>),
    /// Tell the sender, who is in this shard, that the attempt is refused.
    Refuse(Refusal),
}

/// A partition of the log that messages are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// Its number.
    pub partition: u16,
    /// Incarnation of the log.
    pub epoch: u16,
}

/// A link of the chain from one source partition to one mailbox partition: the record's offset there, and a digest over everything sent so.
/// The all-zero link stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Link {
    /// Offset in the source partition, plus 1: 0 means nothing sent yet.
    pub next_offset: u64,
    /// 64 bits over (previous digest, offset, verdict, recipients).
    pub digest: u64,
}

/// One record of the mailbox log: at most one for each (message, virtual shard), chained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxRecord {
    /// Where the message was read.
    pub source: Source,
    /// The link this record is.
    pub link: Link,
    /// The link before it on the way to this virtual shard.
    pub previous: Link,
    /// What to do.
    pub verdict: Verdict,
}

impl MailboxRecord {
    /// Position of the message in its conversation.
    pub fn position(&self) -> Position {
        Position::new(self.source.epoch, self.link.next_offset.saturating_sub(1))
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        wire::encode_mailbox_record(self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Undecodable`] when the bytes are no mailbox record this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        wire::decode_mailbox_record(bytes)
    }
}

impl Refusal {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        wire::encode_refusal(self)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Undecodable`] when the bytes are no refusal this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        wire::decode_refusal(bytes)
    }
}
