//! Sentinel and Cluster, started by hand: the same suite, and a master that dies.

use std::time::{Duration, Instant};

use protocol::UserId;
use router::registry::redis::RedisConfig;
use router::registry::{Registry, contract};

use crate::stand::{optional, prefix, registry, up};
use crate::{DEVICE, NODE};

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn sentinels() -> Option<RedisConfig> {
    let sentinels = list(&optional("TEST_REDIS_SENTINELS")?);
    Some(RedisConfig { sentinels, prefix: prefix(), ..RedisConfig::default() })
}

fn cluster() -> Option<RedisConfig> {
    let cluster = list(&optional("TEST_REDIS_CLUSTER")?);
    Some(RedisConfig { cluster, prefix: prefix(), ..RedisConfig::default() })
}

#[tokio::test]
async fn contract_behind_sentinel() {
    let Some(config) = sentinels() else { return };
    contract::run(async || registry(&RedisConfig { prefix: prefix(), ..config.clone() }).await).await;
}

#[tokio::test]
async fn contract_on_a_cluster() {
    let Some(config) = cluster() else { return };
    contract::run(async || registry(&RedisConfig { prefix: prefix(), ..config.clone() }).await).await;
}

#[tokio::test]
async fn hundreds_of_users_on_a_cluster() {
    let Some(config) = cluster() else { return };
    let registry = registry(&config).await;
    let users: Vec<_> = (1..=400).map(UserId::from_stored).collect();
    for user in &users {
        registry.register(*user, &DEVICE, NODE).await.unwrap();
    }
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        assert!(registry.nodes(&users[..100]).await.unwrap().iter().all(|nodes| nodes.to_vec() == [NODE]));
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("nodes of 100 users on a cluster: median {:?}, worst {:?}", times[25], times[49]);
    assert_eq!(registry.nodes(&users).await.unwrap().len(), 400);
}

/// Registers all the time for as long as `TEST_REDIS_OUTAGE_S` says and prints the longest time without an answer: a master is killed by
/// hand meanwhile.
async fn outage(config: RedisConfig, what: &str) {
    let Some(seconds) = optional("TEST_REDIS_OUTAGE_S") else { return };
    let registry = registry(&config).await;
    let (began, mut good, mut longest, mut failed, mut slowest) = (Instant::now(), Instant::now(), Duration::ZERO, 0, Duration::ZERO);
    let users = (0..50).map(UserId::from_stored).collect::<Vec<_>>();
    while began.elapsed() < Duration::from_secs(seconds.parse().unwrap()) {
        let asked = Instant::now();
        // users of all slots: an answer counts when it is there for all
        let mut all = registry.nodes(&users).await.is_ok();
        slowest = slowest.max(asked.elapsed());
        all &= registry.register(users[asked.elapsed().subsec_micros() as usize % 50], &DEVICE, NODE).await.is_ok();
        if all {
            longest = longest.max(good.elapsed());
            good = Instant::now();
        } else {
            failed += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{what}: longest outage {longest:?}, {failed} failed calls, slowest call {slowest:?}");
    assert!(slowest < Duration::from_millis(400));
    assert!(longest < Duration::from_secs(15));
    up(&registry).await;
}

#[tokio::test]
async fn a_master_dies_behind_sentinel() {
    let Some(config) = sentinels() else { return };
    outage(config, "sentinel").await;
}

#[tokio::test]
async fn a_master_dies_in_a_cluster() {
    let Some(config) = cluster() else { return };
    outage(config, "cluster").await;
}
