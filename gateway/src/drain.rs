//! Drain, in order, under one deadline: not ready, refuse new connections, tell clients to move spread over a window, serve them until they
//! go, close who stays, write the cursors. (Then the server closes the commit cycle and exits 0.)

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::CloseCode;
use rand::RngExt as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::node::Gateway;

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Sessions that were told to move.
    pub told: usize,
    /// Sessions that had to be closed.
    pub closed: usize,
}

/// Kept of the deadline for closing who stays and writing cursors.
const LAST_STEPS: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

impl Gateway {
    /// Drains this gateway. `window`: over which clients are told to go; `deadline`: by when this returns.
    pub async fn drain(&self, window: Duration, deadline: Duration) -> Drained {
        let end = Instant::now() + deadline;
        self.health.draining.store(true, Ordering::Relaxed);
        let sessions = self.sessions.all();
        let window_ms = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        for outbox in &sessions {
            outbox.move_after(rand::rng().random_range(0..=window_ms));
        }
        let by_themselves = end.checked_sub(LAST_STEPS).unwrap_or(end).max(Instant::now() + POLL);
        let gone = timeout_at(by_themselves, self.empty()).await;
        let left = self.sessions.all();
        for outbox in &left {
            outbox.close(CloseCode::Draining);
        }
        if gone.is_err() && timeout_at(end.checked_sub(POLL).unwrap_or(end), self.empty()).await.is_err() {
            tracing::warn!(sockets = self.sockets.load(Ordering::Relaxed), "the drain's deadline ends with open sockets");
        }
        self.cursors.flush().await;
        self.receipts.flush_reads().await;
        self.receipts.flush_deliveries(Duration::ZERO).await;
        // the canaries' sessions have no socket
        let canaries = usize::from(self.config.canaries);
        Drained { told: sessions.len().saturating_sub(canaries), closed: left.len().saturating_sub(canaries) }
    }

    async fn empty(&self) {
        while self.sockets.load(Ordering::Relaxed) > 0 {
            sleep(POLL).await;
        }
    }
}
