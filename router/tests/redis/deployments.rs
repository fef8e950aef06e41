//! Sentinel and Cluster, started by hand: the same suite, and a master that dies.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use protocol::UserId;
use router::members::{Member, Membership, Role, Roles, Troubles};
use router::registry::redis::{RedisConfig, RedisLink};
use router::registry::{NodeId, Registered, Registry, contract};

use crate::stand::{command, optional, prefix, registry, until, up};
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

async fn members_live(config: RedisConfig) {
    let join = |node| {
        let link = RedisLink::new(config.clone()).unwrap();
        let me = Member {
            node,
            name: String::new(),
            roles: Roles::ALL,
            address: None,
            version: String::new(),
            started_ms: 0,
            troubles: Troubles::default(),
            reach: None,
        };
        Membership::join(link, me)
    };
    let other = NodeId { node: 8, boot: 1 };
    let (one, two) = (join(NODE), join(other));
    let members = one.members();
    until("both live", async || members.view().may_acquire() && members.view().live(Role::Storage) == [NODE, other]).await;
    two.leave().await.unwrap();
    until("one has left", async || members.view().live(Role::Storage) == [NODE]).await;
}

#[tokio::test]
async fn members_behind_sentinel() {
    let Some(config) = sentinels() else { return };
    members_live(config).await;
}

#[tokio::test]
async fn members_on_a_cluster() {
    let Some(config) = cluster() else { return };
    members_live(config).await;
}

/// The master dies and the replica that follows it has not got the last writes. Ends the master, hence only with `TEST_REDIS_KILL`.
#[tokio::test]
async fn a_lagging_replica_is_promoted() {
    let Some(config) = sentinels() else { return };
    let Some(_) = optional("TEST_REDIS_KILL") else { return };
    let sentinel = format!("redis://{}", config.sentinels[0]);
    let registry = registry(&config).await;
    let user = UserId::from_stored(1);
    let old = registry.register(user, &DEVICE, NODE).await.unwrap().registration;
    let master: (String, u16) = command(&sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).await;
    let replicas: Vec<HashMap<String, String>> = command(&sentinel, &["SENTINEL", "REPLICAS", "main"]).await;
    let up = replicas.iter().filter(|replica| replica["flags"] == "slave");
    let urls: Vec<_> = up.map(|replica| format!("redis://{}:{}", replica["ip"], replica["port"])).collect();
    let key = format!("{}:{{u:1}}", config.prefix);
    for url in &urls {
        until("it has followed", async || command::<u64>(url, &["HLEN", &key]).await == 1).await;
        command::<()>(url, &["REPLICAOF", "127.0.0.1", "1"]).await;
    }
    let Registered { registration: new, replaced, .. } =
        registry.register(user, &DEVICE, NodeId { node: 8, boot: 8 }).await.unwrap();
    assert_eq!(replaced, Some(old));
    let killed = format!("redis://{}:{}", master.0, master.1);
    let client = redis::Client::open(killed).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _ = redis::cmd("SHUTDOWN").arg("NOSAVE").arg("NOW").arg("FORCE").query_async::<()>(&mut connection).await;
    let began = Instant::now();
    // the new master is one that lags: it still has the old entry
    until("a lagging replica is the master", async || {
        registry.nodes(&[user]).await.is_ok_and(|found| found[0].to_vec() == [NODE])
    })
    .await;
    println!("the lagging replica answers after {:?}", began.elapsed());
    until("it takes writes", async || registry.register(UserId::from_stored(2), &DEVICE, NODE).await.is_ok()).await;
    assert!(!registry.deregister(user, &DEVICE, new).await.unwrap(), "the newer entry is lost");
    assert_eq!(registry.register_all(&[(user, DEVICE.clone(), new)]).await.unwrap(), [new], "until its gateway enters it again");
    assert_eq!(registry.register_all(&[(user, DEVICE.clone(), old)]).await.unwrap(), [new], "the old session learns the truth");
}

/// Registers all the time for as long as `TEST_REDIS_OUTAGE_S` says and prints the longest time without an answer: a master is killed by
/// hand meanwhile.
async fn outage(config: RedisConfig, what: &str) {
    let Some(seconds) = optional("TEST_REDIS_OUTAGE_S") else { return };
    let registry = registry(&config).await;
    let users = (0..50).map(UserId::from_stored).collect::<Vec<_>>();
    for user in &users {
        registry.register(*user, &DEVICE, NODE).await.unwrap();
    }
    let (began, mut good) = (Instant::now(), Instant::now());
    let (mut longest, mut slowest, mut failed, mut partly) = (Duration::ZERO, Duration::ZERO, 0, 0);
    while began.elapsed() < Duration::from_secs(seconds.parse().unwrap()) {
        let asked = Instant::now();
        // users of all slots: an answer counts when it is there for all
        let found = registry.nodes(&users).await;
        partly += usize::from(found.as_ref().is_ok_and(|found| found.iter().any(|nodes| nodes.is_empty())));
        let mut all = found.is_ok_and(|found| found.iter().all(|nodes| !nodes.is_empty()));
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
    println!(
        "{what}: longest outage {longest:?}, {failed} failed rounds of which {partly} partly answered, slowest call {slowest:?}"
    );
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
