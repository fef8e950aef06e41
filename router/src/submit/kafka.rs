//! [`Submit`] of a cluster: an append to the `messages` topic. Accepted means that this record's own delivery report says so.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use protocol::record::Record;
use protocol::{ConversationId, ErrorCode};
use xxhash_rust::xxh3::xxh3_64;

use super::{Outcome, Report, Submit};
use crate::assign::Kind;
use crate::expand::{Shards, owners};
use crate::log::Topic;
use crate::log::kafka::producer::{InFlight, Producer, Waiter};
use crate::log::kafka::{KafkaConfig, KafkaLog};
use crate::members::{Members, Trouble, Troubles};

/// The partition of a conversation: fixed for the life of a cluster, the same in every build. `partitions` is at least 1.
pub fn partition_of(conversation: ConversationId, partitions: u16) -> u16 {
    let hash = xxh3_64(conversation.to_string().as_bytes());
    // the remainder is below a u16
    (hash % u64::from(partitions.max(1))) as u16
}

/// Why a send into this conversation would not get through now, as far as is known: its partition of `messages` is in trouble, or the virtual
/// shard of one of its members is. The worst of them.
pub fn in_the_way(
    troubles: &Troubles,
    conversation: ConversationId,
    partition: u16,
    shards: Shards,
) -> Option<(Kind, u16, Trouble)> {
    if troubles.is_empty() {
        return None;
    }
    let mailboxes = owners(conversation).into_iter().map(|owner| (Kind::Mailbox, shards.of(owner).0));
    let places = std::iter::once((Kind::Messages, partition)).chain(mailboxes);
    let troubled = places.filter_map(|(kind, number)| troubles.of(kind, number).map(|trouble| (kind, number, trouble)));
    troubled.min_by_key(|(_, _, trouble)| *trouble)
}

/// Makes records durable in the log of a cluster.
#[derive(Debug)]
pub struct KafkaSubmit {
    producer: Arc<Producer>,
    partitions: u16,
    record_max: usize,
    bytes_max: usize,
    bytes: Arc<AtomicUsize>,
    shards: Shards,
    members: Option<Members>,
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
            shards: Shards::new(partitions.mailbox).unwrap_or(Shards::ONE),
            members: None,
        }
    }

    /// Refuses, to be tried again, what would go into a partition that its owner says is in trouble: accepted, it could be forgotten by the log
    /// before it is worked in.
    #[must_use]
    pub fn heeding(mut self, members: Members) -> Self {
        self.members = Some(members);
        self
    }

    fn in_the_way(&self, conversation: ConversationId, partition: u16) -> Option<(Kind, u16, Trouble)> {
        let view = self.members.as_ref()?.view();
        in_the_way(view.troubles(), conversation, partition, self.shards)
    }
}

impl Submit for KafkaSubmit {
    fn submit(&self, record: Record, report: Report) {
        let payload = record.encode();
        if payload.len() > self.record_max {
            return report.settle(Outcome::Refused(ErrorCode::TooLarge));
        }
        let conversation = record.identity.conversation;
        let partition = partition_of(conversation, self.partitions);
        // canaries are there to be late
        let forced = record.identity.sender.is_server();
        let in_the_way =
            self.in_the_way(conversation, partition).filter(|(_, _, trouble)| *trouble != Trouble::Behind || !forced);
        if let Some((kind, number, trouble)) = in_the_way {
            let topic = kind.topic().name();
            metrics::counter!("switchboard_sends_held_total", "topic" => topic, "why" => trouble.name()).increment(1);
            tracing::debug!(topic, partition = number, why = trouble.name(), "a send is refused: it would not get through now");
            return report.settle(Outcome::Refused(ErrorCode::Unavailable));
        }
        if self.producer.stands((Topic::Messages, partition)) && !forced {
            metrics::counter!("switchboard_sends_not_queued_total", "queue" => "log", "why" => "stands").increment(1);
            return report.settle(Outcome::Refused(ErrorCode::Unavailable));
        }
        let Some(in_flight) = InFlight::take(&self.bytes, payload.len(), self.bytes_max) else {
            metrics::counter!("switchboard_log_appends_total", "topic" => Topic::Messages.name(), "outcome" => "unavailable")
                .increment(1);
            return report.settle(Outcome::Refused(ErrorCode::Unavailable));
        };
        let sent = self.producer.send((Topic::Messages, partition), payload, Waiter::Submit(report, in_flight));
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
    fn a_send_is_held_by_its_own_partition_and_by_the_shard_of_either_side() {
        let user = UserId::from_stored;
        let conversation = ConversationId::direct(user(5), user(9));
        let shards = Shards::new(4).unwrap();
        let held = |kind, number| {
            let mut troubles = Troubles::default();
            troubles.set(kind, number, Trouble::Late);
            in_the_way(&troubles, conversation, 7, shards).map(|(kind, number, _)| (kind, number))
        };
        assert_eq!(held(Kind::Messages, 7), Some((Kind::Messages, 7)));
        assert_eq!(held(Kind::Messages, 1), None, "a partition of messages and a shard of one number are two things");
        assert_eq!(held(Kind::Mailbox, 1), Some((Kind::Mailbox, 1)), "5 % 4 and 9 % 4");
        assert_eq!(held(Kind::Mailbox, 7), None);
        let (one, other) = (ConversationId::direct(user(6), user(7)), Shards::new(4).unwrap());
        let mut troubles = Troubles::default();
        troubles.set(Kind::Mailbox, 3, Trouble::Stopped);
        assert_eq!(in_the_way(&troubles, one, 0, other), Some((Kind::Mailbox, 3, Trouble::Stopped)), "the other side's shard");
    }

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
