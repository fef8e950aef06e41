//! The document of the socket against the running server: every frame it names goes over a real socket, in its direction, and is what its JSON Schema
//! says; what the document does not name, no frame has.

#[path = "../accounts/api.rs"]
mod api;
mod document;
#[path = "../raw/mod.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use protocol::ErrorCode;
use protocol::codec::Encoding;
use protocol::record::{BodyHash, Event, EventBody, Identity, Refusal};
use protocol::{ConversationId, MessageId, Position, UserId};
use serde_json::{Value, json};

use crate::api::{get, text};
use crate::document::{Document, Side};
use crate::raw::{Raw, Server};

const OFFICIAL: &str = include_str!("asyncapi-3.0.0.schema.json");

/// A client whose frames are held against the document, those it says and those it is told.
struct Client<'a> {
    raw: Raw,
    document: &'a Document,
}

impl<'a> Client<'a> {
    fn connect(server: &Server, document: &'a Document) -> Self {
        Self { raw: Raw::upgrade(server.address(), &["Sec-WebSocket-Protocol: switchboard.v1.json"]), document }
    }

    fn attach(server: &Server, document: &'a Document, user: u64, device: &str) -> Self {
        let mut client = Self::connect(server, document);
        client
            .say(&json!({"type": "hello", "token": server.token(user), "device": device, "cursor": 0, "rev": "0", "version": 1}));
        client.until("live");
        client
    }

    fn say(&mut self, frame: &Value) {
        self.document.holds(Side::Client, frame);
        self.raw.text(&frame.to_string());
    }

    /// The next frame, whatever it is.
    fn next(&mut self) -> Value {
        let frame = serde_json::from_str(&self.raw.until("")).expect("frames are JSON");
        self.document.holds(Side::Server, &frame);
        frame
    }

    fn until(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next();
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Sends and waits for the event; its position.
    fn send(&mut self, to: &str, reply_to: Value) -> Value {
        let id = uuid::Uuid::now_v7().to_string();
        self.say(&json!({"type": "send", "id": id, "to": to, "kind": "text", "body": {"text": "hi"}, "reply_to": reply_to}));
        let (mut accepted, mut event) = (false, Value::Null);
        while !accepted || event.is_null() {
            match self.next() {
                frame if frame["id"] != id => {}
                frame if frame["type"] == "accepted" => accepted = true,
                frame if frame["type"] == "event" => event = frame,
                other => panic!("{other}"),
            }
        }
        event
    }
}

fn document(server: &Server) -> Document {
    let answer = get("/v1/asyncapi.json").send(server);
    assert_eq!(answer.headers["content-type"], "application/json");
    Document::new(answer.json)
}

#[test]
fn every_frame_goes_over_a_socket_as_the_document_says() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__HEARTBEAT", "2s"),
        ("SWITCHBOARD_GATEWAY__STALL_DEADLINE", "2s"),
        ("SWITCHBOARD_DRAIN__WINDOW", "100ms"),
        ("SWITCHBOARD_DRAIN__DEADLINE", "5s"),
    ]);
    let document = document(&server);
    beginnings(&server, &document);
    let mut ann = Client::attach(&server, &document, 1, "phone");
    let mut bob = Client::attach(&server, &document, 2, "phone");
    talk(&mut ann, &mut bob);
    hints(&server, &mut ann, &mut bob);
    pages(&mut ann);
    refusals(&mut ann);
    late_refusal(&document);
    server.terminate();
    ann.until("move");
    let never: Vec<_> = document.messages().difference(&document.held()).cloned().collect();
    assert!(never.is_empty(), "the document names frames that never came: {never:?}");
}

/// Sessions that begin in other ways than with a good cursor and a lasting token.
fn beginnings(server: &Server, document: &Document) {
    let mut lost = Client::connect(server, document);
    lost.say(&json!({"type": "hello", "token": server.token(3), "device": "phone", "cursor": 7, "epoch": "1"}));
    assert_eq!(lost.until("resync")["reason"], "ahead");
    lost.say(&json!({"type": "hello", "cursor": 0}));
    lost.until("live");
    let mut brief = Client::connect(server, document);
    brief.say(&json!({"type": "hello", "token": server.token_for_seconds(4, 4)}));
    brief.until("reauth");
}

fn talk(ann: &mut Client<'_>, bob: &mut Client<'_>) {
    let first = ann.send("u:2", Value::Null);
    let got = bob.until("event");
    assert_eq!(got["id"], first["id"]);
    bob.say(&json!({"type": "received", "seq": got["seq"]}));
    ann.until("receipt");
    bob.say(&json!({"type": "read", "conversation": "d:1:2", "position": got["position"]}));
    while ann.until("receipt")["read"] != got["position"] {}
    let reply = bob.send("d:1:2", json!({"from": "1", "id": first["id"]}));
    assert_eq!(ann.until("event")["reply_to"], reply["reply_to"]);
}

fn hints(server: &Server, ann: &mut Client<'_>, bob: &mut Client<'_>) {
    bob.say(&json!({"type": "typing", "to": "u:1"}));
    ann.until("typing");
    ann.send("u:3", Value::Null);
    ann.say(&json!({"type": "watch", "users": ["2", "3"]}));
    while ann.until("presence")["user"] != "2" {}
    // one who was here: then it is known when
    drop(Client::attach(server, ann.document, 3, "phone"));
    while ann.until("presence")["online"] != true {}
    assert!(ann.until("presence")["last_seen"].is_string());
}

fn pages(ann: &mut Client<'_>) {
    ann.say(&json!({"type": "history", "conversation": "d:1:2", "before": null, "limit": 1}));
    let page = ann.until("page");
    ann.say(&json!({"type": "history", "conversation": "d:1:2", "before": page["before"]}));
    assert_eq!(ann.until("page")["before"], Value::Null);
    ann.say(&json!({"type": "conversations", "limit": 1}));
    let before = text(&ann.until("conversations")["before"]);
    ann.say(&json!({"type": "conversations", "before": before}));
    assert_eq!(ann.until("conversations")["before"], Value::Null);
    ann.say(&json!({"type": "ping"}));
    ann.until("pong");
}

fn refusals(ann: &mut Client<'_>) {
    ann.say(&json!({"type": "history", "conversation": "d:2:3"}));
    assert_eq!(ann.until("error")["code"], "forbidden");
    let id = uuid::Uuid::now_v7();
    ann.say(&json!({"type": "send", "id": id, "to": "d:2:3", "kind": "text", "body": {"text": "not mine"}}));
    assert_eq!(ann.until("refused")["field"], "to");
}

/// A refusal behind `accepted` needs a crash in a cluster: here the codec alone says it.
fn late_refusal(document: &Document) {
    let user = |number| UserId::new(number).expect("a user");
    let id: MessageId = uuid::Uuid::now_v7().to_string().parse().expect("an id");
    let identity = Identity { sender: user(1), conversation: ConversationId::direct(user(1), user(2)), id };
    let refusal = Refusal {
        identity,
        position: Position::from_stored(7),
        body_hash: BodyHash(0),
        code: ErrorCode::IdReused,
        at_ms: 1_763_715_601_123,
    };
    let mut bytes = Vec::new();
    Encoding::Json.event(&Event { seq: 7, body: EventBody::Refused(refusal.into()) }, &mut bytes);
    document.holds(Side::Server, &serde_json::from_slice(&bytes).expect("frames are JSON"));
}

/// What the document says is needed, the server does not do without.
#[test]
fn a_frame_that_the_document_refuses_is_refused() {
    let server = Server::start();
    let document = document(&server);
    let mut ann = Client::attach(&server, &document, 1, "phone");
    let mut tried = 0;
    for (name, example) in document.examples(Side::Client) {
        assert!(document.fault(Side::Client, &example).is_none(), "{name}: its example");
        for field in document.required(&name) {
            let mut less = example.clone();
            less.as_object_mut().expect("a frame").remove(&field);
            assert!(document.fault(Side::Client, &less).is_some(), "{name} without {field}");
            ann.raw.text(&less.to_string());
            let answer = loop {
                let frame = ann.next();
                if frame["type"] == "error" || frame["type"] == "refused" {
                    break frame;
                }
            };
            assert_eq!(answer["field"], field, "{name} without {field}: {answer}");
            tried += 1;
            // the third bad request in a row would close
            ann.say(&json!({"type": "ping"}));
            ann.until("pong");
        }
    }
    assert!(tried >= 16, "{tried}");
    for (name, example) in document.examples(Side::Server) {
        assert_eq!(document.fault(Side::Server, &example), None, "{name}: its example");
    }
}

#[test]
fn the_document_is_one_of_asyncapi_and_its_lists_are_the_servers() {
    let server = Server::start();
    let document = document(&server);
    let official = serde_json::from_str(OFFICIAL).expect("JSON");
    let validator = jsonschema::draft7::new(&official).expect("a schema");
    let faults: Vec<_> = validator.iter_errors(&document.json).map(|why| format!("{}: {why}", why.instance_path())).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    document.refs_lead_somewhere();
    let codes: BTreeSet<_> = ErrorCode::ALL.map(|code| json!(code.name()).to_string()).into();
    let listed = document.json["components"]["schemas"]["ErrorCode"]["enum"].as_array().expect("a list");
    assert_eq!(listed.iter().map(Value::to_string).collect::<BTreeSet<_>>(), codes);
}

/// The check itself: a frame that the document does not name, or a field, or a value, is a fault.
#[test]
fn what_the_document_does_not_name_is_a_fault() {
    let server = Server::start();
    let document = document(&server);
    assert_eq!(document.fault(Side::Server, &json!({"type": "live", "head": 1})), None);
    for bad in [
        json!({"type": "news"}),
        json!({"head": 1}),
        json!({"type": "live"}),
        json!({"type": "live", "head": "1"}),
        json!({"type": "live", "head": 1, "more": true}),
        json!({"type": "hello"}),
        json!({"type": "pong", "now": "yesterday"}),
        json!({"type": "typing", "conversation": "d:1", "from": "1"}),
        json!({"type": "error", "code": "new_code", "message": ""}),
    ] {
        assert!(document.fault(Side::Server, &bad).is_some(), "{bad}");
    }
}
