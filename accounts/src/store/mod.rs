//! SQLite: one file, one writer, WAL, every commit synced. Statements only; what they mean is decided in [`crate::code`] and [`crate::refresh`].
//! Other processes (`switchboard user`) may write beside the server: what they end is found by [`sessions::ended_since`].

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row as _, SqlSafeStr as _, Sqlite, Transaction};

use crate::error::AccountsError;

pub mod challenges;
pub mod users;
pub mod sessions;
pub mod answers;

/// Reads at once.
const READERS: u32 = 4;
/// How long a request waits for the writer, and the writer for another process.
const WAIT: Duration = Duration::from_secs(5);

/// The file.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    /// Opens the file, makes it if there is none, and brings its tables up to date.
    ///
    /// # Errors
    /// [`AccountsError::File`].
    pub async fn open(path: &Path) -> Result<Self, AccountsError> {
        let bad = |why: String| AccountsError::File { path: path.display().to_string(), why };
        // numbers of people are in it: for the owner's eyes only, and SQLite gives its other files the same mode
        let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        made.map_err(|why| bad(why.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WAIT);
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(WAIT);
        let writer = pool(1).connect_with(options.clone()).await.map_err(|why| bad(why.to_string()))?;
        let sql = include_str!("migrations/0001_accounts.sql").into_sql_str();
        let migration = Migration::new(1, "accounts".into(), MigrationType::Simple, sql, false);
        Migrator::with_migrations(vec![migration]).run(&writer).await.map_err(|why| bad(why.to_string()))?;
        // a new file is only safe when its name is
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|why| bad(why.to_string()))?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await.map_err(|why| bad(why.to_string()))?;
        Ok(Self { writer, readers })
    }

    /// A transaction that writes. It has the writer to itself from its first statement: what it reads is what it changes.
    ///
    /// # Errors
    /// [`AccountsError::Unavailable`].
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, AccountsError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Connections that read.
    pub const fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Connection that writes single statements.
    pub const fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// SQLite's integers are signed; nothing here comes near the end.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn damaged(what: &str) -> AccountsError {
    AccountsError::Unavailable(format!("{what} is damaged"))
}

/// A number of a row that is never negative.
fn number(row: &SqliteRow, at: usize) -> Result<u64, AccountsError> {
    u64::try_from(row.try_get::<i64, _>(at)?).map_err(|_| damaged("a number"))
}

/// Bytes of a fixed length.
fn bytes<const N: usize>(row: &SqliteRow, at: usize) -> Result<[u8; N], AccountsError> {
    let bytes: Vec<u8> = row.try_get(at)?;
    bytes.try_into().map_err(|_| damaged("a key"))
}

/// Bytes of a fixed length, or NULL.
fn bytes_if<const N: usize>(row: &SqliteRow, at: usize) -> Result<Option<[u8; N]>, AccountsError> {
    let bytes: Option<Vec<u8>> = row.try_get(at)?;
    bytes.map(|bytes| bytes.try_into().map_err(|_| damaged("a key"))).transpose()
}
