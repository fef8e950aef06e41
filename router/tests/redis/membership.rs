//! Members on a real Redis.

use std::sync::Arc;
use std::time::Duration;

use protocol::UserId;
use router::assign::Kind;
use router::members::reach::{Observer, Reach};
use router::members::{Member, Members, Membership, Role, Roles, Trouble, Troubles, look};
use router::registry::redis::{RedisConfig, RedisLink, RedisRegistry};
use router::registry::{NodeId, Registry};

use crate::DEVICE;
use crate::stand::{Server, command, env, fresh, until};

const USER: UserId = UserId::from_stored(1);

fn node(number: u16) -> NodeId {
    NodeId { node: number, boot: u64::from(number) * 1000 }
}

fn join(config: &RedisConfig, node: NodeId) -> (Membership, RedisLink) {
    let link = RedisLink::new(config.clone()).unwrap();
    let me = Member {
        node,
        name: format!("n{}", node.node),
        roles: Roles::ALL,
        address: format!("127.0.0.1:{}", 7000 + node.node).parse().ok(),
        version: "1".into(),
        started_ms: 1,
        troubles: Troubles::default(),
        reach: None,
    };
    (Membership::join(link.clone(), me), link)
}

async fn sees(members: &Members, role: Role, who: &[NodeId]) -> Duration {
    until(&format!("{role:?} is {who:?}"), async || members.view().live(role) == who).await
}

async fn may_acquire(members: &Members) -> Duration {
    until("it may acquire", async || members.view().may_acquire()).await
}

#[tokio::test]
async fn who_comes_is_seen_and_who_goes_is_missed() {
    let Some(url) = env("TEST_REDIS") else { return };
    let config = fresh(&url);
    let (one, _one) = join(&config, node(1));
    let (two, _two) = join(&config, node(2));
    let members = one.members();
    sees(&members, Role::Storage, &[node(1), node(2)]).await;
    assert!(!members.view().may_acquire(), "the store was empty");
    println!("a new cluster begins to work after {:?}", may_acquire(&members).await);
    assert_eq!(members.view().address(node(2)), "127.0.0.1:7002".parse().ok());
    let (three, _three) = join(&config, node(3));
    println!("a third counts after {:?}", sees(&members, Role::Router, &[node(1), node(2), node(3)]).await);
    two.leave_role(Role::Storage);
    let took = sees(&members, Role::Storage, &[node(1), node(3)]).await;
    println!("a role left is seen after {took:?}");
    assert_eq!(members.view().live(Role::Router).len(), 3);
    drop(three);
    println!("a silent member loses its roles after {:?}", sees(&members, Role::Router, &[node(1), node(2)]).await);
    assert!(members.view().members.iter().any(|member| member.node == node(3)), "its registrations count for longer");
    two.leave().await.unwrap();
    until("who left is dead", async || members.view().dead.contains(&node(2))).await;
    assert!(members.view().may_acquire());
}

#[tokio::test]
async fn a_flush_holds_off_and_takes_nobody_away() {
    let Some(server) = Server::start().await else { return };
    let config = fresh(&server.url());
    let (one, _one) = join(&config, node(1));
    let (_two, _link) = join(&config, node(2));
    let members = one.members();
    may_acquire(&members).await;
    let mut changes = members.watch();
    command::<()>(&server.url(), &["FLUSHALL"]).await;
    until("the flush is seen", async || members.view().hold_off).await;
    while !members.view().may_acquire() {
        assert_eq!(members.view().live(Role::Storage), [node(1), node(2)]);
        changes.changed().await.unwrap();
    }
    assert_eq!(members.view().live(Role::Storage), [node(1), node(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_stands_still_the_view_does() {
    let Some(server) = Server::start().await else { return };
    let config = fresh(&server.url());
    let (one, _one) = join(&config, node(1));
    let (_two, _link) = join(&config, node(2));
    let members = one.members();
    may_acquire(&members).await;
    server.signal("STOP");
    until("it is noticed", async || members.view().unreachable_since.is_some()).await;
    assert!(!members.view().may_acquire());
    assert_eq!(members.view().live(Role::Storage), [node(1), node(2)]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let view = members.view();
    assert_eq!(view.live(Role::Storage), [node(1), node(2)]);
    assert!(view.unreachable_since.is_some_and(|since| since.elapsed() > Duration::from_secs(3)));
    server.signal("CONT");
    let mut changes = members.watch();
    while !members.view().may_acquire() {
        assert_eq!(members.view().live(Role::Storage), [node(1), node(2)], "nobody is missed after the outage");
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn entries_of_a_dead_boot_are_void_and_go() {
    let Some(url) = env("TEST_REDIS") else { return };
    let config = fresh(&url);
    let (one, link) = join(&config, node(1));
    let registry = RedisRegistry::new(link, one.members());
    let (two, link_two) = join(&config, node(2));
    may_acquire(&one.members()).await;
    let of_two = RedisRegistry::new(link_two, two.members());
    of_two.register(USER, &DEVICE, node(2)).await.unwrap();
    registry.register(USER, &"laptop".parse().unwrap(), node(1)).await.unwrap();
    assert_eq!(registry.nodes(&[USER]).await.unwrap()[0].len(), 2);
    drop((two, of_two));
    let took = until("its entry is void", async || registry.nodes(&[USER]).await.unwrap()[0].to_vec() == [node(1)]).await;
    println!("a dead boot's entries are void after {took:?}");
    let key = format!("{}:{{u:1}}", config.prefix);
    until("it is removed", async || command::<u64>(&url, &["HLEN", &key]).await == 1).await;
}

#[tokio::test]
async fn an_old_copy_of_the_store_costs_nothing_that_lives() {
    let Some(mut server) = Server::start().await else { return };
    let config = fresh(&server.url());
    let (one, link) = join(&config, node(1));
    let (dead, _dead) = join(&config, node(9));
    let registry = Arc::new(RedisRegistry::new(link, one.members()));
    let members = one.members();
    may_acquire(&members).await;
    // what is in the copy: an entry of a boot that is dead now, and one of a session that is elsewhere now
    let ghost = UserId::from_stored(2);
    registry.register(ghost, &DEVICE, node(9)).await.unwrap();
    registry.register(USER, &DEVICE, node(9)).await.unwrap();
    command::<()>(&server.url(), &["SAVE"]).await;
    let copy = server.dump().with_extension("old");
    std::fs::copy(server.dump(), &copy).unwrap();
    drop(dead);
    let mine = registry.register(USER, &DEVICE, node(1)).await.unwrap().registration;
    until("the other is missed", async || members.view().live(Role::Gateway) == [node(1)]).await;
    server.kill();
    std::fs::rename(&copy, server.dump()).unwrap();
    server.again().await;
    until("the old copy is noticed", async || members.view().hold_off).await;
    assert!(members.view().live(Role::Gateway).contains(&node(1)));
    assert_eq!(registry.nodes(&[USER]).await.unwrap()[0].to_vec(), [node(9)], "a lie, until the session is entered again");
    assert_eq!(registry.register_all(&[(USER, DEVICE.clone(), mine)]).await.unwrap(), [mine]);
    assert_eq!(registry.nodes(&[USER]).await.unwrap()[0].to_vec(), [node(1)]);
    let took = until("the dead boot's entry is void", async || registry.nodes(&[ghost]).await.unwrap()[0].is_empty()).await;
    println!("entries of the old copy are void after {took:?}");
}

#[tokio::test]
async fn what_a_member_says_of_its_partitions_is_heard_and_heard_again_after_a_flush() {
    let Some(server) = Server::start().await else { return };
    let config = fresh(&server.url());
    let (one, link) = join(&config, node(1));
    let (two, _two) = join(&config, node(2));
    let members = two.members();
    may_acquire(&members).await;
    let mut troubles = Troubles::default();
    troubles.set(Kind::Messages, 3, Trouble::Stopped);
    one.voice().say(troubles.clone(), Reach::default());
    let hears = async || members.view().troubles().of(Kind::Messages, 3) == Some(Trouble::Stopped);
    println!("a word is heard after {:?}", until("it is heard", hears).await);
    command::<()>(&server.url(), &["FLUSHALL"]).await;
    until("the flush is seen", async || members.view().hold_off).await;
    until("and is over", async || members.view().may_acquire()).await;
    assert!(hears().await, "it was said again");
    // who only looks joins nothing
    let seen = look(&link).await.unwrap();
    assert_eq!(seen.live(Role::Router), [node(1), node(2)]);
    let says = |number| seen.members.iter().find(|member| member.node == node(number)).map(|member| member.troubles.clone());
    assert_eq!((says(1), says(2)), (Some(troubles), Some(Troubles::default())));
    let reach =
        |there: bool| Observer::default().look(&[("log".to_owned(), there)], tokio::time::Instant::now(), members.heard_us());
    two.voice().say(Troubles::default(), reach(true));
    one.voice().say(Troubles::default(), reach(false));
    let able = async |who: &[NodeId]| until("able", async || members.view().able(Role::Storage, &["log"]) == who).await;
    println!("who does not reach the log has no share after {:?}", able(&[node(2)]).await);
    one.voice().say(Troubles::default(), reach(true));
    able(&[node(1), node(2)]).await;
    until("it is taken back", async || members.view().troubles().is_empty()).await;
    drop(one);
    until("who is silent is not there", async || look(&link).await.unwrap().members.len() == 1).await;
}
