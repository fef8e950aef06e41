use std::sync::Arc;

use proptest::prelude::*;

use crate::error_code::ErrorCode;
use crate::frame::{ClientFrame, FrameError, Recipient, ServerFrame};
use crate::id::{ConversationId, MessageId, Position, UserId};
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

#[test]
fn pages_are_json() {
    for messages in [vec![], vec![message("a")], vec![message("a"), message("\u{202e}<b>\u{1b}[31m\n\"")]] {
        let conversation =
            messages.first().map_or(ConversationId::direct(UserId::SERVER, UserId::SERVER), |m| m.record.identity.conversation);
        for frame in [
            ServerFrame::Page { conversation, messages: messages.clone(), before: None },
            ServerFrame::Conversations { last: messages.clone(), before: Some(Position::new(1, 2)) },
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
