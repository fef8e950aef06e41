//! What can go wrong in this crate.

use protocol::record::Undecodable;

use crate::log::LogError;
use crate::registry::RegistryError;

/// Errors of the router.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A partition holds bytes this build cannot read; it stops there.
    #[error("partition {partition} stops at offset {offset}: {why}")]
    Undecodable {
        /// Which partition.
        partition: u16,
        /// Where.
        offset: u64,
        /// What is wrong with the bytes.
        why: Undecodable,
    },
}
