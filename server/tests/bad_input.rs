//! Bad input, row by row, over raw sockets: each gets its clear answer, its counter moves, and a witness who chats meanwhile notices nothing.

mod support;
mod raw;

use raw::{Raw, Server, client_frame};

/// What a raw client sends and what must come back.
struct Row {
    name: &'static str,
    send: Vec<u8>,
    status: u16,
    counter: &'static str,
}

fn request(lines: &[&str]) -> Vec<u8> {
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n"].concat()
}

const GOOD: [&str; 6] = [
    "GET /ws HTTP/1.1",
    "Host: localhost",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn without(name: &str) -> Vec<&'static str> {
    GOOD.iter().filter(|line| !line.starts_with(name)).copied().collect()
}

fn with(line: &str) -> Vec<&str> {
    let name = line.split(':').next().unwrap_or_default();
    GOOD.iter().filter(|good| !good.starts_with(name)).copied().chain([line]).collect()
}

fn and<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    GOOD.iter().chain(lines).copied().collect()
}

const REJECTED: &str = "switchboard_http_rejected_total";

fn rejected(name: &'static str, send: Vec<u8>, status: u16, counter: &'static str) -> Row {
    Row { name, send, status, counter }
}

fn http_rows() -> Vec<Row> {
    let long_path = format!("GET /ws?{} HTTP/1.1", "x".repeat(9000));
    let long_header = format!("X-Long: {}", "x".repeat(20_000));
    let many: Vec<String> = (0..10_000).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = GOOD.iter().copied().chain(many.iter().map(String::as_str)).collect();
    let token = "GET /ws?access_token=eyJhbGciOi HTTP/1.1";
    let long: Vec<&str> = [long_path.as_str()].into_iter().chain(GOOD[1..].iter().copied()).collect();
    let in_url: Vec<&str> = [token].into_iter().chain(GOOD[1..].iter().copied()).collect();
    let post: Vec<&str> = ["POST /ws HTTP/1.1"].into_iter().chain(GOOD[1..].iter().copied()).collect();
    let old: Vec<&str> = ["GET /ws HTTP/1.0"].into_iter().chain(GOOD[1..].iter().copied()).collect();
    let wanted = r#"{"user":"1"}"#;
    let length = format!("Content-Length: {}", wanted.len());
    let head = [
        "POST /dev/token HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "X-Forwarded-For: 203.0.113.7",
        &length,
    ];
    let proxied = [request(&head), wanted.as_bytes().to_vec()].concat();
    let none = "switchboard_ended_total";
    vec![
        rejected("4 header over 16 KiB", request(&and(&[&long_header])), 431, none),
        rejected("5 10,000 headers", request(&many), 431, none),
        rejected("6 request line over 8 KiB", request(&long), 414, REJECTED),
        rejected("8 two lengths", request(&and(&["Content-Length: 1", "Content-Length: 2"])), 400, none),
        rejected("9 body on the upgrade", [request(&and(&["Content-Length: 4"])), b"body".to_vec()].concat(), 400, REJECTED),
        rejected("9 chunked body on the upgrade", request(&and(&["Transfer-Encoding: chunked"])), 400, REJECTED),
        rejected("10 POST to the socket path", request(&post), 405, REJECTED),
        rejected("10 unknown path", request(&["GET /nothing HTTP/1.1", "Host: localhost"]), 404, ""),
        rejected("11 no Upgrade", request(&without("Upgrade")), 426, REJECTED),
        rejected("11 no Connection", request(&without("Connection")), 426, REJECTED),
        rejected("12 version 8", request(&with("Sec-WebSocket-Version: 8")), 426, REJECTED),
        rejected("12 no version", request(&without("Sec-WebSocket-Version")), 426, REJECTED),
        rejected("13 no key", request(&without("Sec-WebSocket-Key")), 400, REJECTED),
        rejected("13 short key", request(&with("Sec-WebSocket-Key: c2hvcnQ=")), 400, REJECTED),
        rejected("13 two keys", request(&and(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="])), 400, REJECTED),
        rejected("14 unknown sub-protocol", request(&and(&["Sec-WebSocket-Protocol: graphql-ws"])), 400, REJECTED),
        rejected(
            "15 absurd extension offer is ignored",
            request(&and(&["Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"])),
            101,
            "",
        ),
        rejected("16 foreign origin", request(&and(&["Origin: https://evil.example"])), 403, REJECTED),
        rejected("16 null origin", request(&and(&["Origin: null"])), 403, REJECTED),
        rejected("16 look-alike origin", request(&and(&["Origin: http://localhost.evil.example"])), 403, REJECTED),
        rejected("16 origin with another port", request(&and(&["Origin: http://localhost:1"])), 403, REJECTED),
        rejected("16 own origin", request(&and(&["Origin: http://localhost"])), 101, ""),
        rejected("18 token in the URL", request(&in_url), 400, REJECTED),
        rejected("62 bad token in the header", request(&and(&["Authorization: Bearer abc.def.ghi"])), 401, REJECTED),
        rejected("upgrade over HTTP/1.0", request(&old), 400, REJECTED),
        rejected("no Host", request(&without("Host")), 400, REJECTED),
        rejected("a token for who comes through a proxy", proxied, 403, ""),
        rejected("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400, none),
    ]
}

#[test]
fn http_rows_are_answered_and_counted() {
    let server = Server::start();
    let mut witness = server.witness();
    for row in http_rows() {
        let before = server.counter(row.counter);
        let mut raw = Raw::connect(server.address());
        // the server may answer and close before all is written
        let _ = raw.write(&row.send);
        let status = raw.status();
        assert_eq!(status, Some(row.status), "{}", row.name);
        if !row.counter.is_empty() {
            server.wait_until(row.name, || server.counter(row.counter) > before);
        }
        witness.chat();
    }
    assert!(!server.log().contains("eyJhbGciOi"), "a token in a URL must not reach the log");
}

#[test]
fn slow_requests_are_cut_at_the_deadline() {
    let server = Server::start_with(&[("SWITCHBOARD_GATEWAY__REQUEST_DEADLINE", "1s")]);
    let mut witness = server.witness();
    let mut silent = Raw::connect(server.address());
    assert_eq!(silent.status(), None, "1 no byte");
    let mut slow = Raw::connect(server.address());
    let ended = request(&GOOD).iter().any(|byte| slow.write(&[*byte]).is_err() || slow.ended_within_ms(100));
    assert!(ended, "3 one byte at a time");
    witness.chat();
}

/// Frames that break the protocol, and the close code.
fn frame_rows() -> Vec<(&'static str, Vec<u8>, u16)> {
    let huge = [vec![0x81, 0xff], (u64::MAX >> 1).to_be_bytes().to_vec(), vec![0; 4]].concat();
    let fragments = [client_frame(0x01, b""), client_frame(0x00, b"").repeat(200)].concat();
    vec![
        ("25 unmasked", vec![0x81, 2, b'{', b'}'], 1002),
        ("26 reserved bit", client_frame(0xc1, b"{}"), 1002),
        ("27 opcode 3", client_frame(0x83, b""), 1002),
        ("27 opcode 15", client_frame(0x8f, b""), 1002),
        ("28 long ping", client_frame(0x89, &[0; 126]), 1002),
        ("28 fragmented ping", client_frame(0x09, b""), 1002),
        ("30 length of 2^63-1", huge, 1009),
        ("31 message over 64 KiB", client_frame(0x81, &[b' '; 65_537]), 1009),
        ("31 fragments over 64 KiB", [client_frame(0x01, &[b' '; 40_000]), client_frame(0x80, &[b' '; 40_000])].concat(), 1009),
        ("32 too many fragments", fragments, 1009),
        ("35 not UTF-8", client_frame(0x81, &[0xc3, 0x28]), 1007),
        ("35 surrogate", client_frame(0x81, &[0xed, 0xa0, 0x80]), 1007),
        ("36 binary", client_frame(0x82, b"{}"), 1003),
        ("37 ping flood", client_frame(0x89, b"x").repeat(2000), 4429),
        ("errors without end", client_frame(0x81, br#"{"type":"fly"}"#).repeat(1000), 4429),
        ("application pings without end", client_frame(0x81, br#"{"type":"ping"}"#).repeat(1000), 4429),
        ("45 three times no request", ["", "null", "[]"].map(|text| client_frame(0x81, text.as_bytes())).concat(), 4400),
        ("58 second hello", client_frame(0x81, br#"{"type":"hello"}"#), 4400),
        ("acknowledgement of what was never sent", client_frame(0x81, br#"{"type":"received","seq":999999}"#), 4400),
    ]
}

#[test]
fn broken_frames_close_with_their_code_and_are_counted() {
    let server = Server::start();
    let mut witness = server.witness();
    for (name, bytes, code) in frame_rows() {
        let counter = format!("switchboard_closed_total{{code=\"{code}\"}}");
        let before = server.counter(&counter);
        let mut raw = Raw::attach(&server, 70);
        let _ = raw.write(&bytes);
        assert_eq!(raw.close_code(), Some(code), "{name}");
        assert!(server.counter(&counter) > before, "{name}");
        witness.chat();
    }
}

#[test]
fn first_frames_that_are_no_good_hello() {
    let server = Server::start();
    let token = server.token(71);
    let bound = server.device_token(71, "phone");
    let hello = |fields: &str| format!(r#"{{"type":"hello"{fields}}}"#);
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiI3MSJ9.";
    let rows = [
        ("57 not hello", r#"{"type":"ping"}"#.to_owned(), 4401),
        ("57 no JSON", "hello".to_owned(), 4401),
        ("no token", hello(""), 4401),
        ("59 alg none", hello(&format!(r#","token":"{none}""#)), 4401),
        ("62 not base64", hello(r#","token":"a.b.c""#), 4401),
        ("62 100 KiB of token", hello(&format!(r#","token":"{}""#, "a".repeat(60_000))), 4401),
        ("62 cut signature", hello(&format!(r#","token":"{}""#, &token[..token.len() - 3])), 4401),
        ("66 another device's token", hello(&format!(r#","token":"{bound}","device":"tablet""#)), 4403),
        ("a field at fault is no question of tokens", hello(&format!(r#","token":"{token}","cursor":"5""#)), 4400),
        ("56 newer version", hello(&format!(r#","token":"{token}","version":2"#)), 4426),
        ("56 older version", hello(&format!(r#","token":"{token}","version":0"#)), 4426),
    ];
    for (name, frame, code) in rows {
        let mut raw = Raw::upgrade(server.address(), &[]);
        raw.text(&frame);
        assert_eq!(raw.close_code(), Some(code), "{name}");
    }
    let mut browser =
        Raw::upgrade(server.address(), &["Sec-WebSocket-Protocol: switchboard.v1.json, switchboard.bearer.nonsense"]);
    assert_eq!(browser.close_code(), Some(4401), "a browser's bad token gets a close code");
    assert!(!server.log().contains(&token), "tokens stay out of the log");
}

#[test]
fn silence_in_place_of_hello_and_half_a_message() {
    let server = Server::start_with(&[("SWITCHBOARD_GATEWAY__HELLO_DEADLINE", "1s")]);
    let mut silent = Raw::upgrade(server.address(), &[]);
    assert_eq!(silent.close_code(), Some(4401));
    let mut half = Raw::attach(&server, 72);
    half.write(&client_frame(0x01, b"{")).expect("open");
    assert_eq!(half.close_code(), Some(1008), "32 a fragment never finished");
}

/// Frames answered in band: what is sent, and what the answer must contain.
fn in_band_rows() -> Vec<(&'static str, String, &'static [&'static str])> {
    let send = |fields: &str| format!(r#"{{"type":"send",{fields}}}"#);
    let id = || format!(r#""id":"{}""#, uuid::Uuid::now_v7());
    let text = |text: &str| send(&format!(r#"{},"to":"u:1","kind":"text","body":{{"text":{}}}"#, id(), serde_json::json!(text)));
    let with_id = |id: &str| send(&format!(r#""id":"{id}","to":"u:1","kind":"text","body":{{"text":"x"}}"#));
    let to = |to: &str| send(&format!(r#"{},"to":"{to}","kind":"text","body":{{"text":"x"}}"#, id()));
    let deep = format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    vec![
        ("45 number", "7".into(), &["bad_request"]),
        ("46 nesting", deep, &["too_deep"]),
        ("48 unknown type", r#"{"type":"fly"}"#.into(), &["unknown_type"]),
        ("48 unknown field", r#"{"type":"ping","colour":"red"}"#.into(), &["pong"]),
        ("49 seq as string", r#"{"type":"received","seq":"1"}"#.into(), &["bad_field", "seq"]),
        ("49 float", r#"{"type":"received","seq":1.5}"#.into(), &["bad_field", "seq"]),
        ("49 1e400", r#"{"type":"received","seq":1e400}"#.into(), &["bad_field", "seq"]),
        ("49 negative", r#"{"type":"received","seq":-1}"#.into(), &["bad_field", "seq"]),
        ("49 2^64", r#"{"type":"received","seq":18446744073709551616}"#.into(), &["bad_field", "seq"]),
        ("49 id as number", send(r#""id":7,"to":"u:1","kind":"text","body":{"text":"x"}"#), &["bad_field", "id"]),
        ("51 NUL", text("a\0b"), &["refused", "bad_field", "body.text"]),
        (
            "51 lone surrogate",
            send(&format!(r#"{},"to":"u:1","kind":"text","body":{{"text":"\ud800"}}"#, id())),
            &["refused", "bad_field"],
        ),
        ("51 bidi, marks, zero width", text(&format!("\u{202e}a{}\u{200b}", "\u{301}".repeat(5000))), &["accepted"]),
        ("54 empty", text(""), &["refused", "empty", "\"final\":true"]),
        ("54 at the limit", text(&"x".repeat(16 * 1024)), &["accepted"]),
        ("54 over the limit", text(&"x".repeat(16 * 1024 + 1)), &["refused", "too_large", "\"final\":true"]),
        ("55 SQL, HTML, format, ANSI, newline", text("'; DROP TABLE users;--<script>%s%n\u{1b}[31m\n"), &["accepted"]),
        ("73 nil id", with_id("00000000-0000-0000-0000-000000000000"), &["bad_id"]),
        ("73 version 4", with_id("0f0e0d0c-0b0a-4908-8706-050403020100"), &["bad_id"]),
        ("73 too old", with_id("01800000-0000-7000-8000-000000000000"), &["refused", "bad_id"]),
        ("73 from the future", with_id("0fffffff-ffff-7fff-8fff-ffffffffffff"), &["refused", "bad_id"]),
        ("recipient 0", to("u:0"), &["refused", "bad_recipient"]),
        ("recipient too large", to("u:18446744073709551616"), &["refused", "bad_recipient"]),
        ("recipient is a name", to("anna"), &["refused", "bad_recipient"]),
        ("74 somebody else's conversation", to("d:1:2"), &["refused", "bad_recipient"]),
        ("history of others", r#"{"type":"history","conversation":"d:1:2"}"#.into(), &["forbidden"]),
        ("absurd page", r#"{"type":"history","conversation":"d:1:73","limit":4000000000}"#.into(), &["bad_field", "limit"]),
        ("empty page", r#"{"type":"conversations","limit":0}"#.into(), &["bad_field", "limit"]),
        ("page before nothing", r#"{"type":"history","conversation":"d:1:73","before":"0"}"#.into(), &["page", "\"events\":[]"]),
    ]
}

#[test]
fn wrong_frames_are_answered_and_the_connection_stays() {
    let server = Server::start();
    let mut witness = server.witness();
    for (name, frame, wanted) in in_band_rows() {
        let code = wanted.iter().find(|word| protocol::ErrorCode::ALL.iter().any(|code| code.name() == **word));
        let counter = code.map(|code| format!("switchboard_refused_total{{code=\"{code}\"}}"));
        let before = counter.as_ref().map_or(0, |counter| server.counter(counter));
        let mut raw = Raw::attach(&server, 73);
        raw.text(&frame);
        let answer = raw.answer();
        for word in wanted {
            assert!(answer.contains(word), "{name}: {answer}");
        }
        if let Some(counter) = counter {
            assert!(server.counter(&counter) > before, "{name}");
        }
        raw.text(r#"{"type":"ping"}"#);
        raw.until("pong");
        witness.chat();
    }
}

#[test]
fn cursors_that_cannot_be_continued_and_a_second_device() {
    let server = Server::start();
    for (name, fields, reason) in
        [("68 ahead", r#""cursor":999"#, "ahead"), ("68 other epoch", r#""cursor":0,"epoch":"99""#, "epoch")]
    {
        let mut raw = Raw::upgrade(server.address(), &[]);
        raw.text(&format!(r#"{{"type":"hello","token":"{}","device":"a",{fields}}}"#, server.token(74)));
        assert!(raw.until("resync").contains(reason), "{name}");
        raw.text(r#"{"type":"hello","cursor":0}"#);
        raw.until("live");
    }
    let mut first = Raw::attach(&server, 75);
    let mut second = Raw::attach(&server, 75);
    assert_eq!(first.close_code(), Some(4409), "69 same device twice");
    second.text(r#"{"type":"ping"}"#);
    second.until("pong");
}

#[test]
fn a_flood_of_sends_is_slowed_then_cut() {
    let server = Server::start();
    let mut witness = server.witness();
    let mut raw = Raw::attach(&server, 76);
    let flood = |count: usize| -> Vec<u8> {
        let frame = |_| {
            let id = uuid::Uuid::now_v7();
            client_frame(
                0x81,
                format!(r#"{{"type":"send","id":"{id}","to":"u:76","kind":"text","body":{{"text":"x"}}}}"#).as_bytes(),
            )
        };
        (0..count).flat_map(frame).collect()
    };
    raw.write(&flood(150)).expect("open");
    let refused = raw.until("\"refused\"");
    assert!(
        ["rate", "busy", "fenced"].iter().any(|code| refused.contains(code)) && refused.contains("\"final\":false"),
        "{refused}"
    );
    witness.chat();
    let many = || {
        let id = uuid::Uuid::now_v7();
        let to = id.as_u128() % 1_000_000 + 1;
        client_frame(
            0x81,
            format!(r#"{{"type":"send","id":"{id}","to":"u:{to}","kind":"text","body":{{"text":"x"}}}}"#).as_bytes(),
        )
    };
    let mut other = Raw::attach(&server, 77);
    let _ = other.write(&(0..3000).flat_map(|_| many()).collect::<Vec<_>>());
    assert_eq!(other.close_code(), Some(4429), "83 far over the limit");
    witness.chat();
}

#[test]
fn one_id_a_thousand_times_and_with_another_body() {
    let server = Server::start_with(&[("SWITCHBOARD_LIMITS__SENDS_PER_S", "5000"), ("SWITCHBOARD_LIMITS__SENDS_BURST", "5000")]);
    let id = uuid::Uuid::now_v7();
    let send = |text: &str| format!(r#"{{"type":"send","id":"{id}","to":"u:79","kind":"text","body":{{"text":"{text}"}}}}"#);
    let mut raw = Raw::attach(&server, 78);
    for _ in 0..1000 {
        raw.text(&send("first"));
        raw.until("accepted");
    }
    for _ in 0..2 {
        raw.text(&send("second"));
        assert!(raw.until("refused").contains("id_reused"));
    }
    raw.text(r#"{"type":"history","conversation":"d:78:79"}"#);
    let page = raw.until("page");
    assert_eq!(page.matches("\"event\":\"message\"").count(), 1, "71 one message");
    assert!(page.contains("first") && !page.contains("second"));
}

#[test]
fn counts_of_sockets_and_handshakes_are_limited() {
    let settings = [("SWITCHBOARD_GATEWAY__SOCKETS_PER_IP", "4"), ("SWITCHBOARD_GATEWAY__SOCKETS_PER_USER", "1")];
    let server = Server::start_with(&settings);
    let mut witness = server.witness();
    let mut one = Raw::attach(&server, 80);
    let mut other = Raw::upgrade(server.address(), &[]);
    other.text(&format!(r#"{{"type":"hello","token":"{}","device":"second"}}"#, server.token(80)));
    assert_eq!(other.close_code(), Some(4429), "20 devices of a user");
    server.wait_until("the refused socket is gone", || server.counter("switchboard_sockets") == 3);
    let _fourth = Raw::upgrade(server.address(), &[]);
    let mut fifth = Raw::connect(server.address());
    let spoofed = request(&and(&["X-Forwarded-For: 203.0.113.7"]));
    fifth.write(&spoofed).expect("open");
    assert_eq!(fifth.status(), Some(429), "20 sockets of an address, 23 whatever it says of itself");
    one.text(r#"{"type":"ping"}"#);
    one.until("pong");
    witness.chat();

    let server = Server::start_with(&[("SWITCHBOARD_GATEWAY__HANDSHAKES_PER_S", "1")]);
    let statuses: Vec<_> = (0..20)
        .map(|_| {
            let mut raw = Raw::connect(server.address());
            raw.write(&request(&GOOD)).expect("open");
            raw.status()
        })
        .collect();
    assert_eq!(statuses[0], Some(101));
    assert!(statuses.contains(&Some(503)), "21 handshakes too fast");
}

#[test]
fn sockets_that_break_off_leave_nothing_behind() {
    let server = Server::start();
    let mut witness = server.witness();
    let before = server.counter("switchboard_sockets");
    for user in 1..=20 {
        let mut raw = Raw::attach(&server, user);
        raw.write(&client_frame(0x81, &[b' '; 5000])[..100]).expect("open");
    }
    server.wait_until("43 their state is freed", || server.counter("switchboard_sockets") == before);
    server.wait_until("and their sessions", || server.counter("switchboard_sessions") == before);
    witness.chat();
}

#[test]
fn a_token_that_expires_on_a_live_socket() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__HEARTBEAT", "1s"),
        ("SWITCHBOARD_GATEWAY__STALL_DEADLINE", "1s"),
        ("SWITCHBOARD_GATEWAY__TOKEN_GRACE", "1s"),
    ]);
    let mut raw = Raw::upgrade(server.address(), &[]);
    raw.text(&format!(r#"{{"type":"hello","token":"{}"}}"#, server.token_for_seconds(81, 3)));
    assert!(raw.until("reauth").contains("\"before\""), "64 it is told before");
    assert_eq!(raw.close_code(), Some(4401), "64 and closed after");
}

#[test]
fn a_device_is_known_from_its_first_attach() {
    let server = Server::start();
    let mut sender = Raw::attach(&server, 82);
    for _ in 0..3 {
        let id = uuid::Uuid::now_v7();
        sender.text(&format!(r#"{{"type":"send","id":"{id}","to":"u:83","kind":"text","body":{{"text":"x"}}}}"#));
        sender.until("accepted");
    }
    let hello = |cursor: &str| format!(r#"{{"type":"hello","token":"{}","device":"a"{cursor}}}"#, server.token(83));
    let mut first = Raw::upgrade(server.address(), &[]);
    first.text(&hello(r#","cursor":0"#));
    first.until("\"live\"");
    drop(first);
    let mut again = Raw::upgrade(server.address(), &[]);
    again.text(&hello(""));
    assert!(again.until("\"event\"").contains("\"seq\":1,"), "nothing was acknowledged, so nothing is skipped");
}

#[test]
fn who_asks_for_pages_and_does_not_read_costs_little() {
    let server = Server::start();
    let mut witness = server.witness();
    let mut sender = Raw::attach(&server, 84);
    let text = "x".repeat(16_000);
    for seq in 1..=60 {
        let id = uuid::Uuid::now_v7();
        sender.text(&format!(r#"{{"type":"send","id":"{id}","to":"u:84","kind":"text","body":{{"text":"{text}"}}}}"#));
        sender.until("\"seq\"");
        sender.text(&format!(r#"{{"type":"received","seq":{seq}}}"#));
    }
    sender.text(r#"{"type":"history","conversation":"d:84:84","limit":100}"#);
    let page = sender.until("\"page\"");
    assert!(page.len() < 256 * 1024 && !page.contains("\"before\":null"), "a page is cut by bytes and says where it goes on");
    let before = server.memory();
    let mut greedy: Vec<_> = (1..=20).map(|user| Raw::attach(&server, user)).collect();
    let ask = client_frame(0x81, br#"{"type":"history","conversation":"d:84:84","limit":100}"#);
    drop(sender);
    for device in 0..20 {
        let mut raw = Raw::upgrade(server.address(), &[]);
        raw.text(&format!(r#"{{"type":"hello","token":"{}","device":"g{device}"}}"#, server.token(84)));
        raw.until("\"live\"");
        raw.write(&ask.repeat(4)).expect("open");
        greedy.push(raw);
    }
    witness.chat();
    server.wait_until("the first pages are on their way", || {
        server.counter("switchboard_socket_bytes_total{direction=\"out\"}") > 20 * 64 * 1024
    });
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 20 * 1024 * 1024, "20 who ask and do not read cost {grown} bytes");
    witness.chat();
}
