//! The one producer of a process: idempotent, acks=all, always an explicit partition. A record's fate is told by its own delivery report
//! and by nothing else (K8), on the thread that polls the library.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use parking_lot::RwLock;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::oneshot;

use super::client::Context;
use super::config::KafkaConfig;
use super::health::{Doubt, Health};
use crate::log::{LogError, Topic};
use crate::submit::{Outcome, Report};

/// Records under way and not one report for so long: something is wrong.
const QUIET_MAX: Duration = Duration::from_millis(1500);

/// Who waits for a report.
pub(crate) enum Waiter {
    /// A caller of `append`.
    Append(oneshot::Sender<Result<u64, LogError>>),
    /// A sender's connection, and the bytes counted for it.
    Submit(Report, InFlight),
}

/// What travels with a record.
pub(crate) struct Pending {
    waiter: Waiter,
    topic: Topic,
    at: Instant,
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

struct Deliveries {
    client: Context,
    counts: Arc<Counts>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, what: &str, text: &str) {
        self.client.log(level, what, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, report: &DeliveryResult<'_>, pending: Box<Pending>) {
        self.counts.reported();
        let Pending { waiter, topic, at } = *pending;
        let result = match report {
            // a repeat the broker had already: durable, but the library doesn't know where
            Ok(message) => Ok(u64::try_from(message.offset()).ok()),
            Err((why, _)) => {
                if let Some(health) = &self.client.health {
                    health.doubt(Doubt::Some);
                    health.wake(); // the producer may have broken for good
                }
                tracing::debug!(topic = topic.name(), %why, "a record was not delivered");
                Err(after_hand_over(why))
            }
        };
        let outcome = match &result {
            Ok(_) => "done",
            Err(LogError::Refused(_)) => "refused",
            Err(_) => "unknown",
        };
        counter!("switchboard_log_appends_total", "topic" => topic.name(), "outcome" => outcome).increment(1);
        if result.is_ok() {
            histogram!("switchboard_log_append_seconds", "topic" => topic.name()).record(at.elapsed().as_secs_f64());
        }
        match waiter {
            // who no longer waits has given it up
            Waiter::Append(answer) => drop(answer.send(result.and_then(|offset| offset.ok_or(LogError::Unknown)))),
            Waiter::Submit(report, in_flight) => {
                drop(in_flight);
                // a failed report may still stand for a durable record: never a final refusal
                report.settle(if result.is_ok() { Outcome::Accepted } else { Outcome::Unknown });
            }
        }
    }
}

/// What a failed report means to who appends. Purged, timed out, fenced: a try before may have arrived.
fn after_hand_over(why: &KafkaError) -> LogError {
    match why.rdkafka_error_code() {
        Some(
            code @ (RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::PolicyViolation),
        ) => LogError::Refused(code.to_string()),
        _ => LogError::Unknown,
    }
}

/// What it means that the library doesn't take a record: it was never handed over.
fn before_hand_over(why: &KafkaError) -> LogError {
    match why.rdkafka_error_code() {
        Some(code @ (RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::TopicAuthorizationFailed)) => {
            LogError::Refused(code.to_string())
        }
        // also a topic that isn't there (yet): made, it heals
        _ => LogError::Unavailable(why.to_string()),
    }
}

type Live = ThreadedProducer<Deliveries>;

/// The producer, rebuilt when it broke for good.
pub(crate) struct Producer {
    config: KafkaConfig,
    names: [String; Topic::ALL.len()],
    health: Arc<Health>,
    counts: Arc<Counts>,
    live: RwLock<Arc<Live>>,
}

impl Producer {
    pub(super) fn new(config: &KafkaConfig, health: &Arc<Health>) -> Result<Self, LogError> {
        let counts = Arc::new(Counts { began: Instant::now(), under_way: AtomicUsize::new(0), heard_ms: AtomicU64::new(0) });
        let live = RwLock::new(Arc::new(build(config, health, &counts)?));
        let names = Topic::ALL.map(|topic| config.topic_name(topic));
        Ok(Self { config: config.clone(), names, health: Arc::clone(health), counts, live })
    }

    /// Whether sends make sense now.
    pub(crate) fn is_reachable(&self) -> bool {
        self.health.is_up()
    }

    /// Hands a record over, at once and without waiting. Taken, its waiter is told by its delivery report; else the waiter comes back.
    pub(crate) fn send(&self, to: (Topic, u16), payload: &[u8], waiter: Waiter) -> Result<(), (LogError, Waiter)> {
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
        let pending = Box::new(Pending { waiter, topic, at: Instant::now() });
        let key = partition.to_be_bytes();
        let mut record = BaseRecord::with_opaque_to(&self.names[topic as usize], pending)
            .partition(i32::from(partition)) // K14: nothing but our own arithmetic chooses it
            .payload(payload);
        if topic == Topic::RouterCheckpoints {
            record = record.key(key.as_slice()); // compacted by it
        }
        self.counts.sent();
        let live = Arc::clone(&self.live.read());
        live.send(record).map_err(|(why, record)| {
            self.counts.reported();
            let Err(refused) = refused(before_hand_over(&why), record.delivery_opaque.waiter) else {
                unreachable!("always an error")
            };
            refused
        })
    }

    /// Doubts when records are under way and nothing is heard, and builds a new producer where the old one broke for good (K9).
    pub(super) fn look_after(&self) {
        if self.counts.is_quiet() {
            self.health.doubt(Doubt::Some);
        }
        let bytes = self.counts.under_way.load(Ordering::Acquire);
        gauge!("switchboard_log_appends_under_way").set(bytes as f64);
        let broken = self.live.read().client().fatal_error();
        let Some((_, why)) = broken else { return };
        match build(&self.config, &self.health, &self.counts) {
            Ok(new) => {
                let old = std::mem::replace(&mut *self.live.write(), Arc::new(new));
                counter!("switchboard_log_producers_rebuilt_total").increment(1);
                tracing::error!(why, under_way = old.in_flight_count(), "the producer broke for good and was built anew");
                // what it still holds is reported as unknown while it is dropped, which takes a while: not on the thread of a caller
                while Arc::strong_count(&old) > 1 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                drop(old);
            }
            Err(why) => tracing::error!(%why, "the producer broke for good and can't be built anew"),
        }
    }

    /// Waits until everything is reported, at most so long. Returns how many records are left without a report (K7: never just dropped).
    pub(super) fn flush(&self, deadline: Duration) -> usize {
        let live = Arc::clone(&self.live.read());
        // what it answers is no proof (K8): the count is
        drop(live.flush(deadline));
        self.counts.under_way.load(Ordering::Acquire)
    }
}

fn build(config: &KafkaConfig, health: &Arc<Health>, counts: &Arc<Counts>) -> Result<Live, LogError> {
    let context = Deliveries { client: Context::new(health), counts: Arc::clone(counts) };
    config.producer().create_with_context(context).map_err(|why| LogError::Refused(format!("kafka settings: {why}")))
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

    #[test]
    fn only_what_cannot_ever_work_is_refused() {
        let failed = |code| after_hand_over(&KafkaError::MessageProduction(code));
        assert!(matches!(failed(RDKafkaErrorCode::MessageSizeTooLarge), LogError::Refused(_)));
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::PurgeInflight,
            RDKafkaErrorCode::Fatal,
        ] {
            assert_eq!(failed(code), LogError::Unknown, "{code}");
        }
        let local = |code| before_hand_over(&KafkaError::MessageProduction(code));
        assert!(matches!(local(RDKafkaErrorCode::QueueFull), LogError::Unavailable(_)));
    }
}
