//! How far the follower of a shard has come.

use router::expand::ShardId;

use super::Inner;
use super::rows::{number, signed};
use super::write::first;
use crate::store::StoreError;

const READ: &str = "SELECT COALESCE((SELECT f.followed FROM follower f WHERE f.shard = s.shard), 0) AS followed \
     FROM shard s WHERE s.shard = $1 AND s.state = 'open'";
const SAVE: &str = "INSERT INTO follower (shard, followed) SELECT s.shard, $2 FROM shard s WHERE s.shard = $1 AND s.state = 'open' \
     ON CONFLICT (shard) DO UPDATE SET followed = GREATEST(follower.followed, excluded.followed) RETURNING followed";

impl Inner {
    pub(super) async fn followed_now(&self, shard: ShardId) -> Result<u64, StoreError> {
        let rows = self.at(shard, || sqlx::query(READ).bind(i32::from(shard.0))).await?;
        number(first(&rows)?, "followed")
    }

    pub(super) async fn save_followed_now(&self, shard: ShardId, offset: u64) -> Result<(), StoreError> {
        let offset = signed(offset)?;
        self.at(shard, || sqlx::query(SAVE).bind(i32::from(shard.0)).bind(offset)).await.map(drop)
    }
}
