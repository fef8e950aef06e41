//! The frames of `docs/protocol.md`, as a client says and hears them, in JSON. Its own types and not those of the server: so the client is
//! held to the contract, and what a newer server adds is ignored.

use protocol::{MessageId, Position, UserId};
use serde::{Deserialize, Serialize};

/// The sub-protocol of these frames.
pub(crate) const SUBPROTOCOL: &str = "switchboard.v1.json";

/// A text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct Body {
    #[serde(default)]
    pub(crate) text: String,
}

/// The message that is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplyTo {
    pub(crate) from: UserId,
    pub(crate) id: MessageId,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ClientFrame {
    Hello(Hello),
    Send(Send),
    Received { seq: u64 },
    Read { conversation: String, position: Position },
    Typing { to: String },
    Watch { users: Vec<UserId> },
    History(History),
    Conversations(List),
    Ping,
}

/// The first frame. The token was in the header of the handshake.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Hello {
    pub(crate) device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rev: Option<Position>,
    pub(crate) version: u64,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Send {
    pub(crate) id: MessageId,
    pub(crate) to: String,
    pub(crate) kind: &'static str,
    pub(crate) body: Body,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply_to: Option<ReplyTo>,
}

/// A page of a conversation is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) conversation: String,
    #[serde(default)]
    pub(crate) before: Option<String>,
    #[serde(default = "some")]
    pub(crate) limit: u32,
}

/// A page of the list of conversations is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct List {
    #[serde(default)]
    pub(crate) before: Option<String>,
    #[serde(default = "some")]
    pub(crate) limit: u32,
}

fn some() -> u32 {
    20
}

/// What is heard.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ServerFrame {
    Welcome(Welcome),
    Live {
        head: u64,
    },
    Event(Event),
    Accepted {
        id: MessageId,
        conversation: String,
    },
    Refused(Refused),
    Error(ErrorFrame),
    Resync(Resync),
    Move {
        after_ms: u64,
    },
    Reauth {},
    Receipt(Receipt),
    Typing(Typing),
    Presence(Presence),
    Page(Page),
    Conversations(Conversations),
    Pong {},
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) user: UserId,
    pub(crate) epoch: String,
    #[serde(default)]
    pub(crate) heartbeat_s: Option<u64>,
    #[serde(default)]
    pub(crate) limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Limits {
    pub(crate) in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 32 }
    }
}

/// An event of the mailbox, or a message of a page, which has no `seq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<u64>,
    pub(crate) event: EventKind,
    pub(crate) conversation: String,
    pub(crate) position: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<UserId>,
    pub(crate) id: MessageId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Body>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reply_to: Option<ReplyTo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    #[serde(default)]
    pub(crate) at: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventKind {
    Message,
    Refused,
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Refused {
    pub(crate) id: MessageId,
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) field: Option<String>,
    #[serde(default)]
    pub(crate) retry_after_ms: Option<u64>,
    #[serde(rename = "final", default)]
    pub(crate) is_final: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct ErrorFrame {
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) field: Option<String>,
    #[serde(default)]
    pub(crate) message: Option<String>,
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) retry_after_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Resync {
    pub(crate) epoch: String,
    pub(crate) head: u64,
    pub(crate) floor: u64,
    pub(crate) reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) conversation: String,
    pub(crate) member: UserId,
    pub(crate) delivered: Position,
    pub(crate) read: Position,
    pub(crate) rev: Position,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Typing {
    pub(crate) conversation: String,
    pub(crate) from: UserId,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Presence {
    pub(crate) user: UserId,
    pub(crate) online: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) conversation: String,
    pub(crate) events: Vec<Event>,
    pub(crate) before: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Conversations {
    pub(crate) conversations: Vec<Summary>,
    pub(crate) before: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) conversation: String,
    pub(crate) last: Event,
    #[serde(default)]
    pub(crate) unread: u32,
    #[serde(default)]
    pub(crate) read: Position,
    #[serde(default)]
    pub(crate) receipts: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) member: UserId,
    pub(crate) delivered: Position,
    pub(crate) read: Position,
}
