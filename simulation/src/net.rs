//! The wire between a client and a gateway: in order, slow, cut at any moment with what is on it; and the other side learns late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::record::Event;
use protocol::{ConversationId, DeviceName, ErrorCode, MessageId, Seq, UserId};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::gateway::Node;
use crate::sim::Sim;

/// Frames on the wire, each way.
const WIRE_MAX: usize = 1024;
/// A gateway may learn this late that its client has gone.
const HALF_OPEN_MS: u64 = 12_000;

/// What a client says.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Attach with this cursor.
    Hello {
        /// Who: there are no tokens here.
        who: (UserId, DeviceName),
        /// Stream epoch of the cursor.
        epoch: Option<u64>,
        /// Last seq stored; none: the server knows.
        cursor: Option<Seq>,
    },
    /// A message.
    Send(MessageId, ConversationId, String),
    /// Stored up to here.
    Received(Seq),
}

/// What a gateway says.
#[derive(Debug, Clone)]
pub enum Say {
    /// Hello was good; cursors belong to this epoch.
    Welcome(u64),
    /// An event.
    Event(Event),
    /// Catch-up is done up to here.
    Live(Seq),
    /// A send is durable.
    Accepted(MessageId),
    /// A send is not taken.
    Refused(MessageId, ErrorCode),
    /// A send may be durable.
    Unknown(MessageId),
    /// The cursor is no good in this epoch.
    Resync(u64),
}

/// A client's end of a wire; dropped, the wire is cut.
pub struct Wire {
    /// To the gateway.
    pub asks: mpsc::Sender<Ask>,
    /// From the gateway.
    pub says: mpsc::Receiver<Say>,
}

/// Where clients find gateways.
pub struct Net {
    sim: Arc<Sim>,
    nodes: Mutex<BTreeMap<u16, Arc<Node>>>,
}

impl Net {
    /// A net without gateways.
    pub fn new(sim: &Arc<Sim>) -> Arc<Self> {
        Arc::new(Self { sim: Arc::clone(sim), nodes: Mutex::default() })
    }

    /// A gateway takes connections.
    pub fn enter(&self, node: &Arc<Node>) {
        self.nodes.lock().insert(node.id.node, Arc::clone(node));
    }

    /// A gateway has died.
    pub fn leave(&self, node: &Arc<Node>) {
        let mut nodes = self.nodes.lock();
        if nodes.get(&node.id.node).is_some_and(|there| there.id == node.id) {
            nodes.remove(&node.id.node);
        }
    }

    /// A wire to one of the gateways, if one lives.
    pub fn connect(&self) -> Option<Wire> {
        let node = {
            let nodes = self.nodes.lock();
            let at = usize::try_from(self.sim.below(nodes.len() as u64)).ok()?;
            Arc::clone(nodes.values().nth(at)?)
        };
        let (asks, from_client) = mpsc::channel(WIRE_MAX);
        let (to_gateway, inbound) = mpsc::channel(WIRE_MAX);
        let (outbound, from_gateway) = mpsc::channel(WIRE_MAX);
        let (to_client, says) = mpsc::channel(WIRE_MAX);
        tokio::spawn(carry_asks(Arc::clone(&self.sim), from_client, to_gateway));
        tokio::spawn(carry_says(Arc::clone(&self.sim), from_gateway, to_client));
        node.serve(inbound, outbound);
        Some(Wire { asks, says })
    }
}

async fn carry_asks(sim: Arc<Sim>, mut from: mpsc::Receiver<Ask>, to: mpsc::Sender<Ask>) {
    while let Some(ask) = from.recv().await {
        sleep(sim.delay()).await;
        if to.send(ask).await.is_err() {
            return;
        }
    }
    // the client has gone; the gateway's end stays open for a while
    let lingers = sim.below(3) == 0 && !sim.is_healed();
    if lingers {
        sim.saw("half-open connection");
        timeout(sim.up_to_ms(HALF_OPEN_MS), to.closed()).await.unwrap_or(());
    }
}

async fn carry_says(sim: Arc<Sim>, mut from: mpsc::Receiver<Say>, to: mpsc::Sender<Say>) {
    let mut cut = false;
    while let Some(say) = from.recv().await {
        if cut {
            continue; // into the void: the gateway believes it is written
        }
        tokio::select! {
            biased;
            () = to.closed() => cut = true,
            () = sleep(sim.delay()) => cut = to.send(say).await.is_err(),
        }
    }
    sleep(Duration::from_millis(1)).await;
}
