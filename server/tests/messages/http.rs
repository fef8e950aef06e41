//! Messages by requests: the same checks, codes and pages as on the socket.

use serde_json::{Value, json};

use crate::api::{Answer, Call, Device, get, phone, post, text};
use crate::raw::{Raw, Server};

pub(crate) fn message(id: &str, to: &str, body: &str) -> Value {
    json!({"id": id, "to": to, "kind": "text", "body": {"text": body}})
}

pub(crate) fn send(server: &Server, token: &str, to: &str, body: &str) -> Answer {
    post("/v1/messages", &message(&new_id(), to, body)).by(token).send(server)
}

pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn texts(page: &Answer) -> Vec<String> {
    page.data()["items"].as_array().expect("items").iter().map(|item| text(&item["body"]["text"])).collect()
}

#[test]
fn a_message_by_post_is_an_event_on_sockets_and_a_line_of_pages() {
    let server = Server::start();
    let (ann, bob) = (server.token(1), server.token(2));
    let mut at_bob = Raw::attach_new(&server, 2);
    let id = new_id();
    let first = post("/v1/messages", &message(&id, "u:2", "hi")).by(&ann).send(&server);
    assert_eq!(*first.data(), json!({"id": id, "conversation": "d:1:2"}));
    let event: Value = serde_json::from_str(&at_bob.until("\"event\"")).unwrap();
    assert_eq!((&event["id"], &event["body"]["text"], &event["from"]), (&json!(id), &json!("hi"), &json!("1")));

    let reply =
        json!({"id": new_id(), "to": "d:1:2", "kind": "text", "body": {"text": "and back"}, "reply_to": {"from": "1", "id": id}});
    post("/v1/messages", &reply).by(&bob).send(&server).data();
    let page = get("/v1/conversations/d:1:2/messages").by(&ann).send(&server);
    assert_eq!(texts(&page), ["hi", "and back"]);
    let items = &page.data()["items"];
    assert_eq!(
        (&items[0]["event"], &items[0]["seq"], &items[1]["reply_to"]["id"]),
        (&json!("message"), &Value::Null, &json!(id))
    );
    at_bob.text(r#"{"type":"history","conversation":"d:1:2","before":null}"#);
    let told: Value = serde_json::from_str(&at_bob.until("\"page\"")).unwrap();
    assert_eq!(told["events"], *items, "the same as on the socket");

    send(&server, &ann, "u:3", "to another").data();
    let list = get("/v1/conversations").by(&ann).send(&server);
    let names: Vec<_> = list.data()["items"].as_array().unwrap().iter().map(|one| text(&one["conversation"])).collect();
    assert_eq!(names, ["d:1:3", "d:1:2"]);
    assert_eq!(list.data()["items"][1]["last"], items[1]);
}

#[test]
fn pages_go_on_where_they_say_until_there_are_no_more() {
    let server = Server::start();
    let token = server.token(1);
    for n in 0..7 {
        send(&server, &token, "u:2", &n.to_string()).data();
    }
    let (mut path, mut seen) = ("/v1/conversations/d:1:2/messages?limit=3".to_owned(), Vec::new());
    loop {
        let page = get(&path).by(&token).send(&server);
        seen.splice(0..0, texts(&page));
        let Some(before) = page.data()["before"].as_str() else { break };
        path = format!("/v1/conversations/d:1:2/messages?limit=3&before={before}");
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "6"]);
    for absurd in [
        "limit=0",
        "limit=101",
        "limit=4294967296",
        "limit=-1",
        "limit=x",
        "before=x",
        "before=-1",
        "before=18446744073709551616",
    ] {
        for path in ["/v1/conversations", "/v1/conversations/d:1:2/messages"] {
            let (status, code) = (400, get(&format!("{path}?{absurd}")).by(&token).send(&server));
            assert_eq!(code.status, status, "{path}?{absurd}: {code:?}");
        }
    }
}

#[test]
fn the_same_id_is_one_message_and_another_body_a_conflict() {
    let server = Server::start();
    let (token, id) = (server.token(1), new_id());
    let call = post("/v1/messages", &message(&id, "u:2", "once")).by(&token);
    let both: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| call.send(&server))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for answer in both {
        assert_eq!(answer.data()["id"], id);
    }
    let other = post("/v1/messages", &message(&id, "u:2", "twice")).by(&token).send(&server);
    assert_eq!(other.refusal(), (409, "id_reused"));
    let keyed = call.key(&id).send(&server);
    assert_eq!(
        (keyed.data()["id"].as_str(), keyed.headers.get("idempotency-replayed")),
        (Some(id.as_str()), None),
        "the id is the key"
    );
    assert_eq!(texts(&get("/v1/conversations/d:1:2/messages").by(&token).send(&server)), ["once"]);
}

#[test]
fn what_a_frame_may_not_be_a_request_may_not_be() {
    let server = Server::start();
    let token = server.token(1);
    let with = |field: &str, value: Value| {
        let mut body = message(&new_id(), "u:2", "hi");
        body[field] = value;
        post("/v1/messages", &body)
    };
    let old = "01700000-0000-7000-8000-000000000000";
    let deep = format!("{{\"id\":{}1{}}}", "[".repeat(40), "]".repeat(40));
    let raw = |body: &[u8]| Call { body: Some(body.to_vec()), ..post("/v1/messages", &json!({})) };
    let rows = [
        (with("id", json!("x")), 400, "bad_id", Some("id")),
        (with("id", json!(old)), 400, "bad_id", Some("id")),
        (with("id", Value::Null), 400, "bad_field", Some("id")),
        (with("to", json!("43")), 400, "bad_recipient", Some("to")),
        (with("to", json!("d:2:3")), 400, "bad_recipient", Some("to")),
        (with("kind", json!("image")), 400, "bad_field", Some("kind")),
        (with("body", json!({"text": ""})), 400, "empty", Some("body.text")),
        (with("body", json!({"text": "a\u{0}b"})), 400, "bad_field", Some("body.text")),
        (with("body", json!({"text": "x".repeat(20_000)})), 413, "too_large", Some("body.text")),
        (with("body", json!(7)), 400, "bad_field", Some("body")),
        (raw(b"[]"), 400, "bad_request", None),
        (raw(b"{"), 400, "bad_request", None),
        (raw(b"{}x"), 400, "bad_request", None),
        (raw(b"\xff"), 400, "bad_request", None),
        (raw(deep.as_bytes()), 400, "too_deep", None),
        (post("/v1/received", &json!({"seq": -1})), 400, "bad_field", Some("seq")),
        (post("/v1/received", &json!({})), 400, "bad_field", Some("seq")),
        (post("/v1/received", &json!({"seq": 1})), 400, "bad_field", Some("seq")),
        (post("/v1/received", &json!({"seq": 0, "device": "no such name"})), 400, "bad_field", Some("device")),
        (get("/v1/conversations/d:2:3/messages"), 403, "forbidden", Some("conversation")),
        (get("/v1/conversations/d:2:1/messages"), 404, "not_found", None),
        (get("/v1/conversations/nothing/messages"), 404, "not_found", None),
    ];
    for (call, status, code, field) in rows {
        let answer = call.clone().by(&token).send(&server);
        assert_eq!(
            answer.refusal(),
            (status, code),
            "{} {:?}",
            call.path,
            call.body.map(|body| String::from_utf8_lossy(&body).into_owned())
        );
        assert_eq!(answer.json["error"]["field"].as_str(), field, "{answer:?}");
    }
    let no_json = post("/v1/messages", &json!({}));
    let no_json = Call { headers: vec![("Content-Type".into(), "text/plain".into())], ..no_json }.by(&token).send(&server);
    assert_eq!((no_json.refusal(), no_json.json["error"]["field"].as_str()), ((400, "bad_field"), Some("Content-Type")));
    assert_eq!(post("/v1/messages", &message(&new_id(), "u:2", "hi")).send(&server).refusal(), (401, "unauthenticated"));
}

#[test]
fn too_many_sends_are_told_when_to_come_again() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_LIMITS__SENDS_PER_S", "1"),
        ("SWITCHBOARD_LIMITS__SENDS_BURST", "2"),
        ("SWITCHBOARD_GATEWAY__REQUESTS_PER_USER", "1000"),
    ]);
    let token = server.token(1);
    let answers: Vec<_> = (0..4).map(|n| send(&server, &token, "u:2", &n.to_string())).collect();
    let refused = answers.iter().find(|answer| answer.status != 200).expect("four at once are too many");
    assert_eq!(refused.refusal(), (429, "rate"));
    assert!(
        refused.json["error"]["retry_after_ms"].as_u64().unwrap() > 0 && refused.headers.contains_key("retry-after"),
        "{refused:?}"
    );
}

#[test]
fn tokens_are_good_for_their_device_only_and_end_with_their_session() {
    let server = Server::start();
    let bound = server.device_token(1, "phone");
    let other = post("/v1/received", &json!({"seq": 0, "device": "laptop"})).by(&bound).send(&server);
    assert_eq!((other.refusal(), other.json["error"]["field"].as_str()), ((403, "forbidden"), Some("device")));
    post("/v1/received", &json!({"seq": 0})).by(&bound).send(&server).data();
    post("/v1/received", &json!({"seq": 0, "device": "phone"})).by(&bound).send(&server).data();

    let ann = Device::log_in(&server, &phone(1), "phone");
    send(&server, &ann.access, "u:2", "hi").data();
    crate::api::delete("/v1/sessions/current").by(&ann.access).send(&server).data();
    assert_eq!(send(&server, &ann.access, "u:2", "hi").refusal(), (401, "unauthenticated"));
}

#[test]
fn what_is_acknowledged_by_post_is_where_the_next_session_begins() {
    let server = Server::start_with(&[("SWITCHBOARD_GATEWAY__REQUESTS_PER_USER", "1000")]);
    let token = server.token(1);
    // the device is known from its first acknowledgement on
    post("/v1/received", &json!({"seq": 0, "device": "pager"})).by(&token).send(&server).data();
    for n in 0..5 {
        send(&server, &server.token(2), "u:1", &n.to_string()).data();
    }
    post("/v1/received", &json!({"seq": 3, "device": "pager"})).by(&token).send(&server).data();
    post("/v1/received", &json!({"seq": 2, "device": "pager"})).by(&token).send(&server).data();
    let begins_at = || {
        let mut raw = Raw::upgrade(server.address(), &[]);
        raw.text(&format!(r#"{{"type":"hello","token":"{token}","device":"pager"}}"#));
        serde_json::from_str::<Value>(&raw.until("\"event\"")).unwrap()["seq"].as_u64()
    };
    server.wait_until("the cursor is written", || begins_at() == Some(4));
}
