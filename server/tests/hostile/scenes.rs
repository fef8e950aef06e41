//! Rows that take several steps.

use std::time::Duration;

use protocol::codec::Encoding;

use crate::http::{GOOD, and, request};
use crate::messages::{MARKER, id};
use crate::raw::{Raw, Server, client_frame};
use crate::{Deed, Row, Setting, USER, row};

pub(crate) fn scene(of: u8, on: Setting, what: &str, play: fn(&Server), counter: &str) -> Row {
    Row { on, counter: counter.to_owned(), ..row(of, what, Deed::Scene(play)) }
}

pub(crate) fn closed(code: u16) -> String {
    format!("switchboard_closed_total{{code=\"{code}\"}}")
}

pub(crate) fn rows() -> Vec<Row> {
    use Setting::{Beating, Draining, Hasty, Narrow, Plain, Slow};
    let rejected = "switchboard_http_rejected_total";
    vec![
        scene(1, Hasty, "no byte", no_byte, "switchboard_ended_total"),
        scene(3, Hasty, "a head, slowly", a_slow_head, "switchboard_ended_total"),
        scene(3, Hasty, "a body, slowly", a_slow_body, "switchboard_ended_total{why=\"http_deadline\"}"),
        scene(57, Hasty, "silence", no_hello, &closed(4401)),
        scene(71, Hasty, "on one connection, then with another body", one_id_many_times, ""),
        scene(14, Plain, "the answer to a good offer names one", one_subprotocol, ""),
        scene(59, Plain, "nonsense in a browser's entry", a_browsers_bad_token, &closed(4401)),
        scene(32, Plain, "a fragment that is never finished", a_half_message, &closed(1008)),
        scene(34, Plain, "is answered, and the message is whole", ping_between_fragments, ""),
        scene(43, Plain, "FIN, RST and silence in mid frame", broken_off, ""),
        scene(55, Plain, "comes out as it went in", as_it_went_in, ""),
        scene(68, Plain, "ahead, of another epoch", cursors, ""),
        scene(58, Plain, "again and again, with a cursor that is no good", hello_without_end, ""),
        scene(69, Plain, "the newer closes the older", one_device_twice, &closed(4409)),
        scene(83, Narrow, "slowed, then cut", a_flood_of_sends, &closed(4429)),
        scene(99, Plain, "twenty at once", pages_not_read, ""),
        scene(42, Beating, "one page each second is asked for", never_reads, &closed(4408)),
        scene(43, Beating, "a peer that is silent", half_open, "switchboard_ended_total{why=\"dead_peer\"}"),
        scene(64, Beating, "told before, closed after", token_expires, &closed(4401)),
        scene(20, Narrow, "of a user", sockets_of_a_user, &closed(4429)),
        scene(20, Narrow, "of an address", sockets_of_an_address, rejected),
        scene(23, Narrow, "buys no socket", forged_address, rejected),
        scene(21, Slow, "too fast", handshakes_too_fast, rejected),
        scene(21, Draining, "a node that drains", a_node_that_drains, rejected),
    ]
}

fn hello(server: &Server, user: u64, fields: &str) -> String {
    format!(r#"{{"type":"hello","token":"{}"{fields}}}"#, server.token(user))
}

pub(crate) fn send(id: &str, to: &str, text: &str) -> String {
    format!(r#"{{"type":"send","id":"{id}","to":"{to}","kind":"text","body":{{"text":{}}}}}"#, serde_json::json!(text))
}

fn no_byte(server: &Server) {
    assert_eq!(Raw::connect(server.address()).head(), None);
}

fn a_slow_head(server: &Server) {
    let mut slow = Raw::connect(server.address());
    let ended = request(&GOOD).iter().any(|byte| slow.write(&[*byte]).is_err() || slow.ended_within_ms(100));
    assert!(ended, "the head was never cut");
}

fn a_slow_body(server: &Server) {
    let mut slow = Raw::connect(server.address());
    let head = ["POST /dev/token HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 1000"];
    slow.write(&request(&head)).expect("open");
    let ended = (0..1000).any(|_| slow.write(b" ").is_err() || slow.ended_within_ms(100));
    assert!(ended, "the body was never cut");
}

fn no_hello(server: &Server) {
    assert_eq!(Raw::upgrade(server.address(), &[]).close_code(), Some(4401));
}

/// Each is answered with a resync, which allows the next; all in one write. It ends, whichever of the two limits is met.
fn hello_without_end(server: &Server) {
    let mut raw = Raw::upgrade(server.address(), &[]);
    let ahead = client_frame(0x81, hello(server, USER, r#","device":"again","cursor":999999"#).as_bytes());
    // the server may close while it is still being written to
    let _ = raw.write(&ahead.repeat(500));
    let code = raw.close_code();
    assert!(matches!(code, Some(4400 | 4429)), "{code:?}");
    let mut good = Raw::upgrade(server.address(), &[]);
    good.text(&hello(server, USER, r#","device":"again""#));
    good.until("\"live\"");
}

fn one_id_many_times(server: &Server) {
    let id = id();
    let mut raw = Raw::attach_new(server, USER);
    for _ in 0..1000 {
        raw.text(&send(&id, "u:79", "first"));
        raw.until("accepted");
    }
    for _ in 0..2 {
        raw.text(&send(&id, "u:79", "second"));
        assert!(raw.until("refused").contains("id_reused"));
    }
    raw.text(r#"{"type":"history","conversation":"d:73:79"}"#);
    let page = raw.until("page");
    assert_eq!(page.matches("\"event\":\"message\"").count(), 1, "one message");
    assert!(page.contains("first") && !page.contains("second"));
}

fn one_subprotocol(server: &Server) {
    let [json, proto] = Encoding::ALL.map(Encoding::subprotocol);
    for (offer, agreed) in [(json.to_owned(), json), (proto.to_owned(), proto), (format!("{proto}, {json}"), proto)] {
        let offer = format!("Sec-WebSocket-Protocol: soap, {offer}, switchboard.bearer.{}", server.token(USER));
        let mut raw = Raw::connect(server.address());
        raw.write(&and(&[&offer])).expect("open");
        let head = raw.head().expect("an answer");
        let wanted = format!("sec-websocket-protocol: {agreed}\r\n");
        assert!(head.contains(&wanted), "the first choice, no token and nothing else is echoed: {head}");
        let hello = if agreed == json { client_frame(0x81, br#"{"type":"hello"}"#) } else { client_frame(0x82, &[0x0a, 0x00]) };
        raw.write(&hello).expect("open");
        let first = raw.frame().expect("a welcome");
        assert_eq!(first.0, if agreed == json { 0x81 } else { 0x82 }, "{first:?}");
    }
}

fn a_browsers_bad_token(server: &Server) {
    let offer = "Sec-WebSocket-Protocol: switchboard.v1.json, switchboard.bearer.nonsense";
    let mut browser = Raw::upgrade(server.address(), &[offer]);
    assert_eq!(browser.close_code(), Some(4401), "a browser is shown no status, so it gets a close code");
}

fn a_half_message(server: &Server) {
    let mut half = Raw::attach_new(server, USER);
    half.write(&client_frame(0x01, b"{")).expect("open");
    assert_eq!(half.close_code(), Some(1008));
}

fn ping_between_fragments(server: &Server) {
    let mut raw = Raw::attach_new(server, USER);
    let ping = client_frame(0x89, b"now");
    let frames = [client_frame(0x01, br#"{"type":"#), ping, client_frame(0x80, br#""ping"}"#)].concat();
    raw.write(&frames).expect("open");
    assert_eq!(raw.frame(), Some((0x8a, b"now".to_vec())));
    raw.until("\"pong\"");
}

fn broken_off(server: &Server) {
    only_witnesses(server);
    // the pong is what a reset throws away
    let half = [client_frame(0x89, b"here"), client_frame(0x81, &[b' '; 5000])[..100].to_vec()].concat();
    for user in 1..=60 {
        let mut raw = Raw::attach(server, user);
        raw.write(&half).expect("open");
        match user % 3 {
            0 => raw.finish(),
            1 => raw.reset(),
            _ => drop(raw),
        }
    }
    server.wait_until("their sockets are freed", || server.counter("switchboard_sockets") == 2);
    server.wait_until("and their sessions", || server.counter("switchboard_sessions") == 2);
}

fn as_it_went_in(server: &Server) {
    let text = format!("'; {MARKER};--<script>alert(1)</script> %s%n {{0}} ${{x}} \u{1b}[31m\r\n2026 ERROR forged\u{202e}\u{7f}");
    let (mut sender, mut receiver) = (Raw::attach(server, 82), Raw::attach(server, 83));
    sender.text(&send(&id(), "u:83", &text));
    let event = receiver.until("\"event\":\"message\"");
    let event: serde_json::Value = serde_json::from_str(&event).expect("JSON");
    assert_eq!(event["body"]["text"].as_str(), Some(text.as_str()));
    assert!(!server.whole_log().contains("ERROR forged"), "no line of the log is a client's");
}

fn cursors(server: &Server) {
    let last = u64::MAX.to_string();
    for (fields, reason) in [
        (r#","device":"a","cursor":999"#.to_owned(), "ahead"),
        (format!(r#","device":"a","cursor":{last}"#), "ahead"),
        (r#","device":"a","cursor":0,"epoch":"99""#.to_owned(), "epoch"),
        (format!(r#","device":"a","cursor":{last},"epoch":"{last}""#), "epoch"),
    ] {
        let mut raw = Raw::upgrade(server.address(), &[]);
        raw.text(&hello(server, 74, &fields));
        assert!(raw.until("resync").contains(reason), "{fields}");
        raw.text(r#"{"type":"hello","cursor":0}"#);
        raw.until("live");
    }
    // the cursor of a device that never said one is not the bad one
    let mut raw = Raw::upgrade(server.address(), &[]);
    raw.text(&hello(server, 74, r#","device":"a""#));
    raw.until("live");
}

fn one_device_twice(server: &Server) {
    let mut first = Raw::attach(server, 75);
    let mut second = Raw::attach(server, 75);
    assert_eq!(first.close_code(), Some(4409));
    second.text(r#"{"type":"ping"}"#);
    second.until("pong");
}

fn a_flood_of_sends(server: &Server) {
    only_witnesses(server);
    let mut raw = Raw::attach(server, 76);
    let flood = |count: usize, to: fn(usize) -> u64| -> Vec<u8> {
        let frame = |n| client_frame(0x81, send(&id(), &format!("u:{}", to(n)), "x").as_bytes());
        (0..count).flat_map(frame).collect()
    };
    raw.write(&flood(150, |_| 76)).expect("open");
    let refused = raw.until("\"refused\"");
    let retry = ["rate", "busy", "fenced"].iter().any(|code| refused.contains(code));
    assert!(retry && refused.contains("\"final\":false"), "{refused}");
    let mut other = Raw::attach(server, 77);
    let _ = other.write(&flood(3000, |n| n as u64 + 1000));
    assert_eq!(other.close_code(), Some(4429));
}

/// 60 messages of 16,000 bytes in the mailbox of this user.
fn fill_mailbox(server: &Server, user: u64) {
    let mut sender = Raw::attach(server, user);
    let text = "x".repeat(16_000);
    for seq in 1..=60 {
        sender.text(&send(&id(), &format!("u:{user}"), &text));
        sender.until("\"seq\"");
        sender.text(&format!(r#"{{"type":"received","seq":{seq}}}"#));
    }
    sender.text(&format!(r#"{{"type":"history","conversation":"d:{user}:{user}","limit":100}}"#));
    let page = sender.until("\"page\"");
    assert!(page.len() < 256 * 1024 && !page.contains("\"before\":null"), "a page is cut by bytes and says where it goes on");
}

fn asks_for_pages(server: &Server, user: u64, device: &str) -> Raw {
    let mut raw = Raw::upgrade(server.address(), &[]);
    raw.text(&hello(server, user, &format!(r#","device":"{device}""#)));
    raw.until("\"live\"");
    let ask = format!(r#"{{"type":"history","conversation":"d:{user}:{user}","limit":100}}"#);
    raw.write(&client_frame(0x81, ask.as_bytes()).repeat(4)).expect("open");
    raw
}

fn pages_not_read(server: &Server) {
    fill_mailbox(server, 84);
    let (before, out) = (server.memory(), "switchboard_socket_bytes_total{direction=\"out\"}");
    let written = server.counter(out);
    let greedy: Vec<_> = (0..20).map(|device| asks_for_pages(server, 84, &format!("g{device}"))).collect();
    server.wait_until("the first pages are on their way", || server.counter(out) > written + 20 * 64 * 1024);
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 20 * 1024 * 1024, "{} who ask and do not read cost {grown} bytes", greedy.len());
}

fn never_reads(server: &Server) {
    fill_mailbox(server, 85);
    let closed = server.counter(&closed(4408));
    let greedy: Vec<_> = (0..8).map(|device| asks_for_pages(server, 85, &format!("g{device}"))).collect();
    // the kernel's buffers take what they take; who is behind after that is closed
    let more = std::cell::RefCell::new(greedy);
    let ask = client_frame(0x81, br#"{"type":"history","conversation":"d:85:85","limit":100}"#);
    server.wait_until("who does not read is closed", || {
        for raw in more.borrow_mut().iter_mut() {
            let _ = raw.write(&ask);
        }
        std::thread::sleep(Duration::from_millis(50));
        server.counter("switchboard_closed_total{code=\"4408\"}") > closed
    });
    drop(more);
    server.wait_until("and forgotten", || server.counter("switchboard_sockets") == 2);
}

fn half_open(server: &Server) {
    only_witnesses(server);
    let silent = Raw::attach(server, 86);
    server.wait_until("a silent peer is dead", || server.counter("switchboard_sockets") == 2);
    drop(silent);
}

fn token_expires(server: &Server) {
    let mut raw = Raw::upgrade(server.address(), &[]);
    raw.text(&format!(r#"{{"type":"hello","token":"{}"}}"#, server.token_for_seconds(81, 3)));
    assert!(raw.until("reauth").contains("\"before\""), "it is told before");
    assert_eq!(raw.close_code(), Some(4401), "and closed after");
}

fn sockets_of_a_user(server: &Server) {
    only_witnesses(server);
    let _one = Raw::attach(server, 80);
    let mut other = Raw::upgrade(server.address(), &[]);
    other.text(&hello(server, 80, r#","device":"second""#));
    assert_eq!(other.close_code(), Some(4429));
    drop(other);
    server.wait_until("the refused socket is gone", || server.counter("switchboard_sockets") == 3);
}

/// Whoever came with an earlier row has left: two sockets, two sessions.
fn only_witnesses(server: &Server) {
    server.wait_until("only the witnesses are here", || server.counter("switchboard_sockets") == 2);
}

fn refused_fifth(server: &Server, line: &str) {
    only_witnesses(server);
    let _two = [Raw::upgrade(server.address(), &[]), Raw::upgrade(server.address(), &[])];
    let mut fifth = Raw::connect(server.address());
    fifth.write(&and(&[line])).expect("open");
    let head = fifth.head().expect("an answer");
    assert!(head.starts_with("http/1.1 429") && head.contains("retry-after: 1"), "{head}");
}

fn sockets_of_an_address(server: &Server) {
    refused_fifth(server, "X-Nothing: 1");
}

fn forged_address(server: &Server) {
    refused_fifth(server, "X-Forwarded-For: 203.0.113.7");
}

fn handshakes_too_fast(server: &Server) {
    let heads: Vec<_> = (0..20)
        .map(|_| {
            let mut raw = Raw::connect(server.address());
            raw.write(&request(&GOOD)).expect("open");
            raw.head().expect("an answer")
        })
        .collect();
    let refused = heads.iter().find(|head| head.starts_with("http/1.1 503")).expect("some are too fast");
    assert!(refused.contains("retry-after: 1"), "{refused}");
}

fn a_node_that_drains(server: &Server) {
    server.terminate();
    server.wait_until("it drains", || {
        let mut raw = Raw::connect(server.address());
        raw.write(&request(&GOOD)).expect("open");
        let head = raw.head().expect("an answer");
        head.starts_with("http/1.1 503") && head.contains("retry-after: 1")
    });
}
