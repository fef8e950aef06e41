//! The frames of protocol version 1, written from `docs/protocol.md` and sharing nothing with the server's codec. Their form here is that of JSON;
//! `proto` puts the same into Protobuf.

mod encoding;
mod proto;

pub use encoding::Encoding;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a client says.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame<'a> {
    /// The first frame, and the answer to `resync`.
    Hello(Hello<'a>),
    /// A message.
    Send(Send<'a>),
    /// Acknowledges every event up to this one.
    Received {
        /// The `seq` of the last event that is stored.
        seq: u64,
    },
    /// Everything up to this position was read.
    Read {
        /// The conversation by name.
        conversation: &'a str,
        /// The position.
        position: &'a str,
    },
    /// Asks for one page of a conversation.
    History {
        /// The conversation by name.
        conversation: &'a str,
        /// Continue below this position.
        before: Option<&'a str>,
        /// At most this many.
        limit: u32,
    },
    /// Asks for the list of conversations.
    Conversations {
        /// Continue below this position.
        before: Option<&'a str>,
        /// At most this many.
        limit: u32,
    },
    /// Asks for a `pong`.
    Ping,
}

/// The fields of `hello`.
#[derive(Debug, Serialize)]
pub struct Hello<'a> {
    /// The name of this installation.
    pub device: &'a str,
    /// The last `seq` that is stored; `None` lets the server decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// The epoch the cursor belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<&'a str>,
}

/// The fields of `send`.
#[derive(Debug, Serialize)]
pub struct Send<'a> {
    /// The sender's id, kept for every retry.
    pub id: Uuid,
    /// `u:<user>` or `d:<lower>:<higher>`.
    pub to: &'a str,
    /// Always `text`.
    pub kind: &'a str,
    /// The message.
    pub body: Body<'a>,
}

/// A body that is borrowed for sending.
#[derive(Debug, Serialize)]
pub struct Body<'a> {
    /// The text.
    pub text: &'a str,
}

/// What the server says.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The session stands.
    Welcome(Welcome),
    /// Everything up to `head` has been shown.
    Live {
        /// The newest `seq`.
        head: u64,
    },
    /// One event of the mailbox.
    Event(Event),
    /// The message is durable.
    Accepted {
        /// The sender's id.
        id: Uuid,
        /// Where it went.
        conversation: String,
    },
    /// The message was not taken by this attempt.
    Refused(Refused),
    /// Anything else that went wrong.
    Error(ErrorFrame),
    /// The cursor cannot be continued.
    Resync(Resync),
    /// The server is about to stop.
    Move {
        /// When to go.
        after_ms: u64,
    },
    /// The token is about to expire.
    Reauth,
    /// How far a member of a conversation has come.
    Receipt(Receipt),
    /// One page of a conversation.
    Page(Page),
    /// The list of conversations.
    Conversations(Conversations),
    /// The answer to `ping`.
    Pong,
    /// A type this client does not know: ignored, as the contract says.
    #[serde(other)]
    Other,
}

/// The fields of `welcome`.
#[derive(Debug, Clone, Deserialize)]
pub struct Welcome {
    /// The user the token names.
    #[serde(deserialize_with = "decimal::required")]
    pub user: u64,
    /// The device as attached.
    pub device: String,
    /// The epoch of the mailbox.
    pub epoch: String,
    /// The limits of this connection.
    #[serde(default)]
    pub limits: Limits,
}

/// What a connection may do.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Sends a second for each user.
    pub sends_per_s: u32,
    /// Sends at once for each user.
    pub sends_burst: u32,
    /// Sends that may wait for their answer.
    pub in_flight: usize,
    /// Events that may be unacknowledged.
    pub window_events: u64,
    /// Events in a page.
    pub page_events: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sends_per_s: 50, sends_burst: 100, in_flight: 32, window_events: 256, page_events: 100 }
    }
}

/// One event of a mailbox, or one message of a page (which has no `seq`).
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// Its number in the mailbox; 0 in a page.
    #[serde(default)]
    pub seq: u64,
    /// What it is.
    pub event: EventKind,
    /// The conversation by name.
    pub conversation: String,
    /// Its place in the conversation.
    #[serde(deserialize_with = "decimal::required")]
    pub position: u64,
    /// The sender; absent in a refusal.
    #[serde(default, deserialize_with = "decimal::optional")]
    pub from: Option<u64>,
    /// The sender's id.
    pub id: Uuid,
    /// The message; absent in a refusal.
    #[serde(default)]
    pub body: Option<Text>,
    /// Why it was refused.
    #[serde(default)]
    pub code: Option<String>,
}

impl Event {
    /// The text, or nothing for an event without one.
    #[must_use]
    pub fn text(&self) -> &str {
        self.body.as_ref().map_or("", |body| body.text.as_str())
    }
}

/// The kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A message.
    Message,
    /// A refusal after `accepted`.
    Refused,
    /// A kind this client does not know.
    #[serde(other)]
    Other,
}

/// A body as received.
#[derive(Debug, Clone, Deserialize)]
pub struct Text {
    /// The text.
    pub text: String,
}

/// The fields of `refused`.
#[derive(Debug, Clone, Deserialize)]
pub struct Refused {
    /// The sender's id.
    pub id: Uuid,
    /// Why.
    pub code: String,
    /// When to try again.
    #[serde(default)]
    pub retry_after_ms: u64,
    /// Whether this id will never be a message.
    #[serde(rename = "final", default)]
    pub is_final: bool,
}

/// The fields of `error`.
#[derive(Debug, Clone, Deserialize)]
pub struct ErrorFrame {
    /// Why.
    pub code: String,
    /// The field that was wrong.
    #[serde(default)]
    pub field: Option<String>,
    /// In words.
    #[serde(default)]
    pub message: Option<String>,
    /// The send it belongs to.
    #[serde(default)]
    pub id: Option<Uuid>,
    /// When to try again.
    #[serde(default)]
    pub retry_after_ms: u64,
}

/// The fields of `resync`.
#[derive(Debug, Clone, Deserialize)]
pub struct Resync {
    /// The present epoch.
    pub epoch: String,
    /// The newest `seq`.
    pub head: u64,
    /// The cursor from which the server can go on.
    pub floor: u64,
    /// `epoch`, `ahead` or `below_floor`.
    pub reason: String,
}

/// The fields of `receipt`.
#[derive(Debug, Clone, Deserialize)]
pub struct Receipt {
    /// The conversation by name.
    pub conversation: String,
    /// Whose positions.
    #[serde(deserialize_with = "decimal::required")]
    pub member: u64,
    /// The newest message of others that one of their devices has.
    #[serde(deserialize_with = "decimal::required")]
    pub delivered: u64,
    /// What they have read.
    #[serde(deserialize_with = "decimal::required")]
    pub read: u64,
    /// Orders the receipts of a mailbox.
    #[serde(deserialize_with = "decimal::required")]
    pub rev: u64,
}

/// The fields of `page`.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    /// The conversation by name.
    pub conversation: String,
    /// Ascending.
    pub events: Vec<Event>,
    /// Where older ones continue; `None` at the end.
    pub before: Option<String>,
}

/// The fields of `conversations`.
#[derive(Debug, Clone, Deserialize)]
pub struct Conversations {
    /// Most recently active first.
    pub conversations: Vec<Summary>,
    /// Where older ones continue; `None` at the end.
    pub before: Option<String>,
}

/// One conversation of the list.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// The conversation by name.
    pub conversation: String,
    /// Its newest message.
    pub last: Event,
    /// Messages of others that are not read.
    #[serde(default)]
    pub unread: u32,
}

/// The name of the direct conversation of two users.
#[must_use]
pub fn direct_name(a: u64, b: u64) -> String {
    format!("d:{}:{}", a.min(b), a.max(b))
}

/// The members of a direct conversation, if it is one.
#[must_use]
pub fn members(conversation: &str) -> Option<[u64; 2]> {
    let (low, high) = conversation.strip_prefix("d:")?.split_once(':')?;
    Some([low.parse().ok()?, high.parse().ok()?])
}

/// 64-bit numbers travel as decimal strings.
mod decimal {
    use std::borrow::Cow;

    use serde::de::{Deserialize, Deserializer, Error};

    pub(super) fn required<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
        let text = Cow::<'_, str>::deserialize(input)?;
        text.parse().map_err(D::Error::custom)
    }

    pub(super) fn optional<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<Cow<'_, str>>::deserialize(input)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_contract_are_read() {
        let welcome = r#"{"type":"welcome","user":"42","device":"phone-1","session":"6f1c","epoch":"1","now":"2026-11-21T09:00:00.000Z",
            "heartbeat_s":30,"limits":{"body_bytes":16384,"frame_bytes":65536,"sends_per_s":50,"sends_burst":100,
            "window_events":256,"window_bytes":262144,"in_flight":32,"page_events":100}}"#;
        let ServerFrame::Welcome(welcome) = serde_json::from_str(welcome).unwrap() else { panic!("welcome") };
        assert_eq!((welcome.user, welcome.limits.in_flight), (42, 32));
        let event = r#"{"type":"event","seq":18,"event":"message","conversation":"d:42:43","position":"281474976710674",
            "from":"42","id":"01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e","kind":"text","body":{"text":"hi"},"at":"2026-11-21T09:00:01.123Z"}"#;
        let ServerFrame::Event(event) = serde_json::from_str(event).unwrap() else { panic!("event") };
        assert_eq!((event.seq, event.from, event.text()), (18, Some(42), "hi"));
        let refused =
            r#"{"type":"refused","id":"01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e","code":"rate","retry_after_ms":400,"final":false}"#;
        let ServerFrame::Refused(refused) = serde_json::from_str(refused).unwrap() else { panic!("refused") };
        assert_eq!((refused.retry_after_ms, refused.is_final), (400, false));
        let receipt =
            r#"{"type":"receipt","conversation":"d:42:43","member":"43","delivered":"281474976710674","read":"0","rev":"9"}"#;
        let ServerFrame::Receipt(receipt) = serde_json::from_str(receipt).unwrap() else { panic!("receipt") };
        assert_eq!((receipt.member, receipt.delivered, receipt.read, receipt.rev), (43, 281_474_976_710_674, 0, 9));
        assert!(matches!(serde_json::from_str(r#"{"type":"news","x":1}"#).unwrap(), ServerFrame::Other));
    }

    #[test]
    fn a_send_is_written_as_the_contract_says() {
        let id = Uuid::now_v7();
        let frame = ClientFrame::Send(Send { id, to: "u:43", kind: "text", body: Body { text: "hi" } });
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(text, format!(r#"{{"type":"send","id":"{id}","to":"u:43","kind":"text","body":{{"text":"hi"}}}}"#));
    }

    #[test]
    fn conversations_are_named_lower_user_first() {
        assert_eq!(direct_name(43, 42), "d:42:43");
        assert_eq!(members("d:42:43"), Some([42, 43]));
        assert_eq!(members("g:1"), None);
    }
}
