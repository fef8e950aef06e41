//! The frames of the golden vectors in the server's own types, and a client's frames written again from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use protocol::codec::proto::v1;
use protocol::codec::proto::v1::client_frame::{self as wire, Frame};
use protocol::frame::{ClientFrame, Conversation, FrameError, Presence, Recipient, ResyncReason, Send, ServerFrame, Welcome};
use protocol::limits::Limits;
use protocol::receipt::{Marks, Receipt};
use protocol::record::{BodyHash, Content, Event, EventBody, Identity, Message, Record, Refusal, ReplyTo};
use protocol::{ConversationId, ErrorCode, MessageId, Position, UserId};
use serde_json::{Value, json};

use super::Said;

const AT_MS: u64 = 1_795_000_000_123;

fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

fn id() -> MessageId {
    "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e".parse().unwrap()
}

fn other_id() -> MessageId {
    "01932f6d-0a00-7000-8000-0000000000ff".parse().unwrap()
}

fn conversation() -> ConversationId {
    ConversationId::direct(user(42), user(43))
}

fn position(more: u64) -> Position {
    Position::new(1, 18 + more)
}

fn message(sender: u64, text: &str, more: u64, answers: bool) -> Arc<Message> {
    let id = if sender == 42 { id() } else { other_id() };
    let record = Record {
        identity: Identity { sender: user(sender), conversation: conversation(), id },
        content: Content::Text(text.into()),
        reply_to: answers.then(|| ReplyTo { from: user(43), id: other_id() }),
        at_ms: AT_MS,
    };
    Arc::new(Message::new(record, position(more)))
}

fn error(code: ErrorCode, field: Option<&str>, message: &str, id: Option<MessageId>) -> FrameError {
    FrameError { code, field: field.map(str::to_owned), message: message.to_owned(), id }
}

/// A server's frames by the names of their vectors.
pub(super) fn said() -> BTreeMap<&'static str, Said> {
    let unknown = "no report in time: send it again with the same id";
    let frames = [
        ("welcome", welcome()),
        ("live", ServerFrame::Live(18)),
        ("live, empty", ServerFrame::Live(0)),
        ("accepted", ServerFrame::Accepted { id: id(), conversation: conversation() }),
        ("refused", refused(ErrorCode::Rate, None, Some(400))),
        ("refused, for good", refused(ErrorCode::BadRecipient, Some("to"), None)),
        (
            "error",
            ServerFrame::Error { error: error(ErrorCode::BadField, Some("limit"), "from 1 to 100", None), retry_after_ms: None },
        ),
        (
            "error, outcome unknown",
            ServerFrame::Error { error: error(ErrorCode::OutcomeUnknown, None, unknown, Some(id())), retry_after_ms: Some(1000) },
        ),
        ("page", page(vec![message(43, "hi", 0, false), message(42, "and you", 1, false)], Some(position(0)))),
        ("page, empty", page(vec![], None)),
        ("conversations", conversations(0, Position::default(), Marks::default())),
        (
            "conversations, with receipts",
            conversations(
                3,
                Position::from_stored(281_474_976_710_600),
                Marks { delivered: position(0), read: Position::default() },
            ),
        ),
        ("conversations, none", ServerFrame::Conversations { conversations: vec![], before: Some(Position::from_stored(7)) }),
        ("receipt", receipt()),
        ("typing", ServerFrame::Typing { conversation: conversation(), from: user(43) }),
        ("presence", presence(Presence::Online)),
        ("presence, away", presence(Presence::Offline { last_seen_ms: Some(AT_MS) })),
        ("presence, never", presence(Presence::Offline { last_seen_ms: None })),
        (
            "error, too many",
            ServerFrame::Error { error: error(ErrorCode::TooMany, Some("users"), "at most 200", None), retry_after_ms: None },
        ),
        ("resync", ServerFrame::Resync { epoch: 1, head: 812, floor: 301, reason: ResyncReason::BelowFloor }),
        ("move", ServerFrame::Move { after_ms: 3200 }),
        ("reauth", ServerFrame::Reauth { before_ms: AT_MS }),
        ("pong", ServerFrame::Pong { now_ms: AT_MS }),
    ];
    frames.into_iter().map(|(name, frame)| (name, Said::Frame(frame))).chain(events()).collect()
}

fn events() -> [(&'static str, Said); 3] {
    let identity = Identity { sender: user(42), conversation: conversation(), id: id() };
    let refusal = Refusal { identity, position: position(0), body_hash: BodyHash(9), code: ErrorCode::IdReused, at_ms: AT_MS };
    let of = |seq, message| Said::Event(Event { seq, body: EventBody::Message(message) });
    [
        ("event", of(18, message(42, "hi", 0, false))),
        ("event, an answer", of(300, message(42, "grüß dich 👋", 1, true))),
        ("event, refused", Said::Event(Event { seq: 19, body: EventBody::Refused(Arc::new(refusal)) })),
    ]
}

fn welcome() -> ServerFrame {
    ServerFrame::Welcome(Box::new(Welcome {
        user: user(42),
        device: "phone-1".parse().unwrap(),
        session: "6f1c0a2b3c4d5e6f".to_owned(),
        epoch: 1,
        now_ms: AT_MS,
        heartbeat_s: 30,
        limits: Limits::default(),
    }))
}

fn refused(code: ErrorCode, field: Option<&str>, retry_after_ms: Option<u64>) -> ServerFrame {
    ServerFrame::Refused { id: id(), code, field: field.map(str::to_owned), retry_after_ms }
}

fn conversations(unread: u32, read: Position, other: Marks) -> ServerFrame {
    let last = message(43, "hi", 0, false);
    ServerFrame::Conversations {
        conversations: vec![Conversation { last, unread, read, receipts: vec![(user(43), other)] }],
        before: None,
    }
}

fn receipt() -> ServerFrame {
    let marks = Marks { delivered: position(0), read: Position::from_stored(281_474_976_710_673) };
    ServerFrame::Receipt(Receipt { conversation: conversation(), member: user(43), marks, rev: 908 })
}

fn presence(presence: Presence) -> ServerFrame {
    ServerFrame::Presence { user: user(43), presence }
}

fn page(messages: Vec<Arc<Message>>, before: Option<Position>) -> ServerFrame {
    ServerFrame::Page { conversation: conversation(), messages, before }
}

/// A client's frame as JSON.
pub(super) fn json(frame: &ClientFrame) -> Value {
    let mut value = match frame {
        ClientFrame::Hello(hello) => json!({
            "type": "hello", "token": hello.token, "device": hello.device.as_ref().map(ToString::to_string),
            "epoch": hello.epoch.map(|epoch| epoch.to_string()), "cursor": hello.cursor, "version": hello.version, "rev": hello.rev.map(|rev| rev.to_string()),
        }),
        ClientFrame::Send(send) => send_json(send),
        ClientFrame::Received(seq) => json!({"type": "received", "seq": seq}),
        ClientFrame::History { conversation, before, limit } => json!({
            "type": "history", "conversation": conversation.to_string(), "before": before.map(|at| at.to_string()), "limit": limit,
        }),
        ClientFrame::Conversations { before, limit } => {
            json!({"type": "conversations", "before": before.map(|at| at.to_string()), "limit": limit})
        }
        ClientFrame::Read { conversation, position } => {
            json!({"type": "read", "conversation": conversation.to_string(), "position": position.to_string()})
        }
        ClientFrame::Typing(to) => json!({"type": "typing", "to": named(*to)}),
        ClientFrame::Watch(users) => {
            json!({"type": "watch", "users": users.iter().map(ToString::to_string).collect::<Vec<_>>()})
        }
        ClientFrame::Ping => json!({"type": "ping"}),
    };
    value.as_object_mut().unwrap().retain(|_, field| !field.is_null());
    value
}

fn named(to: Recipient) -> String {
    match to {
        Recipient::User(user) => format!("u:{user}"),
        Recipient::Conversation(conversation) => conversation.to_string(),
    }
}

fn send_json(send: &Send) -> Value {
    let Content::Text(text) = &send.content;
    let to = named(send.to);
    let reply_to = send.reply_to.map(|reply| json!({"from": reply.from.to_string(), "id": reply.id.to_string()}));
    json!({"type": "send", "id": send.id.to_string(), "to": to, "kind": "text", "body": {"text": text}, "reply_to": reply_to})
}

/// A client's frame as Protobuf.
pub(super) fn proto(frame: &ClientFrame) -> Vec<u8> {
    let frame = match frame {
        ClientFrame::Hello(hello) => Frame::Hello(wire::Hello {
            token: hello.token.clone(),
            device: hello.device.as_ref().map(ToString::to_string),
            epoch: hello.epoch,
            cursor: hello.cursor,
            version: hello.version,
            rev: hello.rev,
        }),
        ClientFrame::Send(send) => send_proto(send),
        ClientFrame::Received(seq) => Frame::Received(wire::Received { seq: *seq }),
        ClientFrame::History { conversation, before, limit } => Frame::History(wire::History {
            conversation: conversation.to_string(),
            before: before.map(Position::get),
            limit: *limit,
        }),
        ClientFrame::Conversations { before, limit } => {
            Frame::Conversations(wire::Conversations { before: before.map(Position::get), limit: *limit })
        }
        ClientFrame::Read { conversation, position } => {
            Frame::Read(wire::Read { conversation: conversation.to_string(), position: position.get() })
        }
        ClientFrame::Typing(to) => Frame::Typing(wire::Typing {
            to: Some(match to {
                Recipient::User(user) => wire::typing::To::User(user.get()),
                Recipient::Conversation(conversation) => wire::typing::To::Conversation(conversation.to_string()),
            }),
        }),
        ClientFrame::Watch(users) => Frame::Watch(wire::Watch { users: users.iter().map(|user| user.get()).collect() }),
        ClientFrame::Ping => Frame::Ping(wire::Ping {}),
    };
    v1::ClientFrame { frame: Some(frame) }.encode_to_vec()
}

fn send_proto(send: &Send) -> Frame {
    let Content::Text(text) = &send.content;
    Frame::Send(wire::Send {
        id: send.id.bytes().to_vec(),
        to: Some(match send.to {
            Recipient::User(user) => wire::send::To::User(user.get()),
            Recipient::Conversation(conversation) => wire::send::To::Conversation(conversation.to_string()),
        }),
        body: Some(wire::send::Body::Text(text.clone())),
        reply_to: send.reply_to.map(|reply| v1::MessageRef { sender: reply.from.get(), id: reply.id.bytes().to_vec() }),
    })
}
