use std::sync::Arc;

use proptest::prelude::*;

use crate::error_code::ErrorCode;
use crate::frame::{ClientFrame, Conversation, FrameError, Presence, Recipient, ServerFrame};
use crate::id::{ConversationId, MessageId, Position, UserId};
use crate::receipt::{Marks, Receipt};
use crate::record::{Content, Event, EventBody, Identity, Message, Record, ReplyTo};

const ID: &str = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e";

fn decode(text: &str) -> Result<ClientFrame, FrameError> {
    super::decode(text.as_bytes())
}

fn send_with(field: &str, value: &str) -> String {
    let mut fields = vec![("type", "\"send\""), ("to", "\"u:43\""), ("kind", "\"text\""), ("body", "{\"text\":\"hi\"}")];
    let id = format!("\"{ID}\"");
    fields.push(("id", &id));
    fields.retain(|(name, _)| *name != field);
    fields.push((field, value));
    let fields: Vec<_> =
        fields.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

#[test]
fn a_send_is_read_whole() {
    let text = send_with("reply_to", &format!("{{\"from\":\"43\",\"id\":\"{ID}\"}}"));
    let Ok(ClientFrame::Send(send)) = decode(&text) else { panic!("{text}") };
    assert_eq!(send.to, Recipient::User(UserId::new(43).unwrap()));
    assert_eq!(send.content, Content::Text("hi".into()));
    assert_eq!(send.reply_to, Some(ReplyTo { from: UserId::new(43).unwrap(), id: ID.parse().unwrap() }));
}

#[test]
fn what_is_no_frame_is_a_bad_request() {
    for text in [
        "",
        " ",
        "null",
        "[]",
        "7",
        "\"x\"",
        "{",
        "{}",
        "{\"type\":7}",
        "{\"type\":null}",
        "{\"type\":\"ping\"} x",
        "{\"type\":\"ping\",}",
    ] {
        assert_eq!(decode(text).unwrap_err().code, ErrorCode::BadRequest, "{text}");
    }
    assert_eq!(decode("{\"type\":\"fly\"}").unwrap_err().code, ErrorCode::UnknownType);
}

#[test]
fn unknown_fields_are_ignored() {
    assert_eq!(decode("{\"type\":\"ping\",\"new\":{\"a\":[1,2]},\"cursor\":\"x\"}"), Ok(ClientFrame::Ping));
}

#[test]
fn an_error_names_its_field_and_its_send() {
    let rows = [
        ("to", "", ErrorCode::BadField, "to"),
        ("to", "7", ErrorCode::BadField, "to"),
        ("to", "\"43\"", ErrorCode::BadRecipient, "to"),
        ("to", "\"u:0\"", ErrorCode::BadRecipient, "to"),
        ("to", "\"u:18446744073709551616\"", ErrorCode::BadRecipient, "to"),
        ("to", "\"d:43:42\"", ErrorCode::BadRecipient, "to"),
        ("kind", "\"hologram\"", ErrorCode::BadField, "kind"),
        ("body", "{}", ErrorCode::BadField, "body.text"),
        ("body", "{\"text\":1e400}", ErrorCode::BadField, "body.text"),
        ("body", "{\"text\":\"a\\u0000b\"}", ErrorCode::BadField, "body.text"),
        ("body", "{\"text\":\"\\ud800\"}", ErrorCode::BadField, "body.text"),
        ("reply_to", "{\"from\":\"x\",\"id\":\"y\"}", ErrorCode::BadField, "reply_to.from"),
    ];
    for (field, value, code, named) in rows {
        let text = send_with(field, value);
        let why = decode(&text).unwrap_err();
        assert_eq!((why.code, why.field.as_deref()), (code, Some(named)), "{text}");
        assert_eq!(why.id, Some(ID.parse().unwrap()), "{text}");
    }
    for id in ["\"x\"", "\"00000000-0000-0000-0000-000000000000\""] {
        assert_eq!(decode(&send_with("id", id)).unwrap_err().code, ErrorCode::BadId);
    }
    for (text, field) in [
        ("{\"type\":\"received\",\"seq\":\"7\"}", "seq"),
        ("{\"type\":\"received\",\"seq\":-1}", "seq"),
        ("{\"type\":\"received\",\"seq\":1.5}", "seq"),
        ("{\"type\":\"received\",\"seq\":18446744073709551616}", "seq"),
        ("{\"type\":\"received\"}", "seq"),
        ("{\"type\":\"hello\",\"cursor\":-1}", "cursor"),
        ("{\"type\":\"hello\",\"device\":\"a b\"}", "device"),
        ("{\"type\":\"hello\",\"rev\":7}", "rev"),
        ("{\"type\":\"read\",\"position\":\"7\"}", "conversation"),
        ("{\"type\":\"read\",\"conversation\":\"d:1:2\"}", "position"),
        ("{\"type\":\"read\",\"conversation\":\"d:1:2\",\"position\":7}", "position"),
        ("{\"type\":\"read\",\"conversation\":\"d:1:2\",\"position\":\"-1\"}", "position"),
        ("{\"type\":\"read\",\"conversation\":\"d:2:1\",\"position\":\"7\"}", "conversation"),
        ("{\"type\":\"typing\"}", "to"),
        ("{\"type\":\"typing\",\"to\":43}", "to"),
        ("{\"type\":\"watch\"}", "users"),
        ("{\"type\":\"watch\",\"users\":\"43\"}", "users"),
        ("{\"type\":\"watch\",\"users\":[\"43\",44]}", "users[1]"),
        ("{\"type\":\"watch\",\"users\":[\"0\"]}", "users[0]"),
        ("{\"type\":\"history\"}", "conversation"),
        ("{\"type\":\"history\",\"conversation\":\"d:1:2\",\"before\":12}", "before"),
    ] {
        let why = decode(text).unwrap_err();
        assert_eq!((why.code, why.field.as_deref()), (ErrorCode::BadField, Some(field)), "{text}");
    }
}

#[test]
fn nesting_is_refused_without_recursion() {
    let deep = format!("{{\"type\":\"ping\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(decode(&deep).unwrap_err().code, ErrorCode::TooDeep);
    let brackets_in_text = send_with("body", &format!("{{\"text\":\"{}\\\"[\"}}", "[{".repeat(100)));
    assert!(decode(&brackets_in_text).is_ok());
}

fn message(text: &str) -> Arc<Message> {
    let user = |n| UserId::new(n).unwrap();
    let id: MessageId = ID.parse().unwrap();
    let record = Record {
        identity: Identity { sender: user(42), conversation: ConversationId::direct(user(42), user(43)), id },
        content: Content::Text(text.into()),
        reply_to: None,
        at_ms: 1_795_000_000_123,
    };
    Arc::new(Message::new(record, Position::new(1, 18)))
}

#[test]
fn an_event_is_the_documented_one() {
    let mut out = Vec::new();
    super::event(&Event { seq: 18, body: EventBody::Message(message("hi")) }, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!(
            "{{\"type\":\"event\",\"seq\":18,\"event\":\"message\",\"conversation\":\"d:42:43\",\"position\":\"281474976710674\",\"from\":\"42\",\
             \"id\":\"{ID}\",\"kind\":\"text\",\"body\":{{\"text\":\"hi\"}},\"at\":\"2026-11-18T11:06:40.123Z\"}}"
        )
    );
}

fn listed(last: &Arc<Message>) -> Conversation {
    let marks = Marks { delivered: Position::new(1, 17), read: Position::new(1, 16) };
    let other = |number| (UserId::new(number).unwrap(), marks);
    Conversation { last: Arc::clone(last), unread: 3, read: Position::new(1, 9), receipts: vec![other(43), other(44)] }
}

fn encoded(frame: &ServerFrame) -> String {
    let mut out = Vec::new();
    super::encode(frame, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn receipts_typing_and_presence_are_the_documented_ones() {
    let (conversation, member) = ("d:42:43".parse().unwrap(), UserId::new(43).unwrap());
    let marks = Marks { delivered: Position::new(1, 18), read: Position::default() };
    assert_eq!(
        encoded(&ServerFrame::Receipt(Receipt { conversation, member, marks, rev: Position::new(1, 20).get() })),
        r#"{"type":"receipt","conversation":"d:42:43","member":"43","delivered":"281474976710674","read":"0","rev":"281474976710676"}"#
    );
    let typing = ServerFrame::Typing { conversation, from: member };
    assert_eq!(encoded(&typing), r#"{"type":"typing","conversation":"d:42:43","from":"43"}"#);
    let presence = |presence| encoded(&ServerFrame::Presence { user: member, presence });
    assert_eq!(presence(Presence::Online), r#"{"type":"presence","user":"43","online":true}"#);
    assert_eq!(presence(Presence::Offline { last_seen_ms: None }), r#"{"type":"presence","user":"43","online":false}"#);
    assert_eq!(
        presence(Presence::Offline { last_seen_ms: Some(1_795_000_000_123) }),
        r#"{"type":"presence","user":"43","online":false,"last_seen":"2026-11-18T11:06:40.123Z"}"#
    );
    let list = ServerFrame::Conversations { conversations: vec![listed(&message("hi"))], before: None };
    let list: serde_json::Value = serde_json::from_str(&encoded(&list)).unwrap();
    let one = &list["conversations"][0];
    assert_eq!((&one["unread"], &one["read"]), (&3.into(), &"281474976710665".into()));
    assert_eq!(one["receipts"][1]["delivered"], "281474976710673");
    assert_eq!(one["last"]["body"]["text"], "hi");
}

#[test]
fn marks_typing_and_watches_are_read() {
    let conversation = "d:42:43".parse().unwrap();
    let read = decode(r#"{"type":"read","conversation":"d:42:43","position":"281474976710674"}"#);
    assert_eq!(read, Ok(ClientFrame::Read { conversation, position: Position::new(1, 18) }));
    let typing = |to: &str| decode(&format!(r#"{{"type":"typing","to":"{to}"}}"#));
    assert_eq!(typing("u:43"), Ok(ClientFrame::Typing(Recipient::User(UserId::new(43).unwrap()))));
    assert_eq!(typing("d:42:43"), Ok(ClientFrame::Typing(Recipient::Conversation(conversation))));
    assert_eq!(typing("43").unwrap_err().code, ErrorCode::BadRecipient);
    let users = vec![UserId::new(43).unwrap(), UserId::new(44).unwrap()];
    assert_eq!(decode(r#"{"type":"watch","users":["43","44"]}"#), Ok(ClientFrame::Watch(users)));
    assert_eq!(decode(r#"{"type":"watch","users":[]}"#), Ok(ClientFrame::Watch(Vec::new())));
    let Ok(ClientFrame::Hello(hello)) = decode(r#"{"type":"hello","rev":"7"}"#) else { panic!("a hello") };
    assert_eq!(hello.rev, Some(7));
}

#[test]
fn pages_are_json() {
    for messages in [vec![], vec![message("a")], vec![message("a"), message("\u{202e}<b>\u{1b}[31m\n\"")]] {
        let conversation =
            messages.first().map_or(ConversationId::direct(UserId::SERVER, UserId::SERVER), |m| m.record.identity.conversation);
        for frame in [
            ServerFrame::Page { conversation, messages: messages.clone(), before: None },
            ServerFrame::Conversations {
                conversations: messages.iter().map(listed).collect(),
                before: Some(Position::new(1, 2)),
            },
        ] {
            let mut out = Vec::new();
            super::encode(&frame, &mut out);
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let list = value.get("events").or(value.get("conversations")).unwrap();
            assert_eq!(list.as_array().unwrap().len(), messages.len());
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = super::decode(&bytes);
    }

    #[test]
    fn any_text_comes_back_as_it_was(text in "[^\0]{1,80}") {
        let frame = send_with("body", &serde_json::json!({ "text": text }).to_string());
        let Ok(ClientFrame::Send(send)) = decode(&frame) else { panic!("{frame}") };
        prop_assert_eq!(&send.content, &Content::Text(text.clone()));
        let mut out = Vec::new();
        super::event(&Event { seq: 1, body: EventBody::Message(message(&text)) }, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(value["body"]["text"].as_str(), Some(text.as_str()));
    }
}
