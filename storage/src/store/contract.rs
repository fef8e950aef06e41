//! The contract of [`Store`]: one function for each promise. Every implementation runs all of them.
//!
//! `make` gives a fresh, empty store each time it is called. Times of messages are small numbers (milliseconds since 1970), times in ids too,
//! so that cut-offs can be chosen freely.

use std::future::Future;
use std::sync::Arc;

use protocol::record::{BodyHash, Content, Event, EventBody, Identity, Link, Message, Record, Refusal, Source};
use protocol::{ConversationId, DeviceName, ErrorCode, MessageId, Position, Seq, UserId};
use router::expand::ShardId;

use super::{Checkpoint, Commit, Cursor, Cutoff, Head, HighWater, KeyOf, KeyRow, Place, Row, Store, StoreError};

mod receipts;

pub use receipts::run_receipts;

const SHARD: ShardId = ShardId(0);
const MANY: u32 = 1000;
const PLENTY: u32 = 1 << 24;

/// Runs every promise, each on its own fresh store. Panics with the name of the one that is broken.
pub async fn run<S, M, F>(make: M)
where
    S: Store,
    M: Fn() -> F,
    F: Future<Output = Arc<S>>,
{
    checkpoints_compare_and_set(&*make().await).await;
    stale_owners_write_nothing(&*make().await).await;
    a_known_key_refuses_the_whole_commit(&*make().await).await;
    a_row_out_of_sequence_refuses_the_whole_commit(&*make().await).await;
    reads_see_a_commit_at_once(&*make().await).await;
    reads_are_dense_and_limited(&*make().await).await;
    keys_and_heads_answer_in_order(&*make().await).await;
    high_waters_come_back(&*make().await).await;
    refusals_are_events(&*make().await).await;
    history_pages_both_ways(&*make().await).await;
    conversations_page_by_activity(&*make().await).await;
    receipts::last_positions_answer_in_order(&*make().await).await;
    cursors_only_grow(&*make().await).await;
    devices_are_born_at_the_head(&*make().await).await;
    the_stream_epoch_stands(&*make().await).await;
    retention_lifts_floors_and_keeps_density(&*make().await).await;
    floors_never_rise_over_newer_events(&*make().await).await;
    keys_outlive_their_events(&*make().await).await;
}

/// The promises of a store that stands behind a log, beside those of [`run`].
pub async fn run_behind_a_log<S, M, F>(make: M)
where
    S: Store,
    M: Fn() -> F,
    F: Future<Output = Arc<S>>,
{
    fingerprints_come_back(&*make().await).await;
    positions_of_conversations_do_not_compare(&*make().await).await;
}

/// A user. Even numbers: where there are two shards, all of them are in the first.
pub fn user(number: u64) -> UserId {
    UserId::from_stored(number * 2)
}

/// A message id with a time and a number.
pub fn message_id(time_ms: u64, number: u64) -> MessageId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
    bytes[6] = 0x70;
    bytes[8..].copy_from_slice(&(number | 1 << 63).to_be_bytes());
    MessageId::from_stored(&bytes).expect("16 bytes")
}

/// The `number`-th message from one to another: position `number`, taken and named at `number` milliseconds.
pub fn message(from: u64, to: u64, number: u64) -> Arc<Message> {
    message_at(from, to, number, number)
}

/// The same, taken at another time.
pub fn message_at(from: u64, to: u64, number: u64, at_ms: u64) -> Arc<Message> {
    let (sender, other) = (user(from), user(to));
    let identity = Identity { sender, conversation: ConversationId::direct(sender, other), id: message_id(number, number) };
    let record = Record { identity, content: Content::Text(format!("message {number}")), reply_to: None, at_ms };
    Arc::new(Message::new(record, Position::new(1, number)))
}

/// Writes batches as the one owner does.
pub struct Writer<'a> {
    store: &'a dyn Store,
    checkpoint: Checkpoint,
    commit: Commit,
}

impl<'a> Writer<'a> {
    /// Takes the shard.
    pub async fn acquire(store: &'a dyn Store) -> Self {
        let checkpoint = store.acquire(SHARD).await.expect("acquire").checkpoint;
        Self { store, checkpoint, commit: Commit::default() }
    }

    /// Adds a body for an owner at a seq, with its key.
    pub fn add(&mut self, owner: u64, seq: Seq, body: EventBody) {
        let (identity, body_hash, refused) = match &body {
            EventBody::Message(message) => (message.record.identity, message.record.body_hash(), None),
            EventBody::Refused(refusal) => (refusal.identity, refusal.body_hash, Some(refusal.body_hash.0)),
        };
        let key = KeyOf { owner: user(owner), identity, refused };
        self.commit.keys.push((key, KeyRow { seq: Some(seq), body_hash, position: body.position() }));
        self.commit.rows.push(Row { owner: user(owner), event: Event { seq, body } });
    }

    /// Adds a message for several owners, each at a seq.
    pub fn message(&mut self, message: &Arc<Message>, places: &[(u64, Seq)]) {
        for (owner, seq) in places {
            self.add(*owner, *seq, EventBody::Message(Arc::clone(message)));
        }
    }

    /// Commits what was added.
    ///
    /// # Errors
    /// Those of [`Store::commit`].
    pub async fn commit(&mut self) -> Result<(), StoreError> {
        let mut commit = std::mem::take(&mut self.commit);
        commit.expect = self.checkpoint;
        commit.next_offset = self.checkpoint.offset + 1;
        let next = Checkpoint { offset: commit.next_offset, ..self.checkpoint };
        self.store.commit(SHARD, commit).await?;
        self.checkpoint = next;
        Ok(())
    }
}

async fn events(store: &dyn Store, owner: u64, after: Seq) -> Vec<Event> {
    store.read(user(owner), after, MANY, PLENTY).await.expect("read").events
}

async fn head(store: &dyn Store, owner: u64) -> Head {
    store.heads(SHARD, &[user(owner)]).await.expect("heads")[0]
}

/// `count` messages between 1 and 2, numbered from 1, one commit each.
async fn filled(store: &dyn Store, count: u64) -> Vec<Arc<Message>> {
    let mut writer = Writer::acquire(store).await;
    let messages: Vec<_> = (1..=count).map(|number| message(1, 2, number)).collect();
    for (message, seq) in messages.iter().zip(1..) {
        writer.message(message, &[(1, seq), (2, seq)]);
        writer.commit().await.expect("commit");
    }
    messages
}

/// An acquire raises the owner epoch and keeps the offset; a commit moves the offset.
pub async fn checkpoints_compare_and_set(store: &dyn Store) {
    assert_eq!(store.checkpoint(SHARD).await, Ok(Checkpoint::default()));
    let taken = store.acquire(SHARD).await.expect("acquire");
    let first = taken.checkpoint;
    assert_eq!((first, taken.high_waters), (Checkpoint { owner_epoch: 1, offset: 0 }, Vec::new()));
    let commit = Commit { expect: first, next_offset: 7, ..Commit::default() };
    store.commit(SHARD, commit.clone()).await.expect("the first commit");
    assert_eq!(store.checkpoint(SHARD).await, Ok(Checkpoint { owner_epoch: 1, offset: 7 }));
    assert_eq!(store.commit(SHARD, commit).await, Err(StoreError::Fenced(0)), "the same commit twice");
    assert_eq!(store.acquire(SHARD).await.expect("acquire").checkpoint, Checkpoint { owner_epoch: 2, offset: 7 });
    assert_eq!(store.checkpoint(ShardId(1)).await, Ok(Checkpoint::default()), "another shard");
}

/// A commit by an owner before the present one is refused, and nothing of it is there.
pub async fn stale_owners_write_nothing(store: &dyn Store) {
    let mut stale = Writer::acquire(store).await;
    let mut present = Writer::acquire(store).await;
    stale.message(&message(1, 2, 1), &[(1, 1), (2, 1)]);
    assert_eq!(stale.commit().await, Err(StoreError::Fenced(0)));
    assert_eq!(head(store, 1).await, Head::default());
    assert_eq!(events(store, 2, 0).await, []);
    let key = KeyOf { owner: user(1), identity: message(1, 2, 1).record.identity, refused: None };
    assert_eq!(store.keys(SHARD, &[key]).await, Ok(vec![None]));
    present.message(&message(1, 2, 1), &[(1, 1), (2, 1)]);
    assert_eq!(present.commit().await, Ok(()));
}

/// A key that is there already fails the commit, and nothing of it is there.
pub async fn a_known_key_refuses_the_whole_commit(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    let first = message(1, 2, 1);
    writer.message(&first, &[(1, 1), (2, 1)]);
    writer.commit().await.expect("commit");
    let again = Arc::new(Message::new(first.record.clone(), Position::new(1, 5)));
    writer.message(&message(3, 4, 2), &[(3, 1), (4, 1)]);
    writer.message(&again, &[(2, 2)]);
    assert_eq!(writer.commit().await, Err(StoreError::Conflict(0)));
    assert_eq!(head(store, 3).await, Head::default());
    assert_eq!(head(store, 2).await, Head { head: 1, floor: 0 });
    assert_eq!(
        store.history(user(1), first.record.identity.conversation, Position::MAX, 9).await.expect("history").messages.len(),
        1
    );
    assert_eq!(store.checkpoint(SHARD).await.expect("checkpoint").offset, 1);
    writer.message(&message(3, 4, 2), &[(3, 1), (4, 1)]);
    assert_eq!(writer.commit().await, Ok(()), "the writer can go on");
}

/// A mailbox never gets a hole and no event is written over.
pub async fn a_row_out_of_sequence_refuses_the_whole_commit(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    for seq in [0, 2] {
        writer.message(&message(1, 2, 1), &[(1, 1), (2, seq)]);
        assert_eq!(writer.commit().await, Err(StoreError::Fenced(0)), "seq {seq} in an empty mailbox");
    }
    assert_eq!(head(store, 1).await, Head::default());
}

/// When a commit has returned, every read sees it.
pub async fn reads_see_a_commit_at_once(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    for seq in 1..=50 {
        let message = message(1, 2, seq);
        assert_eq!(store.read(user(2), seq - 1, MANY, PLENTY).await.expect("read").events, []);
        writer.message(&message, &[(1, seq), (2, seq)]);
        writer.commit().await.expect("commit");
        let slice = store.read(user(2), seq - 1, MANY, PLENTY).await.expect("read");
        assert_eq!(slice.events, [Event { seq, body: EventBody::Message(message) }]);
        assert_eq!(slice.head, Head { head: seq, floor: 0 });
    }
}

/// Events come in order, without holes, within the limits, at least one.
pub async fn reads_are_dense_and_limited(store: &dyn Store) {
    let messages = filled(store, 20).await;
    let all = events(store, 1, 0).await;
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert_eq!(all[6].body, EventBody::Message(Arc::clone(&messages[6])));
    let read = async |after, events, bytes| store.read(user(1), after, events, bytes).await.expect("read");
    let some = read(5, 3, PLENTY).await;
    assert_eq!(some.events, all[5..8]);
    assert_eq!(some.head.head, 20);
    let weight = super::weight(&all[0].body);
    assert_eq!(read(5, MANY, weight * 2).await.events, all[5..7]);
    assert_eq!(read(5, MANY, 0).await.events, all[5..6], "at least one");
    assert_eq!(read(20, MANY, PLENTY).await.events, []);
    assert_eq!(read(21, MANY, PLENTY).await.events, [], "ahead of the head");
    assert_eq!(read(u64::MAX, MANY, PLENTY).await.events, []);
    let unknown = store.read(user(9), 0, MANY, PLENTY).await.expect("read");
    assert_eq!((unknown.events, unknown.head), (vec![], Head::default()), "an unknown mailbox is empty");
}

/// Keys and heads come in the order they were asked for, missing ones too.
pub async fn keys_and_heads_answer_in_order(store: &dyn Store) {
    let messages = filled(store, 3).await;
    let key = |owner, at: usize| KeyOf { owner: user(owner), identity: messages[at].record.identity, refused: None };
    let never = KeyOf { owner: user(1), identity: message(1, 2, 99).record.identity, refused: None };
    let asked = [key(2, 2), never, key(1, 0), key(2, 0), key(3, 0), KeyOf { refused: Some(5), ..key(1, 0) }];
    let rows = store.keys(SHARD, &asked).await.expect("keys");
    let row = |at: usize| {
        let message = &messages[at];
        Some(KeyRow { seq: Some(at as u64 + 1), body_hash: message.record.body_hash(), position: message.position })
    };
    assert_eq!(rows, [row(2), None, row(0), row(0), None, None]);
    let heads = store.heads(SHARD, &[user(9), user(2), user(1)]).await.expect("heads");
    let three = Head { head: 3, floor: 0 };
    assert_eq!(heads, [Head::default(), three, three]);
    assert_eq!(store.keys(SHARD, &[]).await, Ok(Vec::new()));
}

/// High-waters are written with a batch and come back with the shard.
pub async fn high_waters_come_back(store: &dyn Store) {
    let checkpoint = store.acquire(SHARD).await.expect("acquire").checkpoint;
    let link = |next_offset| Link { next_offset, digest: next_offset * 7 };
    let of = |partition, next| HighWater { source: Source { partition, epoch: 1 }, link: link(next) };
    let commit = Commit { expect: checkpoint, next_offset: 1, high_waters: vec![of(3, 5), of(400, 6)], ..Commit::default() };
    store.commit(SHARD, commit).await.expect("commit");
    let expect = Checkpoint { offset: 1, ..checkpoint };
    let commit = Commit { expect, next_offset: 2, high_waters: vec![of(3, 9)], ..Commit::default() };
    store.commit(SHARD, commit).await.expect("commit");
    let mut high_waters = store.acquire(SHARD).await.expect("acquire").high_waters;
    high_waters.sort_by_key(|one| one.source.partition);
    assert_eq!(high_waters, [of(3, 9), of(400, 6)]);
    assert_eq!(store.acquire(ShardId(1)).await.expect("acquire").high_waters, []);
}

/// A refusal is an event of one mailbox with a key of its own; it is in no history.
pub async fn refusals_are_events(store: &dyn Store) {
    let messages = filled(store, 1).await;
    let refusal = Arc::new(Refusal {
        identity: messages[0].record.identity,
        position: Position::new(1, 2),
        body_hash: BodyHash(77),
        code: ErrorCode::IdReused,
        at_ms: 2,
    });
    let mut writer = Writer::acquire(store).await;
    writer.add(1, 2, EventBody::Refused(Arc::clone(&refusal)));
    writer.commit().await.expect("commit");
    assert_eq!(events(store, 1, 1).await, [Event { seq: 2, body: EventBody::Refused(Arc::clone(&refusal)) }]);
    let key = KeyOf { owner: user(1), identity: refusal.identity, refused: Some(77) };
    let first = KeyOf { refused: None, ..key };
    let rows = store.keys(SHARD, &[key, first]).await.expect("keys");
    assert_eq!(rows[0].and_then(|row| row.seq), Some(2));
    assert_eq!(rows[1].and_then(|row| row.seq), Some(1), "the message's own key stands");
    let page = store.history(user(1), refusal.identity.conversation, Position::MAX, 9).await.expect("history");
    assert_eq!(page.messages, messages);
    assert_eq!(store.conversations(user(1), Position::MAX, 9).await.expect("conversations").messages, messages);
}

/// History: newest page first, ascending inside, and on from where it ended.
pub async fn history_pages_both_ways(store: &dyn Store) {
    let messages = filled(store, 10).await;
    let mut writer = Writer::acquire(store).await;
    writer.message(&message(1, 3, 11), &[(1, 11), (3, 1)]);
    writer.commit().await.expect("commit");
    let conversation = messages[0].record.identity.conversation;
    let page = async |before, limit| store.history(user(2), conversation, before, limit).await.expect("history");
    let newest = page(Position::MAX, 4).await;
    assert_eq!(newest.messages, messages[6..]);
    assert_eq!(newest.before, Some(messages[6].position));
    let older = page(newest.before.expect("more"), 4).await;
    assert_eq!(older.messages, messages[2..6]);
    let oldest = page(older.before.expect("more"), 4).await;
    assert_eq!((oldest.messages, oldest.before), (messages[..2].to_vec(), None));
    let exact = page(Position::MAX, 10).await;
    assert_eq!((exact.messages.len(), exact.before), (10, None), "a full last page is the last");
    assert_eq!(page(messages[0].position, 4).await, super::Page::default());
    let nothing = ConversationId::direct(user(2), user(3));
    assert_eq!(store.history(user(2), nothing, Position::MAX, 4).await, Ok(super::Page::default()));
}

/// Conversations: the last message of each, most recently active first.
pub async fn conversations_page_by_activity(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    // 1 talks with 2, 3, 4, 5, and again with 2
    let messages: Vec<_> = [2, 3, 4, 5, 2].into_iter().zip(1..).map(|(other, number)| message(1, other, number)).collect();
    for (message, (other, seq)) in messages.iter().zip([(2, 1), (3, 1), (4, 1), (5, 1), (2, 2)]) {
        let own = message.position.get() & 0xffff;
        writer.message(message, &[(1, own), (other, seq)]);
        writer.commit().await.expect("commit");
    }
    let page = async |owner, before, limit| store.conversations(user(owner), before, limit).await.expect("conversations");
    let first = page(1, Position::MAX, 2).await;
    assert_eq!(first.messages, [Arc::clone(&messages[4]), Arc::clone(&messages[3])]);
    let rest = page(1, first.before.expect("more"), 2).await;
    assert_eq!((rest.messages, rest.before), (vec![Arc::clone(&messages[2]), Arc::clone(&messages[1])], None));
    assert_eq!(page(2, Position::MAX, 9).await.messages, [Arc::clone(&messages[4])]);
    assert_eq!(page(9, Position::MAX, 9).await, super::Page::default());
}

fn phone() -> DeviceName {
    "phone-1".parse().expect("a device name")
}

/// Cursors take the larger value, many in one batch, and each device has its own.
pub async fn cursors_only_grow(store: &dyn Store) {
    filled(store, 9).await;
    let tablet: DeviceName = "tablet".parse().expect("a device name");
    let epoch = store.read(user(1), 0, 1, 1).await.expect("read").epoch;
    let cursor = |owner, device: &DeviceName, seq| Cursor { owner: user(owner), device: device.clone(), epoch, seq };
    store.save_cursors(&[cursor(1, &phone(), 5), cursor(1, &tablet, 2), cursor(2, &phone(), 7)]).await.expect("save");
    store.save_cursors(&[cursor(1, &phone(), 3), cursor(1, &tablet, 4), cursor(1, &tablet, 3)]).await.expect("save");
    store.save_cursors(&[]).await.expect("save nothing");
    let foreign = Cursor { epoch: epoch + 1, ..cursor(1, &phone(), 9) };
    store.save_cursors(&[foreign]).await.expect("a cursor of another stream epoch changes nothing");
    let at = |seq| Ok(Place { epoch, seq });
    assert_eq!(store.cursor(user(1), &phone(), None).await, at(5));
    let watch: DeviceName = "watch".parse().expect("a device");
    assert_eq!(store.cursor(user(1), &watch, Some(2)).await, at(2), "born where it says it is");
    assert_eq!(store.cursor(user(1), &watch, Some(1)).await, at(2), "once");
    assert_eq!(store.cursor(user(1), &watch, None).await, at(2));
    assert_eq!(store.cursor(user(1), &tablet, None).await, at(4));
    assert_eq!(store.cursor(user(2), &phone(), None).await, at(7));
}

/// A device never seen is born at the head, and stays there when the head moves on.
pub async fn devices_are_born_at_the_head(store: &dyn Store) {
    let epoch = store.known_epoch(user(2));
    let at = |seq| Ok(Place { epoch, seq });
    assert_eq!(store.cursor(user(2), &phone(), None).await, at(0));
    filled(store, 4).await;
    assert_eq!(store.cursor(user(1), &phone(), None).await, at(4));
    let mut writer = Writer::acquire(store).await;
    writer.message(&message(1, 2, 5), &[(1, 5), (2, 5)]);
    writer.commit().await.expect("commit");
    assert_eq!(store.cursor(user(1), &phone(), None).await, at(4));
    assert_eq!(store.cursor(user(2), &phone(), None).await, at(0));
}

/// The stream epoch is at least 1 and does not change by itself.
pub async fn the_stream_epoch_stands(store: &dyn Store) {
    let epoch = store.read(user(1), 0, 1, 1).await.expect("read").epoch;
    assert!(epoch >= 1);
    filled(store, 1).await;
    assert_eq!(store.read(user(1), 0, 1, 1).await.expect("read").epoch, epoch);
    assert_eq!(store.known_epoch(user(1)), epoch);
    assert_eq!(store.acquire(SHARD).await.expect("acquire").stream_epoch, epoch);
    let newest = store.newest(&[user(1), user(9)]).await;
    assert_eq!(newest, Ok(vec![Some(Place { epoch, seq: 1 }), Some(Place { epoch, seq: 0 })]));
}

/// Retention lifts floors over what is too old; what stays is dense, and everything reads alike.
pub async fn retention_lifts_floors_and_keeps_density(store: &dyn Store) {
    let messages = filled(store, 10).await;
    let cutoff = Cutoff { events_before_ms: 5, keys_before_ms: 0 };
    let retained = store.retain(cutoff).await.expect("retain");
    assert_eq!((retained.events, retained.messages, retained.keys), (8, 4, 0));
    let lifted = Head { head: 10, floor: 4 };
    for owner in [1, 2] {
        assert_eq!(head(store, owner).await, lifted);
        let slice = store.read(user(owner), 4, MANY, PLENTY).await.expect("read");
        assert_eq!(slice.head, lifted);
        assert_eq!(slice.events.iter().map(|event| event.seq).collect::<Vec<_>>(), (5..=10).collect::<Vec<_>>());
        let below = store.read(user(owner), 2, MANY, PLENTY).await.expect("read");
        assert_eq!((below.events, below.head), (Vec::new(), lifted), "never a jump over what is gone");
    }
    let conversation = messages[0].record.identity.conversation;
    let page = store.history(user(1), conversation, Position::MAX, MANY).await.expect("history");
    assert_eq!((page.messages, page.before), (messages[4..].to_vec(), None));
    assert_eq!(store.retain(cutoff).await, Ok(super::Retained::default()), "a second pass finds nothing");
    let all = Cutoff { events_before_ms: 100, keys_before_ms: 0 };
    assert_eq!(store.retain(all).await.expect("retain").messages, 6);
    assert_eq!(head(store, 1).await, Head { head: 10, floor: 10 });
    assert_eq!(store.conversations(user(1), Position::MAX, 9).await, Ok(super::Page::default()));
    let mut writer = Writer::acquire(store).await;
    writer.message(&message(1, 2, 11), &[(1, 11), (2, 11)]);
    writer.commit().await.expect("an emptied mailbox goes on where it was");
    assert_eq!(events(store, 1, 10).await.len(), 1);
}

/// An old event behind a newer one stays, since a mailbox has no holes; so does its message.
pub async fn floors_never_rise_over_newer_events(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    // 1 and 2: old, new, old. 3 has only the last of them, with 1
    let messages = [message_at(1, 2, 1, 10), message_at(1, 2, 2, 500), message_at(1, 3, 3, 20)];
    writer.message(&messages[0], &[(1, 1), (2, 1)]);
    writer.message(&messages[1], &[(1, 2), (2, 2)]);
    writer.message(&messages[2], &[(1, 3), (3, 1)]);
    writer.commit().await.expect("commit");
    store.retain(Cutoff { events_before_ms: 100, keys_before_ms: 0 }).await.expect("retain");
    assert_eq!(head(store, 1).await, Head { head: 3, floor: 1 });
    assert_eq!(head(store, 2).await, Head { head: 2, floor: 1 });
    assert_eq!(head(store, 3).await, Head { head: 1, floor: 1 });
    let left = events(store, 1, 1).await;
    assert_eq!(
        left.iter().map(|event| event.body.clone()).collect::<Vec<_>>(),
        messages[1..].iter().map(|m| EventBody::Message(Arc::clone(m))).collect::<Vec<_>>()
    );
    let retained = store.retain(Cutoff { events_before_ms: 1000, keys_before_ms: 0 }).await.expect("retain");
    assert_eq!((retained.events, retained.messages), (3, 2));
    assert_eq!(head(store, 1).await, Head { head: 3, floor: 3 });
}

/// A key goes by its id's own time alone: it knows a repeat when the message is long gone.
pub async fn keys_outlive_their_events(store: &dyn Store) {
    let messages = filled(store, 6).await;
    store.retain(Cutoff { events_before_ms: 100, keys_before_ms: 0 }).await.expect("retain");
    let keys: Vec<_> = messages.iter().map(|m| KeyOf { owner: user(1), identity: m.record.identity, refused: None }).collect();
    let there = async || store.keys(SHARD, &keys).await.expect("keys").iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(there().await, [true; 6]);
    let retained = store.retain(Cutoff { events_before_ms: 100, keys_before_ms: 3 }).await.expect("retain");
    assert_eq!(retained.keys, 4);
    assert_eq!(there().await, [false, false, true, true, true, true]);
}

/// The fingerprint of the newest commit comes back with the shard, all 64 bits of it; one that was refused leaves none.
pub async fn fingerprints_come_back(store: &dyn Store) {
    let taken = store.acquire(SHARD).await.expect("acquire");
    assert_eq!(taken.fingerprint, 0, "at the beginning");
    let mut expect = taken.checkpoint;
    for (next_offset, fingerprint) in [(1, u64::MAX), (2, 1 << 63), (5, 7)] {
        let commit = Commit { expect, next_offset, fingerprint, ..Commit::default() };
        store.commit(SHARD, commit.clone()).await.expect("commit");
        let stale = Commit { fingerprint: 99, ..commit };
        assert_eq!(store.commit(SHARD, stale).await, Err(StoreError::Fenced(0)));
        let taken = store.acquire(SHARD).await.expect("acquire");
        assert_eq!((taken.checkpoint.offset, taken.fingerprint), (next_offset, fingerprint));
        expect = taken.checkpoint;
    }
    assert_eq!(store.acquire(ShardId(1)).await.expect("acquire").fingerprint, 0, "another shard");
}

/// Messages of different source partitions may have the same position: they are told apart, and conversations are ordered by the mailbox.
pub async fn positions_of_conversations_do_not_compare(store: &dyn Store) {
    let placed = |other, number, position| {
        let record = message(1, other, number).record.clone();
        Arc::new(Message::new(record, Position::new(1, position)))
    };
    // with 2 and 3 at the same positions; with 4 later, at a lower one
    let messages = [placed(2, 1, 7), placed(3, 2, 7), placed(2, 3, 9), placed(3, 4, 9), placed(4, 5, 1)];
    let mut writer = Writer::acquire(store).await;
    for (message, seq) in messages.iter().zip(1..) {
        writer.message(message, &[(1, seq)]);
    }
    writer.commit().await.expect("commit");
    let got: Vec<_> = events(store, 1, 0).await.into_iter().map(|event| event.body).collect();
    assert_eq!(got, messages.iter().map(|m| EventBody::Message(Arc::clone(m))).collect::<Vec<_>>());
    for (at, conversation) in [&messages[0], &messages[1]].map(|m| m.record.identity.conversation).into_iter().enumerate() {
        let page = store.history(user(1), conversation, Position::MAX, 9).await.expect("history");
        assert_eq!(page.messages, [Arc::clone(&messages[at]), Arc::clone(&messages[at + 2])]);
    }
    let page = async |before, limit| store.conversations(user(1), before, limit).await.expect("conversations");
    let first = page(Position::MAX, 2).await;
    assert_eq!(first.messages, [Arc::clone(&messages[4]), Arc::clone(&messages[3])]);
    let rest = page(first.before.expect("more"), 2).await;
    assert_eq!((rest.messages, rest.before), (vec![Arc::clone(&messages[2])], None));
}
