//! The embedded store keeps the contract of every store, and what is its own: it comes back from its folder.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

use std::sync::Arc;

use protocol::DeviceName;
use storage::StorageError;
use storage::store::contract::{self, Writer, message, user};
use storage::store::embedded::{EmbeddedStore, Options};
use storage::store::{Checkpoint, Cursor, Store};

async fn open(dir: &std::path::Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, Options::default()).await.unwrap()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    // folders live until the test ends
    let dirs = std::sync::Mutex::new(Vec::new());
    contract::run(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        dirs.lock().unwrap().push(dir);
        async move { Arc::new(open(&path).await) }
    })
    .await;
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
    store.save_cursors(&[Cursor { owner: user(1), device: device.clone(), seq: 11 }]).await.unwrap();
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(*store.instance(), instance);
    let slice = store.read(user(2), 0, 100, 1 << 20).await.unwrap();
    assert_eq!(slice.events.len(), 20);
    assert_eq!(store.cursor(user(1), &device).await, Ok(11));
    assert_eq!(store.acquire(router::expand::ShardId(0)).await.unwrap().0, Checkpoint { owner_epoch: 2, offset: 20 });
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
