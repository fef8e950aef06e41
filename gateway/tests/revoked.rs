//! A session of an account that ends: before its device has said hello, and while it is attached.

mod without_engines;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use accounts::Sid;
use accounts::session::Ended;
use gateway::Gateway;
use gateway::connection::{Client, Connection};
use gateway::node::now_ms;
use gateway::token::Claims;
use protocol::UserId;
use protocol::codec::Encoding;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PATIENCE: Duration = Duration::from_secs(60);

fn user() -> UserId {
    UserId::new(5_000_000_000).expect("a user")
}

/// A connection whose handshake had a good token of this session.
fn connect(gateway: &Arc<Gateway>, sid: Sid) -> DuplexStream {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let claims = Claims { sid: Some(sid), ..Claims::new(user(), Some("phone".parse().expect("a device")), now_ms() / 1000) };
    let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let handler = Client::new(Arc::clone(gateway), home, Encoding::Json, Some(Box::new(claims)));
    gateway.sockets.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(Connection::new(server, handler, 65_536, Vec::new()));
    client
}

async fn hello(client: &mut DuplexStream) {
    let text = br#"{"type":"hello"}"#;
    // a mask of zeros changes nothing
    let frame = [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0][..], text].concat();
    client.write_all(&frame).await.expect("the test stands");
}

/// Reads until the server has said this word, or closes.
async fn until(client: &mut DuplexStream, word: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(word) {
            let mut bytes = [0; 1024];
            let got = client.read(&mut bytes).await.expect("the test stands");
            assert!(got > 0, "ended before {word}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..got]));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the server says it");
    seen
}

/// What accounts do when a session ends.
fn end(gateway: &Gateway, sid: Sid) {
    gateway.tokens.revoked().add(&Ended { sid, user: user(), access_until_ms: now_ms() + 1_000_000 });
    gateway.sessions.look_again(user());
}

#[tokio::test]
async fn a_session_that_ends_between_handshake_and_hello() {
    let (gateway, sid) = (without_engines::gateway(without_engines::ports()), Sid::random());
    let mut holder = connect(&gateway, Sid::random());
    hello(&mut holder).await;
    until(&mut holder, "live").await;
    let mut client = connect(&gateway, sid);
    end(&gateway, sid);
    hello(&mut client).await;
    let seen = until(&mut client, "unauthenticated").await;
    assert!(!seen.contains("welcome"), "{seen}");
    holder.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.expect("the test stands");
    let pong = until(&mut holder, "\u{0}").await;
    assert!(!pong.contains("superseded"), "the device's newer session was not taken over: {pong}");
}

#[tokio::test]
async fn a_session_that_ends_while_it_is_attached() {
    let (gateway, sid, other) = (without_engines::gateway(without_engines::ports()), Sid::random(), Sid::random());
    let mut client = connect(&gateway, sid);
    hello(&mut client).await;
    until(&mut client, "live").await;
    end(&gateway, other);
    client.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.expect("the test stands");
    let pong = until(&mut client, "\u{0}").await;
    assert!(!pong.contains("unauthenticated"), "another session of the user is not this one");
    end(&gateway, sid);
    until(&mut client, "unauthenticated").await;
}
