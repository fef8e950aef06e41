//! What a person mends, and what a follower asks.

use storage::store::postgres::mend;

use super::*;

/// A checkpoint moves only from where it stands, and fences its owner; a new log is taken only under a new epoch; the incarnation of mailboxes rises.
#[tokio::test]
async fn what_a_person_mends_fences_the_owner() {
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses, 4).await;
    let store = open(&config).await;
    let shard = ShardId(2);
    let taken = store.acquire(shard).await.unwrap();
    let source = Source { partition: 7, epoch: 3 };
    let link = Link { next_offset: 9, digest: u64::MAX };
    let commit = |expect: Checkpoint, next_offset| Commit {
        expect,
        next_offset,
        high_waters: vec![HighWater { source, link }],
        ..Commit::default()
    };
    store.commit(shard, commit(taken.checkpoint, 5)).await.unwrap();
    assert_eq!(store.positions().await[&shard].offset, 5);
    let all = store.taken(&[shard, ShardId(3)]).await;
    assert_eq!((all[&shard].position, all[&shard].sources[&source]), (5, link));
    assert!(all[&ShardId(3)].sources.is_empty());

    assert!(mend::step_over(&config, 2, (4, 5), 77).await.is_err(), "it does not stand there");
    mend::step_over(&config, 2, (5, 6), u64::MAX - 1).await.unwrap();
    let old = Checkpoint { offset: 5, ..taken.checkpoint };
    assert_eq!(store.commit(shard, commit(old, 6)).await, Err(StoreError::Fenced(2)), "who owned it is fenced");
    let again = store.acquire(shard).await.unwrap();
    assert_eq!((again.checkpoint.offset, again.fingerprint), (6, u64::MAX - 1));

    assert_eq!(mend::raise_stream_epoch(&config, 2).await.unwrap(), 2);
    assert_eq!(store.commit(shard, commit(again.checkpoint, 7)).await, Err(StoreError::Fenced(2)));
    assert_eq!(store.acquire(shard).await.unwrap().stream_epoch, 2);

    store.save_followed(shard, 6).await.unwrap();
    store.save_followed(shard, 4).await.unwrap();
    assert_eq!(store.followed(shard).await, Ok(6), "what a former owner's follower says late takes nothing back");
    for epoch in [2, 3] {
        assert!(mend::adopt_log(&config, epoch).await.is_err(), "messages of epoch 3 are there");
    }
    assert_eq!(store.acquire(shard).await.unwrap().checkpoint.offset, 6, "and nothing was done");
    assert_eq!(mend::adopt_log(&config, 4).await.unwrap(), 4);
    let fresh = store.acquire(shard).await.unwrap();
    assert_eq!((fresh.checkpoint.offset, fresh.fingerprint, store.followed(shard).await), (0, 0, Ok(0)));
    assert_eq!(fresh.high_waters, [HighWater { source, link }], "what was taken from the old log stays known");
}

/// An event counts as reached when a device of the present stream has acknowledged it, or when it is not there.
#[tokio::test]
async fn an_event_is_reached_when_a_device_has_acknowledged_it() {
    let Some(addresses) = addresses() else { return };
    let store = open(&cluster(&addresses, 1).await).await;
    let (shard, owner) = (ShardId(0), user(3));
    let identity = message(1, 3, 1).record.identity;
    let key = KeyOf { owner, identity, refused: None };
    assert_eq!(store.reached(shard, &[key]).await, Ok(vec![true]), "no such event");
    let taken = store.acquire(shard).await.unwrap();
    let row = KeyRow { seq: Some(2), body_hash: message(1, 3, 1).record.body_hash(), position: Position::from_stored(1) };
    let commit = Commit { expect: taken.checkpoint, next_offset: 1, keys: vec![(key, row)], ..Commit::default() };
    store.commit(shard, commit).await.unwrap();
    assert_eq!(store.reached(shard, &[key]).await, Ok(vec![false]), "no device");
    let device: DeviceName = "phone".parse().unwrap();
    store.cursor(owner, &device, Some(1)).await.unwrap();
    assert_eq!(store.reached(shard, &[key]).await, Ok(vec![false]));
    store.save_cursors(&[Cursor { owner, device, epoch: 1, seq: 2 }]).await.unwrap();
    assert_eq!(store.reached(shard, &[key]).await, Ok(vec![true]));
}
