//! What runs beside the requests: sessions ended by another process are found, signs of life are written, what is old is forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::error::AccountsError;
use crate::revoked::SESSIONS_MAX;
use crate::service::Accounts;
use crate::store::{answers, challenges, sessions};

/// How often ended sessions are looked for: a socket of one closes within 5 s.
const LOOK: Duration = Duration::from_secs(1);
/// Looked for from so long before the last look that was good, so that none is missed by two clocks. Milliseconds.
const BACK_MS: u64 = 60_000;
/// Looks between two writings of signs of life.
const WRITE: u64 = 30;
/// Looks between two cleanings.
const TIDY: u64 = 60;
/// A number may ask for so many codes in a day; older ones count for nothing. Milliseconds.
const DAY_MS: u64 = 24 * 3600 * 1000;

impl Accounts {
    /// Runs for ever. `now_ms`: the clock of the process, milliseconds since 1970.
    pub async fn run(self: Arc<Self>, now_ms: fn() -> u64) {
        let mut every = interval(LOOK);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looks, mut failing) = (0u64, false);
        loop {
            every.tick().await;
            looks += 1;
            let done = self.round(looks, now_ms()).await;
            match (&done, failing) {
                (Err(why), false) => tracing::error!(%why, "accounts cannot be kept in order"),
                (Ok(()), true) => tracing::info!("accounts are in order again"),
                _ => {}
            }
            failing = done.is_err();
        }
    }

    async fn round(&self, looks: u64, now_ms: u64) -> Result<(), AccountsError> {
        self.look(now_ms).await?;
        if looks.is_multiple_of(WRITE) {
            self.write_seen().await?;
        }
        if looks.is_multiple_of(TIDY) {
            self.tidy(now_ms).await?;
        }
        Ok(())
    }

    /// Refuses the tokens of sessions that another process has ended.
    ///
    /// # Errors
    /// [`AccountsError::Unavailable`]; the next look finds them.
    pub async fn look(&self, now_ms: u64) -> Result<(), AccountsError> {
        // however long the looks before this one have failed; a clock that was set back begins where it is now
        let since_ms = self.looked_ms.load(Ordering::Relaxed).min(now_ms).saturating_sub(BACK_MS);
        for ended in sessions::ended_since(self.store.readers(), since_ms, now_ms, SESSIONS_MAX).await? {
            self.refuse(&ended);
        }
        self.looked_ms.store(now_ms, Ordering::Relaxed);
        Ok(())
    }

    /// Writes when sessions were seen last.
    pub(crate) async fn write_seen(&self) -> Result<(), AccountsError> {
        let seen: Vec<_> = std::mem::take(&mut *self.seen.lock()).into_iter().collect();
        if seen.is_empty() {
            return Ok(());
        }
        let mut change = self.store.begin().await?;
        sessions::seen(&mut change, &seen).await?;
        Ok(change.commit().await?)
    }

    /// Forgets what is too old.
    ///
    /// # Errors
    /// [`AccountsError::Unavailable`].
    pub async fn tidy(&self, now_ms: u64) -> Result<(), AccountsError> {
        self.limits.tidy();
        self.revoked.tidy(now_ms);
        let mut change = self.store.begin().await?;
        challenges::forget(&mut change, now_ms.saturating_sub(DAY_MS)).await?;
        sessions::forget(&mut change, now_ms).await?;
        answers::forget(&mut change, now_ms).await?;
        Ok(change.commit().await?)
    }
}
