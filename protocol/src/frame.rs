//! Frames: what a client may say and what a server answers, whatever the encoding. `docs/protocol.md` is the published contract.

use std::sync::Arc;

use crate::error_code::ErrorCode;
use crate::id::{ConversationId, DeviceName, MessageId, Position, Seq, UserId};
use crate::limits::Limits;
use crate::receipt::{Marks, Receipt};
use crate::record::{Content, Message, ReplyTo};

/// First frame of a connection, or the answer to `resync`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// JWT, unless the handshake carried it.
    pub token: Option<String>,
    /// Which installation this is.
    pub device: Option<DeviceName>,
    /// Stream epoch of the cursor.
    pub epoch: Option<u64>,
    /// Last seq the client has stored.
    pub cursor: Option<Seq>,
    /// Newest revision of a receipt the client has stored; absent: no receipt is told again.
    pub rev: Option<u64>,
    /// Protocol version.
    pub version: Option<u64>,
}

/// To whom a message goes, as the client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// `u:43`.
    User(UserId),
    /// `d:42:43`.
    Conversation(ConversationId),
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Chosen by the client, kept in every retry.
    pub id: MessageId,
    /// To whom.
    pub to: Recipient,
    /// What.
    pub content: Content,
    /// What it answers.
    pub reply_to: Option<ReplyTo>,
}

/// Everything a client may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// Attach.
    Hello(Hello),
    /// Send a message.
    Send(Send),
    /// Everything up to this seq is stored at the client.
    Received(Seq),
    /// Everything in the conversation up to this position was read.
    Read {
        /// Which.
        conversation: ConversationId,
        /// Up to where.
        position: Position,
    },
    /// The client's person is writing.
    Typing(Recipient),
    /// The users whose presence this connection wants to hear of, in place of those before.
    Watch(Vec<UserId>),
    /// A page of a conversation, newest first, before a position.
    History {
        /// Which.
        conversation: ConversationId,
        /// Older than this; absent: the newest.
        before: Option<Position>,
        /// How many.
        limit: Option<u32>,
    },
    /// One's conversations, most recently active first.
    Conversations {
        /// Last active before this.
        before: Option<Position>,
        /// How many.
        limit: Option<u32>,
    },
    /// Application-level ping, for clients that cannot send WebSocket pings.
    Ping,
}

/// Why a frame could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError {
    /// Which error.
    pub code: ErrorCode,
    /// The field at fault, where one is.
    pub field: Option<String>,
    /// For a person.
    pub message: String,
    /// The `id` of the send at fault, where it could be read: then it is answered with `refused`, final.
    pub id: Option<MessageId>,
}

/// Why a cursor cannot be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResyncReason {
    /// It belongs to another stream.
    Epoch,
    /// It is beyond the head.
    Ahead,
    /// The events after it are gone by retention.
    BelowFloor,
}

impl ResyncReason {
    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Ahead => "ahead",
            Self::BelowFloor => "below_floor",
        }
    }
}

/// Answer to a good `hello`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Who the token says the client is.
    pub user: UserId,
    /// The device attached.
    pub device: DeviceName,
    /// A name of this connection, for logs.
    pub session: String,
    /// Stream epoch that cursors belong to from now on.
    pub epoch: u64,
    /// Server time, milliseconds since 1970.
    pub now_ms: u64,
    /// Ping interval, seconds.
    pub heartbeat_s: u64,
    /// Limits in force.
    pub limits: Limits,
}

/// One conversation of somebody's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its newest message.
    pub last: Arc<Message>,
    /// Messages of others behind one's own read position, at most [`crate::limits::UNREAD_MAX`].
    pub unread: u32,
    /// One's own read position.
    pub read: Position,
    /// The watermarks of the other members.
    pub receipts: Vec<(UserId, Marks)>,
}

/// Whether somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// At least one of their devices is attached.
    Online,
    /// None is.
    Offline {
        /// When the last one left, milliseconds since 1970; absent: nobody was ever seen.
        last_seen_ms: Option<u64>,
    },
}

/// Everything a server may say, except an event on its way to a session, which is encoded once for all
/// ([`crate::codec::Encoding::event`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// Attached.
    Welcome(Box<Welcome>),
    /// Catch-up is complete up to this head.
    Live(Seq),
    /// A send is durable.
    Accepted {
        /// Which.
        id: MessageId,
        /// Where it went.
        conversation: ConversationId,
    },
    /// A send is not taken.
    Refused {
        /// Which.
        id: MessageId,
        /// Why.
        code: ErrorCode,
        /// The field at fault.
        field: Option<String>,
        /// When to try again, milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// A page of history, ascending.
    Page {
        /// Of which conversation.
        conversation: ConversationId,
        /// The messages.
        messages: Vec<Arc<Message>>,
        /// Where older ones continue.
        before: Option<Position>,
    },
    /// A page of conversations with the last message of each.
    Conversations {
        /// Most recently active first.
        conversations: Vec<Conversation>,
        /// Where less recent ones continue.
        before: Option<Position>,
    },
    /// How far a member of a conversation has come.
    Receipt(Receipt),
    /// Somebody is writing.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Who.
        from: UserId,
    },
    /// Whether somebody is there.
    Presence {
        /// Who.
        user: UserId,
        /// Whether.
        presence: Presence,
    },
    /// The cursor cannot be continued.
    Resync {
        /// The present stream epoch.
        epoch: u64,
        /// The newest seq.
        head: Seq,
        /// The oldest kept seq minus 1.
        floor: Seq,
        /// Why.
        reason: ResyncReason,
    },
    /// Go elsewhere.
    Move {
        /// Not before, milliseconds.
        after_ms: u64,
    },
    /// The token is about to expire.
    Reauth {
        /// When, milliseconds since 1970.
        before_ms: u64,
    },
    /// Answer to `ping`.
    Pong {
        /// Server time, milliseconds since 1970.
        now_ms: u64,
    },
    /// A frame was not taken.
    Error {
        /// Which error, field and id.
        error: FrameError,
        /// When to try again, milliseconds.
        retry_after_ms: Option<u64>,
    },
}

impl ServerFrame {
    /// Its `type` on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Live(_) => "live",
            Self::Accepted { .. } => "accepted",
            Self::Refused { .. } => "refused",
            Self::Page { .. } => "page",
            Self::Conversations { .. } => "conversations",
            Self::Resync { .. } => "resync",
            Self::Move { .. } => "move",
            Self::Reauth { .. } => "reauth",
            Self::Pong { .. } => "pong",
            Self::Error { .. } => "error",
            Self::Receipt(_) => "receipt",
            Self::Typing { .. } => "typing",
            Self::Presence { .. } => "presence",
        }
    }
}
