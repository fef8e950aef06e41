//! What is relational and rare: which instance this is, and which devices there are. SQLite in its own file, one writer.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::{DeviceName, Seq, UserId};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqlSafeStr as _};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::StorageError;
use crate::store::{Cursor, Seen, StoreError};

/// Devices that ask for their cursor at once; more wait.
const ASKS: usize = 1024;
/// A device that is there already stays as it is.
const BIRTHS: &str = "INSERT INTO device (user, device, born_head, cursor, born_at_ms, seen_at_ms) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 2, ?2, ?2 FROM json_each(?1) WHERE true ON CONFLICT (user, device) DO NOTHING";
/// One row for all of them: what a row costs on its way out of SQLite is more than what it costs in there.
const CURSORS: &str = "SELECT json_group_array(json_array(d.user, d.device, d.cursor)) FROM json_each(?1) AS asked \
     JOIN device AS d ON d.user = asked.value ->> 0 AND d.device = asked.value ->> 1";
/// One statement for a whole batch. `WHERE true` keeps the parser from reading ON as part of a join.
const SAVE: &str = "INSERT INTO device (user, device, born_head, cursor, born_at_ms, seen_at_ms) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 2, ?2, ?2 FROM json_each(?1) WHERE true \
     ON CONFLICT (user, device) DO UPDATE SET cursor = max(cursor, excluded.cursor), seen_at_ms = excluded.seen_at_ms";

const SEEN: &str = "UPDATE device SET seen_at_ms = max(seen_at_ms, asked.value ->> 2) FROM json_each(?1) AS asked \
     WHERE device.user = asked.value ->> 0 AND device.device = asked.value ->> 1";
const LAST_SEEN: &str =
    "SELECT d.user, max(d.seen_at_ms) FROM json_each(?1) AS asked JOIN device AS d ON d.user = asked.value GROUP BY d.user";

/// This installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Random, made once.
    pub id: String,
    /// Which stream cursors belong to.
    pub stream_epoch: u64,
    /// When it was made, milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A device that has no cursor of its own asks for ours.
#[derive(Debug)]
struct Ask {
    owner: UserId,
    device: DeviceName,
    /// Where it is born if it was never seen.
    born_at: Seq,
    answer: oneshot::Sender<Result<Seq, StoreError>>,
}

type Known = HashMap<(UserId, DeviceName), Seq>;

/// The tables. Whoever asks at the same time is answered from one statement, and born in one transaction.
#[derive(Debug)]
pub(super) struct Devices {
    writer: SqlitePool,
    asks: mpsc::Sender<Ask>,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// SQLite's integers are signed; users and seqs stay below 2^63.
fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Damaged("a negative number in the device table".to_owned()))
}

impl Devices {
    /// Opens or creates the file and brings its tables up to date.
    pub(super) async fn open(path: &Path) -> Result<Self, StorageError> {
        let bad = |why: String| StorageError::Folder { path: path.display().to_string(), why };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        let writer = writer.map_err(|error| bad(error.to_string()))?;
        let sql = include_str!("migrations/0001_instance_and_devices.sql").into_sql_str();
        let migration = Migration::new(1, "instance and devices".into(), MigrationType::Simple, sql, false);
        Migrator::with_migrations(vec![migration]).run(&writer).await.map_err(|error| bad(error.to_string()))?;
        let (asks, asked) = mpsc::channel(ASKS);
        tokio::spawn(answer_asks(writer.clone(), asked));
        Ok(Self { writer, asks })
    }

    /// The instance row; made now if there is none.
    pub(super) async fn instance(&self) -> Result<Instance, StoreError> {
        let make =
            "INSERT INTO instance (one, id, stream_epoch, created_at_ms) VALUES (1, ?1, 1, ?2) ON CONFLICT (one) DO NOTHING";
        let made = sqlx::query(make).bind(Uuid::now_v7().to_string()).bind(now_ms()).execute(&self.writer).await;
        made.map_err(unavailable)?;
        let row = sqlx::query("SELECT id, stream_epoch, created_at_ms FROM instance").fetch_one(&self.writer).await;
        let row = row.map_err(unavailable)?;
        Ok(Instance {
            id: row.try_get(0).map_err(unavailable)?,
            stream_epoch: unsigned(row.try_get(1).map_err(unavailable)?)?,
            created_at_ms: unsigned(row.try_get(2).map_err(unavailable)?)?,
        })
    }

    /// The stored cursor of a device. One never seen is born at `born_at`, durably, before this returns.
    pub(super) async fn cursor(&self, owner: UserId, device: &DeviceName, born_at: Seq) -> Result<Seq, StoreError> {
        let (answer, answered) = oneshot::channel();
        let gone = || StoreError::Unavailable("the device file is closed".to_owned());
        self.asks.send(Ask { owner, device: device.clone(), born_at, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Raises cursors, all in one statement.
    pub(super) async fn save(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        if cursors.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = cursors.iter().map(|one| (one.owner.get(), one.device.as_str(), one.seq)).collect();
        sqlx::query(SAVE).bind(json(&rows)?).bind(now_ms()).execute(&self.writer).await.map_err(unavailable)?;
        Ok(())
    }

    /// Remembers when devices were there, all in one statement.
    pub(super) async fn save_seen(&self, seen: &[Seen]) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = seen.iter().map(|one| (one.owner.get(), one.device.as_str(), one.at_ms)).collect();
        sqlx::query(SEEN).bind(json(&rows)?).execute(&self.writer).await.map_err(unavailable)?;
        Ok(())
    }

    /// When the last device of each user was there, in order.
    pub(super) async fn last_seen(&self, users: &[UserId]) -> Result<Vec<Option<u64>>, StoreError> {
        let asked: Vec<_> = users.iter().map(|user| user.get()).collect();
        let rows = sqlx::query(LAST_SEEN).bind(json(&asked)?).fetch_all(&self.writer).await.map_err(unavailable)?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let (user, at_ms): (i64, i64) = (row.try_get(0).map_err(unavailable)?, row.try_get(1).map_err(unavailable)?);
            found.insert(unsigned(user)?, unsigned(at_ms)?);
        }
        Ok(asked.iter().map(|user| found.get(user).copied()).collect())
    }

    pub(super) async fn close(&self) {
        self.writer.close().await;
    }
}

/// Answers everybody who has asked by now, then looks again, until the store is dropped.
async fn answer_asks(writer: SqlitePool, mut asked: mpsc::Receiver<Ask>) {
    let mut asks = Vec::new();
    while asked.recv_many(&mut asks, ASKS).await > 0 {
        let found = cursors_of(&writer, &asks).await;
        for ask in asks.drain(..) {
            let missing = || StoreError::Damaged("a device that was born is not there".to_owned());
            let seq = found.as_ref().map_err(Clone::clone);
            let seq = seq.and_then(|found| found.get(&(ask.owner, ask.device)).copied().ok_or_else(missing));
            // who no longer waits has gone
            let _ = ask.answer.send(seq);
        }
    }
}

/// The cursors of all who ask; who is unknown is born first.
async fn cursors_of(writer: &SqlitePool, asks: &[Ask]) -> Result<Known, StoreError> {
    let known = select(writer, asks.iter()).await?;
    let strangers: Vec<_> = asks.iter().filter(|ask| !known.contains_key(&(ask.owner, ask.device.clone()))).collect();
    if strangers.is_empty() {
        return Ok(known);
    }
    let rows: Vec<_> = strangers.iter().map(|ask| (ask.owner.get(), ask.device.as_str(), ask.born_at)).collect();
    let born = sqlx::query(BIRTHS).bind(json(&rows)?).bind(now_ms()).execute(writer).await;
    born.map_err(unavailable)?;
    let born = select(writer, strangers.into_iter()).await?;
    Ok(known.into_iter().chain(born).collect())
}

async fn select(writer: &SqlitePool, asks: impl Iterator<Item = &Ask>) -> Result<Known, StoreError> {
    let pairs: Vec<_> = asks.map(|ask| (ask.owner.get(), ask.device.as_str())).collect();
    let found: String = sqlx::query_scalar(CURSORS).bind(json(&pairs)?).fetch_one(writer).await.map_err(unavailable)?;
    let damaged = |why: String| StoreError::Damaged(format!("the device table: {why}"));
    let rows: Vec<(i64, String, i64)> = serde_json::from_str(&found).map_err(|why| damaged(why.to_string()))?;
    let known = |(user, device, cursor): (i64, String, i64)| {
        let device = device.parse().map_err(|_| damaged("a device without a name".to_owned()))?;
        Ok(((UserId::from_stored(unsigned(user)?), device), unsigned(cursor)?))
    };
    rows.into_iter().map(known).collect()
}

fn json(rows: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|error| StoreError::Unavailable(error.to_string()))
}
