//! Redis forgets, stops, goes and comes back.

use std::time::{Duration, Instant};

use protocol::UserId;
use router::members::Members;
use router::registry::redis::{RedisLink, RedisRegistry};
use router::registry::{Registered, Registry};

use crate::stand::{Server, command, fails_in_time, fresh, registry, until, up};
use crate::{DEVICE, NODE};

const USER: UserId = UserId::from_stored(1);

#[tokio::test]
async fn an_old_goodbye_after_a_flush_does_nothing() {
    let Some(server) = Server::start().await else { return };
    let registry = registry(&fresh(&server.url())).await;
    let old = registry.register(USER, &DEVICE, NODE).await.unwrap().registration;
    command::<()>(&server.url(), &["FLUSHALL"]).await;
    assert!(!registry.deregister(USER, &DEVICE, old).await.unwrap());
    let Registered { registration: new, replaced, .. } = registry.register(USER, &DEVICE, NODE).await.unwrap();
    assert!(replaced.is_none() && new.counter > old.counter);
    assert!(!registry.deregister(USER, &DEVICE, old).await.unwrap());
    assert_eq!(registry.register_all(&[(USER, DEVICE.clone(), old)]).await.unwrap(), [new]);
    assert_eq!(registry.nodes(&[USER]).await.unwrap()[0].to_vec(), [NODE]);
}

#[tokio::test]
async fn it_need_not_be_there_at_the_start_and_may_restart_empty() {
    let Some(mut server) = Server::start().await else { return };
    server.kill();
    let registry = RedisRegistry::new(RedisLink::new(fresh(&server.url())).unwrap(), Members::unknown());
    fails_in_time(registry.register(USER, &DEVICE, NODE)).await;
    server.again().await;
    println!("found after {:?}", up(&registry).await);
    let entry = registry.register(USER, &DEVICE, NODE).await.unwrap().registration;
    server.kill();
    fails_in_time(registry.nodes(&[USER])).await;
    until("the failure is noticed", async || registry.nodes(&[USER]).await.is_err_and(|why| why.0.contains("away"))).await;
    let began = Instant::now();
    fails_in_time(registry.nodes(&[USER])).await;
    println!("known to be away, it fails after {:?}", began.elapsed());
    server.again().await;
    println!("found again after {:?}", up(&registry).await);
    assert!(registry.nodes(&[USER]).await.unwrap()[0].is_empty());
    assert_eq!(registry.register_all(&[(USER, DEVICE.clone(), entry)]).await.unwrap(), [entry]);
    assert_eq!(registry.nodes(&[USER]).await.unwrap()[0].to_vec(), [NODE]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_redis_holds_nobody() {
    let Some(server) = Server::start().await else { return };
    let registry = registry(&fresh(&server.url())).await;
    registry.register(USER, &DEVICE, NODE).await.unwrap();
    server.signal("STOP");
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < Duration::from_secs(3) {
        fails_in_time(registry.nodes(&[USER])).await;
        fails_in_time(registry.register(USER, &DEVICE, NODE)).await;
        calls += 2;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.signal("CONT");
    println!("{calls} calls while it stood still; found again after {:?}", up(&registry).await);
    assert!(calls > 100, "once it is known to be away, nobody waits: {calls}");
    registry.register(USER, &DEVICE, NODE).await.unwrap();
}
