//! The queue against a model of brokers that keep what an idempotent producer has said: the last place in its sequence.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::records::RecordBatchDecoder;
use proptest::prelude::*;

use super::*;
use crate::log::Topic;

const BOUNDS: Bounds = Bounds { records: 1000, bytes: 1 << 20, batch_bytes: 200, timeout: Duration::from_secs(120) };
const KEY: Key = (Topic::Mailbox, 1);

fn payload(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn numbers(bytes: &Bytes) -> Vec<u64> {
    let records = RecordBatchDecoder::decode(&mut bytes.clone()).unwrap().records;
    records.iter().map(|record| u64::from_be_bytes(record.value.as_deref().unwrap().try_into().unwrap())).collect()
}

fn ready(bounds: Bounds) -> Queue<u64> {
    let mut queue = Queue::new(bounds);
    queue.led([(KEY, 7)]);
    queue.named(Producer { id: 1, epoch: 0 });
    queue
}

#[test]
fn what_waits_goes_together_and_one_batch_of_a_partition_at_a_time() {
    let now = Instant::now();
    let mut queue = ready(BOUNDS);
    assert_eq!(queue.push(KEY, payload(0), 0, now), Ok(Pushed::First(7)));
    let (first, _) = queue.take(7, now, 0);
    assert_eq!(numbers(&first[0].bytes), [0]);
    for number in 1..4 {
        assert_eq!(queue.push(KEY, payload(number), number, now), Ok(Pushed::Behind));
    }
    assert!(queue.take(7, now, 0).0.is_empty(), "the one before has no answer");
    assert_eq!(queue.answered(7, KEY, Answer::Done(Some(40)), now), [(0, Fate::Done(Some(40)))]);
    let (second, _) = queue.take(7, now, 0);
    assert_eq!(numbers(&second[0].bytes), [1, 2, 3]);
    let told = queue.answered(7, KEY, Answer::Done(Some(41)), now);
    assert_eq!(told, [(1, Fate::Done(Some(41))), (2, Fate::Done(Some(42))), (3, Fate::Done(Some(43)))]);
    assert!(queue.answered(7, KEY, Answer::Done(Some(41)), now).is_empty(), "once");
}

#[test]
fn a_batch_goes_out_again_as_it_was_also_to_another_leader() {
    let now = Instant::now();
    let mut queue = ready(BOUNDS);
    assert!(queue.push(KEY, payload(0), 0, now).is_ok());
    let (first, _) = queue.take(7, now, 0);
    assert!(queue.push(KEY, payload(1), 1, now).is_ok());
    queue.lost(7, now);
    let (none, later) = queue.take(7, now, 0);
    assert!(none.is_empty() && later.is_some(), "after a pause");
    queue.led([(KEY, 8)]);
    assert!(queue.take(7, now + PAUSE_MAX, 0).0.is_empty());
    let (again, _) = queue.take(8, now + PAUSE_MAX, 99);
    assert_eq!(again, first, "the same name, the same bytes");
    assert!(queue.answered(7, KEY, Answer::Done(None), now).is_empty(), "who was lost says nothing any more");
    assert_eq!(queue.answered(8, KEY, Answer::Done(None), now), [(0, Fate::Done(None))]);
}

#[test]
fn what_leaves_the_sequence_in_doubt_ends_the_name() {
    let now = Instant::now();
    let mut queue = ready(BOUNDS);
    assert!(queue.push(KEY, payload(0), 0, now).is_ok());
    queue.take(7, now, 0);
    assert!(queue.push(KEY, payload(1), 1, now).is_ok());
    assert_eq!(queue.answered(7, KEY, Answer::OutOfSequence, now), [(0, Fate::Unknown)]);
    assert!(queue.wants_name() && queue.take(7, now, 0).0.is_empty());
    queue.named(Producer { id: 2, epoch: 0 });
    let (sent, _) = queue.take(7, now, 0);
    let info = RecordBatchDecoder::decode_batch_info(&mut sent[0].bytes.clone()).unwrap();
    assert_eq!((info[0].producer_id, info[0].base_sequence), (2, 0), "from the beginning");
}

#[test]
fn too_much_and_too_old_are_told() {
    let now = Instant::now();
    let mut queue = ready(Bounds { records: 2, ..BOUNDS });
    assert!(queue.push(KEY, payload(0), 0, now).is_ok() && queue.push((Topic::Mailbox, 2), payload(1), 1, now).is_ok());
    assert_eq!(queue.push(KEY, payload(2), 2, now), Err(2), "full");
    queue.take(7, now, 0);
    let later = now + BOUNDS.timeout;
    assert_eq!(queue.give_up(later), [(1, Fate::NeverSent)], "what is with a broker is left to it");
    queue.lost(7, later);
    assert_eq!(queue.give_up(later), [(0, Fate::Unknown)]);
    assert!(queue.wants_name());
    assert!(queue.push(KEY, payload(3), 3, later).is_ok(), "there is room again");
    assert!(queue.give_up(later).is_empty());
}

/// A broker's log of one partition with what it knows of producers.
#[derive(Default)]
struct Log {
    records: Vec<u64>,
    /// By producer: the next place in its sequence, and where each of its batches stands.
    known: BTreeMap<i64, (i32, BTreeMap<i32, u64>)>,
}

impl Log {
    fn append(&mut self, bytes: &Bytes) -> Answer {
        let info = RecordBatchDecoder::decode_batch_info(&mut bytes.clone()).unwrap().remove(0);
        let (next, batches) = self.known.entry(info.producer_id).or_default();
        if let Some(offset) = batches.get(&info.base_sequence) {
            return Answer::Done(Some(*offset));
        }
        if info.base_sequence != *next {
            return Answer::OutOfSequence;
        }
        let offset = self.records.len() as u64;
        batches.insert(info.base_sequence, offset);
        *next = next_sequence(*next, info.record_count as usize);
        self.records.extend(numbers(bytes));
        Answer::Done(Some(offset))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u16),
    /// The broker appends what it is sent and says so.
    Answer,
    /// It appends, and the connection breaks before it says so.
    LoseAnswer,
    /// The connection breaks before it appends.
    LoseRequest,
    /// Another broker leads.
    Elect(BrokerId),
    /// Not now.
    Again,
    Refuse,
    GiveUp,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u16).prop_map(Step::Push),
        5 => Just(Step::Answer),
        1 => Just(Step::LoseAnswer),
        1 => Just(Step::LoseRequest),
        1 => (1..3).prop_map(Step::Elect),
        1 => Just(Step::Again),
        1 => Just(Step::Refuse),
        1 => Just(Step::GiveUp),
    ]
}

/// What one turn of a broker comes to.
fn turn(
    queue: &mut Queue<u64>,
    logs: &mut BTreeMap<Key, Log>,
    (leader, step): (BrokerId, &Step),
    now: Instant,
) -> Vec<(u64, Fate)> {
    let mut told = Vec::new();
    let (outgoing, _) = queue.take(leader, now, 0);
    for Outgoing { key, bytes } in outgoing {
        let answer = match step {
            Step::LoseRequest => continue,
            Step::Again => Answer::Again,
            Step::Refuse => Answer::Refused("no".into()),
            _ => logs.entry(key).or_default().append(&bytes),
        };
        if !matches!(step, Step::LoseAnswer) {
            told.extend(queue.answered(leader, key, answer, now));
        }
    }
    if matches!(step, Step::LoseAnswer | Step::LoseRequest) {
        queue.lost(leader, now);
    }
    told
}

proptest! {
    /// Whatever breaks: each record has one fate; what is durable stands once, where it was said, in the order it was pushed; what is refused or was
    /// never sent does not stand anywhere.
    #[test]
    fn every_record_has_one_fate_and_it_is_true(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut queue, mut logs, mut now) = (Queue::new(BOUNDS), BTreeMap::<Key, Log>::new(), Instant::now());
        let (mut fates, mut pushed, mut names, mut leader) = (BTreeMap::new(), BTreeMap::<u64, Key>::new(), 0, 1);
        let keys = [(Topic::Mailbox, 0), (Topic::Mailbox, 1), (Topic::Messages, 0)];
        let end = (0..20).map(|_| Step::Answer);
        for step in steps.into_iter().chain(end) {
            now += PAUSE_MAX;
            queue.led(keys.iter().map(|key| (*key, leader)));
            if queue.wants_name() {
                names += 1;
                queue.named(Producer { id: names, epoch: 0 });
            }
            let told = match &step {
                Step::Push(at) => {
                    let number = pushed.len() as u64;
                    pushed.insert(number, keys[usize::from(*at)]);
                    prop_assert!(queue.push(keys[usize::from(*at)], payload(number), number, now).is_ok());
                    Vec::new()
                }
                Step::Elect(other) => {
                    leader = *other;
                    Vec::new()
                }
                Step::GiveUp => {
                    now += BOUNDS.timeout;
                    queue.give_up(now)
                }
                step => turn(&mut queue, &mut logs, (leader, step), now),
            };
            for (number, fate) in told {
                prop_assert!(fates.insert(number, fate).is_none(), "{} twice", number);
            }
        }
        prop_assert_eq!(fates.len(), pushed.len(), "each has a fate");
        for (number, fate) in &fates {
            let stands: Vec<_> = logs.get(&pushed[number]).into_iter().flat_map(|log| log.records.iter().enumerate())
                .filter(|(_, stored)| *stored == number).map(|(offset, _)| offset as u64).collect();
            match fate {
                Fate::Done(offset) => prop_assert_eq!(&stands, &vec![offset.unwrap()]),
                Fate::NeverSent => prop_assert!(stands.is_empty()),
                // the model refuses what it may have taken before: then it stands, once
                Fate::Refused(_) | Fate::Unknown => prop_assert!(stands.len() <= 1),
            }
        }
        for log in logs.values() {
            let once: BTreeSet<_> = log.records.iter().collect();
            prop_assert_eq!(once.len(), log.records.len());
            prop_assert!(log.records.is_sorted(), "{:?}", log.records);
        }
    }
}
