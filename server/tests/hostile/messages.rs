//! Rows of JSON and of what a frame asks for, after a good attach: answered in band, and the connection stays.

use crate::raw::client_frame;
use crate::{Deed, Row, row};

/// Stands in bodies and must never stand in the log.
pub(crate) const MARKER: &str = "DROP TABLE users";

pub(crate) fn says(of: u8, what: &str, frame: &str, words: &'static [&'static str]) -> Row {
    row(of, what, Deed::Answered { send: client_frame(0x81, frame.as_bytes()), words })
}

pub(crate) fn id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn send(fields: &str) -> String {
    format!(r#"{{"type":"send",{fields}}}"#)
}

fn with_id(id: &str) -> String {
    send(&format!(r#""id":"{id}","to":"u:1","kind":"text","body":{{"text":"x"}}"#))
}

fn to(to: &str) -> String {
    send(&format!(r#""id":"{}","to":"{to}","kind":"text","body":{{"text":"x"}}"#, id()))
}

fn text(text: &str) -> String {
    raw_text(&serde_json::json!(text).to_string())
}

/// The text as JSON.
fn raw_text(json: &str) -> String {
    send(&format!(r#""id":"{}","to":"u:1","kind":"text","body":{{"text":{json}}}"#, id()))
}

pub(crate) fn rows() -> Vec<Row> {
    [shapes(), fields(), bodies(), names()].into_iter().flatten().collect()
}

fn shapes() -> Vec<Row> {
    let nested = |depth: usize| format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let many: String = (0..4000).map(|n| format!(r#""f{n}":0,"#)).collect();
    let mut rows: Vec<_> =
        [("nothing", ""), ("blanks", " \r\n\t"), ("null", "null"), ("array", "[]"), ("number", "7"), ("string", r#""ping""#)]
            .iter()
            .chain(&[("half an object", r#"{"type":"ping""#), ("two objects", r#"{"type":"ping"}{"type":"ping"}"#)])
            .chain(&[("an object without type", "{}"), ("type is a number", r#"{"type":7}"#), ("a BOM", "\u{feff}{}")])
            .map(|(what, frame)| says(45, what, frame, &["bad_request"]))
            .collect();
    rows.extend([
        says(46, "60,000 brackets", &nested(30_000), &["too_deep"]),
        says(46, "open ones only", &"[".repeat(60_000), &["too_deep"]),
        says(46, "objects", &r#"{"a":"#.repeat(10_000), &["too_deep"]),
        says(46, "one level too many", &nested(32), &["too_deep"]),
        says(46, "as many as are allowed", &nested(31), &["pong"]),
        says(46, "brackets in a string are text", &text(&"[".repeat(10_000)), &["accepted"]),
        says(48, "unknown type", r#"{"type":"fly"}"#, &["unknown_type"]),
        says(48, "type in another case", r#"{"type":"PING"}"#, &["unknown_type"]),
        says(48, "unknown field", r#"{"type":"ping","colour":"red"}"#, &["pong"]),
        says(48, "4,000 unknown fields", &format!(r#"{{{many}"type":"ping"}}"#), &["pong"]),
        says(48, "the same field twice", r#"{"type":"received","seq":1,"seq":2}"#, &["bad_field", "seq"]),
        says(48, "the type twice", r#"{"type":"ping","type":"ping"}"#, &["bad_request"]),
    ]);
    rows
}

fn fields() -> Vec<Row> {
    let seq = |what: &str, seq: &str| says(49, what, &format!(r#"{{"type":"received","seq":{seq}}}"#), &["bad_field", "seq"]);
    vec![
        seq("seq as string", r#""1""#),
        seq("seq as float", "1.5"),
        seq("1e400", "1e400"),
        seq("negative", "-1"),
        seq("2^64", "18446744073709551616"),
        seq("a number of 60,000 digits", &"9".repeat(60_000)),
        says(49, "seq missing", r#"{"type":"received"}"#, &["bad_field", "seq"]),
        says(49, "id as number", &send(r#""id":7,"to":"u:1","kind":"text","body":{"text":"x"}"#), &["bad_field", "id"]),
        says(
            49,
            "body as string",
            &send(&format!(r#""id":"{}","to":"u:1","kind":"text","body":"x""#, id())),
            &["refused", "bad_field", "body"],
        ),
        says(
            49,
            "unknown kind",
            &send(&format!(r#""id":"{}","to":"u:1","kind":"file","body":{{"text":"x"}}"#, id())),
            &["refused", "kind"],
        ),
        says(
            49,
            "answer to nobody",
            &send(&format!(
                r#""id":"{}","to":"u:1","kind":"text","body":{{"text":"x"}},"reply_to":{{"from":"0","id":"{}"}}"#,
                id(),
                id()
            )),
            &["refused", "bad_field", "reply_to"],
        ),
        says(49, "limit as string", r#"{"type":"conversations","limit":"5"}"#, &["bad_field", "limit"]),
        says(49, "limit over 2^32", r#"{"type":"conversations","limit":4294967296}"#, &["bad_field", "limit"]),
        says(49, "absurd limit", r#"{"type":"history","conversation":"d:1:73","limit":4000000000}"#, &["bad_field", "limit"]),
        says(49, "limit 0", r#"{"type":"conversations","limit":0}"#, &["bad_field", "limit"]),
        says(49, "position as number", r#"{"type":"conversations","before":7}"#, &["bad_field", "before"]),
        says(49, "position of 65 bits", r#"{"type":"conversations","before":"18446744073709551616"}"#, &["bad_field", "before"]),
        says(49, "the last position", r#"{"type":"conversations","before":"18446744073709551615"}"#, &["conversations"]),
        says(49, "before nothing", r#"{"type":"history","conversation":"d:1:73","before":"0"}"#, &["page", "\"events\":[]"]),
    ]
}

fn bodies() -> Vec<Row> {
    let at_limit = 16 * 1024;
    vec![
        says(51, "NUL", &text("a\0b"), &["refused", "bad_field", "body.text"]),
        says(51, "NUL, escaped", &raw_text(r#""a\u0000b""#), &["refused", "bad_field", "body.text"]),
        says(51, "first half of a surrogate", &raw_text(r#""\ud800""#), &["refused", "bad_field"]),
        says(51, "second half of a surrogate", &raw_text(r#""\udc00x""#), &["refused", "bad_field"]),
        says(51, "halves in the wrong order", &raw_text(r#""\udc00\ud800""#), &["refused", "bad_field"]),
        says(51, "a whole surrogate pair is a letter", &raw_text(r#""\ud83d\ude00""#), &["accepted"]),
        says(51, "bidi, 5,000 marks, zero width", &text(&format!("\u{202e}a{}\u{200b}", "\u{301}".repeat(5000))), &["accepted"]),
        says(51, "zero width only", &text("\u{200b}\u{feff}"), &["accepted"]),
        says(51, "a raw control character", &raw_text("\"a\u{1}b\""), &["bad_re"]),
        says(54, "empty", &text(""), &["refused", "empty", "\"final\":true"]),
        says(54, "at the limit", &text(&"x".repeat(at_limit)), &["accepted"]),
        says(54, "over the limit", &text(&"x".repeat(at_limit + 1)), &["refused", "too_large", "\"final\":true"]),
        says(54, "over the limit in bytes, not in letters", &text(&"\u{20ac}".repeat(at_limit / 2)), &["refused", "too_large"]),
        says(
            55,
            "SQL, HTML, format, terminal, newline",
            &text(&format!("'; {MARKER};--<script>%s%n\u{1b}[31m\n")),
            &["accepted"],
        ),
    ]
}

fn names() -> Vec<Row> {
    let bad_id = |what: &str, id: &str| says(73, what, &with_id(id), &["bad_id"]);
    let bad_to = |what: &str, name: &str| says(74, what, &to(name), &["refused", "bad_recipient"]);
    vec![
        bad_id("nil", "00000000-0000-0000-0000-000000000000"),
        bad_id("version 4", "0f0e0d0c-0b0a-4908-8706-050403020100"),
        bad_id("capitals", "0190000A-0000-7000-8000-00000000000A"),
        bad_id("another variant", "01900000-0000-7000-c000-000000000000"),
        bad_id("braces", "{01900000-0000-7000-8000-000000000000}"),
        bad_id("60,000 letters", &"0".repeat(60_000)),
        says(73, "too old", &with_id("01800000-0000-7000-8000-000000000000"), &["refused", "bad_id"]),
        says(73, "from the future", &with_id("0fffffff-ffff-7fff-8fff-ffffffffffff"), &["refused", "bad_id"]),
        bad_to("user 0", "u:0"),
        bad_to("user over 2^64", "u:18446744073709551616"),
        bad_to("the server's own number", "u:9223372032559808512"),
        bad_to("leading zero", "u:01"),
        bad_to("a sign", "u:+1"),
        bad_to("a name", "anna"),
        bad_to("somebody else's conversation", "d:1:2"),
        bad_to("higher user first", "d:73:1"),
        says(74, "history of others", r#"{"type":"history","conversation":"d:1:2"}"#, &["forbidden"]),
        says(74, "history of the server", r#"{"type":"history","conversation":"d:0:73"}"#, &["bad_field", "conversation"]),
    ]
}
