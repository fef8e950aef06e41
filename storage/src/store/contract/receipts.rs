//! The promises of a store that keeps receipts, beside those of [`super::run`].

use std::future::Future;
use std::sync::Arc;

use protocol::limits::UNREAD_MAX;
use protocol::receipt::{Marks, Receipt};
use protocol::record::{BodyHash, EventBody, Refusal};
use protocol::{ConversationId, DeviceName, ErrorCode, Position, Seq};

use super::{MANY, SHARD, Writer, filled, message, user};
use crate::receipt::{ReceiptKey, ReceiptRow};
use crate::store::{Cutoff, DELIVERED_ROWS, Delivered, Place, Seen, Standing, Store, StoreError};

/// Runs every promise, each on its own fresh store. Panics with the name of the one that is broken.
pub async fn run_receipts<S, M, F>(make: M)
where
    S: Store,
    M: Fn() -> F,
    F: Future<Output = Arc<S>>,
{
    receipts_come_back_by_key_and_by_revision(&*make().await).await;
    a_stale_owner_raises_no_receipt(&*make().await).await;
    deliveries_are_what_others_wrote_up_to_the_acknowledged(&*make().await).await;
    deliveries_are_told_in_steps_and_not_twice(&*make().await).await;
    deliveries_begin_behind_the_floor(&*make().await).await;
    unread_is_what_others_wrote_behind_the_read_position(&*make().await).await;
    unread_is_capped(&*make().await).await;
    the_last_device_seen_counts(&*make().await).await;
}

fn conversation(one: u64, other: u64) -> ConversationId {
    ConversationId::direct(user(one), user(other))
}

fn at(number: u64) -> Position {
    Position::new(1, number)
}

fn marks(delivered: u64, read: u64) -> Marks {
    Marks { delivered: at(delivered), read: at(read) }
}

fn row(owner: u64, (one, other): (u64, u64), member: u64, marks: Marks, rev: u64) -> ReceiptRow {
    let receipt = Receipt { conversation: conversation(one, other), member: user(member), marks, rev: at(rev).get() };
    ReceiptRow { owner: user(owner), receipt }
}

fn key_of(row: &ReceiptRow) -> ReceiptKey {
    ReceiptKey { owner: row.owner, conversation: row.receipt.conversation, member: row.receipt.member }
}

async fn place(store: &dyn Store, owner: u64, seq: Seq) -> Place {
    Place { epoch: store.read(user(owner), 0, 1, 1).await.expect("read").epoch, seq }
}

async fn delivered(store: &dyn Store, owner: u64, seq: Seq) -> Option<Delivered> {
    delivered_behind(store, owner, seq, 0).await
}

async fn delivered_behind(store: &dyn Store, owner: u64, seq: Seq, after: Seq) -> Option<Delivered> {
    let delivered = store.delivered(user(owner), place(store, owner, seq).await, after).await.expect("delivered");
    delivered.map(|mut delivered| {
        delivered.newest.sort_unstable();
        delivered
    })
}

/// Rows come back as written, each under its newest revision only, in order, as many as are wanted.
async fn receipts_come_back_by_key_and_by_revision(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    let rows = [
        row(1, (1, 2), 2, marks(5, 3), 10),
        row(2, (1, 2), 2, marks(5, 3), 10),
        row(1, (1, 3), 3, marks(7, 0), 11),
        row(1, (1, 2), 1, marks(0, 9), 12),
    ];
    writer.commit.receipts = rows.to_vec();
    writer.commit().await.expect("commit");
    let mut keys: Vec<_> = rows.iter().map(key_of).collect();
    keys.push(ReceiptKey { owner: user(3), ..keys[2] });
    let found = store.receipts(SHARD, &keys).await.expect("receipts");
    let mut want: Vec<_> = rows.iter().map(|row| Some(row.receipt.marks)).collect();
    want.push(None);
    assert_eq!(found, want, "in the order of the keys; none where nothing was marked");

    let since = async |owner, rev: u64, limit| store.receipts_since(user(owner), rev, limit).await.expect("receipts since");
    let of_1: Vec<_> = [rows[0], rows[2], rows[3]].iter().map(|row| row.receipt).collect();
    assert_eq!(since(1, 0, MANY).await, of_1);
    assert_eq!(since(1, at(10).get(), MANY).await, of_1[1..]);
    assert_eq!(since(1, 0, 2).await, of_1[..2]);
    assert_eq!(since(1, at(12).get(), MANY).await, []);
    assert_eq!(since(1, u64::MAX, MANY).await, []);
    assert_eq!(since(2, 0, MANY).await, [rows[1].receipt]);

    let raised = row(1, (1, 2), 2, marks(8, 3), 13);
    writer.commit.receipts = vec![raised];
    writer.commit().await.expect("commit");
    assert_eq!(since(1, 0, MANY).await, [of_1[1], of_1[2], raised.receipt], "the newest revision, once");
    assert_eq!(since(1, at(10).get(), MANY).await.len(), 3);
    assert_eq!(store.receipts(SHARD, &keys[..1]).await, Ok(vec![Some(marks(8, 3))]));
}

/// Receipts are part of the commit: fenced, nothing of them is there.
async fn a_stale_owner_raises_no_receipt(store: &dyn Store) {
    filled(store, 2).await;
    let mut stale = Writer::acquire(store).await;
    let mut present = Writer::acquire(store).await;
    stale.commit.receipts = vec![row(1, (1, 2), 2, marks(1, 1), 5)];
    stale.commit.through = vec![(user(2), 2)];
    assert_eq!(stale.commit().await, Err(StoreError::Fenced(0)));
    assert_eq!(store.receipts_since(user(1), 0, MANY).await, Ok(Vec::new()));
    assert!(delivered(store, 2, 2).await.is_some());
    present.commit.through = vec![(user(2), 2)];
    present.commit().await.expect("commit");
    assert_eq!(delivered(store, 2, 2).await, None);
}

/// Of each conversation the newest message of somebody else; no refusals, nothing of one's own, nothing beyond what was acknowledged.
async fn deliveries_are_what_others_wrote_up_to_the_acknowledged(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    // with 2: theirs, theirs, own. With 3: theirs. With oneself. A refusal. With 4, own only. With 2 again: theirs
    let said = [(2, 1, 1), (2, 1, 2), (1, 2, 3), (3, 1, 4), (1, 1, 5)];
    for ((from, to, number), seq) in said.into_iter().zip(1..) {
        writer.message(&message(from, to, number), &[(1, seq)]);
    }
    let identity = message(1, 2, 3).record.identity;
    let refusal = Refusal { identity, position: at(6), body_hash: BodyHash(77), code: ErrorCode::IdReused, at_ms: 6 };
    writer.add(1, 6, EventBody::Refused(Arc::new(refusal)));
    writer.message(&message(1, 4, 7), &[(1, 7)]);
    writer.message(&message(2, 1, 8), &[(1, 8)]);
    writer.commit().await.expect("commit");
    let newest = |with_2: u64| vec![(conversation(1, 2), at(with_2)), (conversation(1, 3), at(4))];
    assert_eq!(delivered(store, 1, 1).await, Some(Delivered { through: 1, newest: vec![(conversation(1, 2), at(1))] }));
    assert_eq!(delivered(store, 1, 7).await, Some(Delivered { through: 7, newest: newest(2) }));
    assert_eq!(delivered(store, 1, 8).await, Some(Delivered { through: 8, newest: newest(8) }));
    assert_eq!(delivered(store, 1, 99).await, Some(Delivered { through: 8, newest: newest(8) }), "not beyond the head");
    assert_eq!(delivered(store, 1, 0).await, None);
    assert_eq!(delivered(store, 9, 5).await, None, "an empty mailbox");
    let foreign = Place { epoch: place(store, 1, 8).await.epoch + 1, seq: 8 };
    assert_eq!(store.delivered(user(1), foreign, 0).await, Ok(None), "a place of another stream epoch");
}

/// What is told is not told again, and only rises; a long backlog comes in steps.
async fn deliveries_are_told_in_steps_and_not_twice(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    let count = DELIVERED_ROWS as u64 + 10;
    for number in 1..=count {
        writer.message(&message(2, 1, number), &[(1, number)]);
    }
    writer.commit().await.expect("commit");
    let first = delivered(store, 1, count).await.expect("a step");
    assert_eq!((first.through, &first.newest[..]), (count - 10, &[(conversation(1, 2), at(count - 10))][..]));
    // the marks of the first step are on their way
    let second = Delivered { through: count, newest: vec![(conversation(1, 2), at(count))] };
    assert_eq!(delivered_behind(store, 1, count, first.through).await, Some(second.clone()));
    assert_eq!(delivered_behind(store, 1, count, count).await, None);
    writer.commit.through = vec![(user(1), first.through)];
    writer.commit().await.expect("commit");
    assert_eq!(delivered(store, 1, count - 10).await, None);
    assert_eq!(delivered(store, 1, count).await, Some(second));
    writer.commit.through = vec![(user(1), 3)];
    writer.commit().await.expect("a lower one changes nothing");
    assert_eq!(delivered(store, 1, count - 10).await, None);
}

/// What retention has taken cannot be told any more, and does not stand in the way.
async fn deliveries_begin_behind_the_floor(store: &dyn Store) {
    filled(store, 10).await;
    store.retain(Cutoff { events_before_ms: 6, keys_before_ms: 0 }).await.expect("retain");
    let told = |through, newest| Some(Delivered { through, newest });
    assert_eq!(delivered(store, 2, 3).await, told(3, Vec::new()));
    assert_eq!(delivered(store, 2, 7).await, told(7, vec![(conversation(1, 2), at(7))]));
    store.retain(Cutoff { events_before_ms: 100, keys_before_ms: 0 }).await.expect("retain");
    assert_eq!(delivered(store, 2, 10).await, told(10, Vec::new()));
}

/// Unread are the messages of others; the read position is one's own, the other watermarks those of the others.
async fn unread_is_what_others_wrote_behind_the_read_position(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    for (from, to, number) in [(2, 1, 1), (1, 2, 2), (2, 1, 3), (2, 1, 4), (1, 2, 5)] {
        writer.message(&message(from, to, number), &[(1, number), (2, number)]);
    }
    writer.message(&message(1, 1, 6), &[(1, 6)]);
    writer.commit().await.expect("commit");
    let standing =
        async |owner, with| store.standings(user(owner), &[conversation(owner, with)]).await.expect("standings").remove(0);
    let nothing = Marks::default();
    let fresh = Standing { unread: 3, read: nothing.read, others: vec![(user(2), nothing)] };
    assert_eq!(standing(1, 2).await, fresh);
    assert_eq!(standing(2, 1).await.unread, 2);
    assert_eq!(standing(1, 1).await, Standing::default(), "a chat with oneself has nobody else");
    writer.commit.receipts = vec![row(1, (1, 2), 1, marks(0, 3), 20), row(1, (1, 2), 2, marks(5, 2), 21)];
    writer.commit().await.expect("commit");
    assert_eq!(standing(1, 2).await, Standing { unread: 1, read: at(3), others: vec![(user(2), marks(5, 2))] });
    writer.commit.receipts = vec![row(1, (1, 2), 1, marks(0, 5), 22)];
    writer.commit().await.expect("commit");
    assert_eq!(standing(1, 2).await.unread, 0);
    let several = store.standings(user(1), &[conversation(1, 9), conversation(1, 2)]).await.expect("standings");
    assert_eq!((several[0].unread, several[1].read), (0, at(5)), "in order; one that is not there is empty");
}

/// Nobody reads more than a thousand.
async fn unread_is_capped(store: &dyn Store) {
    let mut writer = Writer::acquire(store).await;
    for number in 1..=u64::from(UNREAD_MAX) + 5 {
        writer.message(&message(2, 1, number), &[(1, number)]);
    }
    writer.commit().await.expect("commit");
    let unread = async || store.standings(user(1), &[conversation(1, 2)]).await.expect("standings")[0].unread;
    assert_eq!(unread().await, UNREAD_MAX);
    writer.commit.receipts = vec![row(1, (1, 2), 1, marks(0, 6), 2000)];
    writer.commit().await.expect("commit");
    assert_eq!(unread().await, UNREAD_MAX - 1);
}

/// The last message of each conversation of an owner; none where nothing was said.
pub(super) async fn last_positions_answer_in_order(store: &dyn Store) {
    filled(store, 3).await;
    let mut writer = Writer::acquire(store).await;
    writer.message(&message(3, 1, 4), &[(1, 4), (3, 1)]);
    writer.commit().await.expect("commit");
    let asked = [conversation(1, 9), conversation(1, 3), conversation(1, 2)];
    assert_eq!(store.last_positions(user(1), &asked).await, Ok(vec![None, Some(at(4)), Some(at(3))]));
    assert_eq!(store.last_positions(user(3), &asked[1..]).await, Ok(vec![Some(at(4)), None]), "the owner's own");
    assert_eq!(store.last_positions(user(1), &[]).await, Ok(Vec::new()));
}

/// Of a user's devices the one that was there last; never back.
async fn the_last_device_seen_counts(store: &dyn Store) {
    let (phone, tablet): (DeviceName, DeviceName) = ("phone".parse().expect("a name"), "tablet".parse().expect("a name"));
    // later than any clock: being born is being seen
    let late = |more: u64| (1 << 42) + more;
    for device in [&phone, &tablet] {
        store.cursor(user(1), device, None).await.expect("born");
    }
    let seen = |device: &DeviceName, at_ms| Seen { owner: user(1), device: device.clone(), at_ms };
    store.save_seen(&[seen(&phone, late(5)), seen(&tablet, late(9))]).await.expect("saved");
    store.save_seen(&[seen(&tablet, late(2))]).await.expect("saved");
    store.save_seen(&[]).await.expect("nothing saved");
    assert_eq!(store.last_seen(&[user(8), user(1)]).await, Ok(vec![None, Some(late(9))]));
    assert_eq!(store.last_seen(&[]).await, Ok(Vec::new()));
}
