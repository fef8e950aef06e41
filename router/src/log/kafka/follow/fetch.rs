//! The task of one broker: fetches what is followed of the partitions it leads, one request after the other, and puts it into their buffers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use kafka_protocol::error::{ParseResponseErrorCode as _, ResponseError};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse};
use kafka_protocol::records::{Record, RecordBatchDecoder};
use metrics::counter;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::session::{Asked, Session};
use super::{Fetched, Followed, Next, Shared};
use crate::log::Topic;
use crate::log::kafka::connection::{Broken, Connection};
use crate::log::kafka::leaders::{BrokerId, Key, topic_name};

/// First pause after a connection broke; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A partition that cannot be fetched rests so long.
const REST: Duration = Duration::from_millis(100);
/// Before the length of a batch: its offset and the length itself.
const BATCH_HEAD: usize = 12;

/// Serves one broker for ever.
pub(super) async fn serve(shared: Arc<Shared>, broker: BrokerId, wake: Arc<Notify>) {
    let (mut connection, mut session, mut failures, mut refusals) = (None, Session::default(), 0_u32, 0_u32);
    loop {
        let followed = shared.wanted_of(broker, Instant::now());
        if followed.is_empty() {
            if shared.follows_of(broker) {
                // all of it rests, and is looked at again
                drop(tokio::time::timeout(REST, wake.notified()).await);
            } else {
                wake.notified().await;
            }
            continue;
        }
        let wanted = followed.iter().map(|(key, (_, next))| (*key, *next)).collect();
        let asked = session.ask(&wanted);
        match fetch(&shared, broker, &mut connection, asked).await {
            Ok(response) => {
                failures = 0;
                match response.error_code.err() {
                    None => {
                        session.answered(response.session_id);
                        refusals = 0;
                        take(&shared, &followed, response);
                    }
                    Some(why) => {
                        tracing::debug!(broker, %why, refusals, "a fetch session begins anew");
                        session.reset();
                        refusals += 1;
                        if refusals > 1 {
                            shared.leaders.doubt();
                            sleep(pause(refusals - 1)).await;
                        }
                    }
                }
            }
            Err(why) => {
                (connection, failures) = (None, failures + 1);
                session.reset();
                tracing::debug!(broker, %why, failures, "a fetch was not answered");
                shared.leaders.unanswered(); // others may lead now
                sleep(pause(failures)).await;
            }
        }
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(PAUSE_MAX)
}

async fn fetch(
    shared: &Shared,
    broker: BrokerId,
    connection: &mut Option<Connection>,
    asked: Asked,
) -> Result<FetchResponse, Broken> {
    let mut live = match connection.take() {
        Some(live) => live,
        None => shared.leaders.connect(broker).await?,
    };
    let response = live.call(ApiKey::Fetch, &request(shared, asked)).await?;
    *connection = Some(live);
    Ok(response)
}

fn request(shared: &Shared, asked: Asked) -> FetchRequest {
    let name = |topic: Topic| topic_name(&shared.names[topic as usize]);
    let mut topics: BTreeMap<Topic, Vec<FetchPartition>> = BTreeMap::new();
    for ((topic, partition), Next { offset, epoch }) in asked.named {
        let wanted = FetchPartition::default()
            .with_partition(partition.into())
            .with_fetch_offset(i64::try_from(offset).unwrap_or(i64::MAX))
            .with_last_fetched_epoch(epoch)
            .with_partition_max_bytes(shared.fetch.partition_bytes);
        topics.entry(topic).or_default().push(wanted);
    }
    let mut forgotten: BTreeMap<Topic, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in asked.forgotten {
        forgotten.entry(topic).or_default().push(partition.into());
    }
    let named = |(topic, partitions)| FetchTopic::default().with_topic(name(topic)).with_partitions(partitions);
    let left = |(topic, partitions)| ForgottenTopic::default().with_topic(name(topic)).with_partitions(partitions);
    FetchRequest::default()
        .with_max_wait_ms(shared.fetch.wait_ms)
        .with_min_bytes(shared.fetch.min_bytes)
        .with_max_bytes(shared.fetch.bytes)
        .with_isolation_level(0) // K13: no transactions, nothing to wait for
        .with_session_id(asked.id)
        .with_session_epoch(asked.epoch)
        .with_topics(topics.into_iter().map(named).collect())
        .with_forgotten_topics_data(forgotten.into_iter().map(left).collect())
}

/// Puts what came into the buffers of the follows it was asked for (K4).
fn take(shared: &Shared, asked: &BTreeMap<Key, (Arc<Followed>, Next)>, response: FetchResponse) {
    for found in response.responses {
        let Some(at) = shared.names.iter().position(|name| name == found.topic.0.as_str()) else { continue };
        for partition in found.partitions {
            let Ok(number) = u16::try_from(partition.partition_index) else { continue };
            let key = (Topic::ALL[at], number);
            let Some((followed, next)) = asked.get(&key) else { continue };
            match partition.error_code.err() {
                None if partition.diverging_epoch.epoch >= 0 => {
                    let at = u64::try_from(partition.diverging_epoch.end_offset).unwrap_or(0);
                    tracing::error!(
                        topic = key.0.name(),
                        partition = number,
                        at,
                        read = next.offset,
                        "the log was cut under its reader"
                    );
                    followed.is_cut(at);
                }
                None => {
                    if let Ok(end) = u64::try_from(partition.high_watermark) {
                        followed.state.lock().heard_end(end, Instant::now());
                    }
                    fill(shared, key, (followed, next.offset), partition.records.unwrap_or_default());
                }
                Some(why) => failed(shared, key, followed, why),
            }
        }
    }
}

/// A partition that could not be fetched. Whoever reads it finds out whether it was cut.
fn failed(shared: &Shared, (topic, partition): Key, followed: &Followed, why: ResponseError) {
    tracing::debug!(topic = topic.name(), partition, %why, "a partition was not fetched");
    followed.rest(Instant::now() + REST, why == ResponseError::OffsetOutOfRange);
    if why != ResponseError::OffsetOutOfRange {
        shared.leaders.doubt();
    }
}

/// Takes the records that a partition has from an offset on.
fn fill(shared: &Shared, (topic, partition): Key, (followed, from): (&Followed, u64), records: Bytes) {
    let (mut records, mut from, mut kept) = (records, from, false);
    while let Some(batch) = next_batch(&mut records) {
        let decoded = match RecordBatchDecoder::decode(&mut batch.clone()) {
            Ok(decoded) => decoded.records,
            Err(why) => {
                // damaged on the way or on the disk: it is fetched again, and never passed over
                tracing::error!(topic = topic.name(), partition, %why, "a batch of the log cannot be read");
                counter!("switchboard_log_fetched_dropped_total", "why" => "damaged").increment(1);
                followed.rest(Instant::now() + PAUSE_MAX, false);
                break;
            }
        };
        for Record { offset, value, control, partition_leader_epoch: epoch, .. } in decoded {
            let Ok(offset) = u64::try_from(offset) else { continue };
            let before = from;
            from = from.max(offset + 1);
            if control {
                followed.passed(before, (offset, epoch));
                continue;
            }
            match followed.fetched(before, (offset, epoch), value.as_deref().unwrap_or_default(), shared) {
                Fetched::Kept => kept = true,
                Fetched::Stale => {} // the batch begins before what was asked for
                Fetched::Full => {
                    counter!("switchboard_log_fetched_dropped_total", "why" => "full").increment(1);
                    records.clear();
                    break;
                }
            }
        }
    }
    if kept {
        followed.grown.notify_one();
    }
}

/// The next whole batch; the last of an answer may be cut short.
fn next_batch(records: &mut Bytes) -> Option<Bytes> {
    let mut length = records.get(8..BATCH_HEAD)?;
    let length = BATCH_HEAD + usize::try_from(length.get_i32()).ok()?;
    (records.len() >= length).then(|| records.split_to(length))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_response::{EpochEndOffset, FetchableTopicResponse, PartitionData};

    use super::*;
    use crate::log::kafka::append::batch::{Producer, batch};
    use crate::log::kafka::follow::tests::shared;

    #[test]
    fn a_log_that_was_cut_and_has_grown_again_is_told_from_the_one_that_was_read() {
        let (shared, key) = (shared(1000), (Topic::Mailbox, 1));
        let followed = Arc::new(Followed::new(7));
        let payloads = [Bytes::from_static(b"one")];
        let answer = |data: PartitionData| {
            let topic = FetchableTopicResponse::default().with_topic(topic_name(&shared.names[Topic::Mailbox as usize]));
            FetchResponse::default().with_responses(vec![topic.with_partitions(vec![data.with_partition_index(1)])])
        };
        let ask = || BTreeMap::from([(key, (Arc::clone(&followed), followed.wanted(Instant::now()).unwrap()))]);
        let mut records = batch(key, payloads.iter(), (Producer { id: 1, epoch: 0 }, 0), 0).to_vec();
        records[..8].copy_from_slice(&7_i64.to_be_bytes());
        records[12..16].copy_from_slice(&5_i32.to_be_bytes()); // neither is in the checksum
        take(&shared, &ask(), answer(PartitionData::default().with_records(Some(records.into()))));
        assert_eq!(followed.wanted(Instant::now()), Some(Next { offset: 8, epoch: 5 }), "by this a broker finds out");
        take(&shared, &ask(), answer(PartitionData::default()));
        assert_eq!(followed.wanted(Instant::now()).map(|next| next.offset), Some(8));
        let diverging = EpochEndOffset::default().with_epoch(4).with_end_offset(6);
        take(&shared, &ask(), answer(PartitionData::default().with_diverging_epoch(diverging)));
        assert_eq!((followed.wanted(Instant::now()), followed.state.lock().cut), (None, Some(6)));
    }

    #[test]
    fn whole_batches_come_and_a_cut_one_waits_for_the_next_fetch() {
        let one = |text: &'static str| {
            let payloads = [Bytes::from_static(text.as_bytes())];
            batch((Topic::Mailbox, 1), payloads.iter(), (Producer { id: 1, epoch: 0 }, 0), 0)
        };
        let (first, second) = (one("first"), one("second"));
        let mut both = Bytes::from([&first[..], &second[..second.len() - 1]].concat());
        assert_eq!(next_batch(&mut both), Some(first));
        assert_eq!(next_batch(&mut both), None);
        assert_eq!(next_batch(&mut Bytes::new()), None);
        assert_eq!(next_batch(&mut Bytes::from(vec![0xff; 40])), None, "a length that is none");
    }
}
