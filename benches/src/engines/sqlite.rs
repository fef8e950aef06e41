//! SQLite through sqlx: B-trees behind a write-ahead log. Many rows a statement, since each statement is a hop to sqlx's worker thread.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, QueryBuilder, Sqlite as Driver};
use tokio::runtime::Runtime;

use super::{Engine, Rows, TABLES};

/// Rows a statement.
const CHUNK: usize = 200;

/// One connection, WAL, synchronous FULL: an fsync a commit.
pub(super) struct Sqlite {
    runtime: Runtime,
    connection: SqliteConnection,
}

impl Sqlite {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = SqliteConnectOptions::new()
            .filename(path.join("sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", "-65536");
        let mut connection = runtime.block_on(options.connect())?;
        for name in TABLES {
            let sql = format!("CREATE TABLE {name} (k BLOB PRIMARY KEY, v BLOB NOT NULL) STRICT, WITHOUT ROWID");
            runtime.block_on(sqlx::query(AssertSqlSafe(sql)).execute(&mut connection))?;
        }
        Ok(Self { runtime, connection })
    }
}

async fn write(connection: &mut SqliteConnection, rows: &Rows) -> anyhow::Result<()> {
    let mut transaction = connection.begin().await?;
    for chunk in rows[2].chunks(CHUNK) {
        let mut query: QueryBuilder<Driver> = QueryBuilder::new("SELECT count(*) FROM keys WHERE k IN (");
        let mut list = query.separated(", ");
        for (key, _) in chunk {
            list.push_bind(key.as_slice());
        }
        query.push(")");
        let known: i64 = query.build_query_scalar().fetch_one(&mut *transaction).await?;
        anyhow::ensure!(known == 0, "a key that was never written");
    }
    for (name, rows) in TABLES.iter().zip(rows) {
        for chunk in rows.chunks(CHUNK) {
            let mut query: QueryBuilder<Driver> = QueryBuilder::new(format!("INSERT INTO {name} (k, v) "));
            query.push_values(chunk, |mut row, (key, value)| {
                row.push_bind(key.as_slice()).push_bind(value.as_slice());
            });
            query.push(" ON CONFLICT (k) DO UPDATE SET v = excluded.v");
            query.build().execute(&mut *transaction).await?;
        }
    }
    Ok(transaction.commit().await?)
}

impl Engine for Sqlite {
    fn write(&mut self, rows: &Rows) -> anyhow::Result<()> {
        self.runtime.block_on(write(&mut self.connection, rows))
    }
}
