//! The links between processes with bad luck: they break and take with them what was on its way, stand still with either end, are cut by a
//! partition. Queue, frames and counters are the storage crate's own; a hostile network besides shows some events twice or much later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use gateway::deliver::Sessions;
use parking_lot::Mutex;
use protocol::{DeviceName, Seq, UserId};
use router::consume::Rewind;
use router::members::Members;
use router::registry::NodeId;
use storage::link::simulated::{Heard, Receiving, Sending};
use storage::push::{Deliver, Elsewhere, Push, Wake};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use crate::process::{Part, Process};
use crate::sim::Sim;

/// How often each end shows that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// Without a byte for so long a link is broken.
const SILENCE: Duration = Duration::from_secs(4);
/// Pushes and bytes that wait for one peer: few, so that it overflows.
const QUEUE: (usize, usize) = (24, 64 * 1024);
/// Written at once.
const WRITE_BYTES: usize = 4096;

/// What a process hears by its links.
pub struct Ear {
    /// Whose.
    pub process: Arc<Process>,
    /// Its sessions, if it is a gateway.
    pub sessions: Option<Arc<Sessions>>,
    /// To its routers.
    pub rewinds: mpsc::Sender<Rewind>,
}

/// Who can be linked with now, and what was ever pushed to whom.
#[derive(Default)]
pub struct Book {
    ears: Mutex<BTreeMap<NodeId, Arc<Ear>>>,
    hinted: Mutex<BTreeSet<(NodeId, UserId, Seq)>>,
}

impl Book {
    /// A process listens.
    pub fn enter(&self, node: NodeId, ear: Arc<Ear>) {
        self.ears.lock().insert(node, ear);
    }

    /// A process has died.
    pub fn leave(&self, node: NodeId) {
        self.ears.lock().remove(&node);
    }

    /// Whether storage has ever pushed this event to this node.
    pub fn was_hinted(&self, node: NodeId, owner: UserId, seq: Seq) -> bool {
        self.hinted.lock().contains(&(node, owner, seq))
    }

    fn get(&self, node: NodeId) -> Option<Arc<Ear>> {
        self.ears.lock().get(&node).cloned()
    }
}

/// The links of one process.
pub struct Links {
    me: NodeId,
    process: Arc<Process>,
    sim: Arc<Sim>,
    book: Arc<Book>,
    members: Members,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    this: Weak<Self>,
}

struct Peer {
    node: NodeId,
    sending: Mutex<Sending>,
    more: Notify,
}

struct Told(Arc<Peer>);
impl Wake for Told {}
impl Drop for Told {
    fn drop(&mut self) {
        self.0.more.notify_one();
    }
}
struct Nobody;
impl Wake for Nobody {}

impl Links {
    /// Of a process.
    pub fn new(me: NodeId, process: &Arc<Process>, sim: &Arc<Sim>, book: &Arc<Book>, members: Members) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            me,
            process: Arc::clone(process),
            sim: Arc::clone(sim),
            book: Arc::clone(book),
            members,
            peers: Mutex::default(),
            this: Weak::clone(this),
        })
    }

    /// Begins to link with a node.
    pub fn connect(&self, node: NodeId) {
        if node != self.me {
            self.peer(node);
        }
    }

    /// Hands a request to a node's routers.
    pub fn rewind(&self, node: NodeId, rewind: Rewind) {
        if let Some(peer) = self.peer(node) {
            peer.sending.lock().rewind(rewind);
            peer.more.notify_one();
        }
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(&node) {
            return Some(Arc::clone(peer));
        }
        if !self.members.view().members.iter().any(|member| member.node == node) {
            return None;
        }
        let peer = Arc::new(Peer { node, sending: Mutex::new(Sending::new(QUEUE.0, QUEUE.1)), more: Notify::new() });
        peers.insert(node, Arc::clone(&peer));
        let (this, own) = (self.this.upgrade()?, Arc::clone(&peer));
        self.process.spawn(async move { this.serve(&own).await });
        Some(peer)
    }

    /// Links again and again.
    async fn serve(&self, peer: &Peer) {
        loop {
            if let Some(ear) = self.book.get(peer.node)
                && self.process.reaches(Part::Peers).await
                && !ear.process.is_cut(Part::Peers)
            {
                sleep(self.sim.delay()).await;
                self.link(peer, &ear).await;
            }
            sleep(self.sim.up_to_ms(1000)).await;
        }
    }

    /// One link from dial to end.
    async fn link(&self, peer: &Peer, ear: &Arc<Ear>) {
        let mut receiving = Receiving::default();
        peer.sending.lock().up();
        let mut bytes = peer.sending.lock().beat();
        while self.carry(&mut receiving, ear, bytes).await {
            let beat = timeout(BEAT, peer.more.notified()).await.is_err();
            let mut sending = peer.sending.lock();
            bytes = sending.take(WRITE_BYTES);
            if bytes.is_empty() && beat {
                bytes = sending.beat();
            } else if !bytes.is_empty() {
                // perhaps there is more than fits
                peer.more.notify_one();
            }
        }
        self.sim.note(|| format!("link from {} to {} breaks", self.process.name, ear.process.name));
        self.sim.saw("link broke");
        if peer.sending.lock().down() > 0 {
            self.sim.saw("pushes lost with a link");
        }
        if receiving.opened() {
            let (ear, after) = (Arc::clone(ear), if self.sim.below(2) == 0 { Duration::ZERO } else { SILENCE });
            tokio::spawn(async move {
                sleep(after).await;
                if let Some(sessions) = &ear.sessions {
                    sessions.links_broke.notify_one();
                }
            });
        }
    }

    /// Bytes from one end to the other. False: the link is broken, and they are lost.
    async fn carry(&self, receiving: &mut Receiving, ear: &Arc<Ear>, bytes: Vec<u8>) -> bool {
        let sent = Instant::now();
        self.process.gate().await;
        if self.sim.strikes(self.sim.weather.links_break) {
            return false;
        }
        sleep(self.sim.delay()).await;
        if self.process.is_cut(Part::Peers) || ear.process.is_cut(Part::Peers) {
            self.sim.saw("link cut by a partition");
            sleep(self.sim.up_to_ms(SILENCE.as_millis() as u64)).await;
            return false;
        }
        if timeout(SILENCE, ear.process.gate()).await.is_err() || sent.elapsed() >= SILENCE {
            return false;
        }
        match receiving.hear(&bytes) {
            Some(heard) => self.hand_on(ear, heard),
            None => self.sim.wrong("a link says what is no frame".into()),
        }
        true
    }

    fn hand_on(&self, ear: &Arc<Ear>, heard: Heard) {
        for rewind in heard.rewinds {
            let _ = ear.rewinds.try_send(rewind); // full: it is asked for again
        }
        let Some(sessions) = &ear.sessions else { return };
        for (user, device, counter) in heard.superseded {
            self.sim.saw("node was told of a device that attached elsewhere");
            sessions.superseded(user, &device, counter);
        }
        for gap in heard.gaps {
            if gap == "counter" {
                self.sim.saw("link jumped: heads are compared");
            }
            sessions.links_broke.notify_one();
        }
        for push in heard.pushes {
            self.deliver(ear, sessions, push);
        }
    }

    fn deliver(&self, ear: &Arc<Ear>, sessions: &Arc<Sessions>, push: Push) {
        let weather = &self.sim.weather;
        if self.sim.strikes(weather.push_lost) {
            return self.sim.saw("push lost");
        }
        let again = self.sim.strikes(weather.push_doubled);
        let late = self.sim.strikes(weather.push_late);
        if again || late {
            self.sim.saw(if again { "push doubled" } else { "push overtaken by others" });
            let (after, late_push) = (self.sim.up_to_ms(weather.push_late_ms), push.clone());
            let (ear, sessions, me) = (Arc::clone(ear), Arc::clone(sessions), self.me);
            tokio::spawn(async move {
                sleep(after).await;
                ear.process.gate().await;
                drop(sessions.push(me, vec![late_push]));
            });
        }
        if !late {
            drop(sessions.push(self.me, vec![push]));
        }
    }
}

impl Deliver for Links {
    fn push(&self, node: NodeId, pushes: Vec<Push>) -> Box<dyn Wake> {
        self.book.hinted.lock().extend(pushes.iter().map(|push| (node, push.owner, push.event.seq)));
        if node == self.me {
            if let Some(ear) = self.book.get(node)
                && let Some(sessions) = &ear.sessions
            {
                return sessions.push(node, pushes);
            }
            return Box::new(Nobody);
        }
        let Some(peer) = self.peer(node) else {
            self.sim.saw("push to a node that is no member");
            return Box::new(Nobody);
        };
        let lost = peer.sending.lock().push(&pushes);
        if lost > 0 {
            self.sim.saw("push without a link or room");
        }
        Box::new(Told(peer))
    }
}

impl Elsewhere for Links {
    fn supersede(&self, node: NodeId, user: UserId, device: &DeviceName, counter: u64) -> bool {
        let Some(peer) = self.peer(node) else { return false };
        let taken = peer.sending.lock().supersede(user, device, counter);
        peer.more.notify_one();
        taken
    }
}
