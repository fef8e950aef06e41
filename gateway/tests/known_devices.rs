//! A device that attached with a cursor of its own goes on from there when it comes without one, however little the store was asked in between.

use std::time::Duration;

use gateway::attach::{Attach, Start, attach};
use gateway::known::Known;
use protocol::Seq;
use router::registry::NodeId;
use router::registry::memory::MemoryRegistry;
use storage::store::Store;
use storage::store::contract::{Writer, message, user};
use storage::store::memory::MemoryStore;

const NODE: NodeId = NodeId { node: 0, boot: 1 };

/// Attaches the device of user 1; where it begins, and how many events it is given.
async fn begins(store: &dyn Store, known: &Known, cursor: Option<Seq>) -> (Seq, usize) {
    let device = "phone".parse().expect("a name");
    let request = Attach { user: user(1), device, epoch: None, cursor, max_events: 100, max_bytes: 65_536, devices_max: 32 };
    let attached = attach(&MemoryRegistry::default(), store, known, NODE, &request).await.expect("everything answers");
    match attached.start {
        Start::At(seq, slice) => (seq, slice.events.len()),
        Start::Resync(head, reason) => panic!("{reason:?} at {head:?}"),
        Start::TooMany => panic!("one device is not too many"),
    }
}

/// The `seq`-th message of user 1.
async fn send(writer: &mut Writer<'_>, seq: Seq) {
    writer.message(&message(2, 1, seq), &[(1, seq)]);
    writer.commit().await.expect("nobody else writes");
}

#[tokio::test]
async fn a_device_that_had_a_cursor_goes_on_from_it() {
    let (store, known) = (MemoryStore::default(), Known::default());
    let mut writer = Writer::acquire(&store).await;
    send(&mut writer, 1).await;
    assert_eq!(begins(&store, &known, Some(0)).await, (0, 1));
    assert_eq!(begins(&store, &known, Some(1)).await, (1, 0), "known by now");
    send(&mut writer, 2).await;
    assert_eq!(begins(&store, &known, None).await, (0, 2), "it has acknowledged nothing");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_set_back_hears_of_it_again() {
    let (store, known) = (MemoryStore::default(), Known::default());
    let mut writer = Writer::acquire(&store).await;
    send(&mut writer, 1).await;
    let backup = store.copied();
    assert_eq!(begins(&store, &known, Some(1)).await, (1, 0));
    // coming each hour keeps nobody known
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(begins(&backup, &known, Some(1)).await, (1, 0));
    }
    send(&mut Writer::acquire(&backup).await, 2).await;
    assert_eq!(begins(&backup, &known, None).await, (1, 1));
}
