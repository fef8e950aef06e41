//! The registry with bad luck: slow, silent, or lying. Forgetting everything is an act of chaos.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::{DeviceName, UserId};
use router::registry::memory::MemoryRegistry;
use router::registry::{NodeId, Nodes, Registration, Registry, RegistryError};
use tokio::time::sleep;

use crate::process::Process;
use crate::sim::Sim;

/// Entries that newer ones have replaced, by their counters: their sessions hear nothing any more, as is right.
#[derive(Debug, Default)]
pub struct Replaced(Mutex<BTreeSet<u64>>);

impl Replaced {
    /// Whether this entry was replaced.
    pub fn has(&self, registration: Registration) -> bool {
        self.0.lock().contains(&registration.counter)
    }
}

/// The registry as one process sees it.
pub struct FaultyRegistry {
    /// The registry.
    pub inner: Arc<MemoryRegistry>,
    /// Whose calls these are.
    pub process: Arc<Process>,
    /// Shared parts.
    pub sim: Arc<Sim>,
    /// What was replaced.
    pub replaced: Arc<Replaced>,
}

impl FaultyRegistry {
    async fn come(&self, what: &str) -> Result<(), RegistryError> {
        self.process.gate().await;
        self.process.danger(self.sim.weather.crashes, what).await;
        sleep(self.sim.delay()).await;
        if self.sim.strikes(self.sim.weather.registry_fails) {
            self.sim.saw("registry did not answer");
            return Err(RegistryError("simulated".into()));
        }
        Ok(())
    }

    async fn go<T>(&self, answer: T) -> Result<T, RegistryError> {
        sleep(self.sim.delay()).await;
        self.process.gate().await;
        Ok(answer)
    }
}

#[async_trait]
impl Registry for FaultyRegistry {
    async fn register(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
    ) -> Result<(Registration, Option<Registration>), RegistryError> {
        self.come("before registering").await?;
        let answer = self.inner.register(user, device, node).await?;
        if answer.1.is_some_and(|replaced| replaced.node != node) {
            self.sim.saw("device attached while its older session lives elsewhere");
        }
        self.replaced.0.lock().extend(answer.1.map(|replaced| replaced.counter));
        self.go(answer).await
    }

    async fn deregister(&self, user: UserId, device: &DeviceName, registration: Registration) -> Result<bool, RegistryError> {
        self.come("before deregistering").await?;
        let answer = self.inner.deregister(user, device, registration).await?;
        if !answer {
            self.sim.saw("old connection's late goodbye");
        }
        self.go(answer).await
    }

    async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
        self.come("between commit and look-up").await?;
        let mut answer = self.inner.nodes(users).await?;
        if self.sim.strikes(self.sim.weather.registry_lies) {
            self.sim.saw("registry lied");
            answer.iter_mut().for_each(Nodes::clear);
        }
        self.go(answer).await
    }

    async fn bury(&self, node: NodeId) -> Result<(), RegistryError> {
        self.inner.bury(node).await
    }
}
