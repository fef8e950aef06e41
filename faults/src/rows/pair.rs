//! Two who write to each other, by hand: what is accepted, what is refused, what is heard.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use loadtest::client::Client;
use loadtest::frame::{Hello, ServerFrame, direct_name};
use loadtest::tokens::Account;
use protocol::{ConversationId, UserId};
use router::submit::kafka::partition_of;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::stand::{PATIENCE, Stand};

/// Partitions of `messages` and of `mailbox` that the stand makes.
pub(super) const PARTITIONS: (u16, u16) = (12, 24);
const UNAVAILABLE: &str = "unavailable";

/// Two who write to each other at one gateway, and what was accepted.
pub(super) struct Pair {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) sender: Client,
    pub(super) receiver: Client,
    pub(super) accepted: Vec<Uuid>,
    pub(super) heard: Vec<Uuid>,
    /// Refused to be tried again: nothing else goes into the conversation before it.
    pub(super) fenced: Option<Uuid>,
}

/// A device that has been shown everything.
pub(super) async fn attached(stand: &Stand, gateway: &str, account: &Account, device: &str) -> Result<Client> {
    let target = stand.targets(&[gateway]).await?.remove(0);
    let mut client = Client::connect(&target.with_token(&account.token)).await?;
    client.hello(Hello { device, cursor: Some(0), epoch: None }).await?;
    while !matches!(timeout(PATIENCE, client.next()).await.context("it attaches")??, ServerFrame::Live { .. }) {}
    Ok(client)
}

impl Pair {
    pub(super) async fn new(stand: &Stand, from: &Account, to: &Account) -> Result<Self> {
        Ok(Self {
            from: from.user,
            to: to.user,
            sender: attached(stand, "gateway-1", from, "m").await?,
            receiver: attached(stand, "gateway-2", to, "m").await?,
            accepted: Vec::new(),
            heard: Vec::new(),
            fenced: None,
        })
    }

    pub(super) fn conversation(&self) -> ConversationId {
        ConversationId::direct(UserId::from_stored(self.from), UserId::from_stored(self.to))
    }

    pub(super) fn partition(&self) -> u16 {
        partition_of(self.conversation(), PARTITIONS.0)
    }

    /// Sends once; true: accepted, false: refused as unavailable. Anything else is a failure.
    pub(super) async fn send(&mut self) -> Result<bool> {
        let id = self.fenced.take().unwrap_or_else(Uuid::now_v7);
        self.sender.feed_text(id, &direct_name(self.from, self.to), "a word").await?;
        self.sender.flush().await?;
        loop {
            match timeout(PATIENCE, self.sender.next()).await.context("an answer")?? {
                ServerFrame::Accepted { id: of, .. } if of == id => {
                    self.accepted.push(id);
                    return Ok(true);
                }
                ServerFrame::Refused(refused) if refused.id == id => {
                    let (code, is_final) = (refused.code.as_str(), refused.is_final);
                    ensure!((code, is_final) == (UNAVAILABLE, false), "refused with {code}, final: {is_final}");
                    ensure!(refused.retry_after_ms > 0, "it does not say when to come again");
                    self.fenced = Some(id);
                    return Ok(false);
                }
                ServerFrame::Event(event) => self.sender.received(event.seq).await?,
                ServerFrame::Refused(_) | ServerFrame::Error(_) => bail!("another answer"),
                _ => {}
            }
        }
    }

    /// Sends until it is accepted, or until it is refused; says how long that took.
    pub(super) async fn until(&mut self, accepted: bool, what: &str) -> Result<Duration> {
        let began = Instant::now();
        while self.send().await? != accepted {
            ensure!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(began.elapsed())
    }

    /// The other one hears everything that was accepted, once, in order.
    pub(super) async fn all_heard(&mut self) -> Result<()> {
        while self.heard.len() < self.accepted.len() {
            let frame = timeout(PATIENCE, self.receiver.next()).await;
            let frame = frame.with_context(|| format!("{} of {} were heard", self.heard.len(), self.accepted.len()))?;
            if let ServerFrame::Event(event) = frame? {
                self.heard.push(event.id);
                self.receiver.received(event.seq).await?;
            }
        }
        ensure!(self.heard == self.accepted, "heard {:?}, accepted {:?}", self.heard, self.accepted);
        Ok(())
    }
}

/// Two pairs that share neither a partition of `messages` nor a virtual shard.
pub(super) async fn pairs(stand: &Stand) -> Result<(Pair, Pair)> {
    let accounts = stand.accounts(12)?;
    let one = Pair::new(stand, &accounts[0], &accounts[1]).await?;
    for at in (2..12).step_by(2) {
        let other = Pair::new(stand, &accounts[at], &accounts[at + 1]).await?;
        if other.partition() != one.partition() {
            return Ok((one, other));
        }
    }
    bail!("five conversations in one of twelve partitions")
}
