//! Health tells the truth: a server that answers but delivers nothing is alive and not ready.

mod raw;
mod support;

use raw::{Raw, Server};

fn get(server: &Server, path: &str) -> Option<u16> {
    let mut raw = Raw::connect(server.address());
    raw.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).expect("open");
    raw.status()
}

#[test]
fn ready_when_a_message_went_the_whole_path() {
    let server = Server::start();
    server.wait_until("ready", || get(&server, "/ready") == Some(200));
    assert_eq!(get(&server, "/health"), Some(200));
    assert!(server.counter("switchboard_canary_seconds_count") > 0);
}

#[test]
fn alive_but_not_ready_when_nothing_is_delivered() {
    let server = Server::start_with(&[("SWITCHBOARD_PLANT", "pushes_lost")]);
    server.wait_until("a canary is missed", || server.counter("switchboard_canaries_lost_total") > 0);
    assert_eq!(get(&server, "/health"), Some(200));
    assert_eq!(get(&server, "/ready"), Some(503));
    assert!(server.log().contains("ERROR"), "and the log says so");
}

#[test]
fn not_ready_while_draining_and_no_new_sockets() {
    let server = Server::start_with(&[("SWITCHBOARD_DRAIN__WINDOW", "20s"), ("SWITCHBOARD_DRAIN__DEADLINE", "60s")]);
    server.wait_until("ready", || get(&server, "/ready") == Some(200));
    let mut stays = Raw::attach(&server, 1);
    server.terminate();
    stays.until("\"move\"");
    assert_eq!(get(&server, "/ready"), Some(503));
    assert_eq!(get(&server, "/health"), Some(200));
    let mut late = Raw::connect(server.address());
    let upgrade = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    late.write(upgrade.as_bytes()).expect("open");
    assert_eq!(late.status(), Some(503));
    let id = uuid::Uuid::now_v7();
    stays.text(&format!(r#"{{"type":"send","id":"{id}","to":"u:1","kind":"text","body":{{"text":"still served"}}}}"#));
    stays.until("accepted");
}
