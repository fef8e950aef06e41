//! A gateway whose sends go nowhere, for tests of what comes before them.

use std::sync::Arc;

use gateway::config::Config;
use gateway::deliver::Sessions;
use gateway::token::Tokens;
use gateway::{Gateway, Ports};
use protocol::record::Record;
use router::registry::NodeId;
use router::registry::memory::MemoryRegistry;
use router::submit::{Report, Submit};
use storage::store::memory::MemoryStore;

struct Nowhere;

impl Submit for Nowhere {
    fn submit(&self, _record: Record, report: Report) {
        drop(report);
    }
}

/// Ports that hold everything in memory, and lose what is sent.
pub(crate) fn ports() -> Ports {
    Ports {
        submit: Arc::new(Nowhere),
        registry: Arc::new(MemoryRegistry::default()),
        budgets: None,
        marks: Arc::new(storage::receipt::NotKept),
        store: Arc::new(MemoryStore::default()),
        lag: None,
        links: None,
    }
}

/// A gateway on these.
#[allow(dead_code, reason = "each test file uses its part of it")]
pub(crate) fn gateway(ports: Ports) -> Arc<Gateway> {
    gateway_with(Config::default(), ports)
}

/// The same with these settings.
#[allow(dead_code, reason = "each test file uses its part of it")]
pub(crate) fn gateway_with(config: Config, ports: Ports) -> Arc<Gateway> {
    let tokens = Tokens::new(&[7; 32]).expect("long enough");
    Gateway::new(config, ports, NodeId { node: 0, boot: 1 }, Arc::new(Sessions::default()), tokens)
}
