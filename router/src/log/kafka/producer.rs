//! The one producer of a process: idempotent, acks=all, always an explicit partition (K14). A record's fate is told by its own answer and by
//! nothing else (K8), from the task that heard it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{counter, gauge, histogram};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::append::{Appender, Fate, NotTaken};
use super::config::KafkaConfig;
use super::health::{Doubt, Health};
use super::leaders::Leaders;
use crate::log::{LogError, Topic};
use crate::submit::{Outcome, Report};

/// Records under way and not one report for so long: something is wrong.
const QUIET_MAX: Duration = Duration::from_millis(1500);
/// How often a flush looks whether all is reported.
const FLUSH_LOOK: Duration = Duration::from_millis(2);

/// Who waits for a report.
pub(crate) enum Waiter {
    /// A caller of `append`.
    Append(oneshot::Sender<Result<u64, LogError>>),
    /// A sender's connection, and the bytes counted for it.
    Submit(Report, InFlight),
}

/// What travels with a record. Dropped without a fate, its waiter hears that the outcome is unknown.
pub(crate) struct Pending {
    waiter: Waiter,
    topic: Topic,
    at: Instant,
    counts: Arc<Counts>,
}

/// Bytes that are counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct InFlight {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl InFlight {
    /// Counts `bytes`; none if that would be more than `max` in all. One record always fits.
    pub(crate) fn take(total: &Arc<AtomicUsize>, bytes: usize, max: usize) -> Option<Self> {
        let taken = total.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now == 0 || now.saturating_add(bytes) <= max).then(|| now + bytes)
        });
        taken.ok().map(|_| Self { total: Arc::clone(total), bytes })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Counts that outlive a rebuilt producer.
#[derive(Debug)]
struct Counts {
    began: Instant,
    under_way: AtomicUsize,
    /// Milliseconds after `began` of the last report, or of the first record after none.
    heard_ms: AtomicU64,
}

impl Counts {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn sent(&self) {
        if self.under_way.fetch_add(1, Ordering::AcqRel) == 0 {
            self.heard_ms.store(self.now_ms(), Ordering::Release);
        }
    }

    fn reported(&self) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        self.heard_ms.store(self.now_ms(), Ordering::Release);
    }

    fn is_quiet(&self) -> bool {
        let silent = self.now_ms().saturating_sub(self.heard_ms.load(Ordering::Acquire));
        self.under_way.load(Ordering::Acquire) > 0 && Duration::from_millis(silent) > QUIET_MAX
    }
}

impl super::append::Waiter for Pending {
    fn settle(self, fate: Fate) {
        let Self { waiter, topic, at, counts } = self;
        counts.reported();
        let (result, outcome) = match fate {
            Fate::Done(offset) => (Ok(offset), "done"),
            Fate::Refused(why) => (Err(LogError::Refused(why)), "refused"),
            Fate::NeverSent => (Err(LogError::Unavailable("no leader took it in time".into())), "unavailable"),
            Fate::Unknown => (Err(LogError::Unknown), "unknown"),
        };
        counter!("switchboard_log_appends_total", "topic" => topic.name(), "outcome" => outcome).increment(1);
        if result.is_ok() {
            histogram!("switchboard_log_append_seconds", "topic" => topic.name()).record(at.elapsed().as_secs_f64());
        }
        match waiter {
            // a repeat the broker had already is durable, but nobody knows where; who no longer waits has given it up
            Waiter::Append(answer) => drop(answer.send(result.and_then(|offset| offset.ok_or(LogError::Unknown)))),
            Waiter::Submit(report, in_flight) => {
                drop(in_flight);
                report.settle(match result {
                    Ok(_) => Outcome::Accepted,
                    Err(LogError::Unavailable(_)) => Outcome::Refused(protocol::ErrorCode::Unavailable),
                    // a failed report may still stand for a durable record: never a final refusal
                    Err(LogError::Refused(_) | LogError::Unknown) => Outcome::Unknown,
                });
            }
        }
    }
}

/// The producer.
pub(crate) struct Producer {
    config: KafkaConfig,
    health: Arc<Health>,
    counts: Arc<Counts>,
    appender: Appender<Pending>,
}

impl Producer {
    pub(super) fn new(config: &KafkaConfig, health: &Arc<Health>, leaders: &Arc<Leaders>, runtime: &Handle) -> Self {
        let counts = Arc::new(Counts { began: Instant::now(), under_way: AtomicUsize::new(0), heard_ms: AtomicU64::new(0) });
        let appender = Appender::new(config, leaders, runtime);
        Self { config: config.clone(), health: Arc::clone(health), counts, appender }
    }

    /// Whether sends make sense now.
    pub(crate) fn is_reachable(&self) -> bool {
        self.health.is_up()
    }

    /// Whether more comes for this partition than its broker takes, for longer than a burst. Not so while no broker answers at all.
    pub(crate) fn stands(&self, to: (Topic, u16)) -> bool {
        self.is_reachable() && self.appender.stands(to)
    }

    /// Hands a record over, at once and without waiting. Taken, its waiter is told by its own answer; else the waiter comes back.
    pub(crate) fn send(&self, to: (Topic, u16), payload: Bytes, waiter: Waiter) -> Result<(), (LogError, Waiter)> {
        let (topic, partition) = to;
        let refused = |why: LogError, waiter| {
            let outcome = if matches!(why, LogError::Refused(_)) { "refused" } else { "unavailable" };
            counter!("switchboard_log_appends_total", "topic" => topic.name(), "outcome" => outcome).increment(1);
            Err((why, waiter))
        };
        if partition >= self.config.partitions.of(topic) {
            return refused(LogError::Refused(format!("there is no partition {partition} of {}", topic.name())), waiter);
        }
        if payload.len() > self.config.max_message_bytes {
            let why = format!("a record of {} bytes, above max_message_bytes {}", payload.len(), self.config.max_message_bytes);
            return refused(LogError::Refused(why), waiter);
        }
        if !self.is_reachable() {
            return refused(LogError::Unavailable("no broker can be reached".into()), waiter);
        }
        let pending = Pending { waiter, topic, at: Instant::now(), counts: Arc::clone(&self.counts) };
        self.counts.sent();
        self.appender.append(to, payload, pending).or_else(|(why, pending)| {
            self.counts.reported();
            let why = match why {
                NotTaken::Full => "too much waits for the brokers".to_owned(),
                NotTaken::NoTopic => format!("there is no topic {}", self.config.topic_name(topic)), // made, it heals
            };
            refused(LogError::Unavailable(why), pending.waiter)
        })
    }

    /// Doubts when records are under way and nothing is heard.
    pub(super) fn look_after(&self) {
        if self.counts.is_quiet() {
            self.health.doubt(Doubt::Some);
        }
        gauge!("switchboard_log_appends_under_way").set(self.counts.under_way.load(Ordering::Acquire) as f64);
    }

    /// Waits until everything is reported, at most so long. Returns how many records are left without a report (K7: never just dropped).
    /// Blocks its thread.
    pub(super) fn flush(&self, deadline: Duration) -> usize {
        let since = Instant::now();
        loop {
            let left = self.counts.under_way.load(Ordering::Acquire);
            if left == 0 || since.elapsed() >= deadline {
                return left;
            }
            std::thread::sleep(FLUSH_LOOK);
        }
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("counts", &self.counts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_flight_are_bounded_and_given_back() {
        let total = Arc::default();
        let first = InFlight::take(&total, 100, 50).expect("one always fits");
        assert!(InFlight::take(&total, 1, 50).is_none());
        drop(first);
        let (a, b) = (InFlight::take(&total, 20, 50), InFlight::take(&total, 30, 50));
        assert!(a.is_some() && b.is_some() && InFlight::take(&total, 1, 50).is_none());
        drop((a, b));
        assert_eq!(total.load(Ordering::Acquire), 0);
    }
}
