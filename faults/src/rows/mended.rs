//! Rows in which something cannot go on by itself: sends that would not get through are refused before they are accepted, and what a person then
//! does brings everything through that was accepted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loadtest::client::Client;
use loadtest::frame::{ClientFrame, Hello, ServerFrame, direct_name};
use loadtest::tokens::Account;
use protocol::record::{Content, Identity, Record};
use protocol::{ConversationId, MessageId, UserId};
use router::log::kafka::{KafkaConfig, KafkaLog, Partitions};
use router::log::{Log as _, Topic};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::Outcome;
use super::pair::{PARTITIONS, Pair, pairs};
use super::registry::flush;
use crate::stand::{PATIENCE, Stand, free_port, get};

fn said(more: String) -> Outcome {
    Outcome { seen: Vec::new(), more }
}

fn log(stand: &Stand) -> Result<Arc<KafkaLog>> {
    let (messages, mailbox) = PARTITIONS;
    let partitions = Partitions { messages, group_messages: 6, mailbox, notifications: 2, analytics: 2 };
    let (brokers, topic_prefix) = (vec![stand.cluster(&["url", "kafka-1"])?], stand.topic_prefix());
    Ok(KafkaLog::connect(&KafkaConfig { brokers, topic_prefix, partitions, ..KafkaConfig::default() })?)
}

/// A record that a newer build could have written: its identity, and no body that this build knows.
fn of_a_newer_build(topic: Topic, conversation: ConversationId) -> Result<Vec<u8>> {
    if topic == Topic::Mailbox {
        return Ok(vec![0x08, 1, 0x10, 1, 0x18, 5]); // source and link, no verdict
    }
    let id = MessageId::new(Uuid::now_v7()).context("version 7")?;
    let identity = Identity { sender: UserId::from_stored(1), conversation, id };
    let whole = Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 1 }.encode();
    ensure!(whole[0] == 0x0a, "the identity comes first");
    Ok(whole[..2 + usize::from(whole[1])].to_vec())
}

fn is_told_by(stand: &Stand, gateway: &str, what: &str) -> bool {
    let address = stand.address(gateway).unwrap_or_default();
    get(&address, "/ready").is_some_and(|(_, body)| body.contains(what))
}

/// A record that nobody can read stops a partition: its sends are refused and the others' are not, all gateways say so, a flushed Redis hears it
/// again; stepped over, everything that was accepted comes.
async fn stopped_in(stand: &Stand, topic: Topic, (one, other): (&mut Pair, &mut Pair)) -> Result<String> {
    let log = log(stand)?;
    let partition = if topic == Topic::Messages { one.partition() } else { (one.to % u64::from(PARTITIONS.1)) as u16 };
    one.until(true, "all is well").await?;
    let bad = of_a_newer_build(topic, one.conversation())?;
    log.reachable().wait_for(|up| *up).await?;
    let offset = log.append(topic, partition, bad.clone().into()).await?;
    let refused = one.until(false, "sends are refused").await?;
    other.until(true, "other conversations go on").await?;
    let place = format!("{} {partition}", topic.name());
    for gateway in ["gateway-1", "gateway-2"] {
        stand.until("both gateways say it", || is_told_by(stand, gateway, &place)).await?;
    }
    flush(stand)?;
    let heard_again = one.until(false, "a flushed Redis hears it again").await?;
    step_over(stand, topic, (partition, offset), &bad)?;
    let mended = one.until(true, "sends are taken again").await?;
    one.all_heard().await?;
    other.all_heard().await?;
    stand.all_ready().await?;
    ensure!(!is_told_by(stand, "gateway-1", &place), "it is still said");
    let name = topic.name();
    Ok(format!("{name}: refused after {refused:.1?}, after a flush {heard_again:.1?}, taken {mended:.1?} after the step"))
}

/// What a person does: sees where it stands, and steps over that record, which is kept in a file.
fn step_over(stand: &Stand, topic: Topic, (partition, offset): (u16, u64), record: &[u8]) -> Result<()> {
    let (name, at) = (topic.name(), partition.to_string());
    let (ok, listed) = stand.admin(&["partition", "list", "--troubled"])?;
    let mut words = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = words.rfind(|words| words.len() > 7 && words[0] == name && words[1] == at);
    let line = line.with_context(|| format!("{ok} {listed}"))?;
    ensure!(line[3] == offset.to_string() && line.last() == Some(&"stopped"), "{listed}");
    let file = stand.scratch(&format!("{name}.record"));
    let save = file.to_string_lossy().into_owned();
    let skip = |offset: u64, more: &[&str]| {
        let number = offset.to_string();
        let mut arguments = vec!["partition", "skip", name, at.as_str(), number.as_str(), "--save", &save];
        arguments.extend(more);
        stand.admin(&arguments)
    };
    ensure!(!skip(offset, &[])?.0, "stepped over without being told so");
    ensure!(!skip(offset + 1, &["--yes"])?.0 && !file.exists(), "stepped over where it does not stand");
    let (ok, said) = skip(offset, &["--yes"])?;
    ensure!(ok, "{said}");
    ensure!(std::fs::read(&file)? == record, "another record was kept");
    Ok(())
}

pub(crate) async fn stopped(stand: &Stand) -> Result<Outcome> {
    let (mut one, mut other) = pairs(stand).await?;
    let messages = stopped_in(stand, Topic::Messages, (&mut one, &mut other)).await?;
    let mailbox = stopped_in(stand, Topic::Mailbox, (&mut one, &mut other)).await?;
    Ok(said(format!("{messages}; {mailbox}; {} accepted and heard", one.accepted.len() + other.accepted.len())))
}

/// A gateway that believes the log to keep no more than 20 s sees that nobody works, and all gateways refuse what would wait for too long.
pub(crate) async fn late(stand: &Stand) -> Result<Outcome> {
    let mut config = std::fs::read_to_string(stand.config("gateway-1"))?;
    let (listen, link) = (free_port()?, free_port()?);
    let own = stand.address("gateway-1")?;
    config = config.replace(&format!("listen = \"{own}\""), &format!("listen = \"127.0.0.1:{listen}\""));
    config = config.replace("name = \"gateway-1\"", "name = \"gateway-late\"");
    let links = config.lines().find(|line| line.starts_with("link = ")).context("a link address")?.to_owned();
    config = config.replace(&links, &format!("link = \"127.0.0.1:{link}\""));
    config = config.replace("[cluster.kafka]\n", "[cluster.kafka]\nretention = \"20s\"\n");
    let gateway = stand.extra("gateway-late", &config)?;
    stand.until("the third gateway is ready", || gateway.is_ready(listen)).await?;
    let (mut one, mut other) = pairs(stand).await?;
    let mut all = Vec::new();
    for (role, topic) in [("router", "messages"), ("storage", "mailbox")] {
        one.until(true, "all is well").await?;
        for name in stand.members(role) {
            stand.does("stop", &name)?;
        }
        let began = Instant::now();
        ensure!(one.send().await?, "what can wait is not accepted");
        let refused = one.until(false, "what would wait too long is refused").await?;
        ensure!(began.elapsed() >= Duration::from_secs(9), "refused after {:?}", began.elapsed());
        let goes_on = other.send().await?;
        stand.until("it is said", || is_told_by(stand, "gateway-2", topic)).await?;
        let (_, listed) = stand.admin(&["partition", "list", "--troubled"])?;
        let late = |line: &str| line.starts_with(topic) && line.ends_with("late");
        ensure!(listed.lines().any(late), "{listed}");
        // a canary may wait in its partition too
        let partition = other.partition().to_string();
        let waits = listed.lines().any(|line| late(line) && line.split_whitespace().nth(1) == Some(partition.as_str()));
        ensure!(goes_on || topic == "mailbox" || waits, "a conversation in which nothing waits does not go on\n{listed}");
        for name in stand.members(role) {
            stand.does("start", &name)?;
        }
        let taken = one.until(true, "it is taken again").await?;
        one.all_heard().await?;
        all.push(format!("{topic}: refused after {refused:.1?}, taken {taken:.1?} after {role} processes came back"));
    }
    if other.fenced.is_some() {
        other.until(true, "it is taken again").await?;
    }
    other.all_heard().await?;
    Ok(said(all.join("; ")))
}

/// A raised stream epoch closes the sessions of its shard, and devices read anew.
pub(crate) async fn stream_epoch(stand: &Stand) -> Result<Outcome> {
    let accounts = stand.accounts(2)?;
    let mut pair = Pair::new(stand, &accounts[0], &accounts[1]).await?;
    pair.until(true, "all is well").await?;
    pair.all_heard().await?;
    let shard = (pair.to % u64::from(PARTITIONS.1)).to_string();
    let (ok, words) = stand.admin(&["stream-epoch", "raise", &shard])?;
    let raised = words.split("stream epoch ").nth(1).and_then(|rest| rest.split(|end: char| !end.is_ascii_digit()).next());
    let epoch: u64 = raised.filter(|_| ok).with_context(|| words.clone())?.parse()?;
    let began = Instant::now();
    let closed = loop {
        match timeout(PATIENCE, pair.receiver.next()).await.context("it is closed")? {
            Ok(_) => {}
            Err(why) => break why.close_code(),
        }
    };
    ensure!(closed == Some(4410), "closed with {closed:?}");
    let took = began.elapsed();
    pair.receiver = read_anew(stand, &accounts[1], epoch).await?;
    pair.heard.clear();
    pair.accepted.clear();
    pair.until(true, "all is well").await?;
    pair.all_heard().await?;
    Ok(said(format!("closed with 4410 after {took:.1?}")))
}

/// Comes back with a cursor of the former epoch, which means nothing, and reads everything.
async fn read_anew(stand: &Stand, account: &Account, epoch: u64) -> Result<Client> {
    let target = stand.targets(&["gateway-2"]).await?.remove(0);
    let mut again = Client::connect(&target.with_token(&account.token)).await?;
    let former = (epoch - 1).to_string();
    let welcome = again.hello(Hello { device: "m", cursor: Some(1), epoch: Some(&former) }).await?;
    let mut resync = None;
    loop {
        match timeout(PATIENCE, again.next()).await.context("it attaches")?? {
            ServerFrame::Resync(told) => {
                let hello = Hello { device: "m", cursor: Some(0), epoch: Some(&told.epoch) };
                again.write(&ClientFrame::Hello(hello)).await?;
                resync = Some(told);
            }
            ServerFrame::Live { .. } => break,
            _ => {}
        }
    }
    let told = resync.with_context(|| format!("a cursor of the former epoch went on: welcome says {}", welcome.epoch))?;
    ensure!(told.epoch == epoch.to_string() && told.reason == "epoch", "resync says {} and {}", told.epoch, told.reason);
    Ok(again)
}

/// The log is gone and a new one is empty: with every worker stopped, all shards begin at its front, and messages go on behind the old ones.
pub(crate) async fn new_log(stand: &Stand) -> Result<Outcome> {
    let accounts = stand.accounts(2)?;
    let mut pair = Pair::new(stand, &accounts[0], &accounts[1]).await?;
    for _ in 0..5 {
        pair.until(true, "all is well").await?;
    }
    pair.all_heard().await?;
    let epoch = stand.begin_log();
    let (ok, words) = stand.admin(&["topics", "create"])?;
    ensure!(ok, "{words}");
    let (ok, words) = stand.admin(&["log", "adopt", "--yes"])?;
    ensure!(!ok && words.contains("router-1"), "somebody works: {words}");
    for role in ["gateway", "router", "storage"] {
        for name in stand.members(role) {
            stand.does("stop", &name)?;
        }
    }
    let (ok, words) = stand.admin(&["log", "adopt"])?;
    ensure!(!ok && words.contains("--yes"), "{words}");
    let (ok, words) = stand.admin(&["log", "adopt", "--yes"])?;
    ensure!(ok && words.contains("24 shards"), "{words}");
    stand.up_again()?;
    stand.all_ready().await?;
    let mut again = Pair::new(stand, &accounts[0], &accounts[1]).await?;
    for _ in 0..5 {
        again.until(true, "all is well").await?;
    }
    again.all_heard().await?;
    let page = again.receiver.history(&direct_name(again.from, again.to), None).await?;
    let shown: Vec<_> = page.events.iter().map(|event| event.id).collect();
    let accepted = [pair.accepted, again.accepted].concat();
    ensure!(shown == accepted, "shown {shown:?}, accepted {accepted:?}");
    Ok(said(format!("epoch {epoch}: 5 messages of the old log and 5 of the new one, in order")))
}
