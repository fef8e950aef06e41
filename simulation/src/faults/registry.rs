//! The registry as one process sees it, with bad luck: slow, silent, or lying. Which entries count it judges by the members it knows, as in a
//! cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use protocol::{DeviceName, UserId};
use router::members::Members;
use router::registry::{NodeId, Nodes, Registered, Registration, Registry, RegistryError};
use tokio::time::sleep;

use super::Redis;
use crate::process::{Part, Process};
use crate::sim::Sim;

/// The registry of one process.
pub struct FaultyRegistry {
    /// Where entries are.
    pub redis: Arc<Redis>,
    /// Whose calls these are.
    pub process: Arc<Process>,
    /// Shared parts.
    pub sim: Arc<Sim>,
    /// Which boots live.
    pub members: Members,
    /// The highest counter met.
    pub highest: AtomicU64,
}

impl FaultyRegistry {
    async fn come(&self, what: &str) -> Result<(), RegistryError> {
        let reaches = self.process.reaches(Part::Redis).await;
        self.process.danger(self.sim.weather.crashes, what).await;
        sleep(self.sim.delay()).await;
        if !reaches || self.sim.strikes(self.sim.weather.registry_fails) {
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

    fn met(&self, registration: Registration) {
        self.highest.fetch_max(registration.counter, Ordering::Relaxed);
    }
}

#[async_trait]
impl Registry for FaultyRegistry {
    // no user of the simulation has so many devices
    async fn register_within(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
        _devices_max: usize,
    ) -> Result<Option<Registered>, RegistryError> {
        self.come("before registering").await?;
        let (registration, replaced) = self.redis.register(user, device, node, self.highest.load(Ordering::Relaxed));
        self.met(registration);
        let replaced = replaced.filter(|replaced| !self.members.is_void(*replaced));
        if replaced.is_some_and(|replaced| replaced.node != node) {
            self.sim.saw("device attached while its older session lives elsewhere");
        }
        self.go(Some(Registered { registration, replaced })).await
    }

    async fn deregister(&self, user: UserId, device: &DeviceName, registration: Registration) -> Result<bool, RegistryError> {
        self.come("before deregistering").await?;
        let answer = self.redis.remove(user, device, registration);
        if !answer {
            self.sim.saw("old connection's late goodbye");
        }
        self.go(answer).await
    }

    async fn entries(&self, user: UserId) -> Result<Vec<(DeviceName, Registration)>, RegistryError> {
        self.come("before looking at a user's entries").await?;
        self.go(self.redis.devices(user)).await
    }

    async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
        self.come("between commit and look-up").await?;
        let entries = if !self.sim.strikes(self.sim.weather.registry_lies) {
            self.redis.entries(users)
        } else if self.sim.below(2) == 0 {
            self.sim.saw("registry lied: nobody is there");
            vec![Vec::new(); users.len()]
        } else {
            self.sim.saw("registry lied: an old answer");
            self.redis.old_entries(users)
        };
        let mut answer = Vec::with_capacity(entries.len());
        for entries in entries {
            let mut nodes = Nodes::new();
            for entry in entries {
                if self.members.is_void(entry) {
                    self.sim.saw("entry of a dead boot is void");
                } else if !nodes.contains(&entry.node) {
                    nodes.push(entry.node);
                }
            }
            answer.push(nodes);
        }
        self.go(answer).await
    }

    async fn bury(&self, _node: NodeId) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn restore(
        &self,
        user: UserId,
        device: &DeviceName,
        registration: Registration,
    ) -> Result<Registration, RegistryError> {
        self.come("before entering again").await?;
        self.met(registration);
        let mut stands = self.redis.restore(user, device, registration);
        if stands != registration && self.members.is_void(stands) {
            // out of the way with what a dead boot has left
            self.redis.remove(user, device, stands);
            stands = self.redis.restore(user, device, registration);
        }
        self.sim.saw(if stands == registration { "session entered again" } else { "session entered again met a newer entry" });
        self.go(stands).await
    }
}
