//! The registry of one process. An attached user costs about a hundred bytes: device names are kept as 64-bit hashes, one entry lies inline.
//! Bounded by the users that are attached.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use dashmap::DashMap;
use parking_lot::RwLock;
use protocol::{DeviceName, UserId};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::{NodeId, Nodes, Registered, Registration, Registry, RegistryError};

/// Buried boots that are remembered, so that a late registration by a dead boot stays void. The oldest is forgotten first.
const BURIED_MAX: usize = 1024;

/// One device of one user. Two devices of one user whose names collide in 64 bits would close each other: one reconnect, never a message.
#[derive(Debug, Clone, Copy)]
struct Entry {
    device: u64,
    registration: Registration,
}

/// Entries in memory; lost with the process, as its connections are.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    users: DashMap<UserId, SmallVec<[Entry; 1]>>,
    counter: AtomicU64,
    buried: RwLock<VecDeque<NodeId>>,
}

impl MemoryRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Users with at least one device.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Forgets every entry, as a flushed Redis does. Counters go on, so no old goodbye can hit a new entry.
    pub fn forget_all(&self) {
        self.users.clear();
    }

    fn is_buried(&self, node: NodeId) -> bool {
        self.buried.read().contains(&node)
    }
}

fn hash_of(device: &DeviceName) -> u64 {
    xxh3_64(device.as_str().as_bytes())
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn register_within(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
        devices_max: usize,
    ) -> Result<Option<Registered>, RegistryError> {
        let device = hash_of(device);
        if self.is_buried(node) {
            return Err(RegistryError(format!("boot {} of node {} is buried", node.boot, node.node)));
        }
        let mut entries = self.users.entry(user).or_default();
        // counted under the user's lock: the newer entry of one device always has the higher counter
        let counter = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let registration = Registration { node, counter };
        if let Some(entry) = entries.iter_mut().find(|entry| entry.device == device) {
            let replaced = Some(std::mem::replace(&mut entry.registration, registration));
            return Ok(Some(Registered { registration, replaced }));
        }
        if entries.len() >= devices_max {
            return Ok(None);
        }
        entries.push(Entry { device, registration });
        Ok(Some(Registered { registration, replaced: None }))
    }

    async fn deregister(&self, user: UserId, device: &DeviceName, registration: Registration) -> Result<bool, RegistryError> {
        let device = hash_of(device);
        let mut found = false;
        self.users.remove_if_mut(&user, |_, entries| {
            if let Some(at) = entries.iter().position(|entry| entry.device == device && entry.registration == registration) {
                entries.remove(at);
                found = true;
            }
            entries.is_empty()
        });
        Ok(found)
    }

    async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
        let nodes_of = |user| {
            let mut nodes = Nodes::new();
            let Some(entries) = self.users.get(user) else { return nodes };
            for entry in entries.iter() {
                if !nodes.contains(&entry.registration.node) {
                    nodes.push(entry.registration.node);
                }
            }
            nodes
        };
        Ok(users.iter().map(nodes_of).collect())
    }

    async fn restore(
        &self,
        user: UserId,
        device: &DeviceName,
        registration: Registration,
    ) -> Result<Registration, RegistryError> {
        let device = hash_of(device);
        if self.is_buried(registration.node) {
            return Err(RegistryError(format!("boot {} of node {} is buried", registration.node.boot, registration.node.node)));
        }
        let mut entries = self.users.entry(user).or_default();
        self.counter.fetch_max(registration.counter, Ordering::Relaxed);
        let Some(entry) = entries.iter_mut().find(|entry| entry.device == device) else {
            entries.push(Entry { device, registration });
            return Ok(registration);
        };
        let rank = |it: Registration| (it.counter, it.node.boot);
        if rank(registration) > rank(entry.registration) {
            entry.registration = registration;
        }
        Ok(entry.registration)
    }

    async fn bury(&self, node: NodeId) -> Result<(), RegistryError> {
        {
            let mut buried = self.buried.write();
            if !buried.contains(&node) {
                buried.push_back(node);
            }
            if buried.len() > BURIED_MAX {
                buried.pop_front();
            }
        }
        self.users.retain(|_, entries| {
            entries.retain(|entry| entry.registration.node != node);
            !entries.is_empty()
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attached_user_is_small() {
        assert!(std::mem::size_of::<(UserId, SmallVec<[Entry; 1]>)>() <= 56);
    }
}
