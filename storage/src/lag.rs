//! Whether the owner of a mailbox has worked in all that is in its log. While it has not (a database that was restored is replaying), a cursor
//! beyond the head waits; when it has, such a cursor belongs to a mailbox that is gone.

use std::sync::Arc;

use protocol::UserId;
use router::RouterError;
use router::expand::Shards;
use router::log::{Log, Topic};

use crate::StorageError;
use crate::store::Store;

/// Compares checkpoints with the ends of their logs.
pub struct Lag {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The mailboxes.
    pub store: Arc<dyn Store>,
    /// How many virtual shards there are.
    pub shards: Shards,
}

impl Lag {
    /// Whether everything that was in the log of this user's shard when this was called is committed.
    ///
    /// # Errors
    /// When the log or the store does not answer.
    pub async fn caught_up(&self, user: UserId) -> Result<bool, StorageError> {
        let shard = self.shards.of(user);
        let end = self.log.end(Topic::Mailbox, shard.0).await.map_err(RouterError::from)?;
        Ok(self.store.checkpoint(shard).await?.offset >= end)
    }
}
