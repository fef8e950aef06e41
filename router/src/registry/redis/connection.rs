//! One connection to Redis, however it is deployed, and how it is found.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::config::{RedisConfig, Target};

/// Commands of one batch that are on their way at once in a Cluster, where each goes to its own slot.
const CLUSTER_IN_FLIGHT: usize = 256;
/// Commands in one pipeline.
const PIPELINE_MAX: usize = 512;
/// Requests that wait for their answers on one connection; more wait for their turn, each no longer than its caller.
const IN_FLIGHT_MAX: usize = 4096;

/// A connection; clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn one(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Answers in the order of the commands. One error fails all; what was done stays done.
    pub(super) async fn many(&mut self, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        match self {
            Self::One(connection) => piped(connection, commands).await,
            Self::Cluster(connection) => {
                let coming = Box::pin(spread(connection, commands).buffered(CLUSTER_IN_FLIGHT));
                coming.map(|(_, answer)| answer).try_collect().await
            }
        }
    }

    /// Answers in the order of the commands, as far as they are there at the deadline: in a Cluster one part may be down while others answer.
    pub(super) async fn each(&mut self, commands: Vec<Cmd>, deadline: Instant) -> Vec<RedisResult<Value>> {
        let count = commands.len();
        match self {
            Self::One(connection) => match timeout_at(deadline, piped(connection, commands)).await {
                Ok(Ok(answers)) => answers.into_iter().map(Ok).collect(),
                Ok(Err(why)) => vec![Err(why); count],
                Err(_) => vec![Err(late("no answer in time")); count],
            },
            Self::Cluster(connection) => {
                let mut answers: Vec<_> = (0..count).map(|_| Err(late("no answer in time"))).collect();
                // as they come: one that hangs must not hide the others
                let mut coming = Box::pin(spread(connection, commands).buffer_unordered(CLUSTER_IN_FLIGHT));
                while let Ok(Some((at, answer))) = timeout_at(deadline, coming.next()).await {
                    if let Some(place) = answers.get_mut(at) {
                        *place = answer;
                    }
                }
                answers
            }
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

async fn piped(connection: &mut MultiplexedConnection, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
    let mut answers = Vec::with_capacity(commands.len());
    let mut commands = commands.into_iter().peekable();
    while commands.peek().is_some() {
        let mut pipe = redis::Pipeline::with_capacity(commands.len().min(PIPELINE_MAX));
        for command in commands.by_ref().take(PIPELINE_MAX) {
            pipe.add_command(command);
        }
        answers.extend(pipe.query_async::<Vec<Value>>(connection).await?);
    }
    Ok(answers)
}

/// Each command to its own slot, with its place in the batch; the client collects those for one server.
fn spread(
    connection: &ClusterConnection,
    commands: Vec<Cmd>,
) -> impl Stream<Item = impl Future<Output = (usize, RedisResult<Value>)> + use<>> + use<> {
    let connection = connection.clone();
    stream::iter(commands).enumerate().map(move |(at, command)| {
        let mut connection = connection.clone();
        async move { (at, command.query_async(&mut connection).await) }
    })
}

/// A connection that stands, and the `host:port` of the master behind Sentinel.
pub(super) type Found = (Connection, Option<String>);

fn late(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, what))
}

fn settings(config: &RedisConfig) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout()))
        .set_response_timeout(Some(config.response_timeout()))
        .set_pipeline_buffer_size(IN_FLIGHT_MAX)
        .set_concurrency_limit(IN_FLIGHT_MAX)
}

/// Longest time of the whole of connecting: address, connection, greeting.
fn patience(config: &RedisConfig) -> Duration {
    config.connect_timeout() + 2 * config.response_timeout()
}

async fn open(info: ConnectionInfo, config: &RedisConfig) -> RedisResult<MultiplexedConnection> {
    let client = Client::open(info)?;
    let settings = settings(config);
    let connecting = client.get_multiplexed_async_connection_with_config(&settings);
    // boxed: connecting is rare and its future is large
    timeout(patience(config), Box::pin(connecting)).await.unwrap_or_else(|_| Err(late("connecting takes too long")))
}

/// Connects to what the settings say.
pub(super) async fn find(target: &Target, config: &RedisConfig) -> RedisResult<Found> {
    match target {
        Target::Single(info) => Ok((Connection::One(open((**info).clone(), config).await?), None)),
        Target::Sentinel { sentinels, master, settings } => {
            let address = master_of(sentinels, master, config).await.ok_or_else(|| late("no sentinel names the master"))?;
            let info = format!("redis://{address}").as_str().into_connection_info()?.set_redis_settings(settings.clone());
            Ok((Connection::One(open(info, config).await?), Some(address)))
        }
        Target::Cluster(client) => {
            let connecting = timeout(2 * patience(config), Box::pin(client.get_async_connection()));
            let connection = connecting.await.unwrap_or_else(|_| Err(late("connecting takes too long")))?;
            Ok((Connection::Cluster(connection), None))
        }
    }
}

/// The master's address, as most of the sentinels that answer have it.
pub(super) async fn master_of(sentinels: &[ConnectionInfo], master: &str, config: &RedisConfig) -> Option<String> {
    let answers = join_all(sentinels.iter().map(|sentinel| ask(sentinel.clone(), master, config))).await;
    most_named(answers.into_iter().filter_map(Result::ok).flatten())
}

async fn ask(sentinel: ConnectionInfo, master: &str, config: &RedisConfig) -> RedisResult<Option<String>> {
    let mut connection = open(sentinel, config).await?;
    let asking = redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).to_owned();
    let address: Option<(String, u16)> = asking.query_async(&mut connection).await?;
    Ok(address.map(|(host, port)| if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }))
}

/// The address named most often; of several the one named first.
fn most_named(answers: impl Iterator<Item = String>) -> Option<String> {
    let mut votes: Vec<(String, usize)> = Vec::new();
    for address in answers {
        match votes.iter_mut().find(|(named, _)| *named == address) {
            Some((_, count)) => *count += 1,
            None => votes.push((address, 1)),
        }
    }
    let most = votes.iter().map(|(_, count)| *count).max()?;
    votes.into_iter().find(|(_, count)| *count == most).map(|(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_sentinel_is_outvoted() {
        let named = |addresses: &[&str]| most_named(addresses.iter().map(ToString::to_string));
        assert_eq!(named(&["old:1", "new:1", "new:1"]).as_deref(), Some("new:1"));
        assert_eq!(named(&["old:1", "new:1"]).as_deref(), Some("old:1"));
        assert_eq!(named(&[]), None);
    }
}
