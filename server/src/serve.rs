//! `switchboard serve`: telemetry and a runtime, then the server, whole and embedded or as one of a cluster.

use std::io::Write as _;

use anyhow::Context as _;
use tracing::info;

use crate::config::Settings;
use crate::{cluster, embedded, telemetry};

/// Serves until a signal, then drains.
pub(crate) fn serve(settings: Settings) -> anyhow::Result<()> {
    telemetry::log(&settings.log)?;
    // 10,000 sockets need as many descriptors; the soft limit is often 1,024
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(limit) if limit < settings.gateway.sockets_max as u64 => {
            info!(limit, sockets_max = settings.gateway.sockets_max, "the limit of open files bounds the sockets");
        }
        Ok(_) => {}
        Err(why) => tracing::warn!(%why, "the limit of open files stays as it is"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime")?;
    runtime.block_on(async {
        match settings.cluster.clone() {
            None => embedded::run(settings).await,
            Some(cluster) => cluster::run(settings, cluster).await,
        }
    })
}

/// Tells where the server is, on standard output for programs and people.
pub(crate) fn announce(listener: &tokio::net::TcpListener, settings: &Settings) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the address")?;
    let mut out = std::io::stdout();
    let scheme = if settings.gateway.tls.is_some() { "https" } else { "http" };
    writeln!(out, "listening on {scheme}://{address}")?;
    if settings.gateway.dev {
        writeln!(out, "development mode: open {scheme}://{address} in two tabs; `switchboard token --user 42` prints a token")?;
    }
    out.flush()?;
    info!(%address, data = %settings.data.display(), dev = settings.gateway.dev, "serving");
    Ok(())
}
