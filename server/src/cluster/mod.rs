//! One process of a cluster: the same parts as the embedded server, on Kafka, Redis and Postgres, as far as its roles go. None of the three needs
//! to be there when it starts; what is away is named, waited for, and told by readiness.
//!
//! Order of a start: settings → ports → links → gateway → topics verified → partitions taken. Order of a drain: not ready → partitions given
//! away → clients told to move → producer flushed → left.

pub(crate) mod admin;
pub(crate) mod config;
mod audit;
mod mend;
mod owners;
mod parts;
mod roles;
mod shares;
mod standing;
mod watch;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use gateway::deliver::Sessions;
use gateway::{Gateway, Ports, http, listener};
use router::log::kafka::{KafkaLog, topics};
use router::members::reach::Reach;
use router::members::{Member, Members, Membership, Role as Lease, Roles, Troubles, Voice};
use router::registry::NodeId;
use router::registry::redis::{RedisLink, RedisRegistry};
use router::submit::kafka::KafkaSubmit;
use storage::lag::Lag;
use storage::link::{self, Credentials, Inbox, LinkDeliver};
use storage::push::Deliver;
use storage::receipt::NotKept;
use storage::store::postgres::PostgresStore;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Retention, Settings};
use crate::signal::Signals;
use crate::{secret, serve, telemetry, tls};
use config::{Cluster, Role};

/// Requests to rewind that wait; more are dropped and asked for again.
const REWINDS: usize = 256;
/// Of the drain's deadline, kept for the last records of the producer and the farewell.
const LAST_STEPS: Duration = Duration::from_secs(2);

/// What every role of a process stands on.
struct Process {
    node: NodeId,
    cluster: Cluster,
    log: Arc<KafkaLog>,
    registry: Arc<RedisRegistry>,
    store: Arc<PostgresStore>,
    members: Members,
    gateway: Arc<Gateway>,
    links: Arc<LinkDeliver>,
    retention: Retention,
    /// What is wrong with the partitions of this process, and how the others are told.
    troubled: Arc<watch::Troubled>,
    voice: Voice,
    /// To the routers of this process.
    rewinds: mpsc::Sender<router::consume::Rewind>,
}

/// Serves until a signal, then drains.
pub(crate) async fn run(settings: Settings, cluster: Cluster) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let metrics = telemetry::metrics()?;
    tokio::spawn(telemetry::upkeep(metrics.clone()));
    let tls = tls::start(&settings)?;
    let listener = listener::bind(settings.listen)?;
    // two lives of one process have one number; the boot tells them apart
    let node = NodeId { node: xxh3_64(cluster.name.as_bytes()) as u16, boot: rand::random() };
    info!(name = cluster.name, node = node.node, boot = format!("{:016x}", node.boot), roles = ?cluster.roles, "starts");

    let (process, asked, membership, _links) = stand_up(&settings, cluster, node).await?;
    let gateway = Arc::clone(&process.gateway);
    tokio::spawn(Arc::clone(&gateway).run_background());
    tokio::spawn(parts::tell_parts(Arc::clone(&process)));
    tokio::spawn(roles::follow_members(Arc::clone(&process)));
    tokio::spawn(watch::watch(Arc::clone(&process)));
    let routes = http::routes(&gateway, Arc::new(move || metrics.render()));
    serve::announce(&listener, &settings)?;
    let stop = CancellationToken::new();
    let accepting = tokio::spawn(listener::run(listener, Arc::clone(&gateway), routes, tls, stop.clone().cancelled_owned()));

    let work = CancellationToken::new();
    let mut working = tokio::spawn(work_in(Arc::clone(&process), asked, work.clone()));
    tokio::select! {
        () = signals.next() => {}
        // topics that break what the cluster stands on; without that it ends when it is told to
        ended = &mut working => return ended.context("the roles")?,
    }
    tokio::select! {
        drained = drain(&settings, &process, membership, (work, working)) => drained?,
        () = signals.next() => bail!("a second signal: stopped without draining; nothing accepted is lost"),
    }
    stop.cancel();
    accepting.await.context("the listener")?;
    process.store.close().await;
    info!("stopped");
    Ok(())
}

/// Everything a role needs, connected or trying to.
async fn stand_up(
    settings: &Settings,
    cluster: Cluster,
    node: NodeId,
) -> anyhow::Result<(Arc<Process>, mpsc::Receiver<router::consume::Rewind>, Membership, link::Listener)> {
    let log = KafkaLog::connect(&cluster.kafka).context("cluster.kafka")?;
    let store = Arc::new(PostgresStore::connect(&cluster.postgres).await.context("cluster.postgres")?);
    let redis = RedisLink::new(cluster.redis.clone()).context("cluster.redis")?;
    let secret = cluster.secret()?;
    let credentials = Arc::new(Credentials::new(node, &cluster.id, secret.as_deref()).context("cluster.secret_file")?);

    let sessions = Arc::new(Sessions::default());
    let local: Option<Arc<dyn Deliver>> = cluster.has(Role::Gateway).then(|| Arc::clone(&sessions) as _);
    let (rewinds, asked) = mpsc::channel(REWINDS);
    let (broke, holds) = (Arc::clone(&sessions.links_broke), Arc::clone(&sessions));
    let inbox = Inbox {
        deliver: local.clone(),
        rewinds: cluster.has(Role::Router).then(|| rewinds.clone()),
        superseded: Some(Arc::new(move |user, device, counter| holds.superseded(user, device, counter))),
        on_gap: Arc::new(move || broke.notify_one()),
    };
    let limits = link::Limits::default();
    let listening = link::listen(cluster.link, Arc::clone(&credentials), inbox, limits).await.context("cluster.link")?;
    let address = cluster.advertise.unwrap_or_else(|| listening.address());

    let roles =
        Roles { gateway: cluster.has(Role::Gateway), router: cluster.has(Role::Router), storage: cluster.has(Role::Storage) };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let member = Member {
        node,
        name: cluster.name.clone(),
        roles,
        address: Some(address),
        version: env!("CARGO_PKG_VERSION").into(),
        started_ms: u64::try_from(since.as_millis()).unwrap_or_default(),
        troubles: Troubles::default(),
        reach: Some(Reach::default()),
    };
    let membership = Membership::join(redis.clone(), member);
    let members = membership.members();
    let registry = Arc::new(RedisRegistry::new(redis, members.clone()));
    let find = members.clone();
    let links = Arc::new(LinkDeliver::new(credentials, Arc::new(move |node| find.view().address(node)), local, limits));

    let shards = cluster.postgres.shards()?;
    let lag = Lag { log: log.clone(), store: store.clone(), shards };
    let ports = Ports {
        submit: Arc::new(KafkaSubmit::new(&log).heeding(members.clone())),
        registry: registry.clone(),
        budgets: Some(registry.clone()),
        // docs/decisions/0011-receipts.md: a cluster keeps none yet
        marks: Arc::new(NotKept),
        store: store.clone(),
        lag: Some(Arc::new(lag)),
        links: Some(Arc::clone(&links) as _),
    };
    let tokens = secret::tokens(settings)?;
    let gateway = Gateway::new(settings.gateway.clone(), ports, node, sessions, tokens);
    if !cluster.has(Role::Gateway) {
        gateway.health.stands_without_canary();
    }
    let process = Process {
        node,
        cluster,
        log,
        registry,
        store,
        members,
        gateway,
        links,
        retention: settings.retention.clone(),
        troubled: Arc::default(),
        voice: membership.voice(),
        rewinds,
    };
    Ok((Arc::new(process), asked, membership, listening))
}

/// Verifies the topics, then does the work of the roles until `work` is cancelled.
///
/// # Errors
/// Topics that break what the cluster stands on.
async fn work_in(
    process: Arc<Process>,
    asked: mpsc::Receiver<router::consume::Rewind>,
    work: CancellationToken,
) -> anyhow::Result<()> {
    if work.run_until_cancelled(verified(&process)).await.transpose()?.is_none() {
        return Ok(());
    }
    let router = async {
        if process.cluster.has(Role::Router) {
            roles::route(&process, asked, work.clone()).await;
        }
    };
    let storage = async {
        if process.cluster.has(Role::Storage) {
            roles::store(&process, work.clone()).await;
        }
    };
    tokio::join!(router, storage, work.cancelled());
    Ok(())
}

/// Waits for the log, and looks whether its topics are what they must be.
async fn verified(process: &Process) -> anyhow::Result<()> {
    let mut reachable = process.log.reachable();
    loop {
        let up = reachable.wait_for(|up| *up).await.is_ok();
        match topics::verify(&process.cluster.kafka).await {
            Ok(()) => return Ok(()),
            Err(faults) if up && faults.iter().any(|fault| fault.is_of_topic()) => {
                let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                bail!("the topics are not what they must be:\n  {}", faults.join("\n  "));
            }
            Err(faults) => {
                let why = faults.first().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(why, "the topics could not be looked at and will be");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Hands over what is owned, then lets the clients go, under one deadline.
async fn drain(
    settings: &Settings,
    process: &Arc<Process>,
    membership: Membership,
    (work, working): (CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>),
) -> anyhow::Result<()> {
    info!(window = ?settings.drain_window, deadline = ?settings.drain_deadline, "draining");
    process.gateway.health.draining.store(true, std::sync::atomic::Ordering::Relaxed);
    for role in [Lease::Router, Lease::Storage] {
        membership.leave_role(role);
    }
    work.cancel();
    working.await.context("the roles")??;
    if process.cluster.has(Role::Gateway) {
        let deadline = settings.drain_deadline.saturating_sub(LAST_STEPS).max(settings.drain_window);
        let drained = process.gateway.drain(settings.drain_window, deadline).await;
        info!(told = drained.told, closed = drained.closed, "drained");
    }
    let log = Arc::clone(&process.log);
    tokio::task::spawn_blocking(move || log.close(LAST_STEPS)).await.context("the producer")?;
    if let Err(why) = membership.leave().await {
        info!(%why, "left without a farewell: the lease ends by itself");
    }
    Ok(())
}
