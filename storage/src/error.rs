//! What can go wrong in this crate.

use router::RouterError;

use crate::store::StoreError;

/// Errors of storage.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log or the registry failed.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The data folder cannot be used.
    #[error("data folder {path}: {why}")]
    Folder {
        /// The folder or file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration of the databases makes no sense.
    #[error("databases: {0}")]
    Config(String),
    /// A database cannot be used.
    #[error("database {name}: {why}")]
    Database {
        /// Its name in the configuration.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}
