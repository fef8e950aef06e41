//! Rows of read marks, typing and presence.

use crate::messages::{id, says};
use crate::raw::{Raw, Server, client_frame};
use crate::scenes::{closed, scene, send};
use crate::{Row, Setting};

const FULL: &str = "18446744073709551615";

pub(crate) fn rows() -> Vec<Row> {
    [shapes(), scenes()].into_iter().flatten().collect()
}

fn shapes() -> Vec<Row> {
    let read = |fields: &str| format!(r#"{{"type":"read",{fields}}}"#);
    let watch = |users: &str| format!(r#"{{"type":"watch","users":{users}}}"#);
    let many: Vec<_> = (1..=201).map(|user: u64| user.to_string()).collect();
    let list = |count: usize| watch(&serde_json::json!(many[..count]).to_string());
    let huge = watch(&serde_json::json!((1..=6000).map(|user: u64| user.to_string()).collect::<Vec<_>>()).to_string());
    vec![
        says(49, "read nowhere", &read(r#""position":"7""#), &["bad_field", "conversation"]),
        says(49, "read up to nothing", &read(r#""conversation":"d:1:73""#), &["bad_field", "position"]),
        says(49, "read up to a number", &read(r#""conversation":"d:1:73","position":7"#), &["bad_field", "position"]),
        says(49, "read before the first", &read(r#""conversation":"d:1:73","position":"-1""#), &["bad_field", "position"]),
        says(
            49,
            "a position of 65 bits",
            &read(r#""conversation":"d:1:73","position":"18446744073709551616""#),
            &["bad_field", "position"],
        ),
        says(49, "typing to nobody", r#"{"type":"typing"}"#, &["bad_field", "to"]),
        says(49, "typing to a number", r#"{"type":"typing","to":1}"#, &["bad_field", "to"]),
        says(49, "nobody to watch", r#"{"type":"watch"}"#, &["bad_field", "users"]),
        says(49, "one to watch, no list", &watch(r#""1""#), &["bad_field", "users"]),
        says(49, "a number to watch", &watch(r#"["1",2]"#), &["bad_field", "users[1]"]),
        says(49, "the server to watch", &watch(r#"["0"]"#), &["bad_field", "users[0]"]),
        says(74, "read for others", &read(r#""conversation":"d:1:2","position":"7""#), &["forbidden"]),
        says(74, "typing for others", r#"{"type":"typing","to":"d:1:2"}"#, &["bad_recipient", "to"]),
        says(85, "one more than may be watched", &list(201), &["too_many", "users"]),
        says(85, "6,000, as many as fit into a frame", &huge, &["too_many", "users"]),
        says(85, "as many as may be: strangers tell nothing", &list(200), &[]),
    ]
}

fn scenes() -> Vec<Row> {
    use Setting::Plain;
    vec![
        scene(82, Plain, "told once, then cut", typing_flood, &closed(4429)),
        scene(85, Plain, "watched without end", watch_flood, &closed(4429)),
        scene(101, Plain, "a thousand read marks", read_flood, &closed(4429)),
        scene(102, Plain, "ahead, behind, in a conversation that is not there", strange_marks, ""),
    ]
}

fn typing_flood(server: &Server) {
    let (mut raw, mut other) = (Raw::attach_new(server, 61), Raw::attach_new(server, 62));
    raw.text(&send(&id(), "u:62", "x"));
    raw.until("accepted");
    let dropped = server.counter("switchboard_drops_total{what=\"typing\"");
    let _ = raw.write(&client_frame(0x81, br#"{"type":"typing","to":"u:62"}"#).repeat(1000));
    assert_eq!(raw.close_code(), Some(4429));
    assert!(server.counter("switchboard_drops_total{what=\"typing\"") > dropped + 100);
    other.until("\"typing\"");
    other.text(r#"{"type":"ping"}"#);
    assert!(other.answer_or_hint().contains("pong"), "it was told once");
}

fn watch_flood(server: &Server) {
    let mut raw = Raw::attach_new(server, 63);
    let users: Vec<_> = (1000..1200).map(|user: u64| user.to_string()).collect();
    let watch = serde_json::json!({ "type": "watch", "users": users }).to_string();
    let _ = raw.write(&client_frame(0x81, watch.as_bytes()).repeat(300));
    assert_eq!(raw.close_code(), Some(4429));
    server.wait_until("nobody is watched any more", || server.counter("switchboard_watches") == 0);
}

fn read_flood(server: &Server) {
    let mut raw = Raw::attach_new(server, 64);
    let mark = |other: u64| format!(r#"{{"type":"read","conversation":"d:64:{other}","position":"{FULL}"}}"#);
    let flood =
        |from: u64, count| (from..from + count).flat_map(|other| client_frame(0x81, mark(other).as_bytes())).collect::<Vec<_>>();
    let _ = raw.write(&flood(1000, 150));
    let refused = raw.until("\"rate\"");
    assert!(refused.contains("retry_after_ms"), "{refused}");
    let _ = raw.write(&flood(2000, 2000));
    assert_eq!(raw.close_code(), Some(4429));
}

/// Marks that mean nothing change nothing: not the own unread count, and above all nothing in a stranger's mailbox.
fn strange_marks(server: &Server) {
    let (mut raw, mut stranger) = (Raw::attach_new(server, 65), Raw::attach_new(server, 66));
    let before = server.counter("switchboard_receipts_changed_total");
    for position in ["0", "1", FULL] {
        raw.text(&format!(r#"{{"type":"read","conversation":"d:65:66","position":"{position}"}}"#));
    }
    // behind the marks, in time: this conversation is theirs, and its receipt comes when those would have
    raw.text(&send(&id(), "u:65", "x"));
    raw.until("accepted");
    raw.text(&format!(r#"{{"type":"read","conversation":"d:65:65","position":"{FULL}"}}"#));
    let receipt = raw.until("\"receipt\"");
    assert!(receipt.contains("\"d:65:65\"") && !receipt.contains(FULL), "the newest message, and no further: {receipt}");
    assert_eq!(server.counter("switchboard_receipts_changed_total"), before + 1);
    raw.text(r#"{"type":"read","conversation":"d:65:65","position":"0"}"#);
    for client in [&mut raw, &mut stranger] {
        client.text(r#"{"type":"ping"}"#);
        assert!(client.answer_or_hint().contains("pong"), "nothing was told");
    }
}
