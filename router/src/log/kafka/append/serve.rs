//! The task of one broker: what waits for it goes out in one request; its answer settles each batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::queue::{Answer, Outgoing};
use super::{REPLICAS_WAIT_MS, Shared, Waiter, now_ms};
use crate::log::Topic;
use crate::log::kafka::connection::{Broken, Connection};
use crate::log::kafka::leaders::{BrokerId, Key, topic_name};

/// First pause after a connection broke; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// All replicas that are in sync.
const ACKS_ALL: i16 = -1;

/// Serves one broker for ever.
pub(super) async fn serve<W: Waiter>(shared: Arc<Shared<W>>, broker: BrokerId, wake: Arc<Notify>) {
    let (mut connection, mut failures) = (None, 0_u32);
    loop {
        let (outgoing, later) = shared.queue.lock().take(broker, Instant::now(), now_ms());
        if outgoing.is_empty() {
            wait(&wake, later).await;
            if !shared.linger.is_zero() {
                sleep(shared.linger).await;
            }
            continue;
        }
        let sent: Vec<_> = outgoing.iter().map(|one| one.key).collect();
        match send(&shared, broker, &mut connection, outgoing).await {
            Ok(response) => {
                failures = 0;
                settle(&shared, broker, sent, response);
            }
            Err(why) => {
                connection = None;
                failures += 1;
                tracing::debug!(broker, %why, failures, "an append request was not answered");
                shared.queue.lock().lost(broker, Instant::now());
                shared.leaders.unanswered(); // others may lead now
                sleep(PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(PAUSE_MAX)).await;
            }
        }
    }
}

async fn wait(wake: &Notify, later: Option<Instant>) {
    let woken = wake.notified();
    match later {
        Some(later) => drop(tokio::time::timeout_at(later.into(), woken).await),
        None => woken.await,
    }
}

async fn send<W>(
    shared: &Shared<W>,
    broker: BrokerId,
    connection: &mut Option<Connection>,
    outgoing: Vec<Outgoing>,
) -> Result<ProduceResponse, Broken> {
    let mut live = match connection.take() {
        Some(live) => live,
        None => shared.leaders.connect(broker).await?,
    };
    metrics::counter!("switchboard_log_append_requests_total").increment(1);
    metrics::counter!("switchboard_log_append_batches_total").increment(outgoing.len() as u64);
    let response = live.call(ApiKey::Produce, &request(shared, outgoing)).await?;
    *connection = Some(live);
    Ok(response)
}

fn request<W>(shared: &Shared<W>, outgoing: Vec<Outgoing>) -> ProduceRequest {
    let mut topics: BTreeMap<Topic, Vec<PartitionProduceData>> = BTreeMap::new();
    for Outgoing { key: (topic, partition), bytes } in outgoing {
        let data = PartitionProduceData::default().with_index(partition.into()).with_records(Some(bytes));
        topics.entry(topic).or_default().push(data);
    }
    let topic = |(topic, data): (Topic, Vec<PartitionProduceData>)| {
        TopicProduceData::default().with_name(topic_name(&shared.names[topic as usize])).with_partition_data(data)
    };
    ProduceRequest::default()
        .with_acks(ACKS_ALL)
        .with_timeout_ms(REPLICAS_WAIT_MS)
        .with_topic_data(topics.into_iter().map(topic).collect())
}

/// Settles each batch that was sent; one of which nothing was said goes out again.
fn settle<W: Waiter>(shared: &Shared<W>, broker: BrokerId, sent: Vec<Key>, response: ProduceResponse) {
    let mut answers: BTreeMap<Key, Answer> = sent.into_iter().map(|key| (key, Answer::Again)).collect();
    for found in response.responses {
        let Some(at) = shared.names.iter().position(|name| name == found.name.0.as_str()) else { continue };
        for partition in found.partition_responses {
            let Ok(number) = u16::try_from(partition.index) else { continue };
            let key = (Topic::ALL[at], number);
            if let Some(answer) = answers.get_mut(&key) {
                *answer = judge(key, partition.error_code.err(), partition.base_offset);
            }
        }
    }
    let now = Instant::now();
    let in_doubt = answers.values().any(|answer| !matches!(answer, Answer::Done(_)));
    let fates: Vec<_> = {
        let mut queue = shared.queue.lock();
        answers.into_iter().flat_map(|(key, answer)| queue.answered(broker, key, answer, now)).collect()
    };
    if in_doubt {
        shared.leaders.doubt();
    }
    shared.tell(fates);
}

/// What an error code means for a batch.
fn judge((topic, partition): Key, error: Option<ResponseError>, base_offset: i64) -> Answer {
    let offset = u64::try_from(base_offset).ok();
    let Some(error) = error else { return Answer::Done(offset) };
    tracing::debug!(topic = topic.name(), partition, %error, "a broker did not append a batch");
    match error {
        ResponseError::DuplicateSequenceNumber => Answer::Done(offset),
        ResponseError::OutOfOrderSequenceNumber
        | ResponseError::UnknownProducerId
        | ResponseError::InvalidProducerEpoch
        | ResponseError::ProducerFenced => Answer::OutOfSequence,
        again if again.is_retriable() => Answer::Again,
        // a fault of the broker's, not of the batch: whether it was appended nobody says
        ResponseError::UnknownServerError | ResponseError::Unknown(_) => Answer::OutOfSequence,
        never => Answer::Refused(never.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_means_what_it_says() {
        let of = |error| judge((Topic::Mailbox, 1), Some(error), -1);
        assert_eq!(judge((Topic::Mailbox, 1), None, 7), Answer::Done(Some(7)));
        assert_eq!(of(ResponseError::DuplicateSequenceNumber), Answer::Done(None), "it stands, nobody knows where");
        for error in [
            ResponseError::NotLeaderOrFollower,
            ResponseError::NotEnoughReplicas,
            ResponseError::NotEnoughReplicasAfterAppend,
            ResponseError::RequestTimedOut,
            ResponseError::UnknownTopicOrPartition,
            ResponseError::KafkaStorageError,
        ] {
            assert_eq!(of(error), Answer::Again, "{error}");
        }
        assert_eq!(of(ResponseError::OutOfOrderSequenceNumber), Answer::OutOfSequence);
        assert_eq!(of(ResponseError::Unknown(999)), Answer::OutOfSequence);
        for error in [ResponseError::MessageTooLarge, ResponseError::TopicAuthorizationFailed, ResponseError::InvalidRecord] {
            assert!(matches!(of(error), Answer::Refused(_)), "{error}");
        }
    }
}
