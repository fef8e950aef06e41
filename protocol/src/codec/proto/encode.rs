//! Writing a server's Protobuf, by the generated types; an event's fields beside `seq` are written once and shared.

use prost::{Message as _, encode_length_delimiter};

use super::v1::server_frame::{self as wire, Frame};
use super::v1::{self, event as wire_event};
use crate::error_code::ErrorCode;
use crate::frame::{Conversation, Presence, ResyncReason, ServerFrame, Welcome};
use crate::id::{MessageId, Position, UserId};
use crate::limits::Limits;
use crate::receipt::Marks;
use crate::record::{Content, Event, EventBody, Identity, Message, Refusal};

/// What stands before an event in a `ServerFrame`: the tag of `event`, and that a length follows.
const EVENT_KEY: u8 = 3 << 3 | 2;

/// Appends a frame.
pub fn encode(frame: &ServerFrame, out: &mut Vec<u8>) {
    let frame = v1::ServerFrame { frame: Some(to_wire(frame)) };
    frame.encode(out).expect("a Vec takes every byte");
}

/// Appends an event: its `seq`, then the shared rest. The fields of a Protobuf message may be put together from parts.
pub fn event(event: &Event, out: &mut Vec<u8>) {
    let refused;
    let shared = match &event.body {
        EventBody::Message(message) => message.proto(),
        EventBody::Refused(refusal) => {
            refused = refusal_event(refusal).encode_to_vec();
            &refused
        }
    };
    let seq = v1::Event { seq: event.seq, ..v1::Event::default() };
    out.push(EVENT_KEY);
    let written = encode_length_delimiter(seq.encoded_len() + shared.len(), out).and_then(|()| seq.encode(out));
    written.expect("a Vec takes every byte");
    out.extend_from_slice(shared);
}

/// An event's fields for a message, all but `seq`.
pub fn message_fields(message: &Message) -> Box<[u8]> {
    message_event(message).encode_to_vec().into_boxed_slice()
}

fn to_wire(frame: &ServerFrame) -> Frame {
    match frame {
        ServerFrame::Welcome(welcome) => Frame::Welcome(to_welcome(welcome)),
        ServerFrame::Live(head) => Frame::Live(wire::Live { head: *head }),
        ServerFrame::Accepted { id, conversation } => {
            Frame::Accepted(wire::Accepted { id: to_id(*id), conversation: conversation.to_string() })
        }
        ServerFrame::Refused { id, code, field, retry_after_ms } => Frame::Refused(wire::Refused {
            id: to_id(*id),
            code: to_code(*code).into(),
            field: field.clone(),
            retry_after_ms: *retry_after_ms,
            r#final: !code.retryable(),
        }),
        ServerFrame::Page { conversation, messages, before } => Frame::Page(wire::Page {
            conversation: conversation.to_string(),
            events: messages.iter().map(|message| message_event(message)).collect(),
            before: before.map(Position::get),
        }),
        ServerFrame::Conversations { conversations, before } => Frame::Conversations(wire::Conversations {
            conversations: conversations.iter().map(to_summary).collect(),
            before: before.map(Position::get),
        }),
        ServerFrame::Receipt(receipt) => Frame::Receipt(v1::Receipt {
            conversation: receipt.conversation.to_string(),
            rev: receipt.rev,
            ..to_marks(receipt.member, receipt.marks)
        }),
        ServerFrame::Typing { conversation, from } => {
            Frame::Typing(wire::Typing { conversation: conversation.to_string(), sender: from.get() })
        }
        ServerFrame::Presence { user, presence } => Frame::Presence(to_presence(*user, *presence)),
        ServerFrame::Resync { epoch, head, floor, reason } => {
            let reason = to_reason(*reason).into();
            Frame::Resync(wire::Resync { epoch: *epoch, head: *head, floor: *floor, reason })
        }
        ServerFrame::Move { after_ms } => Frame::Move(wire::Move { after_ms: *after_ms }),
        ServerFrame::Reauth { before_ms } => Frame::Reauth(wire::Reauth { before_ms: *before_ms }),
        ServerFrame::Pong { now_ms } => Frame::Pong(wire::Pong { now_ms: *now_ms }),
        ServerFrame::Error { error, retry_after_ms } => Frame::Error(wire::Error {
            code: to_code(error.code).into(),
            field: error.field.clone(),
            message: error.message.clone(),
            id: error.id.map(to_id),
            retry_after_ms: *retry_after_ms,
        }),
    }
}

fn to_welcome(welcome: &Welcome) -> wire::Welcome {
    wire::Welcome {
        user: welcome.user.get(),
        device: welcome.device.to_string(),
        session: welcome.session.clone(),
        epoch: welcome.epoch,
        now_ms: welcome.now_ms,
        heartbeat_s: u32::try_from(welcome.heartbeat_s).unwrap_or(u32::MAX),
        limits: Some(to_limits(&welcome.limits)),
    }
}

const fn to_limits(limits: &Limits) -> v1::Limits {
    v1::Limits {
        body_bytes: limits.body_bytes as u64,
        frame_bytes: limits.frame_bytes as u64,
        sends_per_s: limits.sends_per_s,
        sends_burst: limits.sends_burst,
        window_events: limits.window_events,
        window_bytes: limits.window_bytes,
        in_flight: limits.in_flight,
        page_events: limits.page_events,
        watch_users: limits.watch_users,
    }
}

fn to_summary(one: &Conversation) -> wire::Summary {
    wire::Summary {
        conversation: one.last.record.identity.conversation.to_string(),
        last: Some(message_event(&one.last)),
        unread: one.unread,
        read: one.read.get(),
        receipts: one.receipts.iter().map(|(member, marks)| to_marks(*member, *marks)).collect(),
    }
}

/// The watermarks of a receipt, and whose.
fn to_marks(member: UserId, marks: Marks) -> v1::Receipt {
    v1::Receipt { member: member.get(), delivered: marks.delivered.get(), read: marks.read.get(), ..v1::Receipt::default() }
}

const fn to_presence(user: UserId, presence: Presence) -> wire::Presence {
    let (online, last_seen_ms) = match presence {
        Presence::Online => (true, None),
        Presence::Offline { last_seen_ms } => (false, last_seen_ms),
    };
    wire::Presence { user: user.get(), online, last_seen_ms }
}

fn message_event(message: &Message) -> v1::Event {
    let record = &message.record;
    let Content::Text(text) = &record.content;
    let what = wire_event::Event::Message(wire_event::Message {
        sender: record.identity.sender.get(),
        body: Some(wire_event::message::Body::Text(text.clone())),
        reply_to: record.reply_to.map(|reply| v1::MessageRef { sender: reply.from.get(), id: to_id(reply.id) }),
    });
    to_event(&record.identity, message.position, record.at_ms, what)
}

fn refusal_event(refusal: &Refusal) -> v1::Event {
    let what = wire_event::Event::Refused(wire_event::RefusedSend { code: to_code(refusal.code).into() });
    to_event(&refusal.identity, refusal.position, refusal.at_ms, what)
}

fn to_event(identity: &Identity, position: Position, at_ms: u64, what: wire_event::Event) -> v1::Event {
    v1::Event {
        seq: 0,
        conversation: identity.conversation.to_string(),
        position: position.get(),
        id: to_id(identity.id),
        at_ms,
        event: Some(what),
    }
}

fn to_id(id: MessageId) -> Vec<u8> {
    id.bytes().to_vec()
}

pub(super) const fn to_code(code: ErrorCode) -> v1::ErrorCode {
    match code {
        ErrorCode::BadRequest => v1::ErrorCode::BadRequest,
        ErrorCode::UnknownType => v1::ErrorCode::UnknownType,
        ErrorCode::BadField => v1::ErrorCode::BadField,
        ErrorCode::TooDeep => v1::ErrorCode::TooDeep,
        ErrorCode::BadId => v1::ErrorCode::BadId,
        ErrorCode::Empty => v1::ErrorCode::Empty,
        ErrorCode::TooLarge => v1::ErrorCode::TooLarge,
        ErrorCode::BadRecipient => v1::ErrorCode::BadRecipient,
        ErrorCode::Forbidden => v1::ErrorCode::Forbidden,
        ErrorCode::IdReused => v1::ErrorCode::IdReused,
        ErrorCode::TooMany => v1::ErrorCode::TooMany,
        ErrorCode::Rate => v1::ErrorCode::Rate,
        ErrorCode::Busy => v1::ErrorCode::Busy,
        ErrorCode::Fenced => v1::ErrorCode::Fenced,
        ErrorCode::Unavailable => v1::ErrorCode::Unavailable,
        ErrorCode::OutcomeUnknown => v1::ErrorCode::OutcomeUnknown,
    }
}

pub(super) const fn to_reason(reason: ResyncReason) -> v1::ResyncReason {
    match reason {
        ResyncReason::Epoch => v1::ResyncReason::Epoch,
        ResyncReason::Ahead => v1::ResyncReason::Ahead,
        ResyncReason::BelowFloor => v1::ResyncReason::BelowFloor,
    }
}
