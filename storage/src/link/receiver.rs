//! The receiving side: takes links of other nodes and hands on what comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use parking_lot::Mutex;
use protocol::{DeviceName, UserId};
use router::consume::Rewind;
use router::registry::NodeId;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::batch::open;
use super::frame::{self, Cutter, Frame, Kind, Pushes, Refuse, Rewinds, whole};
use super::handshake::{Credentials, Handshake, Refused};
use super::meters::{Said, Up, dropped, refused};
use super::track::{Gap, Track};
use super::{Ended, Limits};
use crate::push::Deliver;

/// Gaps that come together are told together: a comparison of heads asks each database.
const GAP_PAUSE: Duration = Duration::from_millis(250);
/// Rest after an accept that failed, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Closes the session of a device that has attached elsewhere; must not block.
pub type Superseded = Arc<dyn Fn(UserId, &DeviceName, u64) + Send + Sync>;

/// Where that goes which comes over the links.
#[derive(Clone)]
pub struct Inbox {
    /// The gateway of this process, if it has one.
    pub deliver: Option<Arc<dyn Deliver>>,
    /// The routers of this process, if it has any. A request that does not fit is dropped and counted.
    pub rewinds: Option<mpsc::Sender<Rewind>>,
    /// A device of the gateway of this process has attached at another node: user, device, and the counter of the registration it has here.
    pub superseded: Option<Superseded>,
    /// Pushes may have been missed: the heads of all sessions are to be compared. At most four times a second, never left out; must not block.
    pub on_gap: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// The open port. Dropped, it and all links it took are closed.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Listener {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes links of other nodes from now on.
///
/// # Errors
/// When the address cannot be bound, or is no loopback address and there is no secret.
pub async fn listen(
    address: SocketAddr,
    credentials: Arc<Credentials>,
    inbox: Inbox,
    limits: Limits,
) -> std::io::Result<Listener> {
    if !credentials.has_secret() && !address.ip().is_loopback() {
        let why = "without a secret of the cluster, nodes link only on loopback addresses";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    }
    let socket = TcpListener::bind(address).await?;
    let address = socket.local_addr()?;
    let peers = if credentials.has_secret() { "that prove the secret" } else { "on loopback, without proof" };
    tracing::info!(%address, peers, "takes links of other nodes");
    let host = Arc::new(Host::new(credentials, inbox, limits));
    let task = tokio::spawn(async move {
        tokio::select! {
            () = accept(&host, &socket) => {}
            () = host.tell_gaps() => {}
        }
    });
    Ok(Listener { address, task })
}

async fn accept(host: &Arc<Host>, socket: &TcpListener) {
    let handshakes = Arc::new(Semaphore::new(host.limits.handshakes));
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((socket, peer)) => match Arc::clone(&handshakes).try_acquire_owned() {
                    Ok(permit) => drop(links.spawn(Arc::clone(host).serve(socket, peer, permit))),
                    Err(_) => refused(&host.said, peer.ip(), Refused::Full, "listener"),
                },
                Err(error) => {
                    tracing::warn!(%error, "a link could not be taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = links.join_next() => {}
        }
    }
}

struct Host {
    credentials: Arc<Credentials>,
    inbox: Inbox,
    limits: Limits,
    /// One link for each peer, and what ends it.
    links: Mutex<HashMap<NodeId, Arc<Notify>>>,
    said: Mutex<Said>,
    gaps: Notify,
    received: Counter,
    bytes: Counter,
}

/// The place of a link among the others.
struct Seat<'a> {
    host: &'a Host,
    from: NodeId,
    end: Arc<Notify>,
    _up: Up,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut links = self.host.links.lock();
        if links.get(&self.from).is_some_and(|end| Arc::ptr_eq(end, &self.end)) {
            links.remove(&self.from);
        }
    }
}

impl Host {
    fn new(credentials: Arc<Credentials>, inbox: Inbox, limits: Limits) -> Self {
        Self {
            credentials,
            inbox,
            limits,
            links: Mutex::default(),
            said: Mutex::default(),
            gaps: Notify::new(),
            received: counter!("switchboard_link_pushes_total", "what" => "received"),
            bytes: counter!("switchboard_link_bytes_total", "direction" => "in"),
        }
    }

    fn gap(&self, why: &'static str) {
        counter!("switchboard_link_gaps_total", "why" => why).increment(1);
        self.gaps.notify_one();
    }

    /// A gap that comes during the pause is told after it.
    async fn tell_gaps(&self) {
        loop {
            self.gaps.notified().await;
            (self.inbox.on_gap)();
            sleep(GAP_PAUSE).await;
        }
    }

    /// One connection from accept to end.
    async fn serve(self: Arc<Self>, mut socket: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let mut cutter = Cutter::new();
        let greeted = timeout(self.limits.handshake, self.greet(&mut socket, &mut cutter, peer)).await;
        drop(permit);
        let seat = match greeted.unwrap_or(Err(Ended::Refused(Refused::Slow))) {
            Ok(seat) => seat,
            Err(Ended::Refused(why)) => return self.refuse(socket, peer, why).await,
            Err(_) => return,
        };
        let NodeId { node, boot } = seat.from;
        let mut track = Track::default();
        let (mut read, mut write) = socket.split();
        let ended = tokio::select! {
            ended = self.read_on(&mut cutter, &mut read, &mut track) => ended,
            ended = self.beat_on(&mut write) => ended,
            () = seat.end.notified() => Ended::Replaced,
        };
        if track.opened() {
            self.gap("broken");
        }
        drop(seat);
        tracing::warn!(node, boot, %peer, %ended, "a link from a node ended");
        if let Ended::Refused(why) = ended {
            self.refuse(socket, peer, why).await;
        }
    }

    /// Counts, and tells the peer if it listens.
    async fn refuse(&self, mut socket: TcpStream, peer: SocketAddr, why: Refused) {
        refused(&self.said, peer.ip(), why, "listener");
        let words = whole(Kind::Refuse(Refuse { why: why.name().to_owned() }));
        // one small write into an empty buffer; a peer that takes nothing is not waited for
        let _ = socket.try_write(&words);
        let _ = timeout(ACCEPT_PAUSE, socket.shutdown()).await;
    }

    /// The listener's handshake.
    async fn greet(&self, socket: &mut TcpStream, cutter: &mut Cutter, peer: SocketAddr) -> Result<Seat<'_>, Ended> {
        socket.set_nodelay(true)?;
        if !self.credentials.has_secret() && !peer.ip().is_loopback() {
            return Err(Ended::Refused(Refused::NotLoopback));
        }
        let Kind::Hello(hello) = hear(cutter, socket).await? else { return Err(Ended::Refused(Refused::Garbage)) };
        let handshake = Handshake::heard(&self.credentials, hello, rand::random()).map_err(Ended::Refused)?;
        socket.write_all(&whole(Kind::Challenge(handshake.challenge()))).await?;
        let Kind::Proof(proof) = hear(cutter, socket).await? else { return Err(Ended::Refused(Refused::Garbage)) };
        let welcome = handshake.proved(&proof).map_err(Ended::Refused)?;
        let seat = self.sit(handshake.from).ok_or(Ended::Refused(Refused::Full))?;
        socket.write_all(&whole(Kind::Welcome(welcome))).await?;
        cutter.trust();
        tracing::info!(node = seat.from.node, boot = seat.from.boot, %peer, "linked by a node");
        Ok(seat)
    }

    /// A place for a peer that has proved itself. Its older link ends: the peer has given that up, whatever it looks like from here.
    fn sit(&self, from: NodeId) -> Option<Seat<'_>> {
        let mut links = self.links.lock();
        if links.len() >= self.limits.peers && !links.contains_key(&from) {
            return None;
        }
        let end = Arc::new(Notify::new());
        if let Some(older) = links.insert(from, Arc::clone(&end)) {
            older.notify_one();
        }
        Some(Seat { host: self, from, end, _up: Up::new("in") })
    }

    async fn beat_on(&self, socket: &mut WriteHalf<'_>) -> Ended {
        let mut beat = Vec::new();
        frame::write(&mut beat, 0, &frame::encode(Kind::Beat(frame::Beat {})));
        loop {
            if let Err(error) = socket.write_all(&beat).await {
                return error.into();
            }
            sleep(self.limits.beat).await;
        }
    }

    async fn read_on(&self, cutter: &mut Cutter, socket: &mut ReadHalf<'_>, track: &mut Track) -> Ended {
        loop {
            match timeout(self.limits.silence, cutter.fill(socket)).await {
                Err(_) => return Ended::Silent,
                Ok(Err(error)) => return error.into(),
                Ok(Ok(0)) => return Ended::Closed,
                Ok(Ok(bytes)) => self.bytes.increment(bytes as u64),
            }
            loop {
                match cutter.next() {
                    Ok(Some(frame)) => {
                        if let Err(ended) = self.take(frame, track) {
                            return ended;
                        }
                    }
                    Ok(None) => break,
                    Err(garbage) => return garbage.into(),
                }
            }
        }
    }

    fn take(&self, frame: Frame, track: &mut Track) -> Result<(), Ended> {
        let gap = match frame.kind {
            Some(Kind::Pushes(pushes)) => {
                let gap = track.pushes(frame.counter);
                self.deliver(&pushes)?;
                gap
            }
            Some(Kind::Rewinds(rewinds)) => {
                self.rewind(&rewinds);
                None
            }
            Some(Kind::Supersedes(frame)) => {
                self.supersede(&frame);
                None
            }
            Some(Kind::Beat(_)) => track.beat(frame.counter),
            // a newer build's
            None => None,
            Some(_) => return Err(Ended::Refused(Refused::Garbage)),
        };
        match gap {
            Some(Gap::New) => self.gap("new"),
            Some(Gap::Counter) => self.gap("counter"),
            None => {}
        }
        Ok(())
    }

    /// Hands on a frame's pushes; the sessions wake once.
    fn deliver(&self, frame: &Pushes) -> Result<(), Ended> {
        let (pushes, unread) = open(frame)?;
        self.received.increment(frame.owners.len() as u64);
        if unread > 0 {
            dropped("unreadable", unread);
            self.gap("unreadable");
        }
        match &self.inbox.deliver {
            Some(deliver) => drop(deliver.push(self.credentials.me(), pushes)),
            None => dropped("not_here", pushes.len()),
        }
        Ok(())
    }

    fn supersede(&self, frame: &frame::Supersedes) {
        let Some(close) = &self.inbox.superseded else { return };
        for one in &frame.superseded {
            if let Ok(device) = one.device.parse() {
                close(UserId::from_stored(one.user), &device, one.counter);
            }
        }
    }

    fn rewind(&self, frame: &Rewinds) {
        for rewind in &frame.rewinds {
            let routers = self.inbox.rewinds.as_ref();
            let taken = rewind.rewind().zip(routers).is_some_and(|(rewind, routers)| routers.try_send(rewind).is_ok());
            let what = if taken { "received" } else { "not_taken" };
            counter!("switchboard_link_rewinds_total", "what" => what).increment(1);
        }
    }
}

/// The next frame of the handshake.
async fn hear(cutter: &mut Cutter, socket: &mut TcpStream) -> Result<Kind, Ended> {
    loop {
        match cutter.next()? {
            Some(frame) => return frame.kind.ok_or(Ended::Refused(Refused::Garbage)),
            None if cutter.fill(socket).await? == 0 => return Err(Ended::Closed),
            None => {}
        }
    }
}
