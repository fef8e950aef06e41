//! Places of a user's devices over all nodes: who is one too many is refused and leaves nothing, who is known takes its own place, and an entry that no
//! session has goes, whatever has left it.

mod without_engines;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gateway::config::Config;
use gateway::connection::{Client, Connection};
use gateway::node::now_ms;
use gateway::token::Claims;
use gateway::{Gateway, Ports, goodbyes};
use parking_lot::Mutex;
use protocol::codec::Encoding;
use protocol::record::{Content, Event, EventBody, Identity, Message, Record};
use protocol::{ConversationId, DeviceName, MessageId, Position, UserId};
use router::registry::{NodeId, Nodes, Registered, Registration, Registry, RegistryError};
use storage::push::{Deliver as _, Push};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

const HERE: NodeId = NodeId { node: 0, boot: 1 };
const THERE: NodeId = NodeId { node: 7, boot: 70 };
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry in which the test can write too, and which can be away.
#[derive(Default)]
struct Book {
    entries: Mutex<HashMap<(UserId, DeviceName), Registration>>,
    away: AtomicBool,
}

impl Book {
    fn write(&self, user: UserId, device: &str, node: NodeId, counter: u64) {
        self.entries.lock().insert((user, device.parse().expect("the test stands")), Registration { node, counter });
    }

    fn of(&self, user: UserId) -> Vec<(String, NodeId)> {
        let entries = self.entries.lock();
        let mut found: Vec<_> =
            entries.iter().filter(|((of, _), _)| *of == user).map(|((_, device), it)| (device.to_string(), it.node)).collect();
        found.sort();
        found
    }

    fn answers(&self) -> Result<(), RegistryError> {
        if self.away.load(Ordering::Relaxed) { Err(RegistryError("away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Registry for Book {
    async fn register_within(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
        devices_max: usize,
    ) -> Result<Option<Registered>, RegistryError> {
        self.answers()?;
        let mut entries = self.entries.lock();
        let key = (user, device.clone());
        if !entries.contains_key(&key) && entries.keys().filter(|(of, _)| *of == user).count() >= devices_max {
            return Ok(None);
        }
        let counter = 1 + entries.values().map(|entry| entry.counter).max().unwrap_or(1);
        let registration = Registration { node, counter };
        Ok(Some(Registered { registration, replaced: entries.insert(key, registration) }))
    }

    async fn deregister(&self, user: UserId, device: &DeviceName, it: Registration) -> Result<bool, RegistryError> {
        self.answers()?;
        let mut entries = self.entries.lock();
        let key = (user, device.clone());
        Ok(entries.get(&key) == Some(&it) && entries.remove(&key).is_some())
    }

    async fn entries(&self, user: UserId) -> Result<Vec<(DeviceName, Registration)>, RegistryError> {
        self.answers()?;
        let entries = self.entries.lock();
        Ok(entries.iter().filter(|((of, _), _)| *of == user).map(|((_, device), it)| (device.clone(), *it)).collect())
    }

    async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
        Ok(users.iter().map(|user| self.of(*user).into_iter().map(|(_, node)| node).collect()).collect())
    }

    async fn bury(&self, _node: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }
}

struct World {
    book: Arc<Book>,
    gateway: Arc<Gateway>,
    user: UserId,
}

impl World {
    fn new() -> Self {
        let book = Arc::new(Book::default());
        let ports = Ports { registry: book.clone(), ..without_engines::ports() };
        let config = Config { sockets_per_user: 2, ..Config::default() };
        Self { gateway: without_engines::gateway_with(config, ports), book, user: UserId::new(1).expect("the test stands") }
    }

    /// A connection of a device that has said hello.
    async fn hello(&self, device: &str) -> DuplexStream {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let claims = Claims::new(self.user, Some(device.parse().expect("the test stands")), now_ms() / 1000);
        let node = Arc::clone(&self.gateway);
        let handler = Client::new(node, IpAddr::V4(Ipv4Addr::LOCALHOST), Encoding::Json, Some(Box::new(claims)));
        self.gateway.sockets.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(Connection::new(server, handler, 65_536, Vec::new()));
        let text = br#"{"type":"hello"}"#;
        // a mask of zeros changes nothing
        client.write_all(&[&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0][..], text].concat()).await.expect("the test stands");
        client
    }

    /// Lets go of a connection, and waits until the gateway has.
    async fn leaves(&self, client: DuplexStream) {
        let sockets = self.gateway.sockets.load(Ordering::Relaxed);
        drop(client);
        until(|| self.gateway.sockets.load(Ordering::Relaxed) < sockets).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waits = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("it comes true");
}

/// Reads until the server says one of these, and which.
async fn says<'a>(client: &mut DuplexStream, words: &[&'a str]) -> &'a str {
    let mut seen = String::new();
    loop {
        if let Some(word) = words.iter().find(|word| seen.contains(**word)) {
            return word;
        }
        let mut bytes = [0; 1024];
        let got =
            tokio::time::timeout(PATIENCE, client.read(&mut bytes)).await.expect("it says something").expect("the test stands");
        assert!(got > 0, "ended before {words:?}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..got]));
    }
}

const LIVE: &str = "\"live\"";
const TOO_MANY: &str = "rate";

#[tokio::test]
async fn one_too_many_is_refused_and_leaves_nothing_and_who_is_known_is_none_more() {
    let world = World::new();
    world.book.write(world.user, "a", THERE, 3);
    world.book.write(world.user, "b", THERE, 4);
    let mut third = world.hello("c").await;
    assert_eq!(says(&mut third, &[LIVE, TOO_MANY]).await, TOO_MANY);
    assert_eq!(world.book.of(world.user), [("a".to_owned(), THERE), ("b".to_owned(), THERE)], "not even while it closes");
    let mut moved = world.hello("a").await;
    assert_eq!(says(&mut moved, &[LIVE, TOO_MANY]).await, LIVE);
    assert_eq!(world.book.of(world.user), [("a".to_owned(), HERE), ("b".to_owned(), THERE)]);
    world.leaves(moved).await;
    until(|| world.book.of(world.user).len() == 1).await;
    let mut third = world.hello("c").await;
    assert_eq!(says(&mut third, &[LIVE, TOO_MANY]).await, LIVE, "in the place of one that has gone");
}

#[tokio::test]
async fn what_the_registry_did_not_take_goes_when_it_is_back_and_nothing_else() {
    let world = World::new();
    let (mut gone, mut stays) = (world.hello("gone").await, world.hello("stays").await);
    says(&mut gone, &[LIVE]).await;
    says(&mut stays, &[LIVE]).await;
    world.book.away.store(true, Ordering::Relaxed);
    world.leaves(gone).await;
    for _ in 0..3 {
        goodbyes::settle(&world.gateway).await;
    }
    assert_eq!(world.book.of(world.user).len(), 2, "it is away");
    world.book.away.store(false, Ordering::Relaxed);
    // the goodbye may still be on its way to be doubted
    for _ in 0..1000 {
        goodbyes::settle(&world.gateway).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(world.book.of(world.user), [("stays".to_owned(), HERE)]);
}

#[tokio::test]
async fn a_registry_that_was_set_back_is_found_out() {
    let world = World::new();
    // of devices that were here once; the registry has forgotten that they went
    world.book.write(world.user, "old", HERE, 3);
    world.book.write(world.user, "older", HERE, 4);
    world.book.write(world.user, "elsewhere", THERE, 5);
    let mut refused = world.hello("new").await;
    assert_eq!(says(&mut refused, &[LIVE, TOO_MANY]).await, TOO_MANY);
    goodbyes::settle(&world.gateway).await;
    assert_eq!(world.book.of(world.user), [("elsewhere".to_owned(), THERE)], "who is refused is looked at");
    let mut let_in = world.hello("new").await;
    assert_eq!(says(&mut let_in, &[LIVE, TOO_MANY]).await, LIVE);

    // and so is who is pushed to and not here
    let other = UserId::new(2).expect("the test stands");
    world.book.write(other, "old", HERE, 6);
    world.gateway.sessions.push(HERE, vec![event_of(other)]);
    goodbyes::settle(&world.gateway).await;
    assert_eq!(world.book.of(other), []);
}

fn event_of(owner: UserId) -> Push {
    let sender = UserId::new(3).expect("the test stands");
    let identity = Identity {
        sender,
        conversation: ConversationId::direct(owner, sender),
        id: MessageId::new(uuid::Uuid::now_v7()).expect("the test stands"),
    };
    let record = Record { identity, content: Content::Text("hi".to_owned()), reply_to: None, at_ms: 1 };
    let body = EventBody::Message(Arc::new(Message::new(record, Position::new(1, 1))));
    Push { owner, epoch: 1, event: Event { seq: 1, body } }
}
