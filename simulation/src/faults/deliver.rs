//! The stream from storage to the gateways with bad luck: pushes lost, late, doubled, out of order, or for a boot that has died.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway::deliver::Sessions;
use parking_lot::Mutex;
use protocol::{Seq, UserId};
use router::registry::NodeId;
use storage::push::{Deliver, Push, Wake};
use tokio::time::sleep;

use crate::sim::Sim;

/// The gateways that live now.
#[derive(Default)]
pub struct Gateways {
    alive: Mutex<BTreeMap<NodeId, Arc<Sessions>>>,
    hinted: Mutex<BTreeSet<(NodeId, UserId, Seq)>>,
}

impl Gateways {
    /// A gateway has started.
    pub fn enter(&self, node: NodeId, sessions: Arc<Sessions>) {
        self.alive.lock().insert(node, sessions);
    }

    /// A gateway has died.
    pub fn leave(&self, node: NodeId) {
        self.alive.lock().remove(&node);
    }

    /// Whether storage has ever pushed this event to this gateway.
    pub fn was_hinted(&self, node: NodeId, owner: UserId, seq: Seq) -> bool {
        self.hinted.lock().contains(&(node, owner, seq))
    }

    fn get(&self, node: NodeId) -> Option<Arc<Sessions>> {
        self.alive.lock().get(&node).cloned()
    }
}

/// The way to the gateways.
pub struct FaultyDeliver {
    /// Who lives.
    pub gateways: Arc<Gateways>,
    /// Shared parts.
    pub sim: Arc<Sim>,
}

struct Woken;
impl Wake for Woken {}

impl FaultyDeliver {
    fn send(&self, node: NodeId, push: Push) {
        let (sim, gateways) = (Arc::clone(&self.sim), Arc::clone(&self.gateways));
        let late = if sim.is_healed() { 2 } else { sim.weather.push_late_ms };
        let after = sim.up_to_ms(if sim.below(3) == 0 { late } else { 3 });
        tokio::spawn(async move {
            sleep(after).await;
            match gateways.get(node) {
                Some(sessions) => drop(sessions.push(node, vec![push])),
                None => sim.saw("push to a gateway that has died"),
            }
        });
    }
}

impl Deliver for FaultyDeliver {
    fn push(&self, node: NodeId, pushes: Vec<Push>) -> Box<dyn Wake> {
        self.gateways.hinted.lock().extend(pushes.iter().map(|push| (node, push.owner, push.event.seq)));
        for push in pushes {
            if self.sim.strikes(self.sim.weather.push_lost) {
                self.sim.saw("push lost");
                continue;
            }
            if self.sim.strikes(self.sim.weather.push_doubled) {
                self.sim.saw("push doubled");
                self.send(node, push.clone());
            }
            self.send(node, push);
        }
        Box::new(Woken)
    }
}
