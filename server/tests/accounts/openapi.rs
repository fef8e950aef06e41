//! The document against the running server: every operation in it is called, well and badly, and each answer is one the document says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::{Answer, Call, Device, ask, delete, get, patch, phone, post};
use crate::raw::{Raw, Server};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

struct Document {
    json: Value,
    answered: BTreeSet<(String, u16)>,
}

impl Document {
    /// `METHOD /path` of every operation.
    fn operations(&self) -> Vec<String> {
        let paths = self.json["paths"].as_object().expect("paths");
        let of = |(path, item): (&String, &Value)| {
            METHODS
                .iter()
                .filter(|method| item.get(**method).is_some())
                .map(|method| format!("{} {path}", method.to_uppercase()))
                .collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }

    fn operation(&self, name: &str) -> &Value {
        let (method, path) = name.split_once(' ').expect("METHOD /path");
        let operation = &self.json["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{name} is not in the document");
        operation
    }

    /// The answer must be one of those that the document says.
    fn allows(&mut self, name: &str, answer: &Answer) {
        let response = &self.operation(name)["responses"][answer.status.to_string()];
        assert!(response.is_object(), "{name} may not answer {}: {}", answer.status, answer.text);
        assert_eq!(answer.headers["content-type"], "application/json", "{name}");
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{name} {}: no schema", answer.status);
        let whole = json!({"allOf": [schema], "components": self.json["components"]});
        let validator = jsonschema::draft202012::new(&whole).unwrap_or_else(|why| panic!("{name}: the schema is none: {why}"));
        let faults: Vec<_> = validator.iter_errors(&answer.json).map(|why| why.to_string()).collect();
        assert!(faults.is_empty(), "{name} {}: {faults:?} in {}", answer.status, answer.text);
        self.answered.insert((name.to_owned(), answer.status));
    }
}

/// A good call of every operation, in an order that makes them good, and the session that some are about. Whoever adds an operation adds it here.
fn good_calls(server: &Server) -> (Raw, Vec<(&'static str, Call)>) {
    let ann = Device::log_in(server, &phone(1), "phone");
    let spare = Device::log_in(server, &phone(2), "spare");
    Device::log_in(server, &phone(1), "tablet");
    let verify =
        json!({"phone": phone(3), "code": ask(server, &phone(3)), "device": "phone", "device_label": "mine", "name": "Bob"});
    let by = |call: Call| call.by(&ann.access);
    let numbers = [&ann.user, &spare.user].map(|user| user.parse::<u64>().expect("a number"));
    let conversation = format!("d:{}:{}", numbers[0].min(numbers[1]), numbers[0].max(numbers[1]));
    let calls = vec![
        ("POST /v1/registrations", post("/v1/registrations", &json!({"phone": phone(4), "device": "phone"}))),
        ("POST /v1/registrations/verify", post("/v1/registrations/verify", &verify)),
        ("POST /v1/sessions/refresh", post("/v1/sessions/refresh", &json!({"refresh_token": spare.refresh}))),
        ("GET /v1/me", by(get("/v1/me"))),
        ("PATCH /v1/me", by(patch("/v1/me", &json!({"name": "Ann", "about": null})))),
        ("GET /v1/users/{id}", by(get(&format!("/v1/users/{}", spare.user)))),
        ("POST /v1/contacts/lookup", by(post("/v1/contacts/lookup", &json!({"phone": phone(2)})))),
        ("GET /v1/devices", by(get("/v1/devices"))),
        ("DELETE /v1/devices/{device}", by(delete("/v1/devices/tablet"))),
        ("POST /v1/messages", by(post("/v1/messages", &message(&spare.user)))),
        ("GET /v1/conversations", by(get("/v1/conversations?limit=1"))),
        ("GET /v1/conversations/{id}/messages", by(get(&format!("/v1/conversations/{conversation}/messages")))),
        ("POST /v1/received", by(post("/v1/received", &json!({"seq": 0, "device": "phone"})))),
        (
            "POST /v1/conversations/{id}/read",
            by(post(&format!("/v1/conversations/{conversation}/read"), &json!({"position": "0"}))),
        ),
        ("POST /v1/typing", by(post("/v1/typing", &json!({"to": format!("u:{}", spare.user)})))),
        ("POST /v1/watch", by(post("/v1/watch", &json!({"users": [spare.user], "device": "phone"})))),
        ("GET /v1/openapi.json", get("/v1/openapi.json")),
        ("GET /v1/asyncapi.json", get("/v1/asyncapi.json")),
        ("DELETE /v1/sessions/current", by(delete("/v1/sessions/current"))),
    ];
    (ann.attach(server), calls)
}

fn message(to: &str) -> Value {
    json!({"id": uuid::Uuid::now_v7(), "to": format!("u:{to}"), "kind": "text", "body": {"text": "hi"}, "reply_to": null})
}

/// A stream has no end and no envelope: its refusals are looked at here, and what it brings in `messages/streams.rs`.
const STREAM: &str = "GET /v1/events";

/// The path with something in it that names nothing.
fn nowhere(name: &str) -> Call {
    let (method, path) = name.split_once(' ').expect("METHOD /path");
    // a conversation that nobody has begun is an empty one
    let nothing = if path.contains("conversations") { "d:1:4503599627370496" } else { "4503599627370496" };
    let parts = path.split('/').map(|part| if part.starts_with('{') { nothing } else { part });
    Call { method: method.into(), ..get(&parts.collect::<Vec<_>>().join("/")) }
}

#[test]
fn every_operation_answers_as_the_document_says() {
    let server = Server::start();
    let json = get("/v1/openapi.json").send(&server).json;
    assert_eq!(json["openapi"].as_str().map(|version| &version[..4]), Some("3.1."));
    let mut document = Document { json, answered: BTreeSet::new() };
    let (_session, good) = good_calls(&server);
    for (name, call) in &good {
        let answer = call.send(&server);
        assert!((200..300).contains(&answer.status), "{name}: {answer:?}");
        document.allows(name, &answer);
    }
    let called: BTreeSet<_> = good.iter().map(|(name, _)| *name).chain([STREAM]).map(str::to_owned).collect();
    assert_eq!(document.operations().into_iter().collect::<BTreeSet<_>>(), called, "each is called");

    let token = server.token(1);
    for name in document.operations() {
        let operation = document.operation(&name).clone();
        if operation.get("security").is_some() {
            let refused = nowhere(&name).send(&server);
            assert_eq!(refused.status, 401, "{name} needs a token");
            document.allows(&name, &refused);
        }
        if operation.get("requestBody").is_some() {
            let call = nowhere(&name).header("Content-Type", "application/json").by(&token);
            for (body, status) in [(b"{".to_vec(), 400), (b"x".repeat(70_000), 413)] {
                let refused = call.clone().body(&body).send(&server);
                assert_eq!(refused.status, status, "{name}");
                document.allows(&name, &refused);
            }
            let key = call.clone().key("not a key").body(b"{}").send(&server);
            document.allows(&name, &key);
        }
        if name == STREAM {
            let good = &operation["responses"]["200"]["content"];
            assert!(good.get("text/event-stream").is_some(), "{good}");
            let refused = get("/v1/events?cursor=x").by(&token).send(&server);
            assert_eq!(refused.status, 400);
            document.allows(&name, &refused);
            continue;
        }
        let nobody = nowhere(&name).by(&token).send(&server);
        document.allows(&name, &nobody);
    }
    for (name, status) in [("GET /v1/me", 404), ("GET /v1/users/{id}", 404), ("DELETE /v1/devices/{device}", 404)] {
        assert!(document.answered.contains(&(name.to_owned(), status)), "{name} {status} was met: {:?}", document.answered);
    }
}

#[test]
fn refusals_for_now_are_as_the_document_says() {
    let server =
        Server::start_with(&[("SWITCHBOARD_ACCOUNTS__DELIVERY", "none"), ("SWITCHBOARD_GATEWAY__REQUESTS_PER_ADDRESS", "5")]);
    let json = get("/v1/openapi.json").send(&server).json;
    let mut document = Document { json, answered: BTreeSet::new() };
    let call = post("/v1/registrations", &json!({"phone": phone(1)}));
    let unavailable = call.send(&server);
    assert_eq!(unavailable.refusal(), (503, "unavailable"));
    document.allows("POST /v1/registrations", &unavailable);
    server.wait_until("over the rate", || call.send(&server).status == 429);
    server.wait_until("over the rate, and looked at", || {
        let answer = call.send(&server);
        if answer.status == 429 {
            Document { json: document.json.clone(), answered: BTreeSet::new() }.allows("POST /v1/registrations", &answer);
        }
        answer.status == 429
    });
}

#[test]
fn the_page_to_try_it_asks_nobody_else() {
    let server = Server::start();
    let page = get("/docs").send(&server);
    assert_eq!(page.status, 200);
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for file in ["/docs.js", "/docs.css"] {
        let file = get(file).send(&server);
        assert_eq!(file.status, 200);
        assert!(!file.text.contains("http://") && !file.text.contains("https://"), "nothing from elsewhere");
    }
    assert!(!page.text.contains("http"), "nothing from elsewhere");
}
