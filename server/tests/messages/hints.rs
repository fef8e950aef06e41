//! Receipts, typing and presence over requests and streams: what `read`, `typing` and `watch` do on a socket, for who has none.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Answer, get, post, text};
use crate::http::send;
use crate::raw::{Raw, Server};
use crate::stream::{Sent, Stream};

const CHAT: &str = "d:1:2";

fn open(server: &Server, user: u64, more: &str) -> Stream {
    let mut stream = Stream::open(server, &server.token(user), &format!("?device=tab{more}"), &[]);
    stream.until("live");
    stream
}

fn say(server: &Server, user: u64, path: &str, body: &Value) -> Answer {
    post(path, body).by(&server.token(user)).send(server)
}

fn read(server: &Server, user: u64, position: &str) -> Answer {
    say(server, user, &format!("/v1/conversations/{CHAT}/read"), &json!({"position": position}))
}

fn watch(server: &Server, user: u64, users: &[&str]) -> Answer {
    say(server, user, "/v1/watch", &json!({"users": users, "device": "tab"}))
}

/// The receipt of this member that names these positions; `rev` is returned.
fn receipt(stream: &mut Stream, member: &str, delivered: &str, read: &str) -> u64 {
    let wanted = |sent: &Sent| sent.data["member"] == member && sent.data["delivered"] == delivered && sent.data["read"] == read;
    loop {
        let sent = stream.until("receipt");
        assert_eq!((sent.id, &sent.data["conversation"]), (None, &json!(CHAT)));
        if wanted(&sent) {
            return text(&sent.data["rev"]).parse().expect("a number");
        }
    }
}

fn conversation(server: &Server, user: u64) -> Value {
    get("/v1/conversations").by(&server.token(user)).send(server).data()["items"][0].clone()
}

#[test]
fn what_is_acknowledged_and_read_by_post_comes_down_the_streams_as_receipts() {
    let server = Server::start();
    let (mut ann, mut bob) = (open(&server, 1, "&cursor=0"), open(&server, 2, "&cursor=0"));
    send(&server, &server.token(1), "u:2", "one").data();
    let first = text(&ann.until("event").data["position"]);
    let seq = bob.until("event").id;
    assert_eq!(conversation(&server, 2)["unread"], 1);

    say(&server, 2, "/v1/received", &json!({"seq": seq, "device": "tab"})).data();
    let delivered = receipt(&mut ann, "2", &first, "0");
    read(&server, 2, &first).data();
    let both = receipt(&mut ann, "2", &first, &first);
    assert!(both > delivered, "{both} {delivered}");
    let own = bob.until("receipt").data;
    assert_eq!((&own["member"], &own["read"]), (&json!("2"), &json!(first)), "one's other devices learn it too");
    let listed = conversation(&server, 2);
    assert_eq!((&listed["unread"], &listed["read"]), (&json!(0), &json!(first)));
    assert_eq!(conversation(&server, 1)["receipts"], json!([{"member": "2", "delivered": first, "read": first}]));

    read(&server, 2, "0").data();
    assert_eq!(conversation(&server, 2)["read"], json!(first), "never back");
    drop(ann);
    let mut knows = open(&server, 1, &format!("&rev={both}"));
    let mut all = Stream::open(&server, &server.token(1), "?device=other&rev=0", &[]);
    all.until("live");
    assert_eq!(receipt(&mut all, "2", &first, &first), both, "told again behind live");
    // nothing but the next event comes to who has it
    send(&server, &server.token(1), "u:3", "two").data();
    assert_eq!(knows.next().map(|sent| sent.event).as_deref(), Some("event"));
}

/// Nobody of Bob's is here: the acknowledgement goes to the store, and is a delivery all the same.
#[test]
fn an_acknowledgement_without_a_session_is_a_delivery() {
    let server = Server::start();
    let mut ann = open(&server, 1, "&cursor=0");
    drop(open(&server, 2, "&cursor=0"));
    server.wait_until("Bob has gone", || server.counter("switchboard_sockets ") == 1);
    send(&server, &server.token(1), "u:2", "hi").data();
    let position = text(&ann.until("event").data["position"]);
    say(&server, 2, "/v1/received", &json!({"seq": 1, "device": "tab"})).data();
    receipt(&mut ann, "2", &position, "0");
}

#[test]
fn read_is_refused_as_on_the_socket() {
    let server = Server::start();
    let at = |path: &str, body: &Value| say(&server, 3, path, body);
    assert_eq!(at("/v1/conversations/d:1:2/read", &json!({"position": "1"})).refusal(), (403, "forbidden"));
    assert_eq!(at("/v1/conversations/nothing/read", &json!({"position": "1"})).refusal(), (404, "not_found"));
    for absurd in [json!({}), json!({"position": 1}), json!({"position": "-1"}), json!({"position": "18446744073709551616"})] {
        let refused = at("/v1/conversations/d:1:3/read", &absurd);
        assert_eq!(refused.refusal(), (400, "bad_field"), "{absurd}");
        assert_eq!(refused.json["error"]["field"], "position");
    }
    assert_eq!(
        at("/v1/conversations/d:1:3/read", &json!({"position": "5"})).status,
        200,
        "where nothing was said it means nothing"
    );
}

#[test]
fn typing_is_passed_on_seldom_and_not_to_strangers() {
    let server = Server::start();
    let mut ann = open(&server, 1, "&cursor=0");
    let mut stranger = open(&server, 3, "&cursor=0");
    send(&server, &server.token(1), "u:2", "hi").data();
    ann.until("event");
    let typing = |to: &str| say(&server, 2, "/v1/typing", &json!({"to": to}));
    let first = typing("u:1");
    assert_eq!(ann.until("typing").data, json!({"type": "typing", "conversation": CHAT, "from": "2"}));
    for to in ["u:1", CHAT, "u:3"] {
        assert_eq!((typing(to).json, typing(to).status), (first.json.clone(), 200), "one answer for all");
    }
    let dropped = |why: &str| server.counter(&format!("switchboard_drops_total{{what=\"typing\",why=\"{why}\"}}"));
    server.wait_until("the stranger's is dropped", || dropped("stranger") == 1);
    assert_eq!(dropped("rate"), 5);
    send(&server, &server.token(1), "u:3", "the next thing that comes").data();
    assert_eq!(stranger.next().map(|sent| sent.event).as_deref(), Some("event"));
    assert_eq!(ann.next().map(|sent| sent.event).as_deref(), Some("event"));
    assert_eq!(typing("d:1:3").refusal(), (400, "bad_recipient"));
    assert_eq!(typing("").refusal(), (400, "bad_recipient"));
    assert_eq!(say(&server, 2, "/v1/typing", &json!({})).refusal(), (400, "bad_field"));
    let mut limited = 5;
    loop {
        typing("u:1").data();
        if dropped("rate") == limited {
            break;
        }
        limited += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(ann.until("typing").data["from"], "2", "again, when its time has come");
}

#[test]
fn presence_of_who_is_watched_comes_down_the_stream_as_long_as_it_lasts() {
    let server = Server::start();
    let mut ann = open(&server, 1, "&cursor=0");
    for to in ["u:2", "u:3"] {
        send(&server, &server.token(1), to, "hi").data();
    }
    watch(&server, 1, &["2", "3", "4"]).data();
    let mut first =
        [ann.until("presence").data, ann.until("presence").data].map(|one| (text(&one["user"]), one["online"] == true));
    first.sort();
    assert_eq!(first, [("2".into(), false), ("3".into(), false)], "nothing of whom one does not know");
    let bob = Raw::attach(&server, 2);
    assert_eq!(ann.until("presence").data, json!({"type": "presence", "user": "2", "online": true}));
    drop(bob);
    let gone = ann.until("presence").data;
    assert_eq!((&gone["user"], &gone["online"], gone["last_seen"].is_string()), (&json!("2"), &json!(false), true));

    // in place of those before
    watch(&server, 1, &["3"]).data();
    assert_eq!(ann.until("presence").data["user"], "3");
    let (_bob, _cid) = (Raw::attach(&server, 2), Raw::attach(&server, 3));
    assert_eq!(ann.until("presence").data, json!({"type": "presence", "user": "3", "online": true}));

    // another stream begins with none
    let mut next = open(&server, 1, "");
    assert_eq!(ann.close_code(), Some(4409));
    watch(&server, 1, &["2"]).data();
    assert_eq!(next.until("presence").data["user"], "2");
}

#[test]
fn watch_is_refused_without_a_stream_and_as_on_the_socket() {
    let server = Server::start();
    assert_eq!(watch(&server, 1, &["2"]).refusal(), (404, "not_found"));
    let _stream = open(&server, 1, "");
    let many: Vec<_> = (2..203).map(|user: u64| user.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let refused = watch(&server, 1, &many);
    assert_eq!((refused.refusal(), &refused.json["error"]["field"]), ((400, "too_many"), &json!("users")));
    watch(&server, 1, &many[..200]).data();
    assert_eq!(watch(&server, 1, &["0"]).refusal(), (400, "bad_field"));
    assert_eq!(say(&server, 1, "/v1/watch", &json!({"device": "tab"})).refusal(), (400, "bad_field"));
    let bound = server.device_token(1, "other");
    let refused = post("/v1/watch", &json!({"users": ["2"], "device": "tab"})).by(&bound).send(&server);
    assert_eq!(refused.refusal(), (403, "forbidden"));
}
