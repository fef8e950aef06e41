//! One database as this process sees it: its pools, whether it answers, and what an error means. Every call is bounded in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgPool, PgPoolOptions, PgRow, PgSeverity};
use sqlx::query::Query;
use sqlx::{Connection as _, Postgres, Row as _};
use tokio::time::timeout;

use super::config::{Database, PostgresConfig};
use super::group::Group;
use crate::StorageError;
use crate::store::StoreError;

pub(super) type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

/// Connections that may turn out dead when a read uses them; then the next one.
const DEAD_MAX: usize = 4;

/// Whether it may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// It has answered, and is one of ours.
    Up,
    /// It does not answer.
    Down(Instant),
    /// It must not be used: another cluster's, or not made for this one.
    Refused(String),
}

/// One database.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) name: String,
    writers: PgPool,
    readers: PgPool,
    /// One connection beside the pools: full pools are not taken for a database that is away.
    probe: PgPool,
    state: Mutex<State>,
    call: Duration,
    /// Commits that wait.
    pub(super) group: Group,
}

/// Why a statement gave nothing.
#[derive(Debug, Clone)]
pub(super) enum Failed {
    /// It was never sent.
    NotSent(StoreError),
    /// The database said no: nothing of it was done.
    Refused(Arc<PgDatabaseError>),
    /// It may have been done.
    Unknown(String),
}

impl Failed {
    /// What it means for a statement that may as well be sent again.
    pub(super) fn unavailable(self, name: &str) -> StoreError {
        match self {
            Self::NotSent(why) => why,
            Self::Refused(why) => StoreError::Unavailable(format!("{name}: {} ({})", why.message(), why.code())),
            Self::Unknown(why) => StoreError::Unavailable(format!("{name}: {why}")),
        }
    }
}

/// A connection for one statement. Unless that ended well it is closed, never given to the next: nobody waits for what this one left behind.
struct Lease {
    connection: Option<PoolConnection<Postgres>>,
    clean: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| !self.clean) {
            drop(connection.detach());
        }
    }
}

impl Base {
    /// Opens nothing yet.
    pub(super) fn new(database: &Database, config: &PostgresConfig) -> Result<Self, StorageError> {
        let options = database.limited(config)?;
        Ok(Self {
            name: database.name.clone(),
            writers: pool(config.writers, config, options.clone()),
            readers: pool(config.readers, config, options.clone()),
            probe: pool(1, config, options),
            state: Mutex::new(State::Down(Instant::now())),
            call: config.call_timeout(),
            group: Group::new(config.writers, Duration::from_millis(config.commit_rest_ms)),
        })
    }

    /// One statement of the commit path.
    pub(super) async fn write(&self, query: PgQuery<'_>) -> Result<Vec<PgRow>, Failed> {
        self.usable().map_err(Failed::NotSent)?;
        self.once(&self.writers, query).await
    }

    /// One statement that may be sent twice.
    pub(super) async fn read<'q>(&self, make: impl Fn() -> PgQuery<'q> + Send + Sync) -> Result<Vec<PgRow>, StoreError> {
        self.usable()?;
        self.repeatable(&self.readers, make).await
    }

    /// Asks whether it is there, whatever is known of it.
    pub(super) async fn ask<'q>(&self, make: impl Fn() -> PgQuery<'q> + Send + Sync) -> Result<Vec<PgRow>, StoreError> {
        self.repeatable(&self.probe, make).await
    }

    async fn repeatable<'q>(
        &self,
        pool: &PgPool,
        make: impl Fn() -> PgQuery<'q> + Send + Sync,
    ) -> Result<Vec<PgRow>, StoreError> {
        let until = Instant::now() + self.call;
        let mut dead = 0;
        loop {
            match self.once(pool, make()).await {
                Ok(rows) => return Ok(rows),
                Err(Failed::Unknown(_)) if dead < DEAD_MAX && Instant::now() < until => dead += 1,
                Err(why) => return Err(why.unavailable(&self.name)),
            }
        }
    }

    async fn once(&self, pool: &PgPool, query: PgQuery<'_>) -> Result<Vec<PgRow>, Failed> {
        let start = Instant::now();
        let connection = match timeout(self.call, pool.acquire()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(why)) => return Err(Failed::NotSent(self.away(&why.to_string()))),
            Err(_) => return Err(Failed::NotSent(self.away("no connection in time"))),
        };
        let mut lease = Lease { connection: Some(connection), clean: false };
        let connection: &mut PgConnection = lease.connection.as_mut().expect("it was put there in the line above");
        match timeout(self.call.saturating_sub(start.elapsed()), query.fetch_all(connection)).await {
            Ok(Ok(rows)) => {
                lease.clean = true;
                Ok(rows)
            }
            Ok(Err(sqlx::Error::Database(why))) => match why.try_downcast::<PgDatabaseError>() {
                // a statement that ends in an ERROR is rolled back; FATAL and PANIC may come behind a commit
                Ok(why) if why.severity() == PgSeverity::Error => {
                    lease.clean = true;
                    Err(Failed::Refused(Arc::from(why)))
                }
                Ok(why) => Err(Failed::Unknown(why.message().to_owned())),
                Err(why) => Err(Failed::Unknown(why.to_string())),
            },
            Ok(Err(why)) => Err(Failed::Unknown(why.to_string())),
            Err(_) => Err(Failed::Unknown("no answer in time".to_owned())),
        }
    }

    fn away(&self, why: &str) -> StoreError {
        StoreError::Unavailable(format!("{}: {why}", self.name))
    }

    /// Whether calls may go to it: while it is known to be away they fail at once, so that nobody waits for it again and again.
    fn usable(&self) -> Result<(), StoreError> {
        match &*self.state.lock() {
            State::Up => Ok(()),
            State::Down(_) => Err(self.away("it does not answer")),
            State::Refused(why) => Err(self.away(why)),
        }
    }

    /// Whether it answered when it was asked last.
    pub(super) fn is_up(&self) -> bool {
        *self.state.lock() == State::Up
    }

    /// Why it must not be used.
    pub(super) fn refused(&self) -> Option<String> {
        match &*self.state.lock() {
            State::Refused(why) => Some(why.clone()),
            State::Up | State::Down(_) => None,
        }
    }

    /// It answered.
    pub(super) fn set_up(&self) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Up);
        match before {
            State::Up => {}
            State::Down(since) => {
                tracing::info!(database = self.name, away_ms = since.elapsed().as_millis() as u64, "the database answers");
            }
            State::Refused(_) => tracing::info!(database = self.name, "the database is one of ours now"),
        }
        self.gauge(1.0);
    }

    /// It did not answer.
    pub(super) fn set_down(&self, why: &StoreError) {
        let mut state = self.state.lock();
        if *state == State::Up {
            tracing::error!(database = self.name, %why, "the database does not answer: its shards wait");
        }
        if !matches!(*state, State::Down(_)) {
            *state = State::Down(Instant::now());
        }
        drop(state);
        self.gauge(0.0);
    }

    /// It must not be used.
    pub(super) fn refuse(&self, why: String) {
        let mut state = self.state.lock();
        if *state != State::Refused(why.clone()) {
            tracing::error!(database = self.name, why, "the database is not used");
            *state = State::Refused(why);
        }
        drop(state);
        self.gauge(0.0);
    }

    fn gauge(&self, value: f64) {
        metrics::gauge!("switchboard_store_reachable", "database" => self.name.clone()).set(value);
    }

    pub(super) async fn close(&self) {
        let all = async { tokio::join!(self.writers.close(), self.readers.close(), self.probe.close()) };
        // one that hangs is left behind
        let _ = timeout(self.call, all).await;
    }
}

fn pool(size: u32, config: &PostgresConfig, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(Duration::from_millis(config.connect_timeout_ms))
        .idle_timeout(Duration::from_secs(300))
        .max_lifetime(Duration::from_secs(1800))
        // one round trip for a call: a dead connection is found by using it
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(is_a_safe_primary(connection)))
        .connect_lazy_with(options)
}

/// A replica shows the past, and a commit that is not on disk is none: such a server is not talked to.
async fn is_a_safe_primary(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    const ASK: &str =
        "SELECT pg_is_in_recovery(), current_setting('synchronous_commit') = 'off', current_setting('fsync') = 'off'";
    let row = sqlx::query(ASK).fetch_one(&mut *connection).await?;
    let (replica, asynchronous, unsynced): (bool, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if replica || asynchronous {
        let why = if replica { "it is a replica" } else { "its synchronous_commit is off" };
        return Err(sqlx::Error::Configuration(why.into()));
    }
    if unsynced {
        tracing::warn!("the database runs with fsync off: a power failure loses what was said to be kept");
    }
    Ok(())
}

/// A connection of its own for what a person runs: no limits but that of connecting.
pub(super) async fn connect(database: &Database, config: &PostgresConfig) -> Result<PgConnection, StorageError> {
    let bad = |why: String| StorageError::Database { name: database.name.clone(), why };
    let options = database.plain()?;
    let connected = timeout(Duration::from_millis(config.connect_timeout_ms), PgConnection::connect_with(&options)).await;
    let mut connection = connected.map_err(|_| bad("it does not answer".into()))?.map_err(|why| bad(why.to_string()))?;
    is_a_safe_primary(&mut connection).await.map_err(|why| bad(why.to_string()))?;
    Ok(connection)
}
