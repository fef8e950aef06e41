//! TLS of the listener: read at the start, read again when the files change or at SIGHUP.

use std::sync::Arc;

use anyhow::Context as _;
use gateway::tls::Tls;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Settings;

/// rustls' one implementation of cryptography for the whole process, before anything asks for it.
pub(crate) fn choose_cryptography() {
    // it fails only if one is chosen already, and there is no other in the tree
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Certificate and key of the settings, looked after from now on; none: the port is plain, and SIGHUP means what it always does.
pub(crate) fn start(settings: &Settings) -> anyhow::Result<Option<Arc<Tls>>> {
    let Some(config) = &settings.gateway.tls else { return Ok(None) };
    let tls = Arc::new(Tls::load(config)?);
    tokio::spawn(Arc::clone(&tls).follow());
    let mut hangups = signal(SignalKind::hangup()).context("signals")?;
    let reloads = Arc::clone(&tls);
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let tls = Arc::clone(&reloads);
            // it is told and counted there
            let _ = tokio::task::spawn_blocking(move || tls.reload()).await;
        }
    });
    Ok(Some(tls))
}
