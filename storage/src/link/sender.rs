//! The sending side: one queue and one task for each peer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use parking_lot::{Mutex, RwLock};
use protocol::{DeviceName, UserId};
use router::consume::Rewind;
use router::registry::NodeId;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::batch::seal;
use super::frame::{Cutter, Frame, Kind, Token, WireSuperseded, whole};
use super::handshake::{Credentials, Handshake, Refused};
use super::meters::{Said, Up, dropped, refused};
use super::queue::Queue;
use super::{Ended, Limits};
use crate::push::{Deliver, Elsewhere, Push, Wake};

/// Written at once: many frames, one system call.
const WRITE_BYTES: usize = 128 * 1024;
/// A buffer that grew beyond this is given back.
const BUFFER_KEPT: usize = 512 * 1024;
/// First pause between two attempts; doubled up to [`Limits::retry`].
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// Where a boot of a node listens now, as the members of the cluster say; nothing when it is no member. Cheap and never blocking: it is also
/// called from `push` for a node that has no link yet.
pub type Find = Arc<dyn Fn(NodeId) -> Option<SocketAddr> + Send + Sync>;

/// Takes pushes to the gateways of all nodes, and requests to rewind to their routers. One for each process. Dropped, its links end.
pub struct LinkDeliver {
    shared: Arc<Shared>,
    local: Option<Arc<dyn Deliver>>,
    runtime: Handle,
}

impl std::fmt::Debug for LinkDeliver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkDeliver").field("credentials", &self.shared.credentials).finish_non_exhaustive()
    }
}

struct Shared {
    credentials: Arc<Credentials>,
    find: Find,
    limits: Limits,
    peers: RwLock<HashMap<NodeId, Arc<Peer>>>,
    said: Mutex<Said>,
    sent: Counter,
    bytes: Counter,
}

struct Peer {
    node: NodeId,
    queue: Mutex<Queue>,
    more: Notify,
    task: Mutex<Option<AbortHandle>>,
}

/// The writer is told when this is dropped, so batches of one turn go together.
struct Told(Arc<Peer>);

impl Wake for Told {}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.more.notify_one();
    }
}

struct Nobody;
impl Wake for Nobody {}

impl LinkDeliver {
    /// For this process. `local` is its own gateway, if it has one. Call it inside the runtime that is to carry the links.
    pub fn new(credentials: Arc<Credentials>, find: Find, local: Option<Arc<dyn Deliver>>, limits: Limits) -> Self {
        let shared = Shared {
            credentials,
            find,
            limits,
            peers: RwLock::default(),
            said: Mutex::default(),
            sent: counter!("switchboard_link_pushes_total", "what" => "sent"),
            bytes: counter!("switchboard_link_bytes_total", "direction" => "out"),
        };
        Self { shared: Arc::new(shared), local, runtime: Handle::current() }
    }

    /// This boot of this node.
    pub fn me(&self) -> NodeId {
        self.shared.credentials.me()
    }

    /// Begins to link with a node before there is anything to send: a new member is linked when its first event comes. Says whether the node
    /// is a member and there is room for it.
    pub fn connect(&self, node: NodeId) -> bool {
        node == self.me() || self.peer(node).is_ok()
    }

    /// Hands a request to a node's routers. It waits for a link, up to a bound; says whether it was taken.
    pub fn rewind(&self, node: NodeId, rewind: Rewind) -> bool {
        let Ok(peer) = self.peer(node) else { return false };
        let taken = peer.queue.lock().ask(rewind);
        peer.more.notify_one();
        taken
    }

    /// The peer of a node, dialed from now on if it is new.
    fn peer(&self, node: NodeId) -> Result<Arc<Peer>, &'static str> {
        if let Some(peer) = self.shared.peers.read().get(&node) {
            return Ok(Arc::clone(peer));
        }
        if (self.shared.find)(node).is_none() {
            return Err("link_down");
        }
        let mut peers = self.shared.peers.write();
        if let Some(peer) = peers.get(&node) {
            return Ok(Arc::clone(peer));
        }
        let limits = &self.shared.limits;
        if peers.len() >= limits.peers {
            return Err("link_peers");
        }
        let queue = Mutex::new(Queue::new(limits.queue_pushes, limits.queue_bytes));
        let peer = Arc::new(Peer { node, queue, more: Notify::new(), task: Mutex::default() });
        let task = self.runtime.spawn(serve(Arc::clone(&self.shared), Arc::clone(&peer)));
        *peer.task.lock() = Some(task.abort_handle());
        peers.insert(node, Arc::clone(&peer));
        Ok(peer)
    }
}

impl Elsewhere for LinkDeliver {
    /// It waits for a link, up to a bound.
    fn supersede(&self, node: NodeId, user: UserId, device: &DeviceName, counter: u64) -> bool {
        let Ok(peer) = self.peer(node) else { return false };
        let superseded = WireSuperseded { user: user.get(), device: device.as_str().to_owned(), counter };
        let taken = peer.queue.lock().supersede(superseded);
        peer.more.notify_one();
        taken
    }
}

impl Drop for LinkDeliver {
    fn drop(&mut self) {
        let peers = std::mem::take(&mut *self.shared.peers.write());
        for peer in peers.into_values() {
            if let Some(task) = peer.task.lock().take() {
                task.abort();
            }
        }
    }
}

impl Deliver for LinkDeliver {
    fn push(&self, node: NodeId, pushes: Vec<Push>) -> Box<dyn Wake> {
        if node == self.me() {
            if let Some(local) = &self.local {
                return local.push(node, pushes);
            }
            dropped("not_here", pushes.len());
            return Box::new(Nobody);
        }
        match self.peer(node) {
            Ok(peer) => {
                peer.offer(&pushes);
                Box::new(Told(peer))
            }
            Err(why) => {
                dropped(why, pushes.len());
                Box::new(Nobody)
            }
        }
    }
}

impl Peer {
    /// Encodes outside the lock, and only what has a chance.
    fn offer(&self, pushes: &[Push]) {
        if let Err(why) = self.queue.lock().admits(pushes.len()) {
            return dropped(why.name(), pushes.len());
        }
        let (frames, too_long) = seal(pushes);
        dropped("too_long", too_long);
        let mut queue = self.queue.lock();
        for sealed in frames {
            let pushes = sealed.pushes;
            if let Err(why) = queue.offer(sealed) {
                dropped(why.name(), pushes);
            }
        }
    }
}

/// The pushes that wait are dropped with the link, however it ends.
struct Linked<'a> {
    peer: &'a Peer,
    _up: Up,
}

impl<'a> Linked<'a> {
    fn new(peer: &'a Peer) -> Self {
        peer.queue.lock().up();
        Self { peer, _up: Up::new("out") }
    }
}

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        let lost = self.peer.queue.lock().down();
        dropped("link_lost", lost);
    }
}

/// However the task of a peer ends, the next push makes a new one.
struct Leave<'a>(&'a Shared, &'a Arc<Peer>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

/// The task of one peer: links again and again, until it is no member for a while. A link that stands stays, whatever the book of members
/// says: the peer itself says that it lives, and in which boot.
async fn serve(shared: Arc<Shared>, peer: Arc<Peer>) {
    let limits = &shared.limits;
    let _leave = Leave(&shared, &peer);
    let (mut failures, mut gone) = (0_u32, None);
    loop {
        match (shared.find)(peer.node) {
            Some(address) => {
                gone = None;
                let begun = Instant::now();
                let (was_up, ended) = link(&shared, &peer, address).await;
                shared.ended(peer.node, address, was_up, &ended);
                // one that ends as soon as it stands is no better than none
                let lived = was_up && begun.elapsed() >= limits.retry;
                failures = if lived { 0 } else { failures.saturating_add(1) };
            }
            None => {
                failures = failures.saturating_add(1);
                if gone.get_or_insert_with(Instant::now).elapsed() >= limits.gone {
                    return;
                }
            }
        }
        sleep(pause(failures, limits.retry)).await;
    }
}

/// Full jitter: random up to a bound that doubles.
fn pause(failures: u32, max: Duration) -> Duration {
    let bound = RETRY_FIRST.saturating_mul(1 << failures.min(10)).min(max);
    bound.mul_f64(rand::random())
}

impl Shared {
    fn forget(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers.write();
        if peers.get(&peer.node).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            peers.remove(&peer.node);
        }
    }

    fn ended(&self, node: NodeId, address: SocketAddr, was_up: bool, ended: &Ended) {
        match ended {
            Ended::Refused(why) => refused(&self.said, address.ip(), *why, "dialer"),
            _ if was_up => tracing::warn!(node = node.node, boot = node.boot, %address, %ended, "a link to a node ended"),
            _ => tracing::debug!(node = node.node, boot = node.boot, %address, %ended, "a node cannot be reached"),
        }
    }
}

/// One link from dial to end. Says also whether it stood.
async fn link(shared: &Shared, peer: &Peer, address: SocketAddr) -> (bool, Ended) {
    let (mut socket, mut cutter) = match connect(shared, peer.node, address).await {
        Ok(connected) => connected,
        Err(ended) => return (false, ended),
    };
    tracing::info!(node = peer.node.node, boot = peer.node.boot, %address, "linked with a node");
    let (mut read, mut write) = socket.split();
    // up before the first frame is written: whatever is dropped earlier, the first frame tells of it
    let linked = Linked::new(peer);
    let ended = tokio::select! {
        ended = write_on(shared, peer, &mut write) => ended,
        ended = listen_on(&shared.limits, &mut cutter, &mut read) => ended,
    };
    drop(linked);
    (true, ended)
}

async fn connect(shared: &Shared, node: NodeId, address: SocketAddr) -> Result<(TcpStream, Cutter), Ended> {
    let Shared { credentials, limits, .. } = shared;
    if !credentials.has_secret() && !address.ip().is_loopback() {
        return Err(Ended::Refused(Refused::NotLoopback));
    }
    let socket = timeout(limits.dial, TcpStream::connect(address)).await.map_err(|_| Ended::Silent)??;
    socket.set_nodelay(true)?;
    let greeted = timeout(limits.handshake, greet(credentials, node, socket)).await;
    greeted.map_err(|_| Ended::Refused(Refused::Slow))?
}

/// The dialer's handshake.
async fn greet(credentials: &Credentials, node: NodeId, mut socket: TcpStream) -> Result<(TcpStream, Cutter), Ended> {
    let mut cutter = Cutter::new();
    let hello = credentials.hello(node, rand::random(), rand::random());
    socket.write_all(&whole(Kind::Hello(hello.clone()))).await?;
    let challenge = answer(&mut cutter, &mut socket, |kind| match kind {
        Kind::Challenge(token) => Some(token),
        _ => None,
    });
    let handshake = Handshake::challenged(credentials, node, hello, challenge.await?).map_err(Ended::Refused)?;
    socket.write_all(&whole(Kind::Proof(handshake.proof()))).await?;
    let welcome = answer(&mut cutter, &mut socket, |kind| match kind {
        Kind::Welcome(token) => Some(token),
        _ => None,
    });
    handshake.welcomed(&welcome.await?).map_err(Ended::Refused)?;
    cutter.trust();
    Ok((socket, cutter))
}

/// What the listener says next: what is wanted, or why not.
async fn answer(cutter: &mut Cutter, socket: &mut TcpStream, wanted: fn(Kind) -> Option<Token>) -> Result<Token, Ended> {
    loop {
        match cutter.next()?.map(|frame| frame.kind) {
            Some(Some(Kind::Refuse(refuse))) => return Err(refuse.into()),
            Some(kind) => return kind.and_then(wanted).ok_or(Ended::Refused(Refused::Garbage)),
            None if cutter.fill(socket).await? == 0 => return Err(Ended::Closed),
            None => {}
        }
    }
}

/// Writes what waits, or a beat.
async fn write_on(shared: &Shared, peer: &Peer, socket: &mut WriteHalf<'_>) -> Ended {
    let mut buffer = Vec::new();
    peer.queue.lock().beat(&mut buffer);
    loop {
        let taken = peer.queue.lock().take(&mut buffer, WRITE_BYTES);
        if buffer.is_empty() {
            if timeout(shared.limits.beat, peer.more.notified()).await.is_err() {
                peer.queue.lock().beat(&mut buffer);
            }
            continue;
        }
        if let Err(error) = socket.write_all(&buffer).await {
            return error.into();
        }
        shared.sent.increment(taken.pushes as u64);
        shared.bytes.increment(buffer.len() as u64);
        buffer.clear();
        if buffer.capacity() > BUFFER_KEPT {
            buffer = Vec::new();
        }
    }
}

/// Hears the listener's beats, and how it ends.
async fn listen_on(limits: &Limits, cutter: &mut Cutter, socket: &mut ReadHalf<'_>) -> Ended {
    loop {
        match timeout(limits.silence, cutter.fill(socket)).await {
            Err(_) => return Ended::Silent,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(0)) => return Ended::Closed,
            Ok(Ok(_)) => {}
        }
        loop {
            match cutter.next() {
                Ok(Some(Frame { kind: Some(Kind::Refuse(refuse)), .. })) => return refuse.into(),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(garbage) => return garbage.into(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_random_and_bounded() {
        let max = Duration::from_secs(1);
        for failures in 0..100 {
            let pauses: Vec<_> = (0..50).map(|_| pause(failures, max)).collect();
            assert!(pauses.iter().all(|pause| *pause <= max && *pause <= RETRY_FIRST * 2_u32.pow(failures.min(10))));
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
