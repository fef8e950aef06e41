//! Retention beside a running cycle: the disk stays bounded, and everything above the floor is whole.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

mod harness;

use std::path::Path;
use std::time::Instant;

use harness::{Bench, number_of, record};
use protocol::{ConversationId, Position};
use router::expand::ShardId;
use router::submit::Outcome;
use storage::cycle::Limits;
use storage::retention;
use storage::store::contract::user;
use storage::store::embedded::Options;
use storage::store::{Cutoff, Store};

const WAVES: u64 = 20;
const WAVE: u64 = 5_000;
/// Waves that are kept.
const KEPT: u64 = 2;
const USERS: u64 = 100;

fn du(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::symlink_metadata(path).unwrap();
    let inside: u64 =
        if meta.is_dir() { std::fs::read_dir(path).unwrap().map(|entry| du(&entry.unwrap().path())).sum() } else { 0 };
    // files may go while they are counted; blocks, since journals are made longer than they are filled
    meta.blocks() * 512 + inside
}

/// Sender and receiver of a message.
fn pair(number: u64) -> (u64, u64) {
    (number % USERS + 1, number * 7 % USERS + 1)
}

#[test]
fn the_disk_stays_bounded_and_what_is_kept_is_whole() {
    let limits = Limits { batch_records: 1000, queue_records: 2 * WAVE as usize, ..Limits::default() };
    let options = Options { memtable_bytes: 512 << 10, journal_bytes: 64 << 20, ..Options::default() };
    let bench = Bench::with(limits, options);
    let text = "x".repeat(200);
    let (mut sizes, start) = (Vec::new(), Instant::now());
    for wave in 0..WAVES {
        let numbers = wave * WAVE + 1..=(wave + 1) * WAVE;
        let tickets = bench.send(numbers.clone().map(|number| record(pair(number).0, pair(number).1, number, &text)));
        // beside it, as in a server: what is older than the kept waves goes
        let old = (wave * WAVE).saturating_sub(KEPT * WAVE);
        let cutoff = Cutoff { events_before_ms: old + 1, keys_before_ms: old + 1 };
        let retained = bench.block_on(retention::pass(bench.store(), cutoff)).unwrap();
        assert_eq!(retained.messages, if wave > KEPT { WAVE } else { 0 });
        assert!(tickets.wait().iter().all(|outcome| *outcome == Outcome::Accepted));
        sizes.push((bench.store().disk_bytes().unwrap() >> 10, du(bench.path()) >> 10));
    }
    let kept = WAVES * WAVE - (WAVES - 1 - KEPT) * WAVE;
    println!("{:?} for {} messages; KiB by the engine and by du, a wave each: {sizes:?}", start.elapsed(), WAVES * WAVE);
    whole(&bench, WAVES * WAVE - kept);
    let middle = sizes[8..14].iter().map(|size| size.1).max().unwrap();
    let last = sizes[14..].iter().map(|size| size.1).max().unwrap();
    assert!(last <= middle + middle / 4, "the disk grows: {sizes:?}");
    let bench = bench.reopen();
    whole(&bench, WAVES * WAVE - kept);
}

/// Each mailbox holds exactly its messages behind the first `gone`.
fn whole(bench: &Bench, gone: u64) {
    for owner in 1..=USERS {
        let is_in = |number: &u64| pair(*number).0 == owner || pair(*number).1 == owner;
        let want: Vec<_> = (gone + 1..=WAVES * WAVE).filter(is_in).collect();
        let floor = (1..=gone).filter(is_in).count() as u64;
        let head = bench.block_on(bench.store().heads(ShardId(0), &[user(owner)])).unwrap()[0];
        assert_eq!((head.floor, head.head), (floor, floor + want.len() as u64), "user {owner}");
        let events = bench.mailbox(owner);
        assert_eq!(events.iter().map(|event| number_of(&event.body)).collect::<Vec<_>>(), want, "user {owner}");
        let first = want.first().map(|number| pair(*number)).unwrap();
        let conversation = ConversationId::direct(user(first.0), user(first.1));
        let page = bench.block_on(bench.store().history(user(owner), conversation, Position::MAX, 1 << 20)).unwrap();
        assert!(page.messages.iter().all(|message| message.record.at_ms > gone));
        assert!(!page.messages.is_empty());
    }
}
