//! What every [`Log`] must do. Each implementation's tests call [`run`] with a maker of empty logs of at least two partitions a topic.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::{Entry, Following, Log, LogError, Topic};

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
    many_appends_at_once_stand_in_order(&make().await).await;
    large_records_are_read_whole_and_without_gaps(&make().await).await;
    followed_reads_and_others_do_not_disturb_each_other(&make().await).await;
    a_follower_at_the_end_waits(&make().await).await;
    a_follower_behind_the_end_is_told(&make().await).await;
    a_partition_can_be_followed_anew(&make().await).await;
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

type Append<'a> = Pin<Box<dyn Future<Output = Result<u64, LogError>> + 'a>>;

/// Appends all, each polled once in order before any is waited for.
async fn append_at_once(log: &impl Log, topic: Topic, payloads: impl Iterator<Item = Bytes>) -> Vec<u64> {
    let mut waiting: Vec<Append<'_>> = Vec::new();
    let mut done = Vec::new();
    for payload in payloads {
        let mut one = Box::pin(log.append(topic, 0, payload));
        done.push(poll_fn(|cx| Poll::Ready(one.as_mut().poll(cx))).await);
        waiting.push(one);
    }
    let mut offsets = Vec::new();
    for (one, first) in waiting.into_iter().zip(done) {
        let result = match first {
            Poll::Ready(result) => result,
            Poll::Pending => one.await,
        };
        offsets.push(result.expect("a healthy log takes it"));
    }
    offsets
}

/// Reads in order, `max` at a time, until `end`.
async fn read_on(log: &impl Log, from: u64, end: u64, max: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    while (from + entries.len() as u64) < end {
        let next = from + entries.len() as u64;
        let max = max.min(usize::try_from(end - next).expect("few"));
        let got = log.read(Topic::Mailbox, 0, next, max).await.expect("a healthy log answers");
        assert!(got.len() <= max, "no more than asked");
        entries.extend(got);
    }
    let offsets: Vec<_> = entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, (from..end).collect::<Vec<_>>(), "in order, without gaps");
    entries
}

async fn many_appends_at_once_stand_in_order(log: &impl Log) {
    let offsets = append_at_once(log, Topic::Mailbox, (0..500_u64).map(|n| Bytes::copy_from_slice(&n.to_be_bytes()))).await;
    assert_eq!(offsets, (0..500).collect::<Vec<_>>());
    for (n, entry) in (0_u64..).zip(read_on(log, 0, 500, 37).await) {
        assert_eq!(entry.payload.as_ref(), n.to_be_bytes());
    }
}

async fn large_records_are_read_whole_and_without_gaps(log: &impl Log) {
    let payload = |n: u8| Bytes::from(vec![n; 60_000]);
    append_at_once(log, Topic::Mailbox, (0..100).map(payload)).await;
    let _following = Following::new(log, Topic::Mailbox, 0, 0);
    for (n, entry) in (0..).zip(read_on(log, 0, 100, 256).await) {
        assert_eq!(entry.payload, payload(n));
    }
    for (n, entry) in (50..).zip(read_on(log, 50, 100, 256).await) {
        assert_eq!(entry.payload, payload(n), "and by a reader that is not followed");
    }
}

async fn followed_reads_and_others_do_not_disturb_each_other(log: &impl Log) {
    append_at_once(log, Topic::Mailbox, (0..40_u64).map(|n| Bytes::copy_from_slice(&n.to_be_bytes()))).await;
    let following = Following::new(log, Topic::Mailbox, 0, 5);
    read_on(log, 5, 15, 1).await;
    assert_eq!(read_on(log, 3, 9, 3).await.len(), 6, "a second reader, before it");
    assert_eq!(texts(log, Topic::Mailbox, 0, 39, 1).await.len(), 1, "and behind it");
    assert_eq!(log.end(Topic::Mailbox, 0).await, Ok(40));
    read_on(log, 15, 20, 1).await;
    read_on(log, 0, 40, 7).await; // the follower itself goes back, and meets the stream again
    append_at_once(log, Topic::Mailbox, (0..10_u64).map(|n| Bytes::copy_from_slice(&n.to_be_bytes()))).await;
    read_on(log, 40, 50, 4).await;
    drop(following);
    read_on(log, 30, 50, 50).await;
}

async fn a_follower_at_the_end_waits(log: &impl Log) {
    let _following = Following::new(log, Topic::Mailbox, 0, 0);
    for n in 0..5 {
        let reader = read_on(log, n, n + 1, 9);
        let writer = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            append(log, Topic::Mailbox, 0, "late").await
        };
        let (got, _) = tokio::join!(reader, writer);
        assert_eq!(got[0].payload.as_ref(), b"late");
    }
}

async fn a_follower_behind_the_end_is_told(log: &impl Log) {
    append(log, Topic::Mailbox, 0, "one").await;
    let _following = Following::new(log, Topic::Mailbox, 0, 7);
    for _ in 0..50 {
        match log.read(Topic::Mailbox, 0, 7, 1).await {
            Ok(entries) => assert_eq!(entries, [], "there is nothing"),
            Err(LogError::Refused(_)) => return,
            Err(why) => panic!("{why}"),
        }
    }
    panic!("a follower that has lost records waits in silence");
}

async fn a_partition_can_be_followed_anew(log: &impl Log) {
    append_at_once(log, Topic::Mailbox, (0..300_u64).map(|n| Bytes::copy_from_slice(&n.to_be_bytes()))).await;
    for round in 0..20 {
        let from = (round * 97) % 290;
        let following = Following::new(log, Topic::Mailbox, 0, from);
        for (n, entry) in (from..).zip(read_on(log, from, from + 10, 6).await) {
            assert_eq!(entry.payload.as_ref(), n.to_be_bytes(), "never a record of the follow before");
        }
        let other = Following::new(log, Topic::Mailbox, 0, 0);
        drop(following);
        read_on(log, 0, 10, 6).await;
        drop(other);
    }
}
