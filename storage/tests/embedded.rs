//! The embedded store keeps the contract of every store, and what is its own: it comes back from its folder.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

use std::sync::Arc;

use protocol::DeviceName;
use storage::StorageError;
use storage::store::contract::{self, Writer, message, user};
use storage::store::embedded::{EmbeddedStore, Options};
use storage::store::{Checkpoint, Cursor, Place, Store, StoreError};

async fn open(dir: &std::path::Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, Options::default()).await.unwrap()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    // folders live until the test ends
    let dirs = std::sync::Mutex::new(Vec::new());
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        dirs.lock().unwrap().push(dir);
        async move { Arc::new(open(&path).await) }
    };
    contract::run(make).await;
    contract::run_receipts(make).await;
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let device: DeviceName = "phone".parse().unwrap();
    let store = open(dir.path()).await;
    let instance = store.instance().clone();
    let mut writer = Writer::acquire(&store).await;
    for seq in 1..=20 {
        writer.message(&message(1, 2, seq), &[(1, seq), (2, seq)]);
        writer.commit().await.unwrap();
    }
    store.save_cursors(&[Cursor { owner: user(1), device: device.clone(), epoch: 1, seq: 11 }]).await.unwrap();
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(*store.instance(), instance);
    let slice = store.read(user(2), 0, 100, 1 << 20).await.unwrap();
    assert_eq!(slice.events.len(), 20);
    assert_eq!(store.cursor(user(1), &device, None).await, Ok(Place { epoch: 1, seq: 11 }));
    assert_eq!(store.acquire(router::expand::ShardId(0)).await.unwrap().checkpoint, Checkpoint { owner_epoch: 2, offset: 20 });
}

#[tokio::test]
async fn a_folder_has_one_process_and_its_parts_belong_together() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(one.path()).await;
    let second = EmbeddedStore::open(one.path(), Options::default()).await;
    assert!(matches!(second, Err(StorageError::Folder { .. })), "{second:?}");
    store.close().await;
    drop(store);
    let store = open(other.path()).await;
    store.close().await;
    drop(store);
    std::fs::copy(other.path().join("devices.sqlite"), one.path().join("devices.sqlite")).unwrap();
    let mixed = EmbeddedStore::open(one.path(), Options::default()).await;
    assert!(matches!(mixed, Err(StorageError::Folder { .. })), "{mixed:?}");
}

fn journal(dir: &std::path::Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(dir.join("mailboxes")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|ext| ext == "jnl")).max().unwrap()
}

/// Ten commits, then the store is gone; the journal's bytes and where they end.
async fn ten_commits(dir: &std::path::Path) -> (Vec<u8>, usize) {
    let store = open(dir).await;
    let mut writer = Writer::acquire(&store).await;
    for seq in 1..=10 {
        writer.message(&message(1, 2, seq), &[(1, seq), (2, seq)]);
        writer.commit().await.unwrap();
    }
    store.close().await;
    drop(store);
    let bytes = std::fs::read(journal(dir)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (bytes, end)
}

/// Power fails in the middle of an fsync: a block of the last batch is missing, whatever is there of the others.
#[tokio::test]
async fn a_batch_torn_by_a_power_failure_is_dropped_whole() {
    for hole in [30, 60, 150, 300, 450] {
        let dir = tempfile::tempdir().unwrap();
        let (mut bytes, end) = ten_commits(dir.path()).await;
        bytes[end - hole..end - hole + 10].fill(0);
        std::fs::write(journal(dir.path()), &bytes).unwrap();
        let store = open(dir.path()).await;
        let slice = store.read(user(2), 0, 100, 1 << 20).await.unwrap();
        assert_eq!((slice.events.len(), slice.head.head), (9, 9), "a hole {hole} bytes before the end");
        let mut writer = Writer::acquire(&store).await;
        writer.message(&message(1, 2, 10), &[(1, 10), (2, 10)]);
        writer.commit().await.unwrap();
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        assert_eq!(store.read(user(2), 0, 100, 1 << 20).await.unwrap().events.len(), 10, "the journal goes on behind the cut");
    }
}

/// A wrong bit before the last batch is no crash: what was answered is damaged, and the server must not start as if it were not.
#[tokio::test]
async fn damage_in_the_middle_of_the_journal_is_not_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bytes, _) = ten_commits(dir.path()).await;
    let at = bytes.windows(9).position(|window| window == b"message 4").unwrap();
    bytes[at] ^= 1;
    std::fs::write(journal(dir.path()), &bytes).unwrap();
    let opened = EmbeddedStore::open(dir.path(), Options::default()).await;
    assert!(matches!(opened, Err(StorageError::Folder { .. })), "{opened:?}");
    assert_eq!(std::fs::read(journal(dir.path())).unwrap()[..bytes.len().min(4096)], bytes[..bytes.len().min(4096)]);
}

/// A write that fails ends the process: here a file-size limit that is met in the middle of the journal.
#[tokio::test]
async fn a_failed_write_calls_the_fatal_handler_once_and_nothing_is_written_after() {
    const CHILD: &str = "SWITCHBOARD_TEST_FATAL";
    if std::env::var_os(CHILD).is_none() {
        // a shell makes a child for which a write over the limit is an error, not a signal
        let me = std::env::current_exe().unwrap();
        let script =
            format!("trap '' XFSZ; exec {me:?} --exact a_failed_write_calls_the_fatal_handler_once_and_nothing_is_written_after");
        let output = std::process::Command::new("bash").args(["-c", &script]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let said = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let options = Options { fatal: Arc::new(move |why| heard.lock().unwrap().push(why.to_owned())), ..Options::default() };
    let store = EmbeddedStore::open(dir.path(), options).await.unwrap();
    let mut writer = Writer::acquire(&store).await;
    writer.message(&message(1, 2, 1), &[(1, 1), (2, 1)]);
    writer.commit().await.unwrap();
    let limit = ["--fsize=16384", "--pid", &std::process::id().to_string()].map(str::to_owned);
    assert!(std::process::Command::new("prlimit").args(limit).status().unwrap().success());
    let mut failed = None;
    for seq in 2..200 {
        writer.message(&message(1, 2, seq), &[(1, seq), (2, seq)]);
        if let Err(error) = writer.commit().await {
            failed = Some((seq, error));
            break;
        }
    }
    let (seq, error) = failed.expect("a limit of 16 KiB is met");
    assert_eq!(error, StoreError::Unknown);
    assert_eq!(said.lock().unwrap().len(), 1);
    assert!(matches!(writer.commit().await, Err(StoreError::Unavailable(_))));
    assert_eq!(said.lock().unwrap().len(), 1, "once");
    let slice = store.read(user(2), 0, 1000, 1 << 20).await.unwrap();
    assert_eq!(slice.head.head, seq - 1, "what failed is seen by nobody");
}
