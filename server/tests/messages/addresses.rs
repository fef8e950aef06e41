//! Limits by address, and whose address it is behind a proxy.

use serde_json::json;

use crate::api::{phone, post};
use crate::raw::{Raw, Server};

/// A handshake by way of these proxies: its status.
fn handshake(server: &Server, forwarded: &str) -> (Raw, Option<u16>) {
    let mut raw = Raw::connect(server.address());
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: {forwarded}\r\n\r\n"
    );
    raw.write(request.as_bytes()).expect("the handshake is written");
    let status = raw.status();
    (raw, status)
}

#[test]
fn behind_a_trusted_proxy_every_client_is_counted_as_itself() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8"),
        ("SWITCHBOARD_GATEWAY__SOCKETS_PER_IP", "1"),
        ("SWITCHBOARD_ACCOUNTS__CODES_PER_ADDRESS", "1"),
    ]);
    let (_one, status) = handshake(&server, "203.0.113.1");
    assert_eq!(status, Some(101));
    let (_other, status) = handshake(&server, "203.0.113.2, 10.0.0.3");
    assert_eq!(status, Some(101), "another client, by two proxies of ours");
    for same in ["203.0.113.1", "198.51.100.1, 203.0.113.1", "203.0.113.2"] {
        assert_eq!(handshake(&server, same).1, Some(429), "{same}");
    }
    // a subscriber of IPv6 has a whole network, and is one address
    let (_six, status) = handshake(&server, "2001:db8::1");
    assert_eq!(status, Some(101));
    assert_eq!(handshake(&server, "2001:db8::ffff").1, Some(429));

    let ask = |last: u32, forwarded: &str| {
        let call = post("/v1/registrations", &json!({"phone": phone(last), "device": format!("d{last}")}));
        call.header("X-Forwarded-For", forwarded).send(&server).status
    };
    assert_eq!([ask(1, "203.0.113.1"), ask(2, "203.0.113.2")], [202, 202]);
    assert_eq!([ask(3, "203.0.113.1"), ask(4, "6.6.6.6, 203.0.113.2")], [429, 429]);
}

#[test]
fn handshakes_of_an_address_have_a_rate() {
    let server = Server::start_with(&[("SWITCHBOARD_GATEWAY__HANDSHAKES_PER_IP", "1")]);
    // two at once after a pause; what a stranger says about itself moves nothing
    let statuses: Vec<_> = (0..20).map(|last| handshake(&server, &format!("203.0.113.{last}")).1).collect();
    assert_eq!(statuses[0], Some(101));
    assert!(statuses.contains(&Some(429)), "{statuses:?}");
    server.wait_until("it comes again", || handshake(&server, "203.0.113.9").1 == Some(101));
}
