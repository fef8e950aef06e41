//! What is relational and rare: which instance this is, and which devices there are. SQLite in its own file, one writer.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::{DeviceName, Seq, UserId};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqlSafeStr as _};
use uuid::Uuid;

use crate::StorageError;
use crate::store::{Cursor, Head, StoreError};

const READERS: u32 = 2;
const CURSOR: &str = "SELECT cursor FROM device WHERE user = ?1 AND device = ?2";
const BIRTH: &str = "INSERT INTO device (user, device, born_head, cursor, born_at_ms, seen_at_ms) \
     VALUES (?1, ?2, ?3, ?3, ?4, ?4) ON CONFLICT (user, device) DO NOTHING";
/// One statement for a whole batch. `WHERE true` keeps the parser from reading ON as part of a join.
const SAVE: &str = "INSERT INTO device (user, device, born_head, cursor, born_at_ms, seen_at_ms) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 2, ?2, ?2 FROM json_each(?1) WHERE true \
     ON CONFLICT (user, device) DO UPDATE SET cursor = max(cursor, excluded.cursor), seen_at_ms = excluded.seen_at_ms";

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

/// The tables.
#[derive(Debug)]
pub(super) struct Devices {
    writer: SqlitePool,
    readers: SqlitePool,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// SQLite's integers are signed; users and seqs stay below 2^63.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

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
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await;
        let writer = writer.map_err(|error| bad(error.to_string()))?;
        let sql = include_str!("migrations/0001_instance_and_devices.sql").into_sql_str();
        let migration = Migration::new(1, "instance and devices".into(), MigrationType::Simple, sql, false);
        Migrator::with_migrations(vec![migration]).run(&writer).await.map_err(|error| bad(error.to_string()))?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await;
        Ok(Self { writer, readers: readers.map_err(|error| bad(error.to_string()))? })
    }

    /// The instance row; made now if there is none.
    pub(super) async fn instance(&self) -> Result<Instance, StoreError> {
        let make = "INSERT INTO instance (one, id, stream_epoch, created_at_ms) VALUES (1, ?1, 1, ?2) ON CONFLICT (one) DO NOTHING";
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

    /// The stored cursor; none for a device never seen.
    pub(super) async fn cursor(&self, owner: UserId, device: &DeviceName) -> Result<Option<Seq>, StoreError> {
        let row = sqlx::query(CURSOR).bind(signed(owner.get())).bind(device.as_str()).fetch_optional(&self.readers).await;
        row.map_err(unavailable)?.map(|row| unsigned(row.try_get(0).map_err(unavailable)?)).transpose()
    }

    /// A device is born at a head, durably; if somebody was faster, at theirs.
    pub(super) async fn birth(&self, owner: UserId, device: &DeviceName, head: Head) -> Result<Seq, StoreError> {
        let user = signed(owner.get());
        let born = sqlx::query(BIRTH).bind(user).bind(device.as_str()).bind(signed(head.head)).bind(now_ms());
        born.execute(&self.writer).await.map_err(unavailable)?;
        let row = sqlx::query(CURSOR).bind(user).bind(device.as_str()).fetch_one(&self.writer).await.map_err(unavailable)?;
        unsigned(row.try_get(0).map_err(unavailable)?)
    }

    /// Raises cursors, all in one statement.
    pub(super) async fn save(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        if cursors.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = cursors.iter().map(|one| (one.owner.get(), one.device.as_str(), one.seq)).collect();
        let json = serde_json::to_string(&rows).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        sqlx::query(SAVE).bind(json).bind(now_ms()).execute(&self.writer).await.map_err(unavailable)?;
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
