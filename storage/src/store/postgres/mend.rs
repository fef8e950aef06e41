//! What a person does to shards that cannot go on: step over a record, begin on a new log, tell devices that their mailboxes are other ones now.
//! For the command line; each call opens its own connections.
//!
//! Each raises the owner epoch in the same statement, so an owner that lives is fenced: it drops what it has in memory and takes the shard again
//! from the row as it is now.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::base::connect;
use super::config::{Database, PostgresConfig};
use super::rows::bits;
use crate::StorageError;

fn bad(database: &Database, why: impl ToString) -> StorageError {
    StorageError::Database { name: database.name.clone(), why: why.to_string() }
}

fn below(number: u64) -> Result<i64, StorageError> {
    i64::try_from(number).map_err(|_| StorageError::Config(format!("{number} is no offset")))
}

async fn all(config: &PostgresConfig) -> Result<Vec<(&Database, PgConnection)>, StorageError> {
    config.check()?;
    let mut connections = Vec::new();
    for database in &config.databases {
        connections.push((database, connect(database, config).await?));
    }
    Ok(connections)
}

/// Sets a shard that stands at `expect` to `next`, which stands behind the record with this fingerprint; 0: behind one that is gone. What is between
/// is never worked in.
///
/// # Errors
/// [`StorageError::Config`] when the shard does not stand there (any more), or is open nowhere; [`StorageError::Database`] when one does not answer.
pub async fn step_over(
    config: &PostgresConfig,
    shard: u16,
    (expect, next): (u64, u64),
    fingerprint: u64,
) -> Result<(), StorageError> {
    const STEP: &str = "UPDATE shard SET next_offset = $3, fingerprint = $4, owner_epoch = owner_epoch + 1 \
         WHERE shard = $1 AND state = 'open' AND next_offset = $2";
    for (database, mut connection) in all(config).await? {
        let step = sqlx::query(STEP).bind(i32::from(shard)).bind(below(expect)?).bind(below(next)?).bind(bits(fingerprint));
        let stepped = step.execute(&mut connection).await.map_err(|why| bad(database, why))?;
        if stepped.rows_affected() == 1 {
            return Ok(());
        }
    }
    Err(StorageError::Config(format!("shard {shard} does not stand at offset {expect} in any database: nothing was done")))
}

/// Raises the incarnation of a shard's mailboxes: attached sessions are closed (4410), and devices read theirs anew. Returns the new one.
///
/// # Errors
/// As [`step_over`]; a shard that is open nowhere is on its way to another database.
pub async fn raise_stream_epoch(config: &PostgresConfig, shard: u16) -> Result<u64, StorageError> {
    const RAISE: &str = "UPDATE shard SET stream_epoch = stream_epoch + 1, owner_epoch = owner_epoch + 1 \
         WHERE shard = $1 AND state = 'open' RETURNING stream_epoch";
    for (database, mut connection) in all(config).await? {
        let raised = sqlx::query(RAISE).bind(i32::from(shard)).fetch_optional(&mut connection).await;
        if let Some(row) = raised.map_err(|why| bad(database, why))? {
            return row.try_get::<i64, _>(0).map(i64::cast_unsigned).map_err(|why| bad(database, why));
        }
    }
    Err(StorageError::Config(format!("shard {shard} is open in none of the databases: nothing was done")))
}

/// Sets every shard to the beginning of a new log, which has this epoch. May be run again. Returns how many shards there are.
///
/// # Errors
/// [`StorageError::Config`] when something of this epoch or a newer one is in a database already (the epoch was not raised, or this log is not new),
/// or a shard is being moved: nothing was done then. [`StorageError::Database`]: run it again.
pub async fn adopt_log(config: &PostgresConfig, epoch: u16) -> Result<usize, StorageError> {
    const NEWEST: &str =
        "SELECT coalesce((SELECT max(epoch) FROM high_water), 0), (SELECT count(*) FROM shard WHERE state = 'copying')";
    const RESET: &str = "WITH f AS (UPDATE follower SET followed = 0) \
         UPDATE shard SET next_offset = 0, fingerprint = 0, owner_epoch = owner_epoch + 1 WHERE state = 'open'";
    let mut databases = all(config).await?;
    for (database, connection) in &mut databases {
        let row = sqlx::query(NEWEST).fetch_one(connection).await.map_err(|why| bad(database, why))?;
        let (newest, copying) = (row.try_get::<i32, _>(0), row.try_get::<i64, _>(1));
        let (newest, copying) = (newest.map_err(|why| bad(database, why))?, copying.map_err(|why| bad(database, why))?);
        if newest >= i32::from(epoch) {
            return Err(StorageError::Config(format!(
                "{} holds messages of log epoch {newest}, and cluster.log_epoch is {epoch}: a new log has a higher one, in every process",
                database.name
            )));
        }
        if copying > 0 {
            let why = format!("{} holds a copy of a shard that is being moved: finish or abort that first", database.name);
            return Err(StorageError::Config(why));
        }
    }
    let mut shards = 0;
    for (database, connection) in &mut databases {
        let reset = sqlx::query(RESET).execute(connection).await.map_err(|why| bad(database, why))?;
        shards += usize::try_from(reset.rows_affected()).unwrap_or(usize::MAX);
    }
    Ok(shards)
}
