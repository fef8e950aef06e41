//! Nodes that keep what comes, a book of members, a proxy that can stop and cut, and a recorder of counters.
#![allow(unreachable_pub)] // used by one test file

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::{Mutex, RwLock};
use protocol::record::{Content, Event, EventBody, Identity, Link, Message, Record, Source};
use protocol::{ConversationId, Position, UserId};
use router::consume::Rewind;
use router::expand::ShardId;
use router::registry::NodeId;
use storage::link::{Credentials, Inbox, Limits, LinkDeliver, Listener, listen};
use storage::push::{Deliver, Push, Wake};
use storage::store::contract::{message_id, user};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub const CLUSTER: &str = "test";
pub const KEY: &[u8] = &[7; 32];

pub const fn node(node: u16, boot: u64) -> NodeId {
    NodeId { node, boot }
}

/// Short times.
pub fn quick() -> Limits {
    let ms = Duration::from_millis;
    Limits { retry: ms(100), beat: ms(200), silence: ms(2000), ..Limits::default() }
}

/// Events of one mailbox with seqs from `from`.
pub fn events(from: u64, count: u64, length: usize) -> Vec<Push> {
    let event = |seq| {
        let identity =
            Identity { sender: user(2), conversation: ConversationId::direct(user(1), user(2)), id: message_id(seq, seq) };
        let record = Record { identity, content: Content::Text("x".repeat(length)), reply_to: None, at_ms: seq };
        Event { seq, body: EventBody::Message(Arc::new(Message::new(record, Position::new(1, seq)))) }
    };
    (from..from + count).map(|seq| Push { owner: user(1), epoch: 3, event: event(seq) }).collect()
}

pub fn rewind(hole: u64) -> Rewind {
    let source = Source { partition: 4, epoch: 1 };
    Rewind { source, shard: ShardId(9), high_water: Link { next_offset: 3, digest: 8 }, hole }
}

/// Waits up to twenty seconds.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Counters of all tests of this process, by name and the label `why`: only their growth says something.
#[derive(Default)]
struct Counted(Mutex<HashMap<(String, String), Arc<AtomicU64>>>);

fn counters() -> &'static Counted {
    static COUNTED: OnceLock<Counted> = OnceLock::new();
    COUNTED.get_or_init(Counted::default)
}

struct ToCounted;

impl Recorder for ToCounted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let why = key.labels().find(|label| label.key() == "why").map_or("", |label| label.value());
        Counter::from_arc(Arc::clone(counters().0.lock().entry((key.name().to_owned(), why.to_owned())).or_default()))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn record_counters() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| metrics::set_global_recorder(ToCounted).unwrap());
}

/// What was counted so far.
pub fn counted(name: &str, why: &str) -> u64 {
    record_counters();
    counters().0.lock().get(&(name.to_owned(), why.to_owned())).map_or(0, |count| count.load(Ordering::SeqCst))
}

/// Where nodes are.
#[derive(Clone, Default)]
pub struct Book(Arc<RwLock<HashMap<NodeId, SocketAddr>>>);

impl Book {
    pub fn enter(&self, node: NodeId, address: SocketAddr) {
        self.0.write().insert(node, address);
    }

    pub fn leave(&self, node: NodeId) {
        self.0.write().remove(&node);
    }

    pub fn sender(&self, me: NodeId, limits: Limits) -> LinkDeliver {
        self.sender_with(me, None, limits)
    }

    pub fn sender_with(&self, me: NodeId, local: Option<Arc<dyn Deliver>>, limits: Limits) -> LinkDeliver {
        record_counters();
        let book = self.clone();
        let credentials = Arc::new(Credentials::new(me, CLUSTER, Some(KEY)).unwrap());
        LinkDeliver::new(credentials, Arc::new(move |node| book.0.read().get(&node).copied()), local, limits)
    }
}

/// What came to a node.
#[derive(Default)]
struct Kept {
    pushes: Mutex<Vec<(UserId, u64, Event)>>,
    only_count: AtomicUsize,
    count: AtomicU64,
    wakes: Arc<AtomicUsize>,
}

struct Woken(Arc<AtomicUsize>);
impl Wake for Woken {}
impl Drop for Woken {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Deliver for Kept {
    fn push(&self, _: NodeId, pushes: Vec<Push>) -> Box<dyn Wake> {
        self.count.fetch_add(pushes.len() as u64, Ordering::SeqCst);
        if self.only_count.load(Ordering::Relaxed) == 0 {
            self.pushes.lock().extend(pushes.into_iter().map(|push| (push.owner, push.epoch, push.event)));
        }
        Box::new(Woken(Arc::clone(&self.wakes)))
    }
}

/// A node that takes links.
pub struct Node {
    id: NodeId,
    listener: Listener,
    kept: Arc<Kept>,
    gaps: Arc<AtomicUsize>,
    rewinds: tokio::sync::Mutex<mpsc::Receiver<Rewind>>,
}

impl Node {
    pub async fn start(id: NodeId, limits: Limits) -> Self {
        Self::start_at(id, "127.0.0.1:0".parse().unwrap(), limits).await
    }

    pub async fn start_at(id: NodeId, address: SocketAddr, limits: Limits) -> Self {
        record_counters();
        let (kept, gaps) = (Arc::new(Kept::default()), Arc::new(AtomicUsize::new(0)));
        let (asks, rewinds) = mpsc::channel(64);
        let counting = Arc::clone(&gaps);
        let on_gap = Arc::new(move || {
            counting.fetch_add(1, Ordering::SeqCst);
        });
        let deliver: Arc<dyn Deliver> = Arc::<Kept>::clone(&kept);
        let credentials = Arc::new(Credentials::new(id, CLUSTER, Some(KEY)).unwrap());
        // the port of a node that has just ended may be taken a moment longer
        let end = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            let inbox = Inbox {
                deliver: Some(Arc::clone(&deliver)),
                rewinds: Some(asks.clone()),
                superseded: None,
                on_gap: on_gap.clone(),
            };
            match listen(address, Arc::clone(&credentials), inbox, limits).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            sleep(Duration::from_millis(10)).await;
        };
        Self { id, listener, kept, gaps, rewinds: rewinds.into() }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    pub fn deliver(&self) -> Arc<dyn Deliver> {
        Arc::<Kept>::clone(&self.kept)
    }

    /// Waits for the link's first frame.
    pub async fn linked_by(&self, sender: &LinkDeliver) {
        let gaps = self.gaps();
        assert!(sender.connect(self.id));
        until("a link", || self.gaps() > gaps).await;
    }

    pub fn events(&self) -> Vec<(UserId, u64, Event)> {
        self.kept.pushes.lock().clone()
    }

    pub fn wakes(&self) -> usize {
        self.kept.wakes.load(Ordering::SeqCst)
    }

    pub fn gaps(&self) -> usize {
        self.gaps.load(Ordering::SeqCst)
    }

    pub fn only_count(&self) {
        self.kept.only_count.store(1, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.kept.count.load(Ordering::SeqCst)
    }

    /// The next requests to rewind.
    pub async fn rewinds(&self, count: usize) -> Vec<Rewind> {
        let mut heard = Vec::new();
        let mut rewinds = self.rewinds.lock().await;
        while heard.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(20), rewinds.recv()).await;
            heard.push(next.expect("a request in time").expect("the node lives"));
        }
        heard
    }
}

/// Stands between two nodes; can stop without a word, and cut.
pub struct Proxy {
    address: SocketAddr,
    paused: watch::Sender<bool>,
    cuts: watch::Sender<u64>,
    accepted: Arc<AtomicUsize>,
    damage: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (paused, stop) = watch::channel(false);
        let (cuts, cut) = watch::channel(0);
        let accepted = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&accepted);
        let damage = Arc::new(AtomicUsize::new(0));
        let damaging = Arc::clone(&damage);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = socket.accept().await.unwrap();
                counting.fetch_add(1, Ordering::SeqCst);
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                let there = copy(near_in, far_out, stop.clone(), Arc::clone(&damaging));
                let back = copy(far_in, near_out, stop.clone(), Arc::default());
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = there => {}
                        () = back => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, paused, cuts, accepted, damage, task }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Damages the next bytes to the target.
    pub fn damage(&self) {
        self.damage.store(1, Ordering::SeqCst);
    }

    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut stop: watch::Receiver<bool>, damage: Arc<AtomicUsize>) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        if stop.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            _ = stop.wait_for(|paused| *paused) => continue,
        };
        if damage.swap(0, Ordering::SeqCst) == 1 {
            bytes[0] = 0xff;
        }
        match read {
            Ok(count) if count > 0 && to.write_all(&bytes[..count]).await.is_ok() => {}
            _ => return,
        }
    }
}
