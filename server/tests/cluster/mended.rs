//! Rows in which something cannot go on by itself: sends that would not get through are refused before they are accepted, and what a person then
//! does brings everything through that was accepted.

use std::sync::Arc;
use std::time::Duration;

use loadtest::client::Client;
use loadtest::frame::{ClientFrame, Hello, ServerFrame, direct_name};
use loadtest::tokens::Account;
use protocol::record::{Content, Identity, Record};
use protocol::{ConversationId, MessageId, UserId};
use router::log::kafka::{KafkaConfig, KafkaLog, Partitions};
use router::log::{Log as _, Topic};
use router::submit::kafka::partition_of;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::rows::free_port;
use crate::stand::{PATIENCE, Stand, get};

/// Partitions of `messages` and of `mailbox` that the stand makes.
const PARTITIONS: (u16, u16) = (12, 24);
const UNAVAILABLE: &str = "unavailable";

/// Two who write to each other at one gateway, and what was accepted.
struct Pair {
    from: u64,
    to: u64,
    sender: Client,
    receiver: Client,
    accepted: Vec<Uuid>,
    heard: Vec<Uuid>,
    /// Refused to be tried again: nothing else goes into the conversation before it.
    fenced: Option<Uuid>,
}

async fn attached(stand: &Stand, gateway: &str, account: &Account) -> Client {
    let target = stand.targets(&[gateway]).await.remove(0);
    let mut client = Client::connect(&target.with_token(&account.token)).await.expect("it connects");
    client.hello(Hello { device: "m", cursor: Some(0), epoch: None }).await.expect("it is welcome");
    while !matches!(timeout(PATIENCE, client.next()).await.expect("in time").expect("it attaches"), ServerFrame::Live { .. }) {}
    client
}

impl Pair {
    async fn new(stand: &Stand, from: &Account, to: &Account) -> Self {
        Self {
            from: from.user,
            to: to.user,
            sender: attached(stand, "gateway-1", from).await,
            receiver: attached(stand, "gateway-2", to).await,
            accepted: Vec::new(),
            heard: Vec::new(),
            fenced: None,
        }
    }

    fn conversation(&self) -> ConversationId {
        ConversationId::direct(UserId::from_stored(self.from), UserId::from_stored(self.to))
    }

    fn partition(&self) -> u16 {
        partition_of(self.conversation(), PARTITIONS.0)
    }

    /// Sends once; true: accepted, false: refused as unavailable. Anything else is a failure.
    async fn send(&mut self) -> bool {
        let id = self.fenced.take().unwrap_or_else(Uuid::now_v7);
        self.sender.feed_text(id, &direct_name(self.from, self.to), "a word").await.expect("it is written");
        self.sender.flush().await.expect("it is written");
        loop {
            match timeout(PATIENCE, self.sender.next()).await.expect("an answer in time").expect("the socket stands") {
                ServerFrame::Accepted { id: of, .. } if of == id => {
                    self.accepted.push(id);
                    return true;
                }
                ServerFrame::Refused(refused) if refused.id == id => {
                    assert_eq!((refused.code.as_str(), refused.is_final), (UNAVAILABLE, false));
                    assert!(refused.retry_after_ms > 0, "it says when to come again");
                    self.fenced = Some(id);
                    return false;
                }
                ServerFrame::Event(event) => self.sender.received(event.seq).await.expect("it is written"),
                ServerFrame::Refused(_) | ServerFrame::Error(_) => panic!("another answer"),
                _ => {}
            }
        }
    }

    /// Sends until it is accepted, or until it is refused; says how long that took.
    async fn until(&mut self, accepted: bool, what: &str) -> Duration {
        let began = Instant::now();
        while self.send().await != accepted {
            assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }

    /// The other one hears everything that was accepted, once, in order.
    async fn all_heard(&mut self) {
        while self.heard.len() < self.accepted.len() {
            let frame = timeout(PATIENCE, self.receiver.next()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{} of {} were heard", self.heard.len(), self.accepted.len()));
            if let ServerFrame::Event(event) = frame.expect("the socket stands") {
                self.heard.push(event.id);
                self.receiver.received(event.seq).await.expect("it is written");
            }
        }
        assert_eq!(self.heard, self.accepted);
    }
}

/// Two pairs that share neither a partition of `messages` nor a virtual shard.
async fn pairs(stand: &Stand) -> (Pair, Pair) {
    let accounts = stand.accounts(12);
    let one = Pair::new(stand, &accounts[0], &accounts[1]).await;
    for at in (2..12).step_by(2) {
        let other = Pair::new(stand, &accounts[at], &accounts[at + 1]).await;
        if other.partition() != one.partition() {
            return (one, other);
        }
    }
    panic!("five conversations in one of twelve partitions");
}

fn log(stand: &Stand) -> Arc<KafkaLog> {
    let (messages, mailbox) = PARTITIONS;
    let partitions = Partitions { messages, group_messages: 6, mailbox, notifications: 2, analytics: 2 };
    let (brokers, topic_prefix) = (vec![stand.must(&["url", "kafka-1"])], stand.topic_prefix());
    KafkaLog::connect(&KafkaConfig { brokers, topic_prefix, partitions, ..KafkaConfig::default() }).expect("settings")
}

/// A record that a newer build could have written: its identity, and no body that this build knows.
fn of_a_newer_build(topic: Topic, conversation: ConversationId) -> Vec<u8> {
    if topic == Topic::Mailbox {
        return vec![0x08, 1, 0x10, 1, 0x18, 5]; // source and link, no verdict
    }
    let id = MessageId::new(Uuid::now_v7()).expect("version 7");
    let identity = Identity { sender: UserId::from_stored(1), conversation, id };
    let whole = Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 1 }.encode();
    assert_eq!(whole[0], 0x0a, "the identity comes first");
    whole[..2 + usize::from(whole[1])].to_vec()
}

fn is_told_by(stand: &Stand, gateway: &str, what: &str) -> bool {
    get(&stand.address(gateway), "/ready").is_some_and(|(_, body)| body.contains(what))
}

/// A record that nobody can read stops a partition: its sends are refused and the others' are not, all gateways say so, a flushed Redis hears it
/// again; stepped over, everything that was accepted comes.
async fn stopped_in(stand: &Stand, topic: Topic, (one, other): (&mut Pair, &mut Pair)) -> String {
    let log = log(stand);
    let partition = if topic == Topic::Messages { one.partition() } else { (one.to % u64::from(PARTITIONS.1)) as u16 };
    one.until(true, "all is well").await;
    let bad = of_a_newer_build(topic, one.conversation());
    let up = log.reachable().wait_for(|up| *up).await.is_ok();
    assert!(up);
    let offset = log.append(topic, partition, bad.clone().into()).await.expect("it is appended");
    let refused = one.until(false, "sends are refused").await;
    other.until(true, "other conversations go on").await;
    let place = format!("{} {partition}", topic.name());
    for gateway in ["gateway-1", "gateway-2"] {
        stand.until("both gateways say it", || is_told_by(stand, gateway, &place)).await;
    }
    let url = stand.must(&["url", "redis-1"]);
    let flushed = std::process::Command::new("redis-cli").args(["-u", &url, "FLUSHALL"]).output().expect("redis-cli runs");
    assert!(flushed.status.success(), "{flushed:?}");
    let heard_again = one.until(false, "a flushed Redis hears it again").await;

    let number = |number: u64| number.to_string();
    let (name, at) = (topic.name(), partition.to_string());
    let (ok, listed) = stand.admin(&["partition", "list", "--troubled"]);
    let mut words = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = words.rfind(|words| words.len() > 7 && words[0] == name && words[1] == at);
    let line = line.unwrap_or_else(|| panic!("{ok} {listed}")).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((line[3].clone(), line.last().cloned()), (number(offset), Some("stopped".to_owned())), "{listed}");
    let file = stand.scratch(&format!("{name}.record"));
    let save = file.to_string_lossy().into_owned();
    let skip = |offset: u64, more: &[&str]| {
        let number = offset.to_string();
        let mut arguments = vec!["partition", "skip", name, at.as_str(), number.as_str(), "--save", &save];
        arguments.extend(more);
        stand.admin(&arguments)
    };
    assert!(!skip(offset, &[]).0, "not without being told so");
    assert!(!skip(offset + 1, &["--yes"]).0 && !file.exists(), "only where it stands");
    let (ok, said) = skip(offset, &["--yes"]);
    assert!(ok, "{said}");
    assert_eq!(std::fs::read(&file).expect("the record is kept"), bad);
    let mended = one.until(true, "sends are taken again").await;
    one.all_heard().await;
    other.all_heard().await;
    stand.all_ready().await;
    assert!(!is_told_by(stand, "gateway-1", &place), "nothing is said of it any more");
    format!("{name}: refused after {refused:.1?}, after a flush {heard_again:.1?}, taken {mended:.1?} after the step")
}

pub(crate) async fn stopped(stand: &Stand) -> String {
    let (mut one, mut other) = pairs(stand).await;
    let messages = stopped_in(stand, Topic::Messages, (&mut one, &mut other)).await;
    let mailbox = stopped_in(stand, Topic::Mailbox, (&mut one, &mut other)).await;
    format!("{messages}; {mailbox}; {} accepted and heard", one.accepted.len() + other.accepted.len())
}

/// A gateway that believes the log to keep no more than 20 s sees that nobody works, and all gateways refuse what would wait for too long.
pub(crate) async fn late(stand: &Stand) -> String {
    let mut config = std::fs::read_to_string(stand.config("gateway-1")).expect("a configuration");
    let (listen, link) = (free_port(), free_port());
    config = config.replace(&format!("listen = \"{}\"", stand.address("gateway-1")), &format!("listen = \"127.0.0.1:{listen}\""));
    config = config.replace("name = \"gateway-1\"", "name = \"gateway-late\"");
    let links = config.lines().find(|line| line.starts_with("link = ")).expect("a link address").to_owned();
    config = config.replace(&links, &format!("link = \"127.0.0.1:{link}\""));
    config = config.replace("[cluster.kafka]\n", "[cluster.kafka]\nretention = \"20s\"\n");
    let gateway = stand.extra("gateway-late", &config);
    stand.until("the third gateway is ready", || gateway.is_ready(listen)).await;
    let (mut one, mut other) = pairs(stand).await;
    let mut said = Vec::new();
    for (role, topic) in [("router", "messages"), ("storage", "mailbox")] {
        one.until(true, "all is well").await;
        for number in 1..=2 {
            stand.does("stop", &format!("{role}-{number}"));
        }
        let began = Instant::now();
        assert!(one.send().await, "what can wait is accepted");
        let refused = one.until(false, "what would wait too long is refused").await;
        assert!(began.elapsed() >= Duration::from_secs(9), "after {:?}", began.elapsed());
        let goes_on = other.send().await;
        stand.until("it is said", || is_told_by(stand, "gateway-2", topic)).await;
        let (_, listed) = stand.admin(&["partition", "list", "--troubled"]);
        let late = |line: &str| line.starts_with(topic) && line.ends_with("late");
        assert!(listed.lines().any(late), "{listed}");
        // a canary may wait in its partition too
        let partition = other.partition().to_string();
        let waits = listed.lines().any(|line| late(line) && line.split_whitespace().nth(1) == Some(partition.as_str()));
        assert!(goes_on || topic == "mailbox" || waits, "a conversation in which nothing waits goes on\n{listed}");
        for number in 1..=2 {
            stand.does("start", &format!("{role}-{number}"));
        }
        let taken = one.until(true, "it is taken again").await;
        one.all_heard().await;
        said.push(format!("{topic}: refused after {refused:.1?}, taken {taken:.1?} after {role} processes came back"));
    }
    if other.fenced.is_some() {
        other.until(true, "it is taken again").await;
    }
    other.all_heard().await;
    said.join("; ")
}

/// A raised stream epoch closes the sessions of its shard, and devices read anew.
pub(crate) async fn stream_epoch(stand: &Stand) -> String {
    let accounts = stand.accounts(2);
    let mut pair = Pair::new(stand, &accounts[0], &accounts[1]).await;
    pair.until(true, "all is well").await;
    pair.all_heard().await;
    let shard = (pair.to % u64::from(PARTITIONS.1)).to_string();
    let (ok, said) = stand.admin(&["stream-epoch", "raise", &shard]);
    assert!(ok && said.contains("stream epoch 2"), "{said}");
    let began = Instant::now();
    let closed = loop {
        match timeout(PATIENCE, pair.receiver.next()).await.expect("it is closed in time") {
            Ok(_) => {}
            Err(why) => break why.close_code(),
        }
    };
    assert_eq!(closed, Some(4410));
    let took = began.elapsed();
    let target = stand.targets(&["gateway-2"]).await.remove(0);
    let mut again = Client::connect(&target.with_token(&accounts[1].token)).await.expect("it connects");
    let welcome = again.hello(Hello { device: "m", cursor: Some(1), epoch: Some("1") }).await.expect("it is welcome");
    let mut resync = None;
    loop {
        match timeout(PATIENCE, again.next()).await.expect("in time").expect("the socket stands") {
            ServerFrame::Resync(told) => {
                let hello = Hello { device: "m", cursor: Some(0), epoch: Some(&told.epoch) };
                again.write(&ClientFrame::Hello(hello)).await.expect("it is written");
                resync = Some(told);
            }
            ServerFrame::Live { .. } => break,
            _ => {}
        }
    }
    let told = resync.unwrap_or_else(|| panic!("a cursor of the former epoch means nothing: welcome says {}", welcome.epoch));
    assert_eq!((told.epoch.as_str(), told.reason.as_str()), ("2", "epoch"));
    pair.receiver = again;
    pair.heard.clear();
    pair.accepted.clear();
    pair.until(true, "all is well").await;
    pair.all_heard().await;
    format!("closed with 4410 after {took:.1?}")
}

/// The log is gone and a new one is empty: with every worker stopped, all shards begin at its front, and messages go on behind the old ones.
pub(crate) async fn new_log(stand: &Stand) -> String {
    let accounts = stand.accounts(2);
    let mut pair = Pair::new(stand, &accounts[0], &accounts[1]).await;
    for _ in 0..5 {
        pair.until(true, "all is well").await;
    }
    pair.all_heard().await;
    let ours = ["gateway-1", "gateway-2", "router-1", "router-2", "storage-1", "storage-2"];
    let epoch = stand.begin_log();
    let (ok, said) = stand.admin(&["topics", "create"]);
    assert!(ok, "{said}");
    let (ok, said) = stand.admin(&["log", "adopt", "--yes"]);
    assert!(!ok && said.contains("router-1"), "somebody works: {said}");
    for name in ours {
        stand.does("stop", name);
    }
    let (ok, said) = stand.admin(&["log", "adopt"]);
    assert!(!ok && said.contains("--yes"), "{said}");
    let (ok, said) = stand.admin(&["log", "adopt", "--yes"]);
    assert!(ok && said.contains("24 shards"), "{said}");
    stand.up_again();
    stand.all_ready().await;
    let mut again = Pair::new(stand, &accounts[0], &accounts[1]).await;
    again.accepted = pair.accepted;
    for _ in 0..5 {
        again.until(true, "all is well").await;
    }
    again.all_heard().await;
    let page = again.receiver.history(&direct_name(again.from, again.to), None).await.expect("a page");
    let shown: Vec<_> = page.events.iter().map(|event| event.id).collect();
    assert_eq!(shown, again.accepted, "what the new log said stands behind what the old one said");
    format!("epoch {epoch}: 5 messages of the old log and 5 of the new one, in order")
}
