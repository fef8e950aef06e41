//! Who leads which partition and where brokers are, asked of any broker that answers; and the producer's name, likewise.

use std::collections::BTreeMap;

use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::batch::Producer;
use super::connection::{Broken, Connection};
use super::queue::{BrokerId, Key};
use crate::log::Topic;
use crate::log::kafka::config::KafkaConfig;

/// What the brokers say of themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    /// Their addresses.
    pub(super) addresses: BTreeMap<BrokerId, String>,
    /// Leaders of partitions, where there is one.
    pub(super) leaders: BTreeMap<Key, BrokerId>,
    /// Topics that are not there.
    pub(super) missing: Vec<Topic>,
}

/// Asks one broker after the other, and keeps the connection to the one that has answered.
pub(super) struct Asking {
    names: [String; Topic::ALL.len()],
    bootstrap: Vec<String>,
    known: Vec<String>,
    next: usize,
    connection: Option<Connection>,
}

impl Asking {
    pub(super) fn new(config: &KafkaConfig) -> Self {
        let names = Topic::ALL.map(|topic| config.topic_name(topic));
        Self { names, bootstrap: config.brokers.clone(), known: Vec::new(), next: 0, connection: None }
    }

    /// Asks for leaders and addresses.
    pub(super) async fn cluster(&mut self) -> Result<Cluster, Broken> {
        let topic = |name: &String| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(self.names.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = self.ask(ApiKey::Metadata, &request).await?;
        let cluster = read(&self.names, answer);
        self.known = cluster.addresses.values().cloned().collect();
        Ok(cluster)
    }

    /// Asks for a new name for the producer.
    pub(super) async fn name(&mut self) -> Result<Producer, Broken> {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(0);
        let answer: InitProducerIdResponse = self.ask(ApiKey::InitProducerId, &request).await?;
        match answer.error_code.err() {
            None => Ok(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch }),
            Some(why) => {
                self.connection = None; // another broker may know better
                Err(Broken::Protocol(format!("no producer id: {why}")))
            }
        }
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
        for partition in found.partitions {
            if let (Ok(number), 0..) = (u16::try_from(partition.partition_index), partition.leader_id.0) {
                cluster.leaders.insert((topic, number), partition.leader_id.0);
            }
        }
    }
    cluster
}
