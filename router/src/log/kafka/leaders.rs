//! Who leads which partition, and where brokers are: one task asks whichever broker answers, and all who append or follow look here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_ok;
use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::config::KafkaConfig;
use super::connection::{Broken, Connection};
use super::health::{Doubt, Health};
use crate::log::Topic;

/// A partition.
pub(crate) type Key = (Topic, u16);
/// A broker, as the brokers number themselves.
pub(crate) type BrokerId = i32;

/// Without need they are asked this often.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// While a topic is missing or a partition has no leader, this often.
const INCOMPLETE_EVERY: Duration = Duration::from_millis(500);
/// A doubt so soon after an answer is put to another broker: who is cut off from the others tells what was.
const SOON: Duration = Duration::from_secs(5);
/// A broker may take so long to say who leads.
const ASK_WAIT: Duration = Duration::from_secs(3);
/// Between two questions, while there is need.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause, while no broker answers.
const ASK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is known of the brokers, kept up to date by a task of its own.
#[derive(Debug)]
pub(super) struct Leaders {
    known: RwLock<Cluster>,
    /// Somebody met a broker that does not lead, or does not answer.
    doubt: Notify,
    told: watch::Sender<u64>,
    health: Arc<Health>,
}

/// The task that asks; dropped, it ends.
#[derive(Debug)]
pub(super) struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Leaders {
    /// Begins to ask, on this runtime.
    pub(super) fn new(config: &KafkaConfig, health: &Arc<Health>, runtime: &Handle) -> (Arc<Self>, Keeper) {
        let (told, _) = watch::channel(0);
        let (known, doubt, health) = (RwLock::default(), Notify::new(), Arc::clone(health));
        let leaders = Arc::new(Self { known, doubt, told, health });
        let keeper = runtime.spawn(keep(Arc::clone(&leaders), Asking::new(config)));
        (leaders, Keeper(keeper))
    }

    /// Who leads what may have changed.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// A broker did not answer.
    pub(super) fn unanswered(&self) {
        self.health.doubt(Doubt::Some);
        self.doubt();
    }

    /// Tells whenever the brokers have said something new.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Whether the brokers say that there is no such topic.
    pub(super) fn is_missing(&self, topic: Topic) -> bool {
        self.known.read().missing.contains(&topic)
    }

    /// Who leads a partition, as far as is known.
    pub(super) fn of(&self, key: Key) -> Option<BrokerId> {
        self.known.read().leaders.get(&key).map(|(leader, _)| *leader)
    }

    /// All leaders that are known.
    pub(super) fn all(&self) -> Vec<(Key, BrokerId)> {
        self.known.read().leaders.iter().map(|(key, (leader, _))| (*key, *leader)).collect()
    }

    /// All brokers that are known.
    pub(super) fn brokers(&self) -> Vec<BrokerId> {
        self.known.read().addresses.keys().copied().collect()
    }

    /// As if the brokers had said that there is this one.
    #[cfg(test)]
    pub(super) fn hear_of(&self, broker: BrokerId) {
        self.known.write().addresses.insert(broker, "127.0.0.1:1".to_owned());
        self.told.send_modify(|times| *times += 1);
    }

    /// Connects to a broker.
    pub(super) async fn connect(&self, broker: BrokerId) -> Result<Connection, Broken> {
        let address = self.known.read().addresses.get(&broker).cloned();
        let address = address.ok_or_else(|| Broken::Protocol(format!("broker {broker} is not known any more")))?;
        Connection::open(&address).await
    }

    /// Asks all brokers for a new name for a producer, and takes the first.
    pub(super) async fn producer_id(&self) -> Result<(i64, i16), Broken> {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(0);
        let ask = async |broker| {
            let answer: InitProducerIdResponse = self.connect(broker).await?.call(ApiKey::InitProducerId, &request).await?;
            match answer.error_code.err() {
                None => Ok((answer.producer_id.0, answer.producer_epoch)),
                Some(why) => Err(Broken::Protocol(format!("no producer id: {why}"))),
            }
        };
        let asked: Vec<_> = self.brokers().into_iter().map(|broker| Box::pin(ask(broker))).collect();
        if asked.is_empty() {
            return Err(Broken::Protocol("no broker is known".to_owned()));
        }
        match timeout(ASK_WAIT, select_ok(asked)).await {
            Ok(first) => first.map(|(name, _)| name),
            Err(_) => Err(Broken::Late(ASK_WAIT)),
        }
    }
}

async fn keep(leaders: Arc<Leaders>, mut asking: Asking) {
    let (mut asked, mut failures) = (None::<Instant>, 0_u32);
    loop {
        let every = if leaders.known.read().incomplete { INCOMPLETE_EVERY } else { REFRESH_EVERY };
        let due = asked.map_or(Duration::ZERO, |asked| every.saturating_sub(asked.elapsed()));
        let in_doubt = timeout(due, leaders.doubt.notified()).await.is_ok();
        if in_doubt && asked.is_some_and(|asked| asked.elapsed() < SOON) {
            asking.connection = None;
        }
        match timeout(ASK_WAIT, asking.cluster()).await.unwrap_or(Err(Broken::Late(ASK_WAIT))) {
            Ok(cluster) => {
                failures = 0;
                leaders.known.write().hears(cluster);
                asked = Some(Instant::now());
                leaders.told.send_modify(|times| *times += 1);
                sleep(ASK_PAUSE).await;
            }
            Err(why) => {
                failures += 1;
                tracing::debug!(%why, failures, "brokers do not say who leads what");
                leaders.health.doubt(Doubt::Some);
                leaders.doubt();
                sleep(ASK_PAUSE.saturating_mul(1 << failures.min(8)).min(ASK_PAUSE_MAX)).await;
            }
        }
    }
}

/// What the brokers say of themselves.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cluster {
    addresses: BTreeMap<BrokerId, String>,
    /// Who leads, and since which of the leaders' epochs.
    leaders: BTreeMap<Key, (BrokerId, i32)>,
    missing: Vec<Topic>,
    /// The brokers' own numbers of the topics: one that was made anew has another.
    ids: BTreeMap<Topic, u128>,
    /// Not all topics are there, or not all partitions are led.
    incomplete: bool,
}

impl Cluster {
    /// Takes over what a broker has said, but for leaders of a time before those that are known.
    fn hears(&mut self, said: Self) {
        let known = std::mem::replace(self, said);
        for (key, (leader, epoch)) in known.leaders {
            let same_topic = known.ids.get(&key.0) == self.ids.get(&key.0);
            let newer = self.leaders.get(&key).is_some_and(|(_, now)| *now < epoch);
            if same_topic && newer && self.addresses.contains_key(&leader) {
                self.leaders.insert(key, (leader, epoch));
            }
        }
    }
}

/// Asks one broker after the other, and keeps the connection to the one that has answered.
struct Asking {
    names: [String; Topic::ALL.len()],
    bootstrap: Vec<String>,
    known: Vec<String>,
    next: usize,
    connection: Option<Connection>,
}

impl Asking {
    fn new(config: &KafkaConfig) -> Self {
        let names = Topic::ALL.map(|topic| config.topic_name(topic));
        Self { names, bootstrap: config.brokers.clone(), known: Vec::new(), next: 0, connection: None }
    }

    /// Asks for leaders and addresses.
    async fn cluster(&mut self) -> Result<Cluster, Broken> {
        let topic = |name: &String| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(self.names.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = self.ask(ApiKey::Metadata, &request).await?;
        let cluster = read(&self.names, answer);
        self.known = cluster.addresses.values().cloned().collect();
        Ok(cluster)
    }

    async fn ask<A, B>(&mut self, api: ApiKey, request: &A) -> Result<B, Broken>
    where
        A: kafka_protocol::protocol::Encodable + kafka_protocol::protocol::HeaderVersion + kafka_protocol::protocol::Message,
        B: kafka_protocol::protocol::Decodable + kafka_protocol::protocol::HeaderVersion,
    {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let addresses: Vec<_> = self.known.iter().chain(&self.bootstrap).cloned().collect();
                let at = self.next % addresses.len().max(1);
                self.next = self.next.wrapping_add(1);
                Connection::open(&addresses[at]).await?
            }
        };
        let answer = connection.call(api, request).await?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

/// A topic's name as the codec wants it.
pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn read(names: &[String], answer: MetadataResponse) -> Cluster {
    let mut cluster = Cluster::default();
    for broker in answer.brokers {
        let host = broker.host.as_str();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        cluster.addresses.insert(broker.node_id.0, format!("{host}:{}", broker.port));
    }
    for found in answer.topics {
        let named = found.name.as_ref().and_then(|name| names.iter().position(|one| one == name.0.as_str()));
        let Some(topic) = named.map(|at| Topic::ALL[at]) else { continue };
        if found.error_code.err() == Some(ResponseError::UnknownTopicOrPartition) {
            cluster.missing.push(topic);
        }
        cluster.incomplete |= found.error_code.err().is_some();
        cluster.ids.insert(topic, found.topic_id.as_u128());
        for partition in found.partitions {
            match (u16::try_from(partition.partition_index), partition.leader_id.0) {
                (Ok(number), leader @ 0..) => drop(cluster.leaders.insert((topic, number), (leader, partition.leader_epoch))),
                _ => cluster.incomplete = true,
            }
        }
    }
    cluster
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_behind_takes_no_leader_back_and_a_topic_made_anew_begins_anew() {
        let key = (Topic::Mailbox, 1);
        let said = |leader, epoch, id| Cluster {
            addresses: [1, 2].map(|broker| (broker, format!("broker-{broker}:9092"))).into(),
            leaders: BTreeMap::from([(key, (leader, epoch))]),
            ids: BTreeMap::from([(Topic::Mailbox, id)]),
            ..Cluster::default()
        };
        let mut known = Cluster::default();
        known.hears(said(1, 4, 7));
        known.hears(said(2, 5, 7));
        known.hears(said(1, 4, 7));
        assert_eq!(known.leaders[&key], (2, 5), "what a broker that was cut off says");
        known.hears(Cluster { leaders: BTreeMap::new(), incomplete: true, ..said(1, 4, 7) });
        assert!(known.leaders.is_empty() && known.incomplete, "nobody leads it for now");
        known.hears(said(1, 6, 7));
        known.hears(said(2, 0, 8));
        assert_eq!(known.leaders[&key], (2, 0));
    }
}
