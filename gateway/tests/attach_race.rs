//! Two connections of one device whose registrations arrive in the other order: the session that is here stays registered, and nothing stays
//! behind when it goes.

mod without_engines;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use gateway::connection::{Client, Connection};
use gateway::node::now_ms;
use gateway::token::Claims;
use gateway::{Gateway, Ports};
use protocol::codec::Encoding;
use protocol::{DeviceName, UserId};
use router::registry::memory::MemoryRegistry;
use router::registry::{NodeId, Nodes, Registered, Registration, Registry, RegistryError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;

/// Holds the first registration back until it is let go.
struct Slow {
    inner: MemoryRegistry,
    first: AtomicBool,
    gate: Semaphore,
}

#[async_trait]
impl Registry for Slow {
    async fn register_within(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
        devices_max: usize,
    ) -> Result<Option<Registered>, RegistryError> {
        if self.first.swap(false, Ordering::SeqCst) {
            drop(self.gate.acquire().await);
        }
        self.inner.register_within(user, device, node, devices_max).await
    }

    async fn deregister(&self, user: UserId, device: &DeviceName, registration: Registration) -> Result<bool, RegistryError> {
        self.inner.deregister(user, device, registration).await
    }

    async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
        self.inner.nodes(users).await
    }

    async fn bury(&self, node: NodeId) -> Result<(), RegistryError> {
        self.inner.bury(node).await
    }
}

/// A connection that has said hello.
async fn hello(gateway: &Arc<Gateway>, user: UserId) -> DuplexStream {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let claims = Claims::new(user, None, now_ms() / 1000);
    let handler = Client::new(Arc::clone(gateway), IpAddr::V4(Ipv4Addr::LOCALHOST), Encoding::Json, Some(Box::new(claims)));
    gateway.sockets.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(Connection::new(server, handler, 65_536, Vec::new()));
    let text = br#"{"type":"hello"}"#;
    // a mask of zeros changes nothing
    let frame = [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0][..], text].concat();
    client.write_all(&frame).await.expect("the test stands");
    client
}

/// Reads until the server has said this word, or closes.
async fn until(client: &mut DuplexStream, word: &str) {
    let mut seen = String::new();
    while !seen.contains(word) {
        let mut bytes = [0; 1024];
        let got = client.read(&mut bytes).await.expect("the test stands");
        assert!(got > 0, "ended before {word}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..got]));
    }
}

async fn wait_for_nodes(registry: &Slow, user: UserId, count: usize) {
    while registry.nodes(&[user]).await.expect("the test stands")[0].len() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_session_that_is_here_stays_registered() {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
    tokio::time::timeout(PATIENCE, race()).await.expect("the registry says what is");
}

async fn race() {
    let slow = Slow { inner: MemoryRegistry::default(), first: AtomicBool::new(true), gate: Semaphore::new(0) };
    let registry = Arc::new(slow);
    let gateway = without_engines::gateway(Ports { registry: registry.clone(), ..without_engines::ports() });
    let user = UserId::new(1).expect("the test stands");

    let mut first = hello(&gateway, user).await;
    until(&mut first, "welcome").await;
    let mut second = hello(&gateway, user).await;
    until(&mut second, "live").await;
    until(&mut first, "superseded").await;
    // the late registration of the first comes after that of the second
    registry.gate.add_permits(1);
    drop(first);
    while gateway.sockets.load(Ordering::Relaxed) != 1 {
        tokio::task::yield_now().await;
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    wait_for_nodes(&registry, user, 1).await;
    drop(second);
    wait_for_nodes(&registry, user, 0).await;
}
