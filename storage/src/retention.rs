//! Removing what is too old: called by the server each minute. The store works in small steps, so that the cycle goes on beside it.

use std::time::{Duration, Instant};

use protocol::limits::KEY_DAYS_MIN;

use crate::store::{Cutoff, Retained, Store, StoreError};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How often [`pass`] is to be called.
pub const EVERY: Duration = Duration::from_secs(60);

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Events and messages, days by the time the gateway took them; none: for ever.
    pub event_days: Option<u64>,
    /// Identity keys, days by the id's own time. Less than [`KEY_DAYS_MIN`] counts as that: a repeat must always meet its key.
    pub key_days: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { event_days: None, key_days: KEY_DAYS_MIN }
    }
}

impl Policy {
    /// What is too old at a time, milliseconds since 1970.
    pub fn cutoff(&self, now_ms: u64) -> Cutoff {
        let before = |days: u64| now_ms.saturating_sub(days.saturating_mul(DAY_MS));
        Cutoff { events_before_ms: self.event_days.map_or(0, before), keys_before_ms: before(self.key_days.max(KEY_DAYS_MIN)) }
    }
}

/// One pass over the store. A pass that fails is no harm: the next one begins again.
///
/// # Errors
/// Those of [`Store::retain`].
pub async fn pass(store: &dyn Store, cutoff: Cutoff) -> Result<Retained, StoreError> {
    let start = Instant::now();
    let retained = store.retain(cutoff).await?;
    metrics::histogram!("switchboard_retention_seconds").record(start.elapsed());
    metrics::counter!("switchboard_retained_total", "what" => "events").increment(retained.events);
    metrics::counter!("switchboard_retained_total", "what" => "messages").increment(retained.messages);
    metrics::counter!("switchboard_retained_total", "what" => "keys").increment(retained.keys);
    if retained != Retained::default() {
        tracing::info!(retained.events, retained.messages, retained.keys, "retention removed what was too old");
    }
    Ok(retained)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_kept_for_less_than_repeats_may_come() {
        let now = 1_000 * DAY_MS;
        let cutoff = Policy { event_days: Some(1), key_days: 1 }.cutoff(now);
        assert_eq!(cutoff, Cutoff { events_before_ms: 999 * DAY_MS, keys_before_ms: (1_000 - KEY_DAYS_MIN) * DAY_MS });
        assert_eq!(Policy::default().cutoff(now).events_before_ms, 0);
    }
}
