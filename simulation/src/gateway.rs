//! A simulated gateway: the gateway crate's own session, lanes, outbox, sessions, cursors and attach, with the glue of its `Client` around
//! them. Its sends are appended to the log's `messages` topic.

mod seat;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway::cursors::Cursors;
use gateway::deliver::Sessions;
use parking_lot::Mutex;
use protocol::limits::Limits;
use protocol::plant::{Bug, planted};
use protocol::record::Record;
use protocol::{ConversationId, ErrorCode, UserId};
use router::expand::Shards;
use router::log::{Log, LogError, Topic};
use router::registry::{NodeId, Registry};
use router::submit::{Outcome, Report, Submit};
use storage::store::{Head, Store};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::faults::{Committed, Gateways, Replaced};
use crate::net::{Ask, Say};
use crate::process::Process;
use crate::sim::Sim;

/// How often a gateway compares heads.
const HEADS_EVERY: Duration = Duration::from_secs(10);

/// The partition of a conversation's messages.
pub fn partition_of(conversation: ConversationId, partitions: u16) -> u16 {
    let ConversationId::Direct(low, high) = conversation;
    u16::try_from((low.get() * 7 + high.get()) % u64::from(partitions)).unwrap_or(0)
}

/// Sends into the log: a report says `accepted` only when the append is durable.
pub struct LogSubmit {
    log: Arc<dyn Log>,
    process: Arc<Process>,
    partitions: u16,
}

impl LogSubmit {
    /// Appends to this log, in tasks of this process.
    pub fn new(log: Arc<dyn Log>, process: &Arc<Process>, partitions: u16) -> Self {
        Self { log, process: Arc::clone(process), partitions }
    }
}

impl Submit for LogSubmit {
    fn submit(&self, record: Record, report: Report) {
        let log = Arc::clone(&self.log);
        let partition = partition_of(record.identity.conversation, self.partitions);
        self.process.spawn(async move {
            if planted(Bug::AckBeforeDurable) {
                report.settle(Outcome::Accepted);
                drop(log.append(Topic::Messages, partition, record.encode()).await);
                return;
            }
            report.settle(match log.append(Topic::Messages, partition, record.encode()).await {
                Ok(_) => Outcome::Accepted,
                Err(LogError::Unavailable(_)) => Outcome::Refused(ErrorCode::Unavailable),
                Err(LogError::Unknown) => Outcome::Unknown,
                Err(LogError::Refused(_)) => Outcome::Refused(ErrorCode::TooLarge),
            });
        });
    }
}

/// One life of one gateway.
pub struct Node {
    /// Its name and boot.
    pub id: NodeId,
    /// Its process.
    pub process: Arc<Process>,
    /// Shared parts.
    pub sim: Arc<Sim>,
    /// Limits; the window is small, so that it fills.
    pub limits: Limits,
    /// Sends.
    pub submit: LogSubmit,
    /// Where it registers.
    pub registry: Arc<dyn Registry>,
    /// What it reads.
    pub store: Arc<dyn Store>,
    /// Its sessions.
    pub sessions: Arc<Sessions>,
    /// Cursors on their way to the store.
    pub cursors: Cursors,
    /// What was committed when, for the checks.
    pub committed: Arc<Committed>,
    /// Entries of the registry that newer ones have replaced, for the checks.
    pub replaced: Arc<Replaced>,
    /// What was pushed, for the checks.
    pub gateways: Arc<Gateways>,
    /// How many shards there are.
    pub shards: Shards,
    /// Who is to hear of heads, by a number of the connection.
    pub seats: Mutex<BTreeMap<u64, (UserId, mpsc::Sender<Head>)>>,
}

impl Node {
    /// Starts what runs beside the connections.
    pub fn start(self: &Arc<Self>) {
        let node = Arc::clone(self);
        self.process.spawn(async move { node.cursors.run().await });
        let node = Arc::clone(self);
        self.process.spawn(async move {
            loop {
                sleep(HEADS_EVERY).await;
                node.compare_heads().await;
            }
        });
    }

    /// Serves a connection.
    pub fn serve(self: &Arc<Self>, asks: mpsc::Receiver<Ask>, says: mpsc::Sender<Say>) {
        let seat = seat::Seat::new(Arc::clone(self), says);
        self.process.spawn(seat.run(asks));
    }

    /// Tells every session how far its mailbox goes.
    async fn compare_heads(&self) {
        let seats: Vec<_> = self.seats.lock().values().cloned().collect();
        for (user, seat) in seats {
            if let Ok(heads) = self.store.heads(self.shards.of(user), &[user]).await {
                let _ = seat.try_send(heads.first().copied().unwrap_or_default()); // full or gone: next time
            }
        }
    }
}
