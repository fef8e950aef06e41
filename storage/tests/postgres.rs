//! The Postgres store keeps the contract of every store, and what is its own: databases that fail, owners that are late, shards that move.
//! `TEST_POSTGRES`: addresses of two or more databases in which databases can be made, separated by spaces. Each test makes its own.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

#[path = "postgres/mended.rs"]
mod mended;
#[path = "postgres/grouped.rs"]
mod grouped;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::record::{Event, EventBody, Link, Source};
use protocol::{ConversationId, DeviceName, Position, UserId};
use router::expand::{ShardId, Shards};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use storage::store::contract::{self, message, user};
use storage::store::postgres::{Database, HALT_AT, PostgresConfig, PostgresStore, move_shard, shards};
use storage::store::{Checkpoint, Commit, Cursor, Cutoff, Head, HighWater, KeyOf, KeyRow, Row, Store, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The addresses; none: skip.
fn addresses() -> Option<Vec<String>> {
    match std::env::var("TEST_POSTGRES") {
        Ok(urls) => Some(urls.split_whitespace().map(str::to_owned).collect()),
        Err(_) if std::env::var_os("TEST_REQUIRE_ENGINES").is_some_and(|value| value == "1") => {
            panic!("TEST_POSTGRES is not set")
        }
        Err(_) => {
            println!("skipped: TEST_POSTGRES is not set");
            None
        }
    }
}

/// A cluster of new databases, one at each address.
async fn cluster(addresses: &[String], virtual_shards: u16) -> PostgresConfig {
    let name = format!("sb_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut databases = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let mut admin = PgConnection::connect(address).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}_{at}"))).execute(&mut admin).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}_{at}"))).execute(&mut admin).await.unwrap();
        let (server, _) = address.rsplit_once('/').unwrap();
        databases.push(Database { name: format!("d{at}"), url: format!("{server}/{name}_{at}"), password_file: None });
    }
    PostgresConfig { cluster_id: name, virtual_shards, databases, writers: 4, readers: 4, ..PostgresConfig::default() }
}

async fn open(config: &PostgresConfig) -> PostgresStore {
    shards::init(config).await.unwrap();
    PostgresStore::connect(config).await.unwrap()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let Some(addresses) = addresses() else { return };
    let make = async || Arc::new(open(&cluster(&addresses, 2).await).await);
    contract::run(make).await;
    contract::run_behind_a_log(make).await;
}

const PLENTY: u32 = 1 << 24;

async fn connect(config: &PostgresConfig, at: usize) -> PgConnection {
    PgConnection::connect(&config.databases[at].url).await.unwrap()
}

/// The commit of the next message to one owner, number `seq`.
fn commit_of(owner: u64, seq: u64, expect: Checkpoint) -> Commit {
    let body = EventBody::Message(message(owner, 900_000_000, seq));
    let EventBody::Message(message) = &body else { unreachable!() };
    let key = KeyOf { owner: user(owner), identity: message.record.identity, refused: None };
    let row = KeyRow { seq: Some(seq), body_hash: message.record.body_hash(), position: message.position };
    Commit {
        expect,
        next_offset: expect.offset + 1,
        fingerprint: seq,
        keys: vec![(key, row)],
        high_waters: vec![HighWater { source: Source { partition: 1, epoch: 1 }, link: Link { next_offset: seq, digest: seq } }],
        rows: vec![Row { owner: user(owner), event: Event { seq, body } }],
        ..Commit::default()
    }
}

/// What writers of one mailbox have heard. `done` were said to be committed.
#[derive(Default)]
struct Oracle {
    done: AtomicU64,
    fenced: AtomicU64,
    unknown: AtomicU64,
}

/// An owner that works as long as it is let: acquires, commits the next message, reads what became of an unknown commit, acquires anew when fenced.
async fn work(store: &dyn Store, owner: u64, shard: ShardId, oracle: &Oracle, until: u64) {
    'own: while oracle.done.load(Ordering::SeqCst) < until {
        let Ok(taken) = store.acquire(shard).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut at = taken.checkpoint;
        assert_eq!(taken.fingerprint, at.offset, "fingerprint and offset belong together");
        let high_water = taken.high_waters.first().map_or(0, |one| one.link.next_offset);
        assert_eq!(high_water, at.offset, "high-water and offset belong together");
        while at.offset < until {
            let next = Checkpoint { offset: at.offset + 1, ..at };
            match store.commit(shard, commit_of(owner, next.offset, at)).await {
                Ok(()) => at = next,
                Err(StoreError::Fenced(_)) => {
                    oracle.fenced.fetch_add(1, Ordering::SeqCst);
                    continue 'own;
                }
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(StoreError::Unknown) => {
                    oracle.unknown.fetch_add(1, Ordering::SeqCst);
                    loop {
                        match store.checkpoint(shard).await {
                            Ok(now) if now == next => break at = next,
                            Ok(now) if now == at => break,
                            Ok(_) => continue 'own,
                            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                        }
                    }
                }
                Err(why) => panic!("{why}"),
            }
            oracle.done.fetch_max(at.offset, Ordering::SeqCst);
        }
    }
}

/// Everything of one mailbox, read in pieces: each message once, in order, none missing.
async fn is_whole(store: &dyn Store, owner: u64, count: u64) {
    let mut seqs = Vec::new();
    while (seqs.len() as u64) < count {
        let slice = store.read(user(owner), seqs.len() as u64, 500, PLENTY).await.unwrap();
        assert_eq!(slice.head, Head { head: count, floor: 0 });
        for event in slice.events {
            assert_eq!(event.body, EventBody::Message(message(owner, 900_000_000, event.seq)));
            seqs.push(event.seq);
        }
    }
    assert_eq!(seqs, (1..=count).collect::<Vec<_>>());
    let conversation = ConversationId::direct(user(owner), user(900_000_000));
    let page = store.history(user(owner), conversation, Position::MAX, 5).await.unwrap();
    assert_eq!(page.messages.last().map(|last| last.position), Some(Position::new(1, count)));
    let listed = store.conversations(user(owner), Position::MAX, 5).await.unwrap();
    assert_eq!(listed.messages, page.messages[4..]);
    let key = |seq| KeyOf { owner: user(owner), identity: message(owner, 900_000_000, seq).record.identity, refused: None };
    let keys: Vec<_> = (1..=count).map(key).collect();
    let rows = store.keys(Shards::new(4).unwrap().of(user(owner)), &keys).await.unwrap();
    assert!(rows.iter().zip(1..).all(|(row, seq)| row.and_then(|row| row.seq) == Some(seq)), "keys");
}

#[tokio::test]
async fn shards_are_spread_and_each_mailbox_is_where_it_belongs() {
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses, 4).await;
    let store = open(&config).await;
    assert_eq!(shards::init(&config).await.unwrap(), shards::Initialized::default(), "again: nothing to do");
    let oracle = [Oracle::default(), Oracle::default()];
    // users 2 and 4: shards 2 and 0; shard 1 and 3 stay empty
    work(&store, 1, ShardId(2), &oracle[0], 20).await;
    work(&store, 2, ShardId(0), &oracle[1], 30).await;
    is_whole(&store, 1, 20).await;
    is_whole(&store, 2, 30).await;
    let places = store.newest(&[user(2), user(7), user(1)]).await.unwrap();
    assert_eq!(places.iter().map(|place| place.unwrap().seq).collect::<Vec<_>>(), [30, 0, 20]);
    let listed = shards::list(&config).await.unwrap();
    let in_first = listed.iter().filter(|row| row.database == "d0").count();
    assert_eq!((listed.len(), in_first), (4, 4usize.div_ceil(addresses.len())));
    assert_eq!(listed.iter().map(|row| row.events).sum::<u64>(), 50);
}

#[tokio::test]
async fn foreign_databases_and_other_numbers_of_shards_are_refused() {
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses, 4).await;
    let never = PostgresStore::connect(&config).await.unwrap_err().to_string();
    assert!(never.contains("never initialized"), "{never}");
    shards::init(&config).await.unwrap();
    let other = PostgresConfig { cluster_id: "other".into(), ..config.clone() };
    let more = PostgresConfig { virtual_shards: 5, ..config.clone() };
    for (wrong, word) in [(other, "belongs to the cluster"), (more, "never changes")] {
        for why in [PostgresStore::connect(&wrong).await.unwrap_err(), shards::init(&wrong).await.unwrap_err()] {
            assert!(why.to_string().contains(word), "{why}");
        }
    }
    let less = PostgresConfig { databases: config.databases[..1].to_vec(), ..config.clone() };
    let why = shards::init(&less).await.unwrap_err().to_string();
    assert!(why.contains("in none of the databases"), "{why}");
    // a new database joins, and holds nothing
    let mut joined = config.clone();
    let fresh = cluster(&addresses[..1], 4).await;
    joined.databases.push(Database { name: "new".into(), ..fresh.databases[0].clone() });
    assert_eq!(shards::init(&joined).await.unwrap(), shards::Initialized { shards_made: 0, joined: 1 });
    PostgresStore::connect(&joined).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_owners_each_commit_is_of_one() {
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses, 4).await;
    let store = open(&config).await;
    let others = [PostgresStore::connect(&config).await.unwrap(), PostgresStore::connect(&config).await.unwrap()];
    let oracle = Oracle::default();
    tokio::join!(
        work(&store, 1, ShardId(2), &oracle, 300),
        work(&others[0], 1, ShardId(2), &oracle, 300),
        work(&others[1], 1, ShardId(2), &oracle, 300),
        // and one who takes it again and again, and does nothing
        async {
            while oracle.done.load(Ordering::SeqCst) < 300 {
                let _ = store.acquire(ShardId(2)).await;
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        }
    );
    is_whole(&store, 1, 300).await;
    assert!(oracle.fenced.load(Ordering::SeqCst) > 3, "they met");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_killed_lose_and_double_nothing() {
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses, 4).await;
    let store = open(&config).await;
    let oracle = Oracle::default();
    let kill = async {
        let name = &config.databases[0].url.rsplit_once('/').unwrap().1;
        let mut admin = PgConnection::connect(&addresses[0]).await.unwrap();
        while oracle.done.load(Ordering::SeqCst) < 300 {
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
            sqlx::query(kill).bind(name).execute(&mut admin).await.unwrap();
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    let beside = Oracle::default();
    tokio::join!(work(&store, 1, ShardId(2), &oracle, 300), work(&store, 2, ShardId(0), &beside, 100), kill);
    is_whole(&store, 1, 300).await;
    is_whole(&store, 2, 100).await;
    println!("unknown {} fenced {}", oracle.unknown.load(Ordering::SeqCst), oracle.fenced.load(Ordering::SeqCst));
    assert!(oracle.unknown.load(Ordering::SeqCst) > 0, "some were cut off in the middle");
}

/// Passes bytes on, until it is told to hang: then it takes everything and answers nothing.
async fn proxy(to: String, hangs: tokio::sync::watch::Receiver<bool>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(&to).await.unwrap();
            let ((cr, cw), (sr, sw)) = (client.into_split(), server.into_split());
            tokio::spawn(pump(cr, sw, hangs.clone()));
            tokio::spawn(pump(sr, cw, hangs.clone()));
        }
    });
    port
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut hangs: tokio::sync::watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16384];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if hangs.wait_for(|hangs| !hangs).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_costs_its_own_shards_a_bounded_wait() {
    let Some(addresses) = addresses() else { return };
    let mut config = cluster(&addresses, 4).await;
    shards::init(&config).await.unwrap();
    let (hang, hangs) = tokio::sync::watch::channel(true);
    let (server, database) = addresses[1].rsplit_once('@').unwrap();
    let name = config.databases[1].url.rsplit_once('/').unwrap().1.to_owned();
    let port = proxy(database.split_once('/').unwrap().0.to_owned(), hangs).await;
    config.databases[1].url = format!("{server}@127.0.0.1:{port}/{name}");
    config.call_timeout_ms = 1_000;
    config.statement_timeout_ms = 900;
    config.connect_timeout_ms = 500;
    config.refresh_ms = 200;
    // it hangs at the start: the store opens, and the other database serves
    let store = PostgresStore::connect(&config).await.unwrap();
    let start = Instant::now();
    assert!(matches!(store.acquire(ShardId(1)).await, Err(StoreError::Unavailable(_))));
    work(&store, 1, ShardId(2), &Oracle::default(), 10).await;
    // users 2 and 6 times 2: shards 2 and 0. Odd numbers are in the other database
    let odd = UserId::from_stored(5);
    let places = store.newest(&[user(1), odd]).await.unwrap();
    assert_eq!((places[0].map(|place| place.seq), places[1]), (Some(10), None));
    assert!(start.elapsed() < Duration::from_secs(60), "bounded: {:?}", start.elapsed());
    hang.send(false).unwrap();
    let back = async {
        while store.acquire(ShardId(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.unwrap();
    assert_eq!(store.newest(&[odd]).await.unwrap()[0].map(|place| place.seq), Some(0));
    // it hangs in the middle: a commit may have been done, a read was not; each is told in time, and the next at once
    let mut at = store.acquire(ShardId(1)).await.unwrap().checkpoint;
    store.commit(ShardId(1), Commit { expect: at, next_offset: 1, ..Commit::default() }).await.unwrap();
    at.offset = 1;
    hang.send(true).unwrap();
    let start = Instant::now();
    let next = Commit { expect: at, next_offset: 2, ..Commit::default() };
    let (commit, read) = tokio::join!(store.commit(ShardId(1), next), store.read(odd, 0, 10, PLENTY));
    // not sent, if the connection was not yet back in its pool
    assert!(matches!(commit, Err(StoreError::Unknown | StoreError::Unavailable(_))), "{commit:?}");
    assert!(matches!(read, Err(StoreError::Unavailable(_))));
    let down = async {
        while store.reachable()[1].1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), down).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(60), "bounded: {:?}", start.elapsed());
    let start = Instant::now();
    assert!(store.read(odd, 0, 10, PLENTY).await.is_err());
    println!("known to be away, it fails after {:?}", start.elapsed());
    is_whole(&store, 1, 10).await;
    hang.send(false).unwrap();
    let back = async {
        while store.checkpoint(ShardId(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.unwrap();
    assert!(store.checkpoint(ShardId(1)).await.unwrap().offset <= 2);
}

/// Reads a mailbox from the front again and again, and looks that it never goes back and has no hole.
async fn watch(store: &dyn Store, owner: u64, oracle: &Oracle, until: u64) {
    let mut seen = 0;
    while seen < until {
        let done = oracle.done.load(Ordering::SeqCst);
        match store.read(user(owner), seen, 100, PLENTY).await {
            Ok(slice) => {
                assert!(slice.head.head >= done, "a read from an old copy: {} of {done}", slice.head.head);
                for event in slice.events {
                    assert_eq!(event.seq, seen + 1);
                    seen = event.seq;
                }
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(why) => panic!("{why}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Saves growing cursors, and looks that what was saved stays.
async fn acknowledge(store: &dyn Store, owner: u64, oracle: &Oracle, until: u64) {
    let device: DeviceName = "phone".parse().unwrap();
    let mut saved = 0;
    while oracle.done.load(Ordering::SeqCst) < until {
        if let Ok(place) = store.cursor(user(owner), &device, Some(0)).await {
            assert!(place.seq >= saved, "a cursor was lost: {} of {saved}", place.seq);
            let next = Cursor { owner: user(owner), device: device.clone(), epoch: place.epoch, seq: saved + 1 };
            if store.save_cursors(&[next]).await.is_ok() {
                saved += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert!(saved > 0);
}

/// A move that is ended at a point, by dropping its future there.
async fn ended_at(point: &'static str, config: &PostgresConfig, shard: u16, to: &str) {
    let step = HALT_AT.scope(point, move_shard::move_shard(config, shard, to));
    let ended = tokio::time::timeout(Duration::from_secs(4), step).await;
    assert!(ended.is_err(), "{point}: {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_moves_under_load_and_through_crashes() {
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses, 4).await;
    let store = open(&config).await;
    let other = PostgresStore::connect(&config).await.unwrap();
    let oracle = Oracle::default();
    let stop = AtomicU64::new(u64::MAX);
    let mover = async {
        while oracle.done.load(Ordering::SeqCst) < 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let moved = move_shard::move_shard(&config, 2, "d1").await.unwrap();
        println!("moved under load: {moved:?}");
        assert!(moved.rows > 50, "{moved:?}");
        assert_eq!(move_shard::move_shard(&config, 2, "d1").await.unwrap().rows, 0, "again: nothing to do");
        for (point, to) in [("move:copied", "d0"), ("move:moved", "d1"), ("move:opened", "d0")] {
            let grown = oracle.done.load(Ordering::SeqCst);
            ended_at(point, &config, 2, to).await;
            if point == "move:moved" {
                let elsewhere = move_shard::move_shard(&config, 2, "d0").await.unwrap_err().to_string();
                assert!(elsewhere.contains("broken off"), "{elsewhere}");
            }
            let moved = move_shard::move_shard(&config, 2, to).await.unwrap();
            println!("ended at {point}, then: {moved:?}");
            while oracle.done.load(Ordering::SeqCst) < grown + 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        // aborted before and after the point where the source is closed
        for point in ["move:copied", "move:moved"] {
            ended_at(point, &config, 2, "d1").await;
            move_shard::abort(&config, 2).await.unwrap();
            move_shard::abort(&config, 2).await.unwrap();
            let grown = oracle.done.load(Ordering::SeqCst);
            while oracle.done.load(Ordering::SeqCst) < grown + 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for (at, tables) in [(0, "move_key"), (1, "move_key"), (1, "mailbox"), (1, "message"), (1, "identity_key"), (1, "device")]
        {
            let left = AssertSqlSafe(format!("SELECT count(*) FROM {tables} WHERE shard = 2"));
            let left: (i64,) = sqlx::query_as(left).fetch_one(&mut connect(&config, at).await).await.unwrap();
            assert_eq!(left.0, 0, "{tables}: nothing is left behind in d{at}");
        }
        stop.store(oracle.done.load(Ordering::SeqCst) + 50, Ordering::SeqCst);
    };
    let load = async {
        while stop.load(Ordering::SeqCst) == u64::MAX {
            let until = oracle.done.load(Ordering::SeqCst) + 10;
            tokio::join!(work(&other, 1, ShardId(2), &oracle, until), acknowledge(&store, 1, &oracle, until));
        }
    };
    tokio::join!(mover, load, async {
        while stop.load(Ordering::SeqCst) == u64::MAX {
            watch(&store, 1, &oracle, oracle.done.load(Ordering::SeqCst) + 5).await;
        }
    });
    is_whole(&store, 1, oracle.done.load(Ordering::SeqCst)).await;
    let listed = shards::list(&config).await.unwrap();
    assert_eq!(listed.iter().filter(|row| row.state == "open").count(), 4, "{listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_works_in_steps_beside_a_writer() {
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses, 4).await;
    let store = open(&config).await;
    let other = PostgresStore::connect(&config).await.unwrap();
    let oracle = Oracle::default();
    work(&store, 1, ShardId(2), &oracle, 300).await;
    // all that is there now is too old; the writer goes on
    let cutoff = Cutoff { events_before_ms: 301, keys_before_ms: 101 };
    let (one, two, ()) = tokio::join!(store.retain(cutoff), other.retain(cutoff), work(&store, 1, ShardId(2), &oracle, 400));
    let (one, two) = (one.unwrap(), two.unwrap());
    let third = store.retain(cutoff).await.unwrap();
    assert_eq!(one.events + two.events + third.events, 300);
    assert_eq!(one.messages + two.messages + third.messages, 300);
    assert_eq!(one.keys + two.keys + third.keys, 100);
    assert_eq!(store.heads(ShardId(2), &[user(1)]).await.unwrap(), [Head { head: 400, floor: 300 }]);
    let kept = store.read(user(1), 300, 500, PLENTY).await.unwrap();
    assert_eq!(kept.events.iter().map(|event| event.seq).collect::<Vec<_>>(), (301..=400).collect::<Vec<_>>());
}

/// Figures, by hand: `TEST_FIGURES=1 cargo test -p storage --test postgres -- --nocapture figures`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures() {
    if std::env::var_os("TEST_FIGURES").is_none() {
        return;
    }
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses[..1], 1).await;
    let store = open(&config).await;
    let mut at = store.acquire(ShardId(0)).await.unwrap().checkpoint;
    let mut number = 0;
    let mut heads: HashMap<u64, u64> = HashMap::new();
    for (batch, times) in [(1_u64, 400), (10, 200), (100, 100), (100, 100)] {
        let (mut took, cpu) = (Vec::new(), postgres_cpu_us());
        for _ in 0..times {
            let mut commit = Commit { expect: at, next_offset: at.offset + 1, ..Commit::default() };
            for _ in 0..batch {
                number += 1;
                let (from, to) = (1 + number % 1000, 2000 + number * 7 % 1000);
                let message = message(from, to, number);
                for owner in [from, to] {
                    let head = heads.entry(owner).or_default();
                    *head += 1;
                    let key = KeyOf { owner: user(owner), identity: message.record.identity, refused: None };
                    let row = KeyRow { seq: Some(*head), body_hash: message.record.body_hash(), position: message.position };
                    commit.keys.push((key, row));
                    commit.rows.push(Row {
                        owner: user(owner),
                        event: Event { seq: *head, body: EventBody::Message(Arc::clone(&message)) },
                    });
                }
            }
            let start = Instant::now();
            store.commit(ShardId(0), commit).await.unwrap();
            took.push(start.elapsed());
            at.offset += 1;
        }
        let rows = batch * times as u64 * 2;
        println!(
            "commit of {batch:3} messages x 2 rows: {} {:.0} us of CPU a row",
            quantiles(took),
            (postgres_cpu_us() - cpu) / rows as f64
        );
    }
    let owner = 1;
    let head = heads[&owner];
    for (what, after) in [("0", head), ("50", head.saturating_sub(50))] {
        let (mut took, cpu) = (Vec::new(), postgres_cpu_us());
        for _ in 0..500 {
            let start = Instant::now();
            store.read(user(owner), after, 50, PLENTY).await.unwrap();
            took.push(start.elapsed());
        }
        println!("read of {what} events (of {head}): {} {:.0} us of CPU", quantiles(took), (postgres_cpu_us() - cpu) / 500.0);
    }
    let owners: Vec<_> = (1..=1000).chain(2000..3000).map(user).collect();
    let (mut took, cpu) = (Vec::new(), postgres_cpu_us());
    for _ in 0..100 {
        let start = Instant::now();
        assert!(store.newest(&owners).await.unwrap().iter().all(|place| place.is_some()));
        took.push(start.elapsed());
    }
    println!("newest of 2000: {} {:.0} us of CPU", quantiles(took), (postgres_cpu_us() - cpu) / 100.0);
    let device: DeviceName = "phone".parse().unwrap();
    let cursors: Vec<_> = owners.iter().map(|owner| Cursor { owner: *owner, device: device.clone(), epoch: 1, seq: 1 }).collect();
    let mut took = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        store.save_cursors(&cursors).await.unwrap();
        took.push(start.elapsed());
    }
    println!("save of 2000 cursors: {}", quantiles(took));
}

fn quantiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let ms = |at: usize| took[at.min(took.len() - 1)].as_secs_f64() * 1000.0;
    format!("p50 {:.2} ms, p99 {:.2} ms,", ms(took.len() / 2), ms(took.len() * 99 / 100))
}

/// CPU time of all processes named postgres, microseconds.
fn postgres_cpu_us() -> f64 {
    let ticks = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        name.starts_with("postgres").then(|| fields[11].parse::<u64>().unwrap_or(0) + fields[12].parse::<u64>().unwrap_or(0))
    });
    ticks.sum::<u64>() as f64 * 10_000.0
}
