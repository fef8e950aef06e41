//! Writing a server's JSON. A message's own fields are written once and shared; only `seq` differs between two mailboxes.

use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;

use crate::error_code::ErrorCode;
use crate::frame::{Conversation, FrameError, Presence, ResyncReason, ServerFrame, Welcome};
use crate::id::{ConversationId, DeviceName, MessageId, Position, UserId};
use crate::limits::Limits;
use crate::receipt::Receipt;
use crate::record::{Content, Event, EventBody, Message, Refusal};

#[derive(Serialize)]
struct JsonReply {
    from: UserId,
    id: MessageId,
}

#[derive(Serialize)]
struct JsonText<'a> {
    text: &'a str,
}

#[derive(Serialize)]
struct JsonMessage<'a> {
    event: &'static str,
    conversation: ConversationId,
    position: Position,
    from: UserId,
    id: MessageId,
    kind: &'static str,
    body: JsonText<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<JsonReply>,
    at: String,
}

#[derive(Serialize)]
struct JsonRefusal {
    event: &'static str,
    conversation: ConversationId,
    position: Position,
    id: MessageId,
    code: ErrorCode,
    at: String,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum JsonFrame<'a> {
    Welcome {
        user: UserId,
        device: &'a DeviceName,
        session: &'a str,
        epoch: Position,
        now: String,
        heartbeat_s: u64,
        limits: &'a Limits,
    },
    Live {
        head: u64,
    },
    Accepted {
        id: MessageId,
        conversation: ConversationId,
    },
    Refused {
        id: MessageId,
        code: ErrorCode,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        r#final: bool,
    },
    Receipt {
        conversation: ConversationId,
        member: UserId,
        delivered: Position,
        read: Position,
        rev: Position,
    },
    Typing {
        conversation: ConversationId,
        from: UserId,
    },
    Presence {
        user: UserId,
        online: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        last_seen: Option<String>,
    },
    Resync {
        epoch: Position,
        head: u64,
        floor: u64,
        reason: &'static str,
    },
    Move {
        after_ms: u64,
    },
    Reauth {
        before: String,
    },
    Pong {
        now: String,
    },
    Error {
        code: ErrorCode,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<MessageId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

/// Appends a frame.
pub fn encode(frame: &ServerFrame, out: &mut Vec<u8>) {
    match frame {
        ServerFrame::Page { conversation, messages, before } => {
            page(
                out,
                &format!("{{\"type\":\"page\",\"conversation\":\"{conversation}\",\"events\":["),
                messages,
                *before,
                |message, out| {
                    out.push(b'{');
                    out.extend_from_slice(message.json());
                },
            );
        }
        ServerFrame::Conversations { conversations, before } => {
            page(out, "{\"type\":\"conversations\",\"conversations\":[", conversations, *before, conversation);
        }
        other => json(&plain_frame(other), out),
    }
}

/// Frames that need no hand: everything but events and pages.
fn plain_frame(frame: &ServerFrame) -> JsonFrame<'_> {
    match frame {
        ServerFrame::Welcome(welcome) => welcome_frame(welcome),
        ServerFrame::Live(head) => JsonFrame::Live { head: *head },
        ServerFrame::Accepted { id, conversation } => JsonFrame::Accepted { id: *id, conversation: *conversation },
        ServerFrame::Refused { id, code, field, retry_after_ms } => JsonFrame::Refused {
            id: *id,
            code: *code,
            field: field.as_deref(),
            retry_after_ms: *retry_after_ms,
            r#final: !code.retryable(),
        },
        ServerFrame::Receipt(receipt) => receipt_frame(receipt),
        ServerFrame::Typing { conversation, from } => JsonFrame::Typing { conversation: *conversation, from: *from },
        ServerFrame::Presence { user, presence } => presence_frame(*user, *presence),
        ServerFrame::Resync { epoch, head, floor, reason } => resync_frame(*epoch, *head, *floor, *reason),
        ServerFrame::Move { after_ms } => JsonFrame::Move { after_ms: *after_ms },
        ServerFrame::Reauth { before_ms } => JsonFrame::Reauth { before: time(*before_ms) },
        ServerFrame::Pong { now_ms } => JsonFrame::Pong { now: time(*now_ms) },
        ServerFrame::Error { error, retry_after_ms } => error_frame(error, *retry_after_ms),
        ServerFrame::Page { .. } | ServerFrame::Conversations { .. } => {
            unreachable!("written by `encode` itself")
        }
    }
}

fn welcome_frame(welcome: &Welcome) -> JsonFrame<'_> {
    JsonFrame::Welcome {
        user: welcome.user,
        device: &welcome.device,
        session: &welcome.session,
        epoch: Position::from_stored(welcome.epoch),
        now: time(welcome.now_ms),
        heartbeat_s: welcome.heartbeat_s,
        limits: &welcome.limits,
    }
}

const fn receipt_frame(receipt: &Receipt) -> JsonFrame<'static> {
    JsonFrame::Receipt {
        conversation: receipt.conversation,
        member: receipt.member,
        delivered: receipt.marks.delivered,
        read: receipt.marks.read,
        rev: Position::from_stored(receipt.rev),
    }
}

fn presence_frame(user: UserId, presence: Presence) -> JsonFrame<'static> {
    let (online, last_seen) = match presence {
        Presence::Online => (true, None),
        Presence::Offline { last_seen_ms } => (false, last_seen_ms.map(time)),
    };
    JsonFrame::Presence { user, online, last_seen }
}

fn resync_frame(epoch: u64, head: u64, floor: u64, reason: ResyncReason) -> JsonFrame<'static> {
    JsonFrame::Resync { epoch: Position::from_stored(epoch), head, floor, reason: reason.name() }
}

fn error_frame(error: &FrameError, retry_after_ms: Option<u64>) -> JsonFrame<'_> {
    JsonFrame::Error { code: error.code, field: error.field.as_deref(), message: &error.message, id: error.id, retry_after_ms }
}

/// Appends an event: its `seq`, then the shared rest.
pub fn event(event: &Event, out: &mut Vec<u8>) {
    append(out, format_args!("{{\"type\":\"event\",\"seq\":{},", event.seq));
    match &event.body {
        EventBody::Message(message) => out.extend_from_slice(message.json()),
        EventBody::Refused(refusal) => out.extend_from_slice(&refusal_fields(refusal)),
    }
}

/// Fields of a message and the closing brace: `"event":"message",…}`. Goes behind `{` or behind `seq`.
pub fn message_fields(message: &Message) -> Bytes {
    let record = &message.record;
    let Content::Text(text) = &record.content;
    fields_of(&JsonMessage {
        event: "message",
        conversation: record.identity.conversation,
        position: message.position,
        from: record.identity.sender,
        id: record.identity.id,
        kind: record.content.kind(),
        body: JsonText { text },
        reply_to: record.reply_to.map(|reply| JsonReply { from: reply.from, id: reply.id }),
        at: time(record.at_ms),
    })
}

fn refusal_fields(refusal: &Refusal) -> Bytes {
    fields_of(&JsonRefusal {
        event: "refused",
        conversation: refusal.identity.conversation,
        position: refusal.position,
        id: refusal.identity.id,
        code: refusal.code,
        at: time(refusal.at_ms),
    })
}

fn fields_of(object: &impl Serialize) -> Bytes {
    let mut out = Vec::with_capacity(512);
    json(object, &mut out);
    Bytes::from(out).slice(1..)
}

/// One conversation of the list.
fn conversation(one: &Conversation, out: &mut Vec<u8>) {
    append(out, format_args!("{{\"conversation\":\"{}\",\"last\":{{", one.last.record.identity.conversation));
    out.extend_from_slice(one.last.json());
    append(out, format_args!(",\"unread\":{},\"read\":\"{}\",\"receipts\":[", one.unread, one.read));
    for (index, (member, marks)) in one.receipts.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let (delivered, read) = (marks.delivered, marks.read);
        append(out, format_args!("{comma}{{\"member\":\"{member}\",\"delivered\":\"{delivered}\",\"read\":\"{read}\"}}"));
    }
    out.extend_from_slice(b"]}");
}

/// A list between `open` and the position where the next page begins.
fn page<T>(out: &mut Vec<u8>, open: &str, list: &[T], before: Option<Position>, item: impl Fn(&T, &mut Vec<u8>)) {
    out.extend_from_slice(open.as_bytes());
    for (index, one) in list.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item(one, out);
    }
    match before {
        Some(position) => append(out, format_args!("],\"before\":\"{position}\"}}")),
        None => out.extend_from_slice(b"],\"before\":null}"),
    }
}

fn json(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("frames have string keys and a Vec takes every byte");
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every byte");
}

/// RFC 3339 with milliseconds, UTC. Times beyond the year 9999 are shown as its last moment.
fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}
