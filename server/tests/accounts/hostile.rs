//! Bad input to the API: each gets its answer in the envelope, and nothing of it is in the log.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::api::{Device, ask, delete, get, patch, phone, post, text};
use crate::raw::{Server, claims};

#[test]
fn tokens_that_are_none() {
    let server = Server::start();
    let device = Device::log_in(&server, &phone(1), "phone");
    let good = claims(7, 3600);
    let sign = |claims: &Value| jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &server.key()).expect("a token");
    let me = |token: &str| get("/v1/devices").by(token).send(&server).status;
    assert_eq!(me(&sign(&good)), 200);
    let payload = device.access.split('.').nth(1).unwrap();
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    let unsigned = device.access.rsplit_once('.').unwrap().0;
    let mut bad =
        vec![none, format!("{unsigned}."), unsigned.to_owned(), "a".repeat(9000), device.refresh.clone(), String::new()];
    for (name, value) in [
        ("exp", json!("9999999999")),
        ("sub", json!(7)),
        ("user_id", json!("8")),
        ("phone", json!({"a": 1})),
        ("device", json!(["a"])),
        ("sid", json!(5)),
        ("sid", json!("no session")),
        ("aud", json!("other")),
        ("nbf", json!(4_000_000_000_u64)),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        bad.push(sign(&claims));
    }
    for token in bad {
        assert_eq!(me(&token), 401, "{token}");
    }
    let two = get("/v1/devices").by(&device.access).by(&device.access).send(&server);
    assert_eq!(two.refusal(), (401, "unauthenticated"));
    assert_eq!(two.headers["www-authenticate"], "Bearer");
    for query in ["access_token=x", "refresh_token=x", &format!("x={}", device.access)] {
        assert_eq!(get(&format!("/v1/devices?{query}")).by(&device.access).send(&server).refusal(), (400, "bad_request"));
    }
    let log = server.whole_log();
    for secret in [&device.access, &device.refresh, &phone(1)] {
        assert!(!log.contains(secret.as_str()), "{secret} is in the log");
    }
}

#[test]
fn a_session_of_somebody_else_is_nobodys_business() {
    let server = Server::start();
    let (ann, bob) = (Device::log_in(&server, &phone(1), "phone"), Device::log_in(&server, &phone(2), "phone"));
    assert_eq!(ann.name, bob.name, "names of devices are each user's own");
    delete("/v1/devices/phone").by(&bob.access).send(&server).data();
    assert_eq!(get("/v1/me").by(&ann.access).send(&server).status, 200);
    assert_eq!(get("/v1/me").by(&bob.access).send(&server).status, 401);
    let devices = get("/v1/devices").by(&ann.access).send(&server);
    for named in [devices.data().to_string(), get(&format!("/v1/users/{}", bob.user)).by(&ann.access).send(&server).text] {
        assert!(!named.contains(&phone(2)), "{named}");
    }
}

#[test]
fn text_is_kept_as_it_is_or_refused() {
    let server = Server::start();
    let device = Device::log_in(&server, &phone(1), "phone");
    let name = |text: &str| patch("/v1/me", &json!({"name": text})).by(&device.access).send(&server);
    for good in [
        "<img src=x onerror=alert(1)>",
        "\u{202e}nimda",
        "Robert'); DROP TABLE user;--",
        "{{7*7}} %s %n ${jndi:ldap://x}",
        "a\u{301}\u{301}\u{301}",
        "\u{200b}\u{200b}x",
        &"👩".repeat(64),
    ] {
        assert_eq!(name(good).data()["name"], good);
        assert_eq!(get("/v1/me").by(&device.access).send(&server).data()["name"], good, "verbatim");
    }
    for bad in ["", "   ", "\u{1b}[31mred", "a\nb", "a\r\nSet-Cookie: x", "a\0b", "\u{9b}2J", "\u{2028}", &"x".repeat(65)] {
        let refused = name(bad);
        assert_eq!(refused.refusal(), (400, "bad_field"), "{bad:?}");
        assert_eq!(refused.json["error"]["field"], "name");
    }
    let label = json!({"phone": phone(2), "code": "000000", "device": "a", "device_label": "\u{7}"});
    assert_eq!(post("/v1/registrations/verify", &label).send(&server).json["error"]["field"], "device_label");
    assert!(server.whole_log().lines().all(|line| !line.contains('\u{1b}')), "no escapes in the log");
}

#[test]
fn bodies_that_are_none() {
    let server = Server::start();
    let device = Device::log_in(&server, &phone(1), "phone");
    let patch_with = |body: &[u8]| patch("/v1/me", &json!({})).by(&device.access).body(body).send(&server);
    let refused = |body: &[u8]| patch_with(body).refusal().1.to_owned();
    for bad in [&b""[..], b"null", b"[]", b"7", b"{", b"{}{}", b"\xff\xfe", b"{\"name\":\"\\ud800\"}", b"{\"name\":\"\xc3\"}"] {
        assert!(["bad_request", "bad_field"].contains(&refused(bad).as_str()), "{bad:?}");
    }
    assert_eq!(refused(&[b"[".repeat(50_000)].concat()), "bad_request");
    for (field, body) in [("name", json!({"name": 7})), ("about", json!({"about": ["x"]}))] {
        assert_eq!(patch_with(body.to_string().as_bytes()).json["error"]["field"], field);
    }
    let fits = format!(r#"{{"about":"x","pad":"{}"}}"#, "x".repeat(64 * 1024 - 22));
    assert_eq!(fits.len(), 64 * 1024);
    assert_eq!(patch_with(fits.as_bytes()).status, 200);
    let large = patch_with(&[fits.as_bytes(), b" "].concat());
    assert_eq!(large.refusal(), (413, "too_large"));
    let claimed = b"POST /v1/registrations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n{}";
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    stream.write_all(claimed).expect("a head");
    let typeless = post("/v1/registrations", &json!({})).header("Content-Type", "text/plain").send(&server);
    assert_eq!(typeless.status, 400);
    for body in [json!({}), json!({"phone": 7}), json!({"phone": "+4915112345678", "device": "a b"})] {
        assert_eq!(post("/v1/registrations", &body).send(&server).refusal(), (400, "bad_field"), "{body}");
    }
    for bad in ["", "0151", "+49 151 1", "+0123456789", "+4915112345678\u{0}", &"+4".repeat(5000)] {
        assert_eq!(post("/v1/registrations", &json!({"phone": bad})).send(&server).refusal(), (400, "bad_phone"), "{bad:?}");
    }
}

#[test]
fn paths_and_methods_that_are_none() {
    let server = Server::start();
    let device = Device::log_in(&server, &phone(1), "phone");
    for path in [
        "/v1/",
        "/v1/nothing",
        "/v1/users/0",
        "/v1/users/-1",
        "/v1/users/1e9",
        "/v1/users/%00",
        "/v1/users/%ff",
        "/v1/users/9999999999999999999999",
    ] {
        assert_eq!(get(path).by(&device.access).send(&server).refusal(), (404, "not_found"), "{path}");
    }
    assert_eq!(delete("/v1/devices/a%20b").by(&device.access).send(&server).refusal(), (404, "not_found"));
    let wrong = delete("/v1/me").by(&device.access).send(&server);
    assert_eq!((wrong.refusal(), wrong.headers["allow"].as_str()), ((405, "bad_request"), "GET,HEAD,PATCH"));
    assert_eq!(wrong.headers["cache-control"], "no-store");
}

#[test]
fn a_key_gives_the_same_answer_and_never_somebody_elses() {
    let server = Server::start();
    let (ann, bob) = (Device::log_in(&server, &phone(1), "phone"), Device::log_in(&server, &phone(2), "phone"));
    let look =
        |of: u32, by: &Device| post("/v1/contacts/lookup", &json!({"phone": phone(of)})).by(&by.access).key("k-1").send(&server);
    let first = look(1, &ann);
    patch("/v1/me", &json!({"name": "Anna"})).by(&ann.access).send(&server).data();
    let again = look(1, &ann);
    assert_eq!((again.data(), again.headers["idempotency-replayed"].as_str()), (first.data(), "true"), "as it was");
    assert_eq!(look(2, &ann).refusal(), (409, "idempotency_conflict"));
    assert_eq!(look(1, &bob).data()["name"], "Anna", "Bob's keys are his own");
    assert_eq!(look(3, &Device { access: server.token(9), ..ann.clone() }).refusal(), (404, "not_found"));
    for bad in ["", "a b", &"x".repeat(65), "caf\u{e9}"] {
        let refused = post("/v1/contacts/lookup", &json!({"phone": phone(1)})).by(&ann.access).key(bad).send(&server);
        assert_eq!(
            (refused.refusal(), refused.json["error"]["field"].as_str()),
            ((400, "bad_field"), Some("Idempotency-Key")),
            "{bad:?}"
        );
    }
    let server = server.restarted();
    let after = post("/v1/contacts/lookup", &json!({"phone": phone(1)})).by(&ann.access).key("k-1").send(&server);
    assert_eq!(after.data(), first.data(), "kept over a kill");

    let asking = |key: &str| post("/v1/registrations", &json!({"phone": phone(5)})).key(key);
    let code = asking("k-2").send(&server);
    assert_eq!(asking("k-2").send(&server).data(), code.data(), "and no second code");
    assert_eq!(asking("k-3").send(&server).refusal(), (429, "rate"));
}

/// The client is gone before its answer: the log-in has happened, and is told when it is asked for again.
#[test]
fn a_log_in_whose_answer_was_lost() {
    let server = Server::start();
    let body = json!({"phone": phone(1), "code": ask(&server, &phone(1)), "device": "phone"});
    let call = post("/v1/registrations/verify", &body).key("log-in-1");
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    stream.write_all(&call.bytes()).expect("a request");
    server.wait_until("the code was taken", || server.counter("switchboard_code_tries_total{what=\"right\"}") == 1);
    drop(stream);
    let mut session = call.send(&server);
    while session.status == 409 {
        // the first is still being written down
        assert_eq!(session.refusal().1, "conflict");
        session = call.send(&server);
    }
    assert_eq!(session.data()["new"], true, "as it was at the first time");
    let device = Device::of(session.data());
    assert_eq!(Device::of(call.send(&server).data()).refresh, device.refresh);
    device.attach(&server);
    let other = json!({"phone": phone(1), "code": text(&body["code"]), "device": "other"});
    assert_eq!(post("/v1/registrations/verify", &other).key("log-in-1").send(&server).refusal(), (409, "idempotency_conflict"));
}

#[test]
fn an_address_that_asks_too_often() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__REQUESTS_PER_ADDRESS", "2"),
        ("SWITCHBOARD_GATEWAY__REQUESTS_PER_USER", "1"),
    ]);
    let ask = || get("/v1/devices").by(&server.token(1)).send(&server);
    let statuses = [ask().status, ask().status, ask().status];
    assert!(statuses.starts_with(&[200, 200]) && statuses[2] == 429, "{statuses:?}: a user's two at once");
    server.wait_until("the address is over its rate", || get("/v1/openapi.json").send(&server).status == 429);
    assert_eq!(get("/health").send(&server).status, 200, "only of the API");
}
