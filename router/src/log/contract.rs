//! What every [`Log`] must do. Each implementation's tests call [`run`] with a maker of empty logs of at least two partitions a topic.

use std::time::Duration;

use bytes::Bytes;

use super::{Log, LogError, Topic};

/// Runs the whole suite; each part gets a log of its own.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn run<L: Log>(make: impl AsyncFn() -> L) {
    offsets_are_dense_and_records_come_back(&make().await).await;
    partitions_are_apart(&make().await).await;
    a_reader_at_the_end_waits(&make().await).await;
    what_cannot_work_is_refused(&make().await).await;
    appends_polled_in_order_stand_in_order(&make().await).await;
}

async fn append(log: &impl Log, topic: Topic, partition: u16, text: &'static str) -> u64 {
    log.append(topic, partition, Bytes::from_static(text.as_bytes())).await.expect("a healthy log takes it")
}

async fn texts(log: &impl Log, topic: Topic, partition: u16, offset: u64, max: usize) -> Vec<(u64, String)> {
    let entries = log.read(topic, partition, offset, max).await.expect("a healthy log answers");
    entries.into_iter().map(|entry| (entry.offset, String::from_utf8_lossy(&entry.payload).into_owned())).collect()
}

async fn offsets_are_dense_and_records_come_back(log: &impl Log) {
    assert_eq!(log.end(Topic::Mailbox, 0).await, Ok(0));
    for (want, text) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(append(log, Topic::Mailbox, 0, text).await, want as u64);
    }
    assert_eq!(log.end(Topic::Mailbox, 0).await, Ok(3));
    let all = [(0, "a".to_owned()), (1, "b".to_owned()), (2, "c".to_owned())];
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(texts(log, Topic::Mailbox, 0, got.len() as u64, 2).await);
    }
    assert_eq!(got, all);
    assert_eq!(texts(log, Topic::Mailbox, 0, 2, 10).await, all[2..], "from the middle");
    assert_eq!(texts(log, Topic::Mailbox, 0, 0, 1).await, all[..1], "no more than asked, and again and again");
}

async fn partitions_are_apart(log: &impl Log) {
    append(log, Topic::Messages, 0, "m0").await;
    append(log, Topic::Messages, 1, "m1").await;
    append(log, Topic::Mailbox, 0, "b0").await;
    append(log, Topic::RouterCheckpoints, 1, "c1").await;
    for (topic, partition, want) in
        [(Topic::Messages, 0, "m0"), (Topic::Messages, 1, "m1"), (Topic::Mailbox, 0, "b0"), (Topic::RouterCheckpoints, 1, "c1")]
    {
        assert_eq!(texts(log, topic, partition, 0, 9).await, [(0, want.to_owned())]);
    }
    assert_eq!(log.end(Topic::RouterCheckpoints, 0).await, Ok(0));
}

async fn a_reader_at_the_end_waits(log: &impl Log) {
    let reader = async {
        loop {
            let got = texts(log, Topic::Mailbox, 1, 0, 9).await;
            if !got.is_empty() {
                return got;
            }
        }
    };
    let writer = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        append(log, Topic::Mailbox, 1, "late").await
    };
    let (got, _) = tokio::join!(reader, writer);
    assert_eq!(got, [(0, "late".to_owned())]);
}

async fn what_cannot_work_is_refused(log: &impl Log) {
    let refused = |result: Result<u64, LogError>| matches!(result, Err(LogError::Refused(_)));
    assert!(refused(log.append(Topic::Messages, u16::MAX, Bytes::new()).await), "no such partition");
    assert!(refused(log.end(Topic::Messages, u16::MAX).await));
    let beyond = log.read(Topic::Messages, 0, 7, 1).await;
    assert!(matches!(beyond, Err(LogError::Refused(_))), "a reader that stands behind the end has lost records: never silence");
}

async fn appends_polled_in_order_stand_in_order(log: &impl Log) {
    let one = |text: &'static str| log.append(Topic::Mailbox, 0, Bytes::from_static(text.as_bytes()));
    let offsets = tokio::join!(biased; one("1"), one("2"), one("3"));
    let offsets = [offsets.0, offsets.1, offsets.2].map(|offset| offset.expect("a healthy log takes it"));
    assert!(offsets.is_sorted(), "appends to one partition, first polled in order, stand in order: {offsets:?}");
}
