//! A whole life: register, talk, refresh, devices, log-out here and there; and what is left of it after a kill.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::{Device, ask, delete, get, patch, phone, post, text};
use crate::raw::{Raw, Server};

/// A log-out closes sockets within this.
const SOON: Duration = Duration::from_secs(5);

/// Waits until the socket is closed with 4401, and not for longer than it may take.
fn closes_soon(raw: &mut Raw, since: Instant) {
    assert_eq!(raw.close_code(), Some(4401));
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

/// No door opens for this token.
fn is_refused_everywhere(server: &Server, device: &Device) {
    assert_eq!(get("/v1/me").by(&device.access).send(server).refusal(), (401, "unauthenticated"));
    let mut raw = Raw::upgrade(server.address(), &[]);
    raw.text(&format!(r#"{{"type":"hello","token":"{}"}}"#, device.access));
    assert_eq!(raw.close_code(), Some(4401));
    let entry = format!("Sec-WebSocket-Protocol: switchboard.v1.json, switchboard.bearer.{}", device.access);
    assert_eq!(Raw::upgrade(server.address(), &[&entry]).close_code(), Some(4401));
    let mut raw = Raw::connect(server.address());
    let upgrade = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    raw.write(format!("{upgrade}Authorization: Bearer {}\r\n\r\n", device.access).as_bytes()).expect("open");
    assert_eq!(raw.status(), Some(401));
    let refresh = post("/v1/sessions/refresh", &json!({"refresh_token": device.refresh})).send(server);
    assert_eq!(refresh.refusal(), (401, "unauthenticated"));
}

#[test]
fn register_talk_refresh_log_out_and_stay_logged_out_after_a_kill() {
    let server = Server::start();
    let ann = Device::log_in(&server, &phone(1), "phone");
    let laptop = Device::log_in(&server, &phone(1), "laptop");
    let bob = Device::log_in(&server, &phone(2), "phone");
    assert_eq!(ann.user, laptop.user);
    assert_ne!(ann.user, bob.user);
    assert!(ann.user.parse::<u64>().unwrap() >= 1 << 32, "small numbers are the tools'");

    let me = get("/v1/me").by(&ann.access).send(&server);
    assert_eq!((&me.data()["phone"], &me.data()["name"]), (&json!(phone(1)), &json!("Ann")));
    patch("/v1/me", &json!({"about": "At the lake"})).by(&ann.access).send(&server).data();
    let seen = get(&format!("/v1/users/{}", ann.user)).by(&bob.access).send(&server);
    assert_eq!(*seen.data(), json!({"user": ann.user, "name": "Ann", "about": "At the lake"}), "and no number");
    let found = post("/v1/contacts/lookup", &json!({"phone": phone(1)})).by(&bob.access).send(&server);
    assert_eq!(found.data(), seen.data());
    let nobody = post("/v1/contacts/lookup", &json!({"phone": phone(3)})).by(&bob.access).send(&server);
    assert_eq!(nobody.refusal(), (404, "not_found"));

    let (mut at_phone, mut at_laptop, mut at_bob) = (ann.attach(&server), laptop.attach(&server), bob.attach(&server));
    let id = uuid::Uuid::now_v7();
    let send = format!(r#"{{"type":"send","id":"{id}","to":"u:{}","kind":"text","body":{{"text":"hello Bob"}}}}"#, bob.user);
    at_phone.text(&send);
    for raw in [&mut at_laptop, &mut at_bob] {
        assert!(raw.until("\"event\":\"message\"").contains("hello Bob"));
    }

    let devices = get("/v1/devices").by(&ann.access).send(&server);
    let names =
        devices.data().as_array().unwrap().iter().map(|one| (text(&one["device"]), one["current"] == true)).collect::<Vec<_>>();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&("phone".into(), true)) && names.contains(&("laptop".into(), false)), "{names:?}");
    let other = delete("/v1/devices/laptop").by(&bob.access).send(&server);
    assert_eq!(other.refusal(), (404, "not_found"), "not one of Bob's");

    let since = Instant::now();
    delete("/v1/devices/laptop").by(&ann.access).send(&server).data();
    closes_soon(&mut at_laptop, since);
    is_refused_everywhere(&server, &laptop);
    let before = ann.refresh.clone();
    let ann = Device::of(post("/v1/sessions/refresh", &json!({"refresh_token": ann.refresh})).send(&server).data());
    assert_ne!(ann.refresh, before);
    assert_eq!(get("/v1/devices").by(&ann.access).send(&server).data().as_array().unwrap().len(), 1);
    at_phone.text(r#"{"type":"ping"}"#);
    at_phone.until("pong");

    let server = server.restarted();
    is_refused_everywhere(&server, &laptop);
    let mut at_phone = ann.attach(&server);
    let since = Instant::now();
    delete("/v1/sessions/current").by(&ann.access).send(&server).data();
    closes_soon(&mut at_phone, since);
    is_refused_everywhere(&server, &ann);
    assert_eq!(get("/v1/me").by(&bob.access).send(&server).data()["name"], "Ann", "Bob stays");

    let again = Device::log_in(&server, &phone(1), "laptop");
    assert_eq!(again.user, ann.user, "the account is still there");
    again.attach(&server);
    for number in [phone(1), phone(2)] {
        assert!(!server.whole_log().contains(&number), "no number in the log");
    }
}

#[test]
fn a_device_that_logs_in_anew_ends_its_older_session() {
    let server = Server::start();
    let old = Device::log_in(&server, &phone(1), "phone");
    let mut at_old = old.attach(&server);
    let since = Instant::now();
    let new = Device::log_in(&server, &phone(1), "phone");
    assert_eq!(at_old.close_code(), Some(4401));
    // asking for the second code may have waited a second for the first
    assert!(since.elapsed() < SOON + SOON);
    is_refused_everywhere(&server, &old);
    new.attach(&server);
}

#[test]
fn a_used_refresh_token_ends_the_session_and_its_sockets() {
    let server = Server::start();
    let device = Device::log_in(&server, &phone(1), "phone");
    let mut live = device.attach(&server);
    let turn = |token: &str| post("/v1/sessions/refresh", &json!({"refresh_token": token}));
    let next = Device::of(turn(&device.refresh).key("turn-1").send(&server).data());
    let again = Device::of(turn(&device.refresh).key("turn-1").send(&server).data());
    assert_eq!((&again.access, &again.refresh), (&next.access, &next.refresh), "a lost answer is the same answer");
    let since = Instant::now();
    assert_eq!(turn(&device.refresh).key("turn-2").send(&server).refusal(), (401, "unauthenticated"));
    closes_soon(&mut live, since);
    is_refused_everywhere(&server, &next);
}

#[test]
fn an_operator_ends_sessions_beside_the_server() {
    let server = Server::start();
    let (phone_of, laptop) = (Device::log_in(&server, &phone(1), "phone"), Device::log_in(&server, &phone(1), "laptop"));
    let (mut at_phone, mut at_laptop) = (phone_of.attach(&server), laptop.attach(&server));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        let output = command.args(arguments).arg("--data").arg(server.data()).output().expect("the binary runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let shown = run(&["user", "show", &phone(1)]).1;
    assert!(shown.contains(&phone_of.user) && shown.contains("laptop"), "{shown}");
    let since = Instant::now();
    assert!(run(&["user", "revoke", &phone_of.user, "--device", "laptop"]).0);
    closes_soon(&mut at_laptop, since);
    is_refused_everywhere(&server, &laptop);
    assert_eq!(get("/v1/me").by(&phone_of.access).send(&server).status, 200);
    let since = Instant::now();
    assert!(run(&["user", "revoke", &phone_of.user]).0);
    closes_soon(&mut at_phone, since);
    assert!(!run(&["user", "revoke", &phone_of.user]).0, "nothing is left to end");
}

#[test]
fn a_session_and_the_tools_tokens_live_side_by_side() {
    let server = Server::start();
    let device = Device::log_in(&server, &phone(1), "phone");
    let by_tool = server.token(device.user.parse::<u64>().map(|_| 7).unwrap());
    assert_eq!(get("/v1/me").by(&by_tool).send(&server).refusal(), (404, "not_found"), "a user without an account");
    assert_eq!(delete("/v1/sessions/current").by(&by_tool).send(&server).refusal(), (404, "not_found"));
    assert_eq!(get("/v1/devices").by(&by_tool).send(&server).data(), &json!([]));
    Raw::attach(&server, 7);
    let mut raw = Raw::upgrade(server.address(), &[]);
    raw.text(&format!(r#"{{"type":"hello","token":"{}","device":"other"}}"#, device.access));
    assert_eq!(raw.close_code(), Some(4403), "a token is good for its device");
    assert!(!ask(&server, &phone(2)).is_empty());
}
