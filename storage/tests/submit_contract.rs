//! The embedded commit cycle keeps what `Submit` promises.

use std::sync::Arc;

use router::registry::NodeId;
use router::registry::memory::MemoryRegistry;
use router::submit::{Submit, contract};
use storage::cycle::{Cycle, Limits, Parts};
use storage::push::{Deliver, Push, Wake};
use storage::store::embedded::{EmbeddedStore, Options};
use tokio::runtime::Handle;

struct Nobody;

impl Wake for Nobody {}

impl Deliver for Nobody {
    fn push(&self, _node: NodeId, _pushes: Vec<Push>) -> Box<dyn Wake> {
        Box::new(Self)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cycle_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let opened = std::cell::Cell::new(0);
    let make = async || {
        opened.set(opened.get() + 1);
        let store =
            EmbeddedStore::open(&folder.path().join(opened.get().to_string()), Options::default()).await.expect("a store");
        let parts = Parts {
            store: Arc::new(store),
            registry: Arc::new(MemoryRegistry::default()),
            deliver: Arc::new(Nobody),
            runtime: Handle::current(),
            limits: Limits::default(),
        };
        tokio::task::block_in_place(|| Cycle::start(parts)).expect("a cycle") as Arc<dyn Submit>
    };
    contract::run(make).await;
}
