//! The process's link to Redis: found lazily, kept, found again. Nobody waits for it longer than the call timeout; while it is away callers
//! are told so at once. One line is logged when it goes and one when it is back.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::config::{RedisConfig, Target};
use super::connection::{self, Connection};
use super::script::Script;
use crate::registry::RegistryError;

/// How often a standing connection is asked whether it is there, and writable.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How many probes stand between two questions to the sentinels.
const PROBES_PER_VOTE: u32 = 4;
/// Failed probes in a row after which a Cluster client, which mends itself, is built anew.
const CLUSTER_MISSES_MAX: u32 = 8;
/// First and longest pause between two tries to connect.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Pause after Redis was found to belong to another cluster.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Seconds after which what a dead cluster left in Redis is gone.
pub(crate) const KEPT_S: u64 = 86_400;
/// Error code of this crate's scripts when the store belongs to another cluster.
const FOREIGN: &str = "FOREIGN";

#[derive(Clone)]
enum State {
    Up(Connection),
    Down { since: Instant, why: Arc<str> },
}

struct Shared {
    config: RedisConfig,
    target: Target,
    state: watch::Sender<State>,
    /// Wakes the keeper: a caller saw the connection fail.
    doubted: Notify,
}

/// A shared, self-mending connection to Redis. Clones share it; the last one ends it.
#[derive(Clone)]
pub struct RedisLink {
    shared: Arc<Shared>,
    _keeper: Arc<Keeper>,
}

struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RedisLink {
    /// Begins to look for Redis in the background and returns at once. Needs a runtime.
    ///
    /// # Errors
    /// [`RegistryError`] when the settings cannot be used; never because Redis is away.
    pub fn new(config: RedisConfig) -> Result<Self, RegistryError> {
        let target = config.target()?;
        let state = watch::Sender::new(State::Down { since: Instant::now(), why: "not connected yet".into() });
        let shared = Arc::new(Shared { config, target, state, doubted: Notify::new() });
        gauge!("switchboard_registry_reachable").set(0.0);
        let keeper = Keeper(tokio::spawn(keep(Arc::clone(&shared))));
        Ok(Self { shared, _keeper: Arc::new(keeper) })
    }

    /// The settings it was made with.
    pub fn config(&self) -> &RedisConfig {
        &self.shared.config
    }

    /// Whether there is a connection now.
    pub fn is_up(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Up(_))
    }

    /// The connection; waits for one only while it has been away for less than a call may take.
    async fn connection(&self) -> Result<Connection, RegistryError> {
        if let State::Up(connection) = &*self.shared.state.borrow() {
            return Ok(connection.clone());
        }
        let mut states = self.shared.state.subscribe();
        loop {
            let (since, why) = match &*states.borrow_and_update() {
                State::Up(connection) => return Ok(connection.clone()),
                State::Down { since, why } => (*since, Arc::clone(why)),
            };
            let away = since.elapsed();
            let error = || RegistryError(format!("Redis ({}) is away for {} ms: {why}", self.config().place(), away.as_millis()));
            let Some(left) = self.config().call_timeout().checked_sub(away) else { return Err(error()) };
            if timeout(left, states.changed()).await.is_err() {
                return Err(error());
            }
        }
    }

    /// One answer, within the call timeout.
    pub(crate) async fn one(&self, command: &Cmd) -> Result<Value, RegistryError> {
        let answer = async { self.connection().await?.one(command).await.map_err(|why| self.failed(&why)) };
        self.in_time(answer).await
    }

    /// Answers in the order of the commands, within the call timeout; what a part of a Cluster did not answer is absent. An error only when
    /// nothing was answered.
    pub(crate) async fn each(&self, commands: Vec<Cmd>) -> Result<Vec<Option<Value>>, RegistryError> {
        let deadline = Instant::now() + self.config().call_timeout();
        let answers = self.connection().await?.each(commands, deadline).await;
        let failure = answers.iter().find_map(|answer| answer.as_ref().err()).map(|why| self.failed(why));
        match failure {
            Some(why) if answers.iter().all(Result::is_err) => Err(why),
            _ => Ok(answers.into_iter().map(Result::ok).collect()),
        }
    }

    /// One call of a script, within the call timeout.
    pub(crate) async fn script(&self, script: &Script, keys: &[&str], arguments: &[&str]) -> Result<Value, RegistryError> {
        let answer = async {
            let mut connection = self.connection().await?;
            let mut answer = connection.one(&script.by_hash(keys, arguments)).await;
            if answer.as_ref().is_err_and(is_unknown_script) {
                answer = connection.one(&script.in_full(keys, arguments)).await;
            }
            answer.map_err(|why| self.failed(&why))
        };
        self.in_time(answer).await
    }

    /// A script over many keys, one call for each, together within the call timeout. After a server has
    /// forgotten the script all calls are made again, so what is done twice must be what is done once; or, as for a charge, cost no more than a wait.
    pub(crate) async fn scripts(&self, script: &Script, calls: &[(String, Vec<String>)]) -> Result<Vec<Value>, RegistryError> {
        let commands = |make: fn(&Script, &[&str], &[&str]) -> Cmd| -> Vec<Cmd> {
            let one = |(key, arguments): &(String, Vec<String>)| {
                make(script, &[key], &arguments.iter().map(String::as_str).collect::<Vec<_>>())
            };
            calls.iter().map(one).collect()
        };
        let answer = async {
            let mut connection = self.connection().await?;
            let mut answers = connection.many(commands(Script::by_hash)).await;
            if answers.as_ref().is_err_and(is_unknown_script) {
                answers = connection.many(commands(Script::in_full)).await;
            }
            answers.map_err(|why| self.failed(&why))
        };
        self.in_time(answer).await
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        let limit = self.config().call_timeout();
        match timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(RegistryError(format!("Redis ({}) did not answer in {} ms", self.config().place(), limit.as_millis()))),
        }
    }

    fn failed(&self, why: &RedisError) -> RegistryError {
        if why.is_unrecoverable_error() || is_wrong_server(why) {
            self.shared.doubted.notify_one();
        }
        RegistryError(format!("Redis ({}): {}", self.config().place(), said(why)))
    }
}

fn is_unknown_script(why: &RedisError) -> bool {
    why.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// A replica, or a server that is still loading: the master is elsewhere, or will be.
fn is_wrong_server(why: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    matches!(why.kind(), ErrorKind::Server(ReadOnly | BusyLoading | MasterDown))
}

/// The error in words, without arguments of the command.
fn said(why: &RedisError) -> String {
    match (why.code(), why.detail()) {
        (Some(FOREIGN), detail) => format!("it belongs to cluster {}", detail.unwrap_or("?")),
        _ => why.to_string(),
    }
}

/// Keeps the link until it is dropped.
async fn keep(shared: Arc<Shared>) {
    let place = shared.config.place();
    let mut away: Option<Instant> = None;
    let mut tries = 0_u32;
    loop {
        let why = match Box::pin(connect(&shared)).await {
            Ok((connection, address)) => {
                if let Some(since) = away.take() {
                    tracing::info!(%place, away_ms = since.elapsed().as_millis() as u64, "Redis is back");
                }
                tries = 0;
                gauge!("switchboard_registry_reachable").set(1.0);
                shared.state.send_replace(State::Up(connection.clone()));
                watch_over(&shared, connection, address).await
            }
            Err(why) => why,
        };
        let foreign = why.code() == Some(FOREIGN);
        let why = said(&why);
        let since = *away.get_or_insert_with(|| {
            tracing::warn!(%place, %why, "Redis is away: the registry goes on without");
            Instant::now()
        });
        gauge!("switchboard_registry_reachable").set(0.0);
        shared.state.send_replace(State::Down { since, why: why.into() });
        sleep(if foreign { REFUSED_PAUSE } else { pause(tries) }).await;
        tries += 1;
    }
}

/// Doubles up to the longest; half to the whole of it, so that many processes don't come at once.
fn pause(tries: u32) -> Duration {
    let whole = BACK_OFF.0.saturating_mul(1 << tries.min(10)).min(BACK_OFF.1);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    let share = 50 + xxh3_64(&now.to_le_bytes()) % 51;
    whole * share as u32 / 100
}

async fn connect(shared: &Shared) -> RedisResult<connection::Found> {
    let (mut connection, address) = connection::find(&shared.target, &shared.config).await?;
    probe(shared, &mut connection).await?;
    Ok((connection, address))
}

/// Asks until the connection fails; says why it did.
async fn watch_over(shared: &Shared, mut connection: Connection, address: Option<String>) -> RedisError {
    let mut probes = 0_u32;
    let mut misses = 0_u32;
    loop {
        let _ = timeout(PROBE_EVERY, shared.doubted.notified()).await;
        probes += 1;
        match probe(shared, &mut connection).await {
            Ok(()) => misses = 0,
            Err(why) if connection.is_cluster() && misses < CLUSTER_MISSES_MAX && why.code() != Some(FOREIGN) => {
                misses += 1;
                sleep(BACK_OFF.0).await;
            }
            Err(why) => return why,
        }
        gauge!("switchboard_registry_reachable").set(if misses == 0 { 1.0 } else { 0.0 });
        if probes.is_multiple_of(PROBES_PER_VOTE) && has_moved(shared, address.as_deref()).await {
            return RedisError::from((ErrorKind::Io, "the sentinels name another master"));
        }
    }
}

/// Whether the sentinels name another master than this one.
async fn has_moved(shared: &Shared, address: Option<&str>) -> bool {
    let (Target::Sentinel { sentinels, master, .. }, Some(address)) = (&shared.target, address) else { return false };
    let named = Box::pin(connection::master_of(sentinels, master, &shared.config)).await;
    named.is_some_and(|named| named != address)
}

/// Writes this cluster's mark if there is none and reads it: Redis is there, a master, and ours.
async fn probe(shared: &Shared, connection: &mut Connection) -> RedisResult<()> {
    let config = &shared.config;
    let key = config.members_key("cluster");
    let mark = redis::cmd("SET").arg(&key).arg(&config.cluster_id).arg("NX").arg("EX").arg(KEPT_S).to_owned();
    let read = redis::cmd("GET").arg(&key).to_owned();
    let asking = async {
        // one after the other: a Cluster may answer two commands in any order
        connection.one(&mark).await?;
        redis::from_redis_value::<Option<String>>(connection.one(&read).await?).map_err(RedisError::from)
    };
    let answer = timeout(config.response_timeout(), asking).await;
    match answer.unwrap_or_else(|_| Err(RedisError::from((ErrorKind::Io, "no answer")))) {
        Ok(Some(found)) if found != config.cluster_id => {
            Err(redis::make_extension_error(FOREIGN.into(), Some(format!("{found}, this is {}", config.cluster_id))))
        }
        Ok(_) => Ok(()),
        Err(why) => Err(why),
    }
}
