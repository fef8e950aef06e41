//! The registry and the membership on a real Redis, and what they do when it fails.
//!
//! `TEST_REDIS`: a single Redis that may be flushed. `TEST_REDIS_SENTINELS` (`host:port,...`; the master is called `main`) and
//! `TEST_REDIS_CLUSTER` (seeds): optional. Some tests start a `redis-server` of their own, if there is one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "redis/stand.rs"]
mod stand;
#[path = "redis/failures.rs"]
mod failures;
#[path = "redis/membership.rs"]
mod membership;
#[path = "redis/deployments.rs"]
mod deployments;

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::{DeviceName, UserId};
use router::members::Members;
use router::registry::redis::{RedisLink, RedisRegistry};
use router::registry::{Budgets as _, NodeId, Rate, Registered, Registration, Registry, contract};
use stand::{env, fresh, registry, up};

const NODE: NodeId = NodeId { node: 7, boot: 0xfeed };

fn phone() -> DeviceName {
    "phone".parse().unwrap()
}

#[tokio::test]
async fn contract_on_a_single_redis() {
    let Some(url) = env("TEST_REDIS") else { return };
    contract::run(async || registry(&fresh(&url)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_racing_attaches_form_one_chain() {
    let Some(url) = env("TEST_REDIS") else { return };
    let config = fresh(&url);
    let mut tasks = Vec::new();
    for node in 0..8 {
        // each process has a link of its own
        let registry = registry(&config).await;
        tasks.push(tokio::spawn(async move {
            let mut made = Vec::new();
            for _ in 0..100 {
                made.push(registry.register(UserId::from_stored(1), &phone(), NodeId { node, boot: 1 }).await.unwrap());
            }
            made
        }));
    }
    let mut made = Vec::new();
    for task in tasks {
        made.extend(task.await.unwrap());
    }
    made.sort_unstable_by_key(|made| made.registration.counter);
    assert_eq!(made.first().unwrap().replaced, None);
    for pair in made.windows(2) {
        assert!(pair[0].registration.counter < pair[1].registration.counter);
        assert_eq!(pair[1].replaced, Some(pair[0].registration), "each replaces exactly the one before it");
    }
    let registry = registry(&config).await;
    let last = made.last().unwrap().registration;
    assert_eq!(registry.nodes(&[UserId::from_stored(1)]).await.unwrap()[0].to_vec(), [last.node]);
    let gone = futures_util::future::join_all(
        made.iter().map(|made| registry.deregister(UserId::from_stored(1), &DEVICE, made.registration)),
    );
    let gone: Vec<bool> = gone.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(gone.iter().filter(|gone| **gone).count(), 1, "only the last one's goodbye counts");
}

static DEVICE: std::sync::LazyLock<DeviceName> = std::sync::LazyLock::new(phone);

#[tokio::test]
async fn forgotten_scripts_are_taught_again() {
    let Some(url) = env("TEST_REDIS") else { return };
    let config = fresh(&url);
    let registry = registry(&config).await;
    for _ in 0..3 {
        stand::command::<()>(&url, &["SCRIPT", "FLUSH"]).await;
        let entry = registry.register(UserId::from_stored(1), &DEVICE, NODE).await.unwrap().registration;
        stand::command::<()>(&url, &["SCRIPT", "FLUSH"]).await;
        let many: Vec<_> = (1..300).map(|user| (UserId::from_stored(user), phone(), entry)).collect();
        assert_eq!(registry.register_all(&many).await.unwrap().len(), 299);
        stand::command::<()>(&url, &["SCRIPT", "FLUSH"]).await;
        assert!(registry.deregister(UserId::from_stored(1), &DEVICE, entry).await.unwrap());
    }
}

#[tokio::test]
async fn accounts_are_shared_and_say_by_how_much_they_are_overdrawn() {
    let Some(url) = env("TEST_REDIS") else { return };
    let config = fresh(&url);
    // two processes, and a rate so slow that no pause of this machine pays anything worth speaking of
    let (one, other) = (registry(&config).await, registry(&config).await);
    let rate = Rate { name: "sends", per_s: 1, burst: 10 };
    let (within, user) = (Duration::from_secs(1), UserId::from_stored);
    stand::command::<()>(&url, &["SCRIPT", "FLUSH"]).await;
    assert_eq!(one.charge(rate, within, &[(user(1), 8), (user(2), 3)]).await.unwrap(), [Duration::ZERO; 2]);
    let overdrawn = other.charge(rate, within, &[(user(1), 30), (user(2), 1)]).await.unwrap();
    // 38 drawn, of them one paid within the second before and ten in advance
    assert!((10..=27).contains(&overdrawn[0].as_secs()), "{overdrawn:?}");
    assert_eq!(overdrawn[1], Duration::ZERO);
    let again = one.charge(rate, within, &[(user(1), 100)]).await.unwrap()[0];
    assert!(again <= Duration::from_secs(50) && again > overdrawn[0], "never more than a minute: {again:?}");
    let elsewhere = one.charge(Rate { name: "requests", ..rate }, within, &[(user(1), 1)]).await.unwrap();
    assert_eq!(elsewhere, [Duration::ZERO], "each rate has an account of its own");
    let ttl: i64 = stand::command(&url, &["TTL", &format!("{}:{{u:1}}:sends", config.prefix)]).await;
    assert!((1..=62).contains(&ttl), "forgotten when it is paid: {ttl}");
    assert!(one.nodes(&[user(1)]).await.unwrap()[0].is_empty(), "and it is nobody's entry");
}

#[tokio::test]
async fn what_is_unreadable_is_left_out() {
    let Some(url) = env("TEST_REDIS") else { return };
    let config = fresh(&url);
    let registry = registry(&config).await;
    let key = format!("{}:{{u:1}}", config.prefix);
    stand::command::<()>(&url, &["HSET", &key, "phone", "rubbish", "laptop", "1:zz:3", "tablet", "7:000000000000feed:12"]).await;
    assert_eq!(registry.nodes(&[UserId::from_stored(1)]).await.unwrap()[0].to_vec(), [NODE]);
    let Registered { replaced, .. } = registry.register(UserId::from_stored(1), &DEVICE, NODE).await.unwrap();
    assert_eq!(replaced, None);
    let ttl: i64 = stand::command(&url, &["TTL", &key]).await;
    assert!((86_000..=86_400).contains(&ttl), "a dead cluster leaves nothing for ever: {ttl}");
}

#[tokio::test]
async fn anothers_redis_is_refused() {
    let Some(url) = env("TEST_REDIS") else { return };
    let mut config = fresh(&url);
    config.cluster_id = "mine".into();
    registry(&config).await;
    config.cluster_id = "yours".into();
    let link = RedisLink::new(config).unwrap();
    let registry = RedisRegistry::new(link.clone(), Members::unknown());
    stand::until("the reason is told", async || {
        let why = registry.nodes(&[UserId::from_stored(1)]).await.unwrap_err();
        why.0.contains("belongs to cluster mine")
    })
    .await;
    assert!(!link.is_up());
}

/// Prints what the calls cost; run it alone with `--nocapture`.
#[tokio::test(flavor = "multi_thread")]
async fn latency() {
    let Some(url) = env("TEST_REDIS") else { return };
    let registry = Arc::new(registry(&fresh(&url)).await);
    let users: Vec<_> = (1..=100).map(UserId::from_stored).collect();
    let mut entries: Vec<(UserId, DeviceName, Registration)> = Vec::new();
    let (mut register, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for user in &users {
            let began = Instant::now();
            let entry = registry.register(*user, &DEVICE, NODE).await.unwrap().registration;
            register.push(began.elapsed());
            entries.push((*user, phone(), entry));
        }
    }
    for _ in 0..200 {
        let began = Instant::now();
        assert!(registry.nodes(&users).await.unwrap().iter().all(|nodes| nodes.len() == 1));
        nodes.push(began.elapsed());
    }
    let began = Instant::now();
    registry.register_all(&entries).await.unwrap();
    println!("register_all of {} entries: {:?}", entries.len(), began.elapsed());
    for (what, mut times) in [("register", register), ("nodes of 100 users", nodes)] {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        println!("{what}: median {:?}, 99 % {:?}, worst {:?}", at(50), at(99), times.last().unwrap());
    }
    up(&registry).await;
}
