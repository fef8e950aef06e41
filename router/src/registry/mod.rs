//! The port that says on which nodes a user's devices are. [`memory`] for one process; Redis comes with the cluster.
//! It may forget everything, be stale or lie: that costs a delay, never a message.

use async_trait::async_trait;
use protocol::{DeviceName, UserId};
use smallvec::SmallVec;

#[cfg(feature = "contract")]
pub mod contract;
pub mod memory;

/// A gateway process: its name in the cluster and the boot it is in. A dead boot's registrations are void at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Name of the node.
    pub node: u16,
    /// Which of its lives: random at each start.
    pub boot: u64,
}

/// A device's entry: only who holds exactly this may remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Where the device is.
    pub node: NodeId,
    /// Grows with each attach of that device.
    pub counter: u64,
}

/// Nodes that hold devices of one user; usually none or one.
pub type Nodes = SmallVec<[NodeId; 1]>;

/// The registry did not answer. The caller goes on without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the registry is unavailable: {0}")]
pub struct RegistryError(pub String);

/// Which user is on which node.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Enters a device on a node, in place of whatever was there (the newest wins), in one step. Returns the new entry and the one it
    /// replaced, whose connection is to be closed. When this has returned, every later [`Self::nodes`] sees the entry.
    async fn register(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
    ) -> Result<(Registration, Option<Registration>), RegistryError>;

    /// Removes exactly this entry; a newer one stays. Says whether it was there.
    async fn deregister(&self, user: UserId, device: &DeviceName, registration: Registration) -> Result<bool, RegistryError>;

    /// Nodes of each of these users, in their order, each node once.
    async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError>;

    /// All entries of one boot are void from now on.
    async fn bury(&self, node: NodeId) -> Result<(), RegistryError>;
}
