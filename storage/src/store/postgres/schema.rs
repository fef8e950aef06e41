//! The tables, and whose they are. Migrations are embedded and run by `init` alone, never by a process that serves.
//!
//! **Rule for new ones:** a running cluster must not wait. A migration takes no lock that commits or reads meet for longer than a moment: indexes
//! are made `CONCURRENTLY` (a migration of its own, outside a transaction), columns are added with constant defaults only, nothing is rewritten,
//! and what the build before still uses stays until the next release. Functions keep their name and arguments as long as an older build calls them.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;

use crate::StorageError;

/// What a database is asked at start and every few seconds: whose it is, and what it holds.
pub(super) const CLAIMS: &str = "SELECT c.cluster_id, c.virtual_shards, c.ready, s.shard, s.state = 'open' AS open, s.map_version, s.stream_epoch \
     FROM cluster c LEFT JOIN shard s ON true";
/// No such table: nobody has made this database ours.
pub(super) const UNDEFINED_TABLE: &str = "42P01";

/// Brings the tables up to date.
pub(super) async fn migrate(name: &str, connection: &mut PgConnection) -> Result<(), StorageError> {
    let step = |version, what: &'static str, sql: &'static str| {
        Migration::new(version, what.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let steps = vec![
        step(1, "mailboxes", include_str!("migrations/0001_mailboxes.sql")),
        step(2, "functions", include_str!("migrations/0002_functions.sql")),
        step(3, "follower", include_str!("migrations/0003_follower.sql")),
        step(4, "commit_shards", include_str!("migrations/0004_commit_shards.sql")),
    ];
    let done = Migrator::with_migrations(steps).run(connection).await;
    done.map_err(|why| StorageError::Database { name: name.to_owned(), why: why.to_string() })
}

/// Why a database with this cluster row is not one of ours; none: it is.
pub(super) fn foreign(ours: (&str, u16), theirs: (&str, i32)) -> Option<String> {
    if ours.0 != theirs.0 {
        return Some(format!("it belongs to the cluster {:?}, this is {:?}", theirs.0, ours.0));
    }
    (i32::from(ours.1) != theirs.1).then(|| {
        format!("it was made for {} virtual shards, and {} are configured: their number never changes", theirs.1, ours.1)
    })
}
