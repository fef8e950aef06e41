//! The port that says on which nodes a user's devices are: [`memory`] for one process, [`redis`] for a cluster, which also keeps
//! budgets of what users use on all nodes.
//! It may forget everything, be stale or lie: that costs a delay, never a message.

use std::time::Duration;

use async_trait::async_trait;
use protocol::{DeviceName, UserId};
use smallvec::SmallVec;

#[cfg(feature = "contract")]
pub mod contract;
pub mod memory;
pub mod redis;

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

/// What entering a device has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The new entry.
    pub registration: Registration,
    /// The one it took the place of, whose connection is to be closed.
    pub replaced: Option<Registration>,
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
    /// Enters a device on a node, in place of whatever was there (the newest wins), in one step; unless it was not there at all and the user has so many
    /// other devices, on whichever node: then nothing, and it is not entered. When this has returned, every later [`Self::nodes`] sees the entry.
    async fn register_within(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
        devices_max: usize,
    ) -> Result<Option<Registered>, RegistryError>;

    /// The same for one who is let in whatever else is there.
    async fn register(&self, user: UserId, device: &DeviceName, node: NodeId) -> Result<Registered, RegistryError> {
        let registered = self.register_within(user, device, node, usize::MAX).await?;
        registered.ok_or_else(|| RegistryError("there is no room for one more device".into()))
    }

    /// Removes exactly this entry; a newer one stays. Says whether it was there.
    async fn deregister(&self, user: UserId, device: &DeviceName, registration: Registration) -> Result<bool, RegistryError>;

    /// Nodes of each of these users, in their order, each node once.
    async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError>;

    /// Entries of a user, for who doubts them: after an answer that did not come, or a registry that was set back. One that lives and dies with its
    /// process has none that could be doubted, which is the default.
    async fn entries(&self, user: UserId) -> Result<Vec<(DeviceName, Registration)>, RegistryError> {
        let _ = user;
        Ok(Vec::new())
    }

    /// All entries of one boot are void from now on.
    async fn bury(&self, node: NodeId) -> Result<(), RegistryError>;

    /// Enters a device again exactly as it was, if its entry is gone or older; never over a newer one (by counter, then boot). Returns the
    /// entry that stands now: another than this one says that the session was superseded.
    ///
    /// # Errors
    /// [`RegistryError`] also from a registry that cannot do this, which is the default.
    async fn restore(
        &self,
        user: UserId,
        device: &DeviceName,
        registration: Registration,
    ) -> Result<Registration, RegistryError> {
        let _ = (user, device, registration);
        Err(RegistryError("this registry does not restore entries".into()))
    }

    /// [`Self::restore`] of many, in their order: what a gateway does with all its sessions every few hours and after the registry has
    /// forgotten. A failure may leave a part of them entered; it is done again from the start. At most some hundreds a call, paced.
    async fn register_all(&self, entries: &[(UserId, DeviceName, Registration)]) -> Result<Vec<Registration>, RegistryError> {
        let mut stand = Vec::with_capacity(entries.len());
        for (user, device, registration) in entries {
            stand.push(self.restore(*user, device, *registration).await?);
        }
        Ok(stand)
    }
}

/// A rate that each user has in the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Of what.
    pub name: &'static str,
    /// So many a second. At least 1.
    pub per_s: u32,
    /// So many at once after a pause.
    pub burst: u32,
}

/// What users have of a rate on all gateways together: budgets that each of them charges. A cluster has them; one process limits by itself.
#[async_trait]
pub trait Budgets: Send + Sync + 'static {
    /// Gateways among which users may have spread; at least 1.
    fn gateways(&self) -> usize;

    /// Charges users for what they have used of a rate on this node within a time that has just passed (the generic cell rate algorithm, ITU-T I.371, in
    /// arrears). Returns for each, in their order, how long its budget is overdrawn: at most a minute. Some hundreds a call.
    ///
    /// # Errors
    /// [`RegistryError`]: whether they were charged is not known. They are not to be charged again.
    async fn charge(&self, rate: Rate, within: Duration, used: &[(UserId, u32)]) -> Result<Vec<Duration>, RegistryError>;
}
