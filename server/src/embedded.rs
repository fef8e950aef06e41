//! The whole server in one process: store, commit cycle, registry and gateway, wired and, at the end, unwired in order.

use std::sync::Arc;

use anyhow::Context as _;
use gateway::deliver::Sessions;
use gateway::node::now_ms;
use gateway::{Gateway, Ports, http, listener};
use router::registry::NodeId;
use router::registry::memory::MemoryRegistry;
use storage::cycle::{self, Cycle};
use storage::retention::{self, Policy};
use storage::store::embedded::EmbeddedStore;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{Retention, Settings};
use crate::signal::Signals;
use crate::{accounts, secret, serve, telemetry, tls};

/// Serves until a signal, then drains.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let metrics = telemetry::metrics()?;
    tokio::spawn(telemetry::upkeep(metrics.clone()));
    let tokens = secret::tokens(&settings)?;
    let tls = tls::start(&settings)?;
    let listener = listener::bind(settings.listen)?;
    secret::make_folder(&settings.data)?;

    let options = storage::store::embedded::Options { cache_bytes: settings.store.cache_bytes, ..Default::default() };
    let store = Arc::new(EmbeddedStore::open(&settings.data, options).await.context("the store")?);
    let node = NodeId { node: 0, boot: rand::random() };
    let registry = Arc::new(MemoryRegistry::default());
    let sessions = Arc::new(Sessions::default());
    let parts = cycle::Parts {
        store: Arc::clone(&store),
        registry: registry.clone(),
        deliver: sessions.clone(),
        runtime: tokio::runtime::Handle::current(),
        limits: cycle::Limits { queue_records: settings.store.queue, ..Default::default() },
    };
    let cycle = Cycle::start(parts).context("the commit cycle")?;

    let ports = Ports {
        submit: cycle.clone(),
        registry,
        budgets: None,
        marks: cycle.clone(),
        store: store.clone(),
        lag: None,
        links: None,
    };
    let gateway = Gateway::new(settings.gateway.clone(), ports, node, sessions, tokens);
    let accounts = accounts::open(&settings, &gateway).await?;
    tokio::spawn(Arc::clone(&accounts).run(now_ms));
    tokio::spawn(Arc::clone(&gateway).run_background());
    tokio::spawn(retain(Arc::clone(&store), settings.retention.clone()));

    let routes = http::routes(&gateway, Arc::new(move || metrics.render()));
    serve::announce(&listener, &settings)?;
    let stop = CancellationToken::new();
    let accepting = tokio::spawn(listener::run(listener, Arc::clone(&gateway), routes, tls, stop.clone().cancelled_owned()));

    signals.next().await;
    tokio::select! {
        drained = drain(&settings, &gateway, &cycle) => drained?,
        () = signals.next() => anyhow::bail!("a second signal: stopped without draining; nothing accepted is lost"),
    }
    stop.cancel();
    accepting.await.context("the listener")?;
    store.close().await;
    accounts.close().await;
    info!("stopped");
    Ok(())
}

/// Not ready, clients told to move, served until they go; then the last commits. Under one deadline.
async fn drain(settings: &Settings, gateway: &Gateway, cycle: &Arc<Cycle>) -> anyhow::Result<()> {
    info!(window = ?settings.drain_window, deadline = ?settings.drain_deadline, "draining");
    let drained = gateway.drain(settings.drain_window, settings.drain_deadline).await;
    let cycle = Arc::clone(cycle);
    tokio::task::spawn_blocking(move || cycle.close()).await.context("the commit cycle")?;
    info!(told = drained.told, closed = drained.closed, "drained");
    Ok(())
}

/// Removes what is too old, for ever.
async fn retain(store: Arc<EmbeddedStore>, retention: Retention) {
    let policy = Policy { event_days: (retention.days > 0).then_some(retention.days), key_days: retention.key_days };
    let mut every = tokio::time::interval(retention.every);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        if let Err(why) = retention::pass(&*store, policy.cutoff(now_ms())).await {
            tracing::error!(%why, "retention failed and will be tried again");
        }
    }
}
