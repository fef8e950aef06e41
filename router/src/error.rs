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
    /// The record a checkpoint stands behind is another one now, or gone: the log was cut. A person must decide; nothing is guessed.
    #[error("partition {partition} is not the log its checkpoint at offset {offset} was made of")]
    LogCut {
        /// Which partition.
        partition: u16,
        /// The checkpoint's next offset.
        offset: u64,
    },
    /// The checkpoint was made under rules this build doesn't have.
    #[error("partition {partition} stands at rules {rules}, which this build does not have")]
    Rules {
        /// Which partition.
        partition: u16,
        /// Which rules.
        rules: u32,
    },
}
