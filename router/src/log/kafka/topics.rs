//! The topics of a cluster: made once, checked at each start.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::client::Context;
use super::config::{BATCH_HEAD, KafkaConfig};
use crate::log::{LogError, Topic};

/// One question to the brokers may take so long.
const ASK_WAIT: Duration = Duration::from_secs(10);
/// New topics have their leaders after so long, or something is wrong.
const LEADERS_WAIT: Duration = Duration::from_secs(30);

/// Something about a topic that breaks what the cluster stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFault {
    /// Its name on the brokers.
    pub topic: String,
    /// What is there.
    pub found: String,
    /// What must be.
    pub wanted: String,
    /// What to do about it.
    pub fix: String,
}

impl TopicFault {
    /// Whether it is about a topic: otherwise the brokers did not answer.
    pub fn is_of_topic(&self) -> bool {
        self.topic != "(all)"
    }
}

impl fmt::Display for TopicFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, found, wanted, fix } = self;
        write!(f, "topic {topic}: {found}, must be {wanted}; {fix}")
    }
}

/// A topic as the brokers have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    partitions: usize,
    /// The lowest of any of its partitions.
    replicas: usize,
    leaders: bool,
    settings: BTreeMap<String, String>,
}

/// Makes the topics that are missing; leaves the others as they are. Takes at most about a minute.
///
/// # Errors
/// Brokers that do not answer, or do not do it.
pub async fn create(config: &KafkaConfig) -> Result<(), LogError> {
    config.check()?;
    let config = config.clone();
    blocking(move || create_now(&config)).await
}

/// Compares the topics with the settings. Takes at most about half a minute.
///
/// # Errors
/// Everything that is wrong, or that nobody answers.
pub async fn verify(config: &KafkaConfig) -> Result<(), Vec<TopicFault>> {
    let of_all = |why: LogError| {
        let fix = "see that the brokers run and are named rightly".to_owned();
        vec![TopicFault { topic: "(all)".into(), found: why.to_string(), wanted: "an answer of the brokers".into(), fix }]
    };
    config.check().map_err(of_all)?;
    let asked = config.clone();
    let found = blocking(move || find(&admin(&asked)?, &asked)).await.map_err(of_all)?;
    let faults: Vec<_> = Topic::ALL.iter().flat_map(|topic| judge(config, *topic, found.get(topic))).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, LogError> {
    spawn_blocking(work).await.unwrap_or_else(|why| Err(LogError::Unavailable(why.to_string())))
}

fn admin(config: &KafkaConfig) -> Result<AdminClient<Context>, LogError> {
    config.client().create_with_context(Context::quiet()).map_err(|why| LogError::Refused(format!("kafka settings: {why}")))
}

fn unavailable(why: impl fmt::Display) -> LogError {
    LogError::Unavailable(why.to_string())
}

/// What a topic is made with. The values are compared by [`judge`], but for those of comfort.
fn settings(config: &KafkaConfig, topic: Topic) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("min.insync.replicas", config.min_insync_replicas.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
        ("max.message.bytes", (config.max_message_bytes + 2 * BATCH_HEAD).to_string()),
        // the age of a record is the brokers' to say: a client with a wrong clock must not shorten retention
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        // as they were appended, which is as they are: what a broker packs by itself nobody here unpacks
        ("compression.type", "producer".to_owned()),
    ];
    if topic == Topic::RouterCheckpoints {
        settings.extend([
            ("cleanup.policy", "compact".to_owned()),
            // small segments that close soon: few old checkpoints are kept beside the newest
            ("segment.bytes", (16 * 1024 * 1024).to_string()),
            ("segment.ms", (10 * 60 * 1000).to_string()),
            ("min.cleanable.dirty.ratio", "0.1".to_owned()),
        ]);
    } else {
        settings.extend([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", config.retention.as_millis().to_string()),
            ("retention.bytes", "-1".to_owned()),
        ]);
    }
    settings
}

fn create_now(config: &KafkaConfig) -> Result<(), LogError> {
    let admin = admin(config)?;
    let there = find(&admin, config)?;
    let missing: Vec<_> = Topic::ALL.into_iter().filter(|topic| !there.contains_key(topic)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let made: Vec<_> = missing.iter().map(|topic| (config.topic_name(*topic), *topic, settings(config, *topic))).collect();
    let new = made.iter().map(|(name, topic, settings)| {
        let copies = TopicReplication::Fixed(i32::from(config.replication_factor));
        let new = NewTopic::new(name, i32::from(config.partitions.of(*topic)), copies);
        settings.iter().fold(new, |new, (key, value)| new.set(key, value))
    });
    let new: Vec<_> = new.collect();
    let options = AdminOptions::new().request_timeout(Some(ASK_WAIT)).operation_timeout(Some(ASK_WAIT));
    let results = Handle::current().block_on(admin.create_topics(&new, &options)).map_err(unavailable)?;
    for result in results {
        match result {
            Ok(name) => tracing::info!(topic = name, "topic made"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {} // somebody else was quicker
            Err((name, why)) => return Err(LogError::Refused(format!("topic {name} can't be made: {why}"))),
        }
    }
    let until = Instant::now() + LEADERS_WAIT;
    loop {
        let there = find(&admin, config)?;
        let ready = |topic: &Topic| {
            let wanted = usize::from(config.partitions.of(*topic));
            there.get(topic).is_some_and(|found| found.leaders && found.partitions == wanted)
        };
        if missing.iter().all(ready) {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(LogError::Unavailable("new topics have no leaders yet".into()));
        }
        Handle::current().block_on(sleep(Duration::from_millis(100)));
    }
}

/// Our topics, as far as they are there.
fn find(admin: &AdminClient<Context>, config: &KafkaConfig) -> Result<BTreeMap<Topic, Found>, LogError> {
    let metadata = admin.inner().fetch_metadata(None, ASK_WAIT).map_err(unavailable)?;
    let mut found = BTreeMap::new();
    for topic in Topic::ALL {
        let name = config.topic_name(topic);
        let Some(there) = metadata.topics().iter().find(|there| there.name() == name && there.error().is_none()) else {
            continue;
        };
        let partitions = there.partitions();
        let one = Found {
            partitions: partitions.len(),
            replicas: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
            leaders: partitions.iter().all(|partition| partition.leader() >= 0),
            settings: BTreeMap::new(),
        };
        found.insert(topic, one);
    }
    let names: Vec<_> = found.keys().map(|topic| config.topic_name(*topic)).collect();
    if names.is_empty() {
        return Ok(found);
    }
    let asked: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(ASK_WAIT));
    let described = Handle::current().block_on(admin.describe_configs(&asked, &options)).map_err(unavailable)?;
    for (one, resource) in found.values_mut().zip(described) {
        let resource = resource.map_err(unavailable)?;
        one.settings = resource.entries.into_iter().filter_map(|entry| entry.value.map(|value| (entry.name, value))).collect();
    }
    Ok(found)
}

/// What is wrong with a topic: pure.
fn judge(config: &KafkaConfig, topic: Topic, found: Option<&Found>) -> Vec<TopicFault> {
    let name = config.topic_name(topic);
    let fault = |found: String, wanted: String, fix: &str| TopicFault { topic: name.clone(), found, wanted, fix: fix.to_owned() };
    let Some(found) = found else {
        return vec![fault("it is missing".into(), "there".into(), "make the topics first")];
    };
    let mut faults = Vec::new();
    let wanted = usize::from(config.partitions.of(topic));
    if found.partitions != wanted {
        let fix = "set the count the cluster was made with; a topic must never get more partitions, and only a new cluster has another count";
        faults.push(fault(format!("{} partitions", found.partitions), wanted.to_string(), fix));
    }
    if found.replicas < usize::from(config.replication_factor) {
        let fix = "reassign its partitions to more brokers";
        faults.push(fault(format!("{} replicas", found.replicas), format!("at least {}", config.replication_factor), fix));
    }
    let number = |key: &str| found.settings.get(key).and_then(|value| value.parse::<i64>().ok());
    for (key, value) in settings(config, topic) {
        let there = found.settings.get(key).map_or("unknown", String::as_str);
        let (fits, at_least) = match key {
            "min.insync.replicas" | "unclean.leader.election.enable" | "cleanup.policy" | "compression.type" => {
                (there == value, false)
            }
            "max.message.bytes" => (number(key) >= value.parse().ok(), true),
            "retention.ms" | "retention.bytes" => {
                let wanted = value.parse::<i64>().unwrap_or(-1);
                (number(key).is_some_and(|there| there == -1 || wanted >= 0 && there >= wanted), true)
            }
            _ => continue,
        };
        if !fits {
            let wanted = if at_least && value != "-1" { format!("at least {value}") } else { value.clone() };
            faults.push(fault(format!("{key} is {there}"), wanted, &format!("set {key}={value} on the topic")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(config: &KafkaConfig, topic: Topic) -> Found {
        let settings = settings(config, topic).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Found { partitions: usize::from(config.partitions.of(topic)), replicas: 3, leaders: true, settings }
    }

    #[test]
    fn what_was_made_is_right_and_each_fault_is_named() {
        let config = KafkaConfig::default();
        for topic in Topic::ALL {
            assert_eq!(judge(&config, topic, Some(&good(&config, topic))), [], "{topic:?}");
            assert_eq!(judge(&config, topic, None).len(), 1);
        }
        let broken = |change: &dyn Fn(&mut Found)| {
            let mut found = good(&config, Topic::Mailbox);
            change(&mut found);
            judge(&config, Topic::Mailbox, Some(&found)).into_iter().map(|fault| fault.to_string()).collect::<Vec<_>>().join("\n")
        };
        let set = |key: &'static str, value: &'static str| {
            broken(&move |found: &mut Found| drop(found.settings.insert(key.to_owned(), value.to_owned())))
        };
        assert!(broken(&|found| found.partitions = 241).contains("241 partitions, must be 240"));
        assert!(broken(&|found| found.replicas = 2).contains("2 replicas, must be at least 3"));
        assert!(set("min.insync.replicas", "1").contains("min.insync.replicas is 1, must be 2"));
        assert!(set("min.insync.replicas", "3").contains("must be 2"), "one broker away would stop all");
        assert!(set("unclean.leader.election.enable", "true").contains("must be false"));
        assert!(set("cleanup.policy", "compact").contains("must be delete"));
        assert!(set("retention.ms", "1000").contains("at least 604800000"));
        assert!(set("retention.bytes", "1000").contains("must be -1"));
        assert_eq!(set("retention.ms", "-1"), "", "for ever is long enough");
        assert_eq!(set("retention.ms", "604800001"), "");
    }
}
