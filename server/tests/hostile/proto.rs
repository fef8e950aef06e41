//! Rows of Protobuf: damaged bytes, and the checks of JSON on fields that were read well.

use protocol::codec::Encoding;
use protocol::codec::proto::v1::MessageRef;
use protocol::codec::proto::v1::client_frame::{Conversations, Frame, Hello, History, Received, Send, send};

use crate::raw::proto::{message, ping};
use crate::raw::{Server, client_frame};
use crate::{Deed, Row, USER, row};

/// In Protobuf.
fn proto(row: Row) -> Row {
    Row { encoding: Encoding::Proto, what: format!("{} (Protobuf)", row.what), ..row }
}

fn answered(of: u8, what: &str, send: Vec<u8>, words: &'static [&'static str]) -> Row {
    proto(row(of, what, Deed::Answered { send, words }))
}

fn fatal(of: u8, what: &str, send: Vec<u8>, code: u16) -> Row {
    proto(row(of, what, Deed::Fatal { send, code }))
}

fn greets(of: u8, what: &str, send: Vec<u8>, code: u16) -> Row {
    proto(row(of, what, Deed::Greeting { send, code }))
}

/// A field with a length, its tag below 16.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let length = if length < 128 {
        vec![length as u8]
    } else {
        vec![length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8]
    };
    [vec![tag << 3 | 2], length, content.to_vec()].concat()
}

pub(crate) fn rows(server: &Server) -> Vec<Row> {
    let mut all = damaged();
    all.extend(frames());
    all.extend(first(server));
    all.extend(fields());
    all.extend(sends());
    all
}

fn damaged() -> Vec<Row> {
    let bad = |what: &str, bytes: &[u8]| answered(52, what, client_frame(0x82, bytes), &["bad_request"]);
    let varint = |last: u8| field(3, &[&[0x08][..], &[0xff; 9], &[last]].concat());
    let group = |depth: usize| [vec![0x7b; depth], vec![0x7c; depth]].concat();
    vec![
        bad("nothing", b""),
        bad("JSON", br#"{"type":"ping"}"#),
        bad("a varint of 11 bytes", &field(3, &[&[0x08][..], &[0xff; 10], &[0x01]].concat())),
        bad("a varint of 65 bits", &varint(0x02)),
        bad("a varint without an end", &[0x80; 60_000]),
        bad("a length beyond the end", &[0x12, 0x7f, 0x0a]),
        bad("a length of 2^62, for a text", &field(2, &[&[0x22][..], &[0x80; 8], &[0x40]].concat())),
        bad("a length of 2^32, for a token", &field(1, &[0x0a, 0x80, 0x80, 0x80, 0x80, 0x10])),
        bad("a length of 2^40, for a list", &field(9, &[0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20])),
        bad("a group", &group(1)),
        bad("a group in a send", &field(2, &group(1))),
        bad("30,000 groups in each other", &group(30_000)),
        bad("30,000 groups without an end", &[0x7b; 30_000]),
        bad("30,000 ends", &[0x7c; 30_000]),
        bad("wire types that do not exist", &[0x0e, 0x0f]),
        bad("the tag 0", &[0x02, 0x00]),
        bad("a seq as text", &field(3, &[0x0a, 0x01, b'7'])),
        bad("a text as number", &field(2, &[0x20, 0x07])),
        bad("a type as number", &[0x30, 0x00]),
        bad("text that is not UTF-8", &field(2, &[0x22, 0x02, 0xc3, 0x28])),
        bad("sends in a send, 13,000 deep", &(0..13_000).fold(Vec::new(), |inner, _| field(2, &inner))),
        fatal(
            52,
            "three times",
            [client_frame(0x82, b""), client_frame(0x82, b"\x0b"), client_frame(0x82, b"\x7b")].concat(),
            4400,
        ),
    ]
}

fn frames() -> Vec<Row> {
    let unknown = field(15, b"new");
    let received = |seq| message(Frame::Received(Received { seq }));
    vec![
        fatal(36, "text", client_frame(0x81, br#"{"type":"ping"}"#), 1003),
        fatal(36, "text in fragments", [client_frame(0x01, b"{"), client_frame(0x80, b"}")].concat(), 1003),
        answered(36, "binary in fragments", [client_frame(0x02, &[0x32]), client_frame(0x80, &[0x00])].concat(), &["pong"]),
        answered(48, "unknown type", client_frame(0x82, &unknown), &["unknown_type"]),
        answered(48, "unknown field", client_frame(0x82, &[&unknown[..], &[0x32, 0x00]].concat()), &["pong"]),
        answered(
            48,
            "20,000 unknown fields",
            client_frame(0x82, &[[0x78, 0x01].repeat(20_000), vec![0x32, 0x00]].concat()),
            &["pong"],
        ),
        answered(48, "two types: the last counts", client_frame(0x82, &[0x1a, 0x02, 0x08, 0x07, 0x32, 0x00]), &["pong"]),
        fatal(58, "second hello", message(Frame::Hello(Hello::default())), 4400),
        fatal(96, "errors", client_frame(0x82, &unknown).repeat(1000), 4429),
        fatal(96, "application pings", ping().repeat(1000), 4429),
        fatal(97, "acknowledgement of what was never sent", received(999_999), 4400),
        fatal(97, "of the last there can be", received(u64::MAX), 4400),
    ]
}

fn first(server: &Server) -> Vec<Row> {
    let hello = |token: &str, device: &str| crate::raw::proto::hello(token, device);
    vec![
        greets(36, "text in place of hello", client_frame(0x81, b"{}"), 1003),
        greets(57, "another frame", ping(), 4401),
        greets(57, "no Protobuf", client_frame(0x82, b"hello"), 4401),
        greets(57, "nothing in it", client_frame(0x82, b""), 4401),
        greets(57, "a hello without token", message(Frame::Hello(Hello::default())), 4401),
        greets(62, "not base64", hello("a.b.c", "a"), 4401),
        greets(62, "60,000 letters", hello(&"a".repeat(60_000), "a"), 4401),
        greets(66, "a device that is no name", hello(&server.token(USER), "a/../b"), 4400),
    ]
}

fn fields() -> Vec<Row> {
    let history = |conversation: &str, limit| {
        message(Frame::History(History { conversation: conversation.into(), before: Some(0), limit }))
    };
    let list = |limit| message(Frame::Conversations(Conversations { before: Some(u64::MAX), limit: Some(limit) }));
    vec![
        answered(49, "no conversation", history("", None), &["bad_field", "conversation"]),
        answered(49, "absurd limit", history("d:1:73", Some(u32::MAX)), &["bad_field", "limit"]),
        answered(49, "limit 0", list(0), &["bad_field", "limit"]),
        answered(49, "the last position", list(1), &["conversations"]),
        answered(49, "before nothing", history("d:1:73", None), &["page", "\"events\":0"]),
        answered(74, "history of others", history("d:1:2", None), &["forbidden"]),
        answered(74, "history of the server", history("d:0:73", None), &["bad_field", "conversation"]),
    ]
}

fn sends() -> Vec<Row> {
    let at_limit = 16 * 1024;
    let id = || uuid::Uuid::now_v7().into_bytes().to_vec();
    let good = || Send { id: id(), to: Some(send::To::User(1)), body: Some(send::Body::Text("x".into())), reply_to: None };
    let says = |of, what: &str, send: Send, words| answered(of, what, message(Frame::Send(send)), words);
    let text = |text: &str| Send { body: Some(send::Body::Text(text.into())), ..good() };
    let to = |to| Send { to: Some(to), ..good() };
    let by_name = |name: &str| to(send::To::Conversation(name.into()));
    vec![
        says(49, "no body, or of a kind to come", Send { body: None, ..good() }, &["refused", "bad_field", "body"]),
        says(
            49,
            "answer to nobody",
            Send { reply_to: Some(MessageRef { sender: 0, id: id() }), ..good() },
            &["refused", "bad_field", "reply_to"],
        ),
        says(51, "NUL", text("a\0b"), &["refused", "bad_field", "body.text"]),
        says(51, "bidi, 5,000 marks, zero width", text(&format!("\u{202e}a{}\u{200b}", "\u{301}".repeat(5000))), &["accepted"]),
        says(54, "empty", text(""), &["refused", "empty", "\"final\":true"]),
        says(54, "at the limit", text(&"x".repeat(at_limit)), &["accepted"]),
        says(54, "over the limit", text(&"x".repeat(at_limit + 1)), &["refused", "too_large", "\"final\":true"]),
        says(73, "no id", Send { id: Vec::new(), ..good() }, &["bad_field", "id"]),
        says(73, "nil", Send { id: vec![0; 16], ..good() }, &["bad_id"]),
        says(73, "60,000 bytes", Send { id: vec![7; 60_000], ..good() }, &["bad_id"]),
        says(
            73,
            "too old",
            Send { id: [&[1, 0x80, 0, 0, 0, 0, 0x70, 0, 0x80][..], &[0; 7]].concat(), ..good() },
            &["refused", "bad_id"],
        ),
        says(74, "nobody", Send { to: None, ..good() }, &["refused", "bad_field", "to"]),
        says(74, "user 0", to(send::To::User(0)), &["refused", "bad_recipient"]),
        says(74, "the server's own number", to(send::To::User((1 << 63) - (1 << 32))), &["refused", "bad_recipient"]),
        says(74, "somebody else's conversation", by_name("d:1:2"), &["refused", "bad_recipient"]),
        says(74, "a user as a conversation", by_name("u:1"), &["refused", "bad_recipient"]),
    ]
}
