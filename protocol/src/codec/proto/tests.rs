use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message as _;
use protox::prost_reflect::{DescriptorPool, Kind};

use super::v1::client_frame::{self as wire, Frame, send};
use super::v1::{self, MessageRef};
use crate::error_code::ErrorCode;
use crate::frame::{ClientFrame, FrameError, Recipient, ResyncReason};
use crate::id::{ConversationId, MessageId, Position, UserId};
use crate::record::{BodyHash, Content, Event, EventBody, Identity, Message, Record, Refusal, ReplyTo};

const ID: &str = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e";

fn id() -> MessageId {
    ID.parse().unwrap()
}

fn user(number: u64) -> UserId {
    UserId::new(number).unwrap()
}

fn good_send() -> wire::Send {
    wire::Send {
        id: id().bytes().to_vec(),
        to: Some(send::To::User(43)),
        body: Some(send::Body::Text("hi".into())),
        reply_to: Some(MessageRef { sender: 43, id: id().bytes().to_vec() }),
    }
}

fn bytes(frame: Frame) -> Vec<u8> {
    v1::ClientFrame { frame: Some(frame) }.encode_to_vec()
}

fn decode(frame: Frame) -> Result<ClientFrame, FrameError> {
    super::decode(&bytes(frame))
}

/// A field with a length: `tag` below 16, content below 128 bytes.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

#[test]
fn a_send_is_read_whole() {
    let Ok(ClientFrame::Send(send)) = decode(Frame::Send(good_send())) else { panic!("a good send") };
    assert_eq!((send.id, send.to), (id(), Recipient::User(user(43))));
    assert_eq!(send.content, Content::Text("hi".into()));
    assert_eq!(send.reply_to, Some(ReplyTo { from: user(43), id: id() }));
}

#[test]
fn damaged_bytes_are_a_bad_request() {
    let rows: [(&str, Vec<u8>); 15] = [
        ("nothing", vec![]),
        ("JSON", br#"{"type":"ping"}"#.to_vec()),
        ("a varint of 11 bytes", [field(3, &[&[0x08][..], &[0xff; 10], &[0x01]].concat()), vec![]].concat()),
        ("a varint of more than 64 bits", field(3, &[&[0x08][..], &[0xff; 9], &[0x7f]].concat())),
        ("a varint without an end", field(3, &[0x08, 0x80])),
        ("a length beyond the end", vec![0x12, 0x7f, 0x0a]),
        ("a length beyond the end, inside", field(2, &[0x22, 0x7f, b'x'])),
        ("a length of 2^62, inside", field(2, &[&[0x22][..], &[0x80; 8], &[0x40]].concat())),
        ("a length of 2^40, inside", field(2, &[0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20])),
        ("the tag 0", vec![0x02, 0x00]),
        ("wire type 6", vec![0x0e]),
        ("a seq as text", field(3, &[0x0a, 0x01, b'7'])),
        ("a text as number", field(2, &[0x20, 0x07])),
        ("a frame as number", vec![0x30, 0x00]),
        ("text that is not UTF-8", field(2, &[0x22, 0x02, 0xc3, 0x28])),
    ];
    for (what, bytes) in rows {
        let why = super::decode(&bytes).unwrap_err();
        assert_eq!((why.code, why.field, why.id), (ErrorCode::BadRequest, None, None), "{what}");
    }
    let whole = bytes(Frame::Send(good_send()));
    for cut in 1..whole.len() {
        assert_eq!(super::decode(&whole[..cut]).unwrap_err().code, ErrorCode::BadRequest, "cut after {cut}");
    }
    assert!(super::decode(&[0x12, 0x7f, 0x0a]).unwrap_err().message.contains("ClientFrame"), "an error names the message");
}

#[test]
fn unknown_types_are_named_and_unknown_fields_ignored() {
    let unknown = [field(15, b""), field(14, b"\x0b"), vec![0x98, 0x06, 0x01]];
    for bytes in unknown {
        assert_eq!(super::decode(&bytes).unwrap_err().code, ErrorCode::UnknownType, "{bytes:02x?}");
    }
    let more: [&[u8]; 4] = [&[0x78, 0x01], &[0x7a, 0x02, 0x0b, 0x0c], &[0x79, 1, 2, 3, 4, 5, 6, 7, 8], &[0x7d, 1, 2, 3, 4]];
    let more = more.concat();
    let ping = [more.clone(), bytes(Frame::Ping(wire::Ping {})), more.clone()].concat();
    assert_eq!(super::decode(&ping), Ok(ClientFrame::Ping));
    let received = field(3, &[more.clone(), vec![0x08, 0x07], more.clone()].concat());
    assert_eq!(super::decode(&received), Ok(ClientFrame::Received(7)));
    let reply = [MessageRef { sender: 43, id: id().bytes().to_vec() }.encode_to_vec(), more].concat();
    let send = wire::Send { reply_to: None, ..good_send() }.encode_to_vec();
    let whole = field(2, &[send, field(5, &reply)].concat());
    assert!(matches!(super::decode(&whole), Ok(ClientFrame::Send(send)) if send.reply_to.is_some()));
}

#[test]
fn an_error_names_its_field_and_its_send() {
    use ErrorCode::{BadField, BadId, BadRecipient};
    let conversation = |name: &str| Some(send::To::Conversation(name.to_owned()));
    let text = |text: &str| Some(send::Body::Text(text.to_owned()));
    let reply = |sender, id: &[u8]| Some(MessageRef { sender, id: id.to_vec() });
    let rows = [
        (wire::Send { to: None, ..good_send() }, BadField, "to"),
        (wire::Send { to: Some(send::To::User(0)), ..good_send() }, BadRecipient, "to"),
        (wire::Send { to: Some(send::To::User(u64::MAX)), ..good_send() }, BadRecipient, "to"),
        (wire::Send { to: conversation(""), ..good_send() }, BadRecipient, "to"),
        (wire::Send { to: conversation("u:43"), ..good_send() }, BadRecipient, "to"),
        (wire::Send { to: conversation("d:43:42"), ..good_send() }, BadRecipient, "to"),
        (wire::Send { body: None, ..good_send() }, BadField, "body"),
        (wire::Send { body: text("a\0b"), ..good_send() }, BadField, "body.text"),
        (wire::Send { reply_to: reply(0, id().bytes()), ..good_send() }, BadField, "reply_to.sender"),
        (wire::Send { reply_to: reply(43, b""), ..good_send() }, BadField, "reply_to.id"),
        (wire::Send { reply_to: reply(43, &[7; 16]), ..good_send() }, BadField, "reply_to.id"),
    ];
    for (send, code, named) in rows {
        let why = decode(Frame::Send(send.clone())).unwrap_err();
        assert_eq!((why.code, why.field.as_deref(), why.id), (code, Some(named), Some(id())), "{send:?}");
    }
    for (bytes, code) in [(&b""[..], BadField), (&[0; 16], BadId), (&id().bytes()[..15], BadId), (&[7; 17], BadId)] {
        let why = decode(Frame::Send(wire::Send { id: bytes.to_vec(), ..good_send() })).unwrap_err();
        assert_eq!((why.code, why.field.as_deref(), why.id), (code, Some("id"), None), "{bytes:?}");
    }
    let named = |name: &str| Frame::History(wire::History { conversation: name.to_owned(), before: None, limit: None });
    let device = |name: &str| Frame::Hello(wire::Hello { device: Some(name.to_owned()), ..wire::Hello::default() });
    let read = |name: &str| Frame::Read(wire::Read { conversation: name.to_owned(), position: 7 });
    let watch = |users: &[u64]| Frame::Watch(wire::Watch { users: users.to_vec() });
    let typing = |to| decode(Frame::Typing(wire::Typing { to: Some(to) })).unwrap_err().code;
    assert_eq!(typing(wire::typing::To::User(0)), BadRecipient);
    assert_eq!(typing(wire::typing::To::Conversation("d:43:42".into())), BadRecipient);
    let rows = [
        (named(""), "conversation"),
        (named("d:43:42"), "conversation"),
        (named("d:0:73"), "conversation"),
        (device(""), "device"),
        (device("a b"), "device"),
        (read(""), "conversation"),
        (read("d:43:42"), "conversation"),
        (Frame::Typing(wire::Typing { to: None }), "to"),
        (watch(&[43, 0]), "users[1]"),
        (watch(&[u64::MAX]), "users[0]"),
    ];
    for (frame, field) in rows {
        let why = decode(frame).unwrap_err();
        assert_eq!((why.code, why.field.as_deref()), (BadField, Some(field)));
    }
}

/// The ways to the messages inside a client's frame, by the tags on them, from the contract itself.
fn ways() -> Vec<Vec<u32>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let contract = protox::compile(["switchboard/v1/switchboard.proto"], [root]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(contract).unwrap();
    let (mut ways, mut next) = (Vec::new(), vec![(Vec::new(), pool.get_message_by_name("switchboard.v1.ClientFrame").unwrap())]);
    while let Some((way, message)) = next.pop() {
        for field in message.fields() {
            if let Kind::Message(inner) = field.kind() {
                next.push(([&way[..], &[field.number()]].concat(), inner));
            }
        }
        ways.push(way);
    }
    ways
}

#[test]
fn groups_are_refused_wherever_fields_are_and_nowhere_else() {
    let ways = ways();
    assert!(ways.len() > 10, "{ways:?}");
    let wrap = |way: &[u32], inside: &[u8]| way.iter().rev().fold(inside.to_vec(), |inner, tag| field(*tag as u8, &inner));
    for way in ways {
        for group in [&[0x7b, 0x7c][..], &[0x7b, 0x08, 0x01, 0x7c], &[0x7c], &[0x7b]] {
            let why = super::decode(&wrap(&way, group)).unwrap_err();
            assert_eq!(
                (why.code, why.message.as_str()),
                (ErrorCode::BadRequest, "a group, or no wire type"),
                "{way:?} {group:?}"
            );
        }
        // a field that is no message there may hold the same bytes
        assert!(!super::groups::has_group(&wrap(&way, &field(15, &[0x7b, 0x7c]))), "{way:?}");
    }
    let deep = [vec![0x7b; 30_000], vec![0x7c; 30_000]].concat();
    assert_eq!(super::decode(&deep).unwrap_err().code, ErrorCode::BadRequest);
}

fn message(text: &str) -> Arc<Message> {
    let record = Record {
        identity: Identity { sender: user(42), conversation: ConversationId::direct(user(42), user(43)), id: id() },
        content: Content::Text(text.into()),
        reply_to: Some(ReplyTo { from: user(43), id: id() }),
        at_ms: 1_795_000_000_123,
    };
    Arc::new(Message::new(record, Position::new(1, 18)))
}

fn written(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    super::event(event, &mut out);
    out
}

#[test]
fn an_event_put_together_is_the_event_of_the_contract() {
    let (one, refused) = (message("hi"), message("x").record.identity);
    let refusal =
        Refusal { identity: refused, position: Position::new(1, 9), body_hash: BodyHash(7), code: ErrorCode::IdReused, at_ms: 5 };
    for seq in [1, 127, 128, u64::MAX] {
        for body in [EventBody::Message(Arc::clone(&one)), EventBody::Refused(Arc::new(refusal.clone()))] {
            let bytes = written(&Event { seq, body });
            let frame = v1::ServerFrame::decode(&bytes[..]).unwrap();
            let Some(v1::server_frame::Frame::Event(event)) = &frame.frame else { panic!("{frame:?}") };
            assert_eq!((event.seq, &event.conversation[..], event.id.len()), (seq, "d:42:43", 16));
            assert_eq!(frame.encode_to_vec(), bytes, "as generated code writes it");
        }
    }
    let shared = one.proto().as_ptr();
    written(&Event { seq: 5, body: EventBody::Message(Arc::clone(&one)) });
    assert_eq!(one.proto().as_ptr(), shared, "encoded once");
}

#[test]
fn every_code_and_reason_has_its_name_in_the_contract() {
    let mut numbers = HashSet::new();
    for code in ErrorCode::ALL {
        let wire = super::encode::to_code(code);
        assert_eq!(wire.as_str_name(), format!("ERROR_CODE_{}", code.name().to_uppercase()));
        assert!(numbers.insert(wire as i32));
    }
    for reason in [ResyncReason::Epoch, ResyncReason::Ahead, ResyncReason::BelowFloor] {
        let wire = super::encode::to_reason(reason);
        assert_eq!(wire.as_str_name(), format!("RESYNC_REASON_{}", reason.name().to_uppercase()));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = super::decode(&bytes);
    }

    #[test]
    fn any_text_comes_back_as_it_was(text in "[^\0]{1,80}") {
        let fields = wire::Send { body: Some(send::Body::Text(text.clone())), ..good_send() };
        let Ok(ClientFrame::Send(send)) = decode(Frame::Send(fields)) else { panic!("{text:?}") };
        prop_assert_eq!(&send.content, &Content::Text(text.clone()));
        let bytes = written(&Event { seq: 1, body: EventBody::Message(message(&text)) });
        prop_assert!(bytes.windows(text.len()).any(|part| part == text.as_bytes()));
    }
}
