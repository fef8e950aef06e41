//! Commits that go out together.

use super::*;

/// Somebody holds the row of one shard: the others, which commit in the same groups, go on; the one is told to try again, and can.
#[tokio::test]
async fn a_locked_shard_holds_up_no_other() {
    let Some(addresses) = addresses() else { return };
    let config = cluster(&addresses[..1], 2).await;
    let store = Arc::new(open(&config).await);
    let places = [store.acquire(ShardId(0)).await.unwrap().checkpoint, store.acquire(ShardId(1)).await.unwrap().checkpoint];
    let mut holder = connect(&config, 0).await;
    sqlx::query("BEGIN").execute(&mut holder).await.unwrap();
    sqlx::query("SELECT 1 FROM shard WHERE shard = 0 FOR UPDATE").execute(&mut holder).await.unwrap();
    let locked = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(ShardId(0), commit_of(2, 1, places[0])).await }
    });
    let mut at = places[1];
    for seq in 1..=20 {
        store.commit(ShardId(1), commit_of(1, seq, at)).await.unwrap();
        at.offset += 1;
    }
    assert!(matches!(locked.await.unwrap(), Err(StoreError::Unavailable(_))));
    sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();
    store.commit(ShardId(0), commit_of(2, 1, places[0])).await.unwrap();
}

/// Owners that commit at the same time: each hears its own answer, whatever becomes of the others in its group.
#[tokio::test]
async fn in_a_group_everybody_hears_his_own_answer() {
    let Some(addresses) = addresses() else { return };
    let config = PostgresConfig { writers: 1, commit_rest_ms: 200, ..cluster(&addresses[..1], 4).await };
    let store = Arc::new(open(&config).await);
    let mut places = Vec::new();
    for shard in 0..4 {
        places.push(store.acquire(ShardId(shard)).await.unwrap().checkpoint);
    }
    // users of the shards 1, 2, 3; the first commit of all opens the flight, and behind it they gather
    store.commit(ShardId(1), commit_of(1, 1, places[1])).await.unwrap();
    places[1].offset += 1;
    let known = commit_of(1, 1, places[1]).keys;
    let stale = Checkpoint { offset: places[2].offset + 7, ..places[2] };
    let mut again = commit_of(1, 2, places[1]);
    again.keys = known;
    let (conflict, fenced, done) = tokio::join!(
        store.commit(ShardId(1), again),
        store.commit(ShardId(2), commit_of(2, 1, stale)),
        store.commit(ShardId(3), commit_of(3, 1, places[3])),
    );
    assert_eq!((conflict, fenced, done), (Err(StoreError::Conflict(1)), Err(StoreError::Fenced(2)), Ok(())));
    assert_eq!(store.checkpoint(ShardId(3)).await.unwrap().offset, places[3].offset + 1);
    assert_eq!(store.heads(ShardId(1), &[user(1)]).await.unwrap(), [Head { head: 1, floor: 0 }]);
}
