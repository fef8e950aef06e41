//! [`Submit`] of a cluster: an append to the `messages` topic. Accepted means that this record's own delivery report says so.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use protocol::record::Record;
use protocol::{ConversationId, ErrorCode};
use xxhash_rust::xxh3::xxh3_64;

use super::{Outcome, Report, Submit};
use crate::log::Topic;
use crate::log::kafka::producer::{InFlight, Producer, Waiter};
use crate::log::kafka::{KafkaConfig, KafkaLog};

/// The partition of a conversation: fixed for the life of a cluster, the same in every build. `partitions` is at least 1.
pub fn partition_of(conversation: ConversationId, partitions: u16) -> u16 {
    let hash = xxh3_64(conversation.to_string().as_bytes());
    // the remainder is below a u16
    (hash % u64::from(partitions.max(1))) as u16
}

/// Makes records durable in the log of a cluster.
#[derive(Debug)]
pub struct KafkaSubmit {
    producer: Arc<Producer>,
    partitions: u16,
    record_max: usize,
    bytes_max: usize,
    bytes: Arc<AtomicUsize>,
}

impl KafkaSubmit {
    /// Sends through the producer of `log`.
    pub fn new(log: &KafkaLog) -> Self {
        let KafkaConfig { partitions, submit_bytes, max_message_bytes, .. } = log.config();
        Self {
            producer: log.producer(),
            partitions: partitions.messages,
            record_max: *max_message_bytes,
            bytes_max: *submit_bytes,
            bytes: Arc::default(),
        }
    }
}

impl Submit for KafkaSubmit {
    fn submit(&self, record: Record, report: Report) {
        let payload = record.encode();
        if payload.len() > self.record_max {
            return report.settle(Outcome::Refused(ErrorCode::TooLarge));
        }
        let Some(in_flight) = InFlight::take(&self.bytes, payload.len(), self.bytes_max) else {
            metrics::counter!("switchboard_log_appends_total", "topic" => Topic::Messages.name(), "outcome" => "unavailable")
                .increment(1);
            return report.settle(Outcome::Refused(ErrorCode::Unavailable));
        };
        let partition = partition_of(record.identity.conversation, self.partitions);
        let sent = self.producer.send((Topic::Messages, partition), &payload, Waiter::Submit(report, in_flight));
        // not handed over: so it is certain that nothing of it will ever appear
        if let Err((why, Waiter::Submit(report, _))) = sent {
            tracing::debug!(%why, partition, "a send was not handed over");
            report.settle(Outcome::Refused(ErrorCode::Unavailable));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::UserId;

    #[test]
    fn the_partition_of_a_conversation_never_changes() {
        let of = |low, high, partitions| {
            partition_of(ConversationId::direct(UserId::from_stored(low), UserId::from_stored(high)), partitions)
        };
        assert_eq!(of(42, 43, 100), of(43, 42, 100), "both sides agree");
        let stable = [of(1, 2, 100), of(42, 43, 100), of(42, 43, 7), of(7, u64::MAX, 100), of(1, 1, 1)];
        assert_eq!(stable, [75, 67, 0, 34, 0], "a change sends conversations elsewhere: order and identity would break");
        let used: std::collections::BTreeSet<_> = (1..2000).map(|user| of(user, user + 1, 100)).collect();
        assert_eq!(used.len(), 100, "all partitions are used");
    }
}
