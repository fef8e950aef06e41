//! Streams of events: a session like that of a socket, in every way in which it can begin, go on and end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Device, delete, get, phone, post};
use crate::http::send;
use crate::raw::{Raw, Server};
use crate::stream::{Sent, Stream};
use crate::support::PATIENCE;

fn open(server: &Server, user: u64, device: &str, cursor: &str) -> Stream {
    Stream::open(server, &server.token(user), &format!("?device={device}{cursor}"), &[])
}

fn acknowledge(server: &Server, user: u64, device: &str, seq: u64) -> u16 {
    post("/v1/received", &json!({"seq": seq, "device": device})).by(&server.token(user)).send(server).status
}

fn words(sent: &Sent) -> (Option<u64>, Option<&str>) {
    (sent.id, sent.data["body"]["text"].as_str())
}

#[test]
fn a_stream_brings_what_a_socket_brings() {
    let server = Server::start();
    let mut stream = open(&server, 1, "tab", "&cursor=0");
    let head = stream.head.to_lowercase();
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "connection: close",
        "x-content-type-options: nosniff",
        "date: ",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "it ends with the connection");
    let welcome = stream.next().unwrap();
    assert_eq!((welcome.event.as_str(), welcome.id), ("welcome", None));
    assert_eq!((&welcome.data["device"], &welcome.data["heartbeat_s"]), (&json!("tab"), &json!(15)));
    assert_eq!(stream.next().unwrap().data, json!({"type": "live", "head": 0}));
    let mut socket = Raw::attach_new(&server, 1);
    send(&server, &server.token(2), "u:1", "line one\nline two").data();
    let event = stream.until("event");
    assert_eq!(words(&event), (Some(1), Some("line one\nline two")));
    let on_socket: Value = serde_json::from_str(&socket.until("\"event\"")).unwrap();
    assert_eq!(event.data, on_socket, "the same frame");
}

#[test]
fn it_goes_on_behind_the_last_event_id_the_cursor_or_what_the_server_knows() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__REQUESTS_PER_USER", "100000"),
        ("SWITCHBOARD_GATEWAY__REQUESTS_PER_ADDRESS", "100000"),
    ]);
    open(&server, 1, "tab", "&cursor=0").until("live");
    for n in 1..=4 {
        send(&server, &server.token(2), "u:1", &n.to_string()).data();
    }
    let first = |query: &str, headers: &[(&str, &str)]| Stream::open(&server, &server.token(1), query, headers).until("event").id;
    assert_eq!(first("?device=tab&cursor=1", &[]), Some(2));
    assert_eq!(first("?device=tab&cursor=1", &[("Last-Event-ID", "2")]), Some(3), "a stream's own place goes first");
    assert_eq!(first("?device=tab", &[]), Some(1));
    assert_eq!(acknowledge(&server, 1, "tab", 3), 200);
    server.wait_until("the cursor is known", || first("?device=tab", &[]) == Some(4));

    let mut ahead = Stream::open(&server, &server.token(1), "?device=tab&cursor=99", &[]);
    let resync = ahead.until("resync");
    assert_eq!((&resync.data["reason"], &resync.data["head"]), (&json!("ahead"), &json!(4)));
    for (query, header) in
        [("?cursor=x", "1"), ("?cursor=-1", "1"), ("", "x"), ("", "-1"), ("?epoch=x", "1"), ("?device=a%20b", "1")]
    {
        let refused = get(&format!("/v1/events{query}")).by(&server.token(1)).header("Last-Event-ID", header).send(&server);
        assert_eq!(refused.status, 400, "{query} {header}");
    }
}

#[test]
fn the_window_opens_by_post() {
    let server = Server::start_with(&[("SWITCHBOARD_LIMITS__WINDOW_EVENTS", "8")]);
    let mut stream = open(&server, 1, "tab", "&cursor=0");
    stream.until("live");
    for n in 1..=20 {
        send(&server, &server.token(2), "u:1", &n.to_string()).data();
    }
    for seq in 1..=8 {
        assert_eq!(stream.until("event").id, Some(seq));
    }
    assert_eq!(acknowledge(&server, 1, "tab", 21), 400, "there is no such event");
    assert_eq!(acknowledge(&server, 1, "tab", 9), 200, "the session before this one may have sent it");
    assert!(!stream.ends_within(Duration::from_millis(300)), "the window is full, and nothing else is wrong");
    assert_eq!(acknowledge(&server, 1, "tab", 5), 200);
    for seq in 9..=13 {
        assert_eq!(stream.until("event").id, Some(seq));
    }
    assert_eq!(acknowledge(&server, 1, "tab", 4), 200, "backwards is nothing");
    assert_eq!(acknowledge(&server, 1, "tab", 13), 200);
    for seq in 14..=20 {
        assert_eq!(stream.until("event").id, Some(seq));
    }
}

#[test]
fn the_newest_session_of_a_device_wins_whatever_it_comes_over() {
    let server = Server::start();
    let mut first = open(&server, 1, "tab", "");
    first.until("live");
    let mut second = open(&server, 1, "tab", "");
    second.until("live");
    assert_eq!(first.close_code(), Some(4409));
    let mut socket = Raw::upgrade(server.address(), &[]);
    socket.text(&format!(r#"{{"type":"hello","token":"{}","device":"tab"}}"#, server.token(1)));
    socket.until("\"live\"");
    assert_eq!(second.close_code(), Some(4409));
    let mut third = open(&server, 1, "tab", "");
    third.until("live");
    assert_eq!(socket.close_code(), Some(4409));
    let mut other = open(&server, 1, "other", "");
    other.until("live");
    send(&server, &server.token(2), "u:1", "to both").data();
    assert_eq!((third.until("event").id, other.until("event").id), (Some(1), Some(1)));
}

#[test]
fn a_log_out_ends_its_streams_at_once() {
    let server = Server::start();
    let (ann, laptop) = (Device::log_in(&server, &phone(1), "phone"), Device::log_in(&server, &phone(1), "laptop"));
    let mut stream = Stream::open(&server, &laptop.access, "", &[]);
    assert_eq!(stream.until("welcome").data["device"], "laptop");
    stream.until("live");
    let since = Instant::now();
    delete("/v1/devices/laptop").by(&ann.access).send(&server).data();
    assert_eq!(stream.close_code(), Some(4401));
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!(get("/v1/events").by(&laptop.access).send(&server).refusal(), (401, "unauthenticated"));
    let other = get("/v1/events?device=laptop").by(&ann.access).send(&server);
    assert_eq!(other.refusal(), (403, "forbidden"), "the token is for another device");
}

#[test]
fn a_token_that_expires_ends_its_stream_a_grace_later() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__HEARTBEAT", "2s"),
        ("SWITCHBOARD_GATEWAY__STALL_DEADLINE", "2s"),
        ("SWITCHBOARD_GATEWAY__TOKEN_GRACE", "1s"),
    ]);
    let mut stream = Stream::open(&server, &server.token_for_seconds(1, 3), "", &[]);
    assert_eq!(stream.until("welcome").data["heartbeat_s"], 2);
    stream.until("reauth");
    assert_eq!(stream.close_code(), Some(4401));
    assert!(stream.comments >= 1, "heartbeats came meanwhile");
}

#[test]
fn heartbeats_keep_a_silent_stream_alive_beyond_every_deadline_of_requests() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__HEARTBEAT", "1s"),
        ("SWITCHBOARD_GATEWAY__STALL_DEADLINE", "1s"),
        ("SWITCHBOARD_GATEWAY__REQUEST_DEADLINE", "1s"),
    ]);
    let mut stream = open(&server, 1, "tab", "");
    stream.until("live");
    let event = std::thread::scope(|scope| {
        scope.spawn(|| {
            // a peer that had to answer would be dead after two of them
            std::thread::sleep(Duration::from_millis(4500));
            send(&server, &server.token(2), "u:1", "still there?").data();
        });
        stream.until("event")
    });
    assert_eq!(words(&event), (Some(1), Some("still there?")));
    assert!(stream.comments >= 3, "{}", stream.comments);
}

#[test]
fn a_drain_tells_streams_to_move_and_closes_who_stays() {
    let server = Server::start_with(&[("SWITCHBOARD_DRAIN__WINDOW", "100ms"), ("SWITCHBOARD_DRAIN__DEADLINE", "5s")]);
    let mut stream = open(&server, 1, "tab", "");
    stream.until("live");
    server.terminate();
    assert!(stream.until("move").data["after_ms"].is_u64());
    assert_eq!(stream.close_code(), Some(4500));
}

#[test]
fn streams_count_as_sockets_and_give_their_places_back() {
    let server =
        Server::start_with(&[("SWITCHBOARD_GATEWAY__SOCKETS_PER_IP", "3"), ("SWITCHBOARD_GATEWAY__SOCKETS_PER_USER", "2")]);
    let one = open(&server, 1, "a", "");
    let mut two = open(&server, 1, "b", "");
    two.until("live");
    let mut three = open(&server, 1, "c", "");
    assert_eq!(three.close_code(), Some(4429), "a third device of this user");
    server.wait_until("its place is free", || server.counter("switchboard_sockets ") == 2);
    let _socket = Raw::attach(&server, 2);
    let refused = get("/v1/events").by(&server.token(3)).send(&server);
    assert_eq!(refused.refusal(), (429, "rate"));
    assert!(refused.headers.contains_key("retry-after"));
    drop(one);
    server.wait_until("who has gone is gone", || server.counter("switchboard_sockets ") == 2);
    open(&server, 3, "a", "").until("live");
    assert!(server.counter("switchboard_streams_total") >= 4);
}

#[test]
fn a_stream_is_not_opened_in_other_ways() {
    let server = Server::start();
    let token = server.token(1);
    let head = crate::api::Call { method: "HEAD".into(), ..get("/v1/events") }.by(&token).send(&server);
    assert_eq!(head.status, 405);
    assert_eq!(post("/v1/events", &json!({})).by(&token).send(&server).status, 405);
    for url in [format!("/v1/events?token={token}"), format!("/v1/events?access_token={token}"), format!("/v1/events?x={token}")]
    {
        assert_eq!(get(&url).send(&server).refusal(), (400, "bad_request"), "no token in the URL");
    }
    assert_eq!(get("/v1/events").send(&server).refusal(), (401, "unauthenticated"));
    assert_eq!(server.counter("switchboard_sockets "), 0);
    // what comes behind the request says nothing
    let mut stream = open(&server, 1, "tab", "");
    stream.until("live");
    std::io::Write::write_all(&mut stream.socket(), b"GET /v1/me HTTP/1.1\r\n\r\n{\"type\":\"ping\"}").unwrap();
    send(&server, &server.token(2), "u:1", "on it goes").data();
    assert_eq!(stream.until("event").id, Some(1));
}

/// A client that does not read costs a window and what the kernel holds, and is closed after the deadline; its mailbox waits.
#[test]
fn a_reader_that_stands_still_is_let_go_and_misses_nothing() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__STALL_DEADLINE", "2s"),
        ("SWITCHBOARD_LIMITS__SENDS_PER_S", "5000"),
        ("SWITCHBOARD_LIMITS__SENDS_BURST", "10000"),
        ("SWITCHBOARD_LIMITS__WINDOW_EVENTS", "4096"),
        ("SWITCHBOARD_LIMITS__WINDOW_BYTES", "67108864"),
    ]);
    let stream = open(&server, 1, "tab", "&cursor=0");
    let mut witness = server.witness();
    let text = "x".repeat(15_000);
    let mut sender = Raw::attach(&server, 2);
    let (mut sent, until) = (0, Instant::now() + PATIENCE);
    // until it is more than the kernel takes for both ends, and then until the deadline has passed
    while server.counter("switchboard_closed_total{code=\"4408\"}") == 0 {
        for _ in 0..if sent < 4000 { 16 } else { 0 } {
            sender.text(&format!(
                r#"{{"type":"send","id":"{}","to":"u:1","kind":"text","body":{{"text":"{text}"}}}}"#,
                uuid::Uuid::now_v7()
            ));
            sender.until("accepted");
            sent += 1;
        }
        witness.chat();
        assert!(Instant::now() < until, "it is never let go: {sent} sent");
    }
    drop(stream);
    server.wait_until("its place is free", || server.counter("switchboard_sockets ") == 3);
    let mut again = open(&server, 1, "tab", "&cursor=0");
    for seq in 1..=sent {
        assert_eq!(again.until("event").id, Some(seq));
        if seq % 200 == 0 {
            assert_eq!(acknowledge(&server, 1, "tab", seq), 200);
        }
    }
}

/// What was sent while the server died is there afterwards, once, behind the cursor.
#[test]
fn a_kill_loses_nothing_of_a_stream() {
    let server = Server::start();
    let mut stream = open(&server, 1, "tab", "&cursor=0");
    stream.until("live");
    send(&server, &server.token(2), "u:1", "before").data();
    let cursor = stream.until("event").id.unwrap();
    let server = server.restarted();
    assert_eq!(stream.close_code(), None, "it just ends");
    send(&server, &server.token(2), "u:1", "after").data();
    let mut stream = Stream::open(&server, &server.token(1), "?device=tab", &[("Last-Event-ID", &cursor.to_string())]);
    assert_eq!(words(&stream.until("event")), (Some(cursor + 1), Some("after")));
}
