//! A gateway in memory with its clients, and what happens around them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gateway::config::Config;
use gateway::connection::{Client, Connection};
use gateway::deliver::Sessions;
use gateway::node::now_ms;
use gateway::token::{Claims, Tokens};
use gateway::{Gateway, Ports};
use parking_lot::Mutex;
use protocol::codec::Encoding;
use protocol::limits::Limits;
use protocol::record::{Identity, Record, Verdict};
use protocol::{CloseCode, ErrorCode, Position, UserId};
use router::expand::{ShardId, owners};
use router::registry::memory::MemoryRegistry;
use router::registry::{NodeId, Registry as _};
use router::submit::{Outcome, Report, Submit};
use storage::push::{Deliver as _, Push, ReceiptPush};
use storage::receipt::{self, Mark, TakeMarks};
use storage::sequence::{Arrival, Placed, keys_of, owners_of, plan, refusal_keys_of};
use storage::store::memory::MemoryStore;
use storage::store::{Checkpoint, Commit, Place, Store as _};

use super::peer::Peer;
use super::program::Step;

const NODE: NodeId = NodeId { node: 0, boot: 1 };
const SHARD: ShardId = ShardId(0);
const PEERS_MAX: usize = 5;
/// Turns of all tasks after a step: more than any chain of them has links.
const TURNS: usize = 24;

/// Small limits, so that they are met.
pub const LIMITS: Limits = Limits {
    body_bytes: 512,
    frame_bytes: 4096,
    sends_per_s: 1,
    sends_burst: 20,
    window_events: 4,
    window_bytes: 4096,
    in_flight: 4,
    page_events: 5,
    watch_users: 2,
};

/// Where sends wait for their reports.
#[derive(Default)]
struct Desk(Mutex<VecDeque<(Record, Report)>>);

/// Where marks wait to be worked in.
#[derive(Default)]
struct Marked(Mutex<Vec<Mark>>);

impl TakeMarks for Marked {
    fn take_marks(&self, marks: Vec<Mark>) -> Vec<Mark> {
        self.0.lock().extend(marks);
        Vec::new()
    }
}

impl Submit for Desk {
    fn submit(&self, record: Record, report: Report) {
        self.0.lock().push_back((record, report));
    }
}

/// Everything.
pub struct World {
    node: Arc<Gateway>,
    desk: Arc<Desk>,
    marked: Arc<Marked>,
    store: MemoryStore,
    registry: Arc<MemoryRegistry>,
    checkpoint: Checkpoint,
    /// Messages that were told accepted.
    accepted: BTreeSet<Identity>,
    peers: Vec<Peer>,
}

impl World {
    pub async fn new() -> Self {
        let (desk, store, registry) = (Arc::<Desk>::default(), MemoryStore::default(), Arc::new(MemoryRegistry::default()));
        let marked = Arc::<Marked>::default();
        let ports = Ports {
            submit: desk.clone(),
            registry: registry.clone(),
            budgets: None,
            marks: marked.clone(),
            store: Arc::new(store.clone()),
            lag: None,
            links: None,
        };
        let config = Config { limits: LIMITS, sockets_per_user: 2, ..Config::default() };
        let tokens = Tokens::new(&crate::handshake::SECRET).expect("long enough");
        let node = Gateway::new(config, ports, NODE, Arc::new(Sessions::default()), tokens);
        let checkpoint = store.acquire(SHARD).await.expect("in memory").checkpoint;
        Self { node, desk, marked, store, registry, checkpoint, accepted: BTreeSet::new(), peers: Vec::new() }
    }

    fn peer(&mut self, number: u8) -> Option<&mut Peer> {
        let count = self.peers.len();
        self.peers.get_mut(usize::from(number) % count.max(1))
    }

    /// One step, and all that follows from it.
    pub async fn step(&mut self, step: Step) {
        match step {
            Step::Connect { user } if self.peers.len() < PEERS_MAX => self.connect(user),
            Step::Connect { .. } => {}
            Step::Bytes { peer, bytes } => {
                if let Some(peer) = self.peer(peer) {
                    peer.say(&bytes);
                }
            }
            Step::Reads { peer, reads } => {
                if let Some(peer) = self.peer(peer) {
                    peer.reads = reads;
                }
            }
            Step::Gone { peer } => {
                if let Some(peer) = self.peer(peer) {
                    peer.go();
                }
            }
            Step::Report { at, outcome, pushed } => self.report(usize::from(at), outcome, pushed).await,
            Step::Seconds(seconds) => self.seconds(seconds).await,
            Step::Heal => self.heal().await,
            Step::Receipts { pushed } => self.receipts(pushed).await,
            Step::PushAgain { user, seq } => self.push_again(UserId::from_stored(user), seq).await,
            Step::Renumber => self.store.renumber(),
            Step::Forget => self.registry.forget_all(),
            Step::Drain { close } => self.drain(close),
        }
        self.turn().await;
    }

    /// Everybody works until nobody has anything to do; the clients read.
    async fn turn(&mut self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            for peer in &mut self.peers {
                peer.turn(&self.accepted);
            }
        }
    }

    fn connect(&mut self, user: Option<u64>) {
        let claims = user.map(|user| Box::new(Claims::new(UserId::from_stored(user), None, now_ms() / 1000)));
        let client = Client::new(Arc::clone(&self.node), IpAddr::V4(Ipv4Addr::LOCALHOST), Encoding::Json, claims);
        self.node.sockets.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(Connection::new(theirs, client, LIMITS.frame_bytes, Vec::new()));
        // a token in a frame is always user 1's
        self.peers.push(Peer::new(ours));
    }

    /// The report of the attempt that waits there.
    async fn report(&mut self, at: usize, outcome: Outcome, pushed: bool) {
        let taken = {
            let mut waiting = self.desk.0.lock();
            let count = waiting.len();
            waiting.remove(at % count.max(1))
        };
        let Some((record, report)) = taken else { return };
        let outcome = match outcome {
            Outcome::Accepted => self.commit(record, pushed).await,
            other => other,
        };
        report.settle(outcome);
    }

    /// Writes a message into its mailboxes, as the commit cycle does.
    async fn commit(&mut self, record: Record, pushed: bool) -> Outcome {
        let identity = record.identity;
        let to = owners(identity.conversation).to_vec();
        let position = Position::new(1, self.checkpoint.offset);
        let arrivals = vec![Arrival::new(position, Verdict::Deliver(record, to))];
        let mut known = HashMap::new();
        for keys in [keys_of(&arrivals), refusal_keys_of(&arrivals, &known)] {
            let rows = self.store.keys(SHARD, &keys).await.expect("in memory");
            known.extend(keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))));
        }
        let keys = refusal_keys_of(&arrivals, &known);
        let rows = self.store.keys(SHARD, &keys).await.expect("in memory");
        known.extend(keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))));
        let owners = owners_of(&arrivals);
        let heads = self.store.heads(SHARD, &owners).await.expect("in memory");
        let plan = plan(arrivals, &mut known, &mut owners.into_iter().zip(heads).collect());
        let (next_offset, rows) = (self.checkpoint.offset + 1, plan.rows.clone());
        let commit = Commit { expect: self.checkpoint, next_offset, rows: plan.rows, keys: plan.keys, ..Commit::default() };
        self.store.commit(SHARD, commit).await.expect("one owner, keys that were asked for");
        self.checkpoint.offset = next_offset;
        if pushed {
            let epoch = self.store.known_epoch(identity.sender);
            let push = |row: storage::store::Row| Push { owner: row.owner, epoch, event: row.event };
            drop(self.node.sessions.push(NODE, rows.into_iter().map(push).collect()));
        }
        if plan.placed == [Placed::Reused] {
            return Outcome::Refused(ErrorCode::IdReused);
        }
        self.accepted.insert(identity);
        Outcome::Accepted
    }

    /// What was said so far becomes receipts, as the commit cycle does it.
    async fn receipts(&mut self, pushed: bool) {
        self.node.receipts.flush_reads().await;
        self.node.receipts.flush_deliveries(Duration::ZERO).await;
        let marks = std::mem::take(&mut *self.marked.0.lock());
        let keys = receipt::keys_of(&marks);
        let rows = self.store.receipts(SHARD, &keys).await.expect("in memory");
        let known = keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))).collect();
        let first = self.checkpoint.offset;
        let raised = receipt::raise(&marks, &known, |nth| Position::new(1, first + nth).get());
        let (next_offset, rows) = (first + raised.revisions, raised.rows.clone());
        let commit =
            Commit { expect: self.checkpoint, next_offset, receipts: raised.rows, through: raised.through, ..Commit::default() };
        self.store.commit(SHARD, commit).await.expect("one owner");
        self.checkpoint.offset = next_offset;
        if pushed {
            let epoch = self.store.known_epoch(UserId::from_stored(1));
            let push = |row: receipt::ReceiptRow| ReceiptPush { owner: row.owner, epoch, receipt: row.receipt };
            drop(self.node.sessions.receipts(NODE, rows.into_iter().map(push).collect()));
        }
    }

    async fn seconds(&mut self, seconds: u8) {
        for _ in 0..seconds {
            self.node.wheel.turn();
            self.node.presences.turn(Instant::now() + Duration::from_secs(60));
            tokio::time::advance(Duration::from_secs(1)).await;
            for peer in &mut self.peers {
                peer.ticks += 1;
                peer.turn(&self.accepted);
            }
            tokio::task::yield_now().await;
        }
    }

    /// What `gateway::heal` does every ten seconds.
    async fn heal(&mut self) {
        for entered in self.node.sessions.entered() {
            let head = self.store.heads(SHARD, &[entered.user]).await.expect("in memory")[0].head;
            entered.outbox.newest(Place { epoch: self.store.known_epoch(entered.user), seq: head });
        }
    }

    async fn push_again(&mut self, owner: UserId, seq: u64) {
        let slice = self.store.read(owner, seq.saturating_sub(1), 1, u32::MAX).await.expect("in memory");
        let pushes = slice.events.into_iter().map(|event| Push { owner, epoch: slice.epoch, event }).collect();
        drop(self.node.sessions.push(NODE, pushes));
    }

    fn drain(&mut self, close: bool) {
        self.peers.iter_mut().for_each(|peer| peer.moves += 1);
        for outbox in self.node.sessions.all() {
            if close { outbox.close(CloseCode::Draining) } else { outbox.move_after(5) }
        }
    }

    /// Everybody goes. Nothing is left behind.
    pub async fn end(mut self) {
        for peer in &mut self.peers {
            peer.reads = true;
        }
        self.turn().await;
        self.peers.iter_mut().for_each(Peer::go);
        self.desk.0.lock().clear();
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        // whoever waits to try again does so, and finds that nobody is there
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(self.node.sockets.load(Ordering::Relaxed), 0, "a socket is left");
        assert!(self.node.sessions.all().is_empty(), "a session is left");
        let users: Vec<_> = (1..=3).map(UserId::from_stored).collect();
        assert_eq!(self.node.presences.watched(), 0, "a watch is left");
        let nodes = self.registry.nodes(&users).await.expect("in memory");
        assert!(nodes.iter().all(|nodes| nodes.is_empty()), "a registration is left: {nodes:?}");
    }
}
