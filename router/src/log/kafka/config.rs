//! Settings of the log of a cluster.

use std::time::Duration;

use rdkafka::ClientConfig;
use serde::{Deserialize, Deserializer};

use super::connection::REQUEST_WAIT;
use crate::log::{LogError, Topic};

/// How many partitions each topic has. Fixed when a cluster is made: another count would send a conversation elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Partitions {
    /// Of direct messages.
    pub messages: u16,
    /// Of group messages.
    pub group_messages: u16,
    /// Of mailboxes: the number of virtual shards.
    pub mailbox: u16,
    /// Of notifications.
    pub notifications: u16,
    /// Of analytics.
    pub analytics: u16,
}

impl Default for Partitions {
    fn default() -> Self {
        Self { messages: 100, group_messages: 50, mailbox: 240, notifications: 20, analytics: 30 }
    }
}

impl Partitions {
    /// How many a topic has. Router checkpoints have one for each partition that is routed.
    pub const fn of(&self, topic: Topic) -> u16 {
        match topic {
            Topic::Messages => self.messages,
            Topic::GroupMessages => self.group_messages,
            Topic::Mailbox => self.mailbox,
            Topic::Notifications => self.notifications,
            Topic::Analytics => self.analytics,
            Topic::RouterCheckpoints => self.messages.saturating_add(self.group_messages),
        }
    }
}

/// Where the log is and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Addresses to begin with, `host:port`: a list, or one text with commas.
    #[serde(deserialize_with = "list")]
    pub brokers: Vec<String>,
    /// Put before the name of each topic, so that several clusters can share brokers.
    pub topic_prefix: String,
    /// Partitions of each topic.
    pub partitions: Partitions,
    /// Copies of each record.
    pub replication_factor: u16,
    /// Copies that must have a record before it counts as durable.
    pub min_insync_replicas: u16,
    /// How long records are kept.
    #[serde(deserialize_with = "duration")]
    pub retention: Duration,
    /// The largest record, in bytes.
    pub max_message_bytes: usize,
    /// How long an idle producer waits for more records to go with the first. 0: what is there goes at once; what comes while a broker has not
    /// answered goes together anyway.
    #[serde(deserialize_with = "duration")]
    pub linger: Duration,
    /// How long an append may take, at least 120 s: whatever is given up ends the producer's sequence (K9).
    #[serde(deserialize_with = "duration")]
    pub message_timeout: Duration,
    /// Records in the producer's queue; above it appends are refused as unavailable.
    pub queue_records: usize,
    /// Bytes in the producer's queue, likewise.
    pub queue_bytes: usize,
    /// Bytes of sends without report; above it sends are refused as unavailable.
    pub submit_bytes: usize,
    /// How long a broker holds a fetch that finds nothing.
    #[serde(deserialize_with = "duration")]
    pub fetch_wait: Duration,
    /// Bytes a broker waits for, at most `fetch_wait`, before it answers a fetch. 1: what is there comes at once.
    pub fetch_min_bytes: u32,
    /// Bytes fetched ahead for each followed partition.
    pub follow_bytes: usize,
    /// The most of one answer of one broker, about. What is kept is bounded by `follow_bytes` for each partition.
    pub prefetch_bytes: usize,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
            topic_prefix: String::new(),
            partitions: Partitions::default(),
            replication_factor: 3,
            min_insync_replicas: 2,
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            max_message_bytes: 1024 * 1024,
            linger: Duration::ZERO,
            message_timeout: MESSAGE_TIMEOUT_MIN,
            queue_records: 100_000,
            queue_bytes: 256 * 1024 * 1024,
            submit_bytes: 64 * 1024 * 1024,
            fetch_wait: Duration::from_millis(50),
            fetch_min_bytes: 1,
            follow_bytes: 1024 * 1024,
            prefetch_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Room for the head of a batch around the largest record: twice as much on the topic.
pub(super) const BATCH_HEAD: usize = 2048;
/// K9: the shortest time after which an append is given up.
const MESSAGE_TIMEOUT_MIN: Duration = Duration::from_secs(120);

impl KafkaConfig {
    /// The name of a topic on the brokers.
    pub fn topic_name(&self, topic: Topic) -> String {
        format!("{}{}", self.topic_prefix, topic.name())
    }

    /// Says what is wrong with the settings, before anything is connected.
    ///
    /// # Errors
    /// [`LogError::Refused`] with the setting and its limit.
    pub fn check(&self) -> Result<(), LogError> {
        let wrong = |what: &str| Err(LogError::Refused(format!("kafka settings: {what}")));
        let name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        match self {
            _ if self.brokers.is_empty() => wrong("brokers is empty"),
            _ if self.topic_prefix.len() > 200 || !self.topic_prefix.bytes().all(name_byte) => {
                wrong("topic_prefix may have 200 letters, digits, '.', '_' and '-'")
            }
            _ if Topic::ALL.iter().any(|topic| self.partitions.of(*topic) == 0) => wrong("each topic needs a partition"),
            _ if self.min_insync_replicas == 0 || self.min_insync_replicas > self.replication_factor => {
                wrong("min_insync_replicas must be between 1 and replication_factor")
            }
            _ if self.message_timeout < MESSAGE_TIMEOUT_MIN => wrong("message_timeout must be at least 120s"),
            _ if !(1024..=100_000_000).contains(&self.max_message_bytes) => {
                wrong("max_message_bytes must be between 1024 and 100000000")
            }
            _ if self.fetch_wait > REQUEST_WAIT / 2 => wrong("fetch_wait must be at most 5s"),
            _ if self.follow_bytes < 64 * 1024 => wrong("follow_bytes must be at least 65536"),
            _ => Ok(()),
        }
    }

    /// What all clients have in common.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", "switchboard")
            .set("socket.nagle.disable", "true") // K11
            .set("socket.keepalive.enable", "true")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("socket.timeout.ms", "10000") // a frozen broker is given up after this
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000") // back within a second of the broker
            .set("topic.metadata.refresh.fast.interval.ms", "50") // a new leader is found quickly
            .set("retry.backoff.ms", "50")
            .set("log.connection.close", "false")
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Warning);
        client
    }

    /// A consumer without a group in all but name (K1, K2, K6, K12): the library wants an id, nobody ever joins.
    pub(super) fn consumer(&self, role: &str) -> ClientConfig {
        let mut client = self.client();
        let fetch_wait = self.fetch_wait.as_millis().to_string();
        client
            .set("group.id", format!("{}switchboard-{role}-{}", self.topic_prefix, std::process::id()))
            .set("enable.auto.commit", "false") // K7
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error") // a log that begins above a position is an alarm, never a jump
            .set("isolation.level", "read_uncommitted") // K13: no transactions, nothing to wait for
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", fetch_wait) // K11
            .set("fetch.min.bytes", self.fetch_min_bytes.max(1).to_string())
            .set("fetch.error.backoff.ms", "5") // K11
            .set("fetch.queue.backoff.ms", "5")
            .set("allow.auto.create.topics", "false");
        client
    }
}

/// One text with commas, or a list.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::One(text) => text.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect(),
        Either::Many(list) => list,
    })
}

/// A time such as "7d", "1h 30m", "500ms".
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time such as \"7d\" or \"500ms\"")))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(millis)?))?;
        rest = tail.trim_start();
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, millis) in
            [("500ms", 500), ("0s", 0), ("30s", 30_000), ("1h 30m", 5_400_000), ("7d", 604_800_000), ("1m5s", 65_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-1s", "1y", "99999999999999999999d", "5S"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn settings_are_read_and_checked() {
        let read = |text: &str| serde_json::from_str::<KafkaConfig>(text);
        let config = read(r#"{"brokers":"a:1, b:2","retention":"1d","partitions":{"mailbox":840}}"#).unwrap();
        assert_eq!(config.brokers, ["a:1", "b:2"]);
        assert_eq!((config.partitions.of(Topic::Mailbox), config.partitions.of(Topic::RouterCheckpoints)), (840, 150));
        assert_eq!(config.retention, Duration::from_secs(86_400));
        assert_eq!(read(r#"{"brokers":["a:1"]}"#).unwrap().brokers, ["a:1"]);
        assert!(read(r#"{"broker":"a:1"}"#).is_err(), "an unknown setting is an error");
        assert_eq!(config.check(), Ok(()));
        for broken in [
            KafkaConfig { brokers: Vec::new(), ..config.clone() },
            KafkaConfig { topic_prefix: "a b".into(), ..config.clone() },
            KafkaConfig { min_insync_replicas: 4, ..config.clone() },
            KafkaConfig { message_timeout: Duration::from_secs(30), ..config },
        ] {
            assert!(broken.check().is_err());
        }
    }
}
