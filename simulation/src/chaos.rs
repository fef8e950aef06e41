//! What befalls whole processes: death, standstill while another takes over, a second router, a registry that forgets everything, mailboxes that
//! are numbered anew.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use protocol::record::MailboxRecord;
use router::consume::Rewind;
use router::expand::ShardId;
use router::log::{Log as _, Topic};
use tokio::time::sleep;

use crate::process::Process;
use crate::world::{GATEWAYS, Kind, SHARDS, SOURCES, World};

/// Bad things happen until this is dropped.
pub async fn reign(world: &Arc<World>) {
    let weather = &world.sim.weather;
    if weather.chaos_ms == 0 {
        pending::<()>().await;
    }
    let renumber_at = if weather.new_epoch { 5000 + world.sim.below(15_000) } else { u64::MAX };
    let mut renumbered = false;
    loop {
        sleep(world.sim.up_to_ms(2 * weather.chaos_ms)).await;
        if !renumbered && world.sim.now_ms() >= renumber_at {
            renumbered = true;
            renumber(world).await;
            continue;
        }
        act(world).await;
    }
}

fn newest(world: &World, kind: Kind, count: u16) -> Option<Arc<Process>> {
    let number = u16::try_from(world.sim.below(u64::from(count))).unwrap_or(0);
    world.running.lock().get(&(kind, number)).and_then(|lives| lives.last().cloned())
}

async fn act(world: &Arc<World>) {
    match world.sim.below(8) {
        0 => kill(world, Kind::Gateway, GATEWAYS),
        1 => kill(world, Kind::Router, SOURCES),
        2 => kill(world, Kind::Storage, SHARDS),
        3 | 4 => stand_still(world),
        5 => second_router(world),
        6 => rewind(world).await,
        _ => {
            world.sim.saw("registry forgot everything");
            world.registry.forget_all();
        }
    }
}

fn kill(world: &World, kind: Kind, count: u16) {
    if let Some(process) = newest(world, kind, count) {
        process.kill("killed");
    }
}

/// An owner stands still, another one takes its shard, and then the first goes on as if nothing had happened.
fn stand_still(world: &Arc<World>) {
    let Some(process) = newest(world, Kind::Storage, SHARDS) else { return };
    process.stand_still();
    let after = Duration::from_millis(200) + world.sim.up_to_ms(6000);
    tokio::spawn(async move {
        sleep(after).await;
        process.go_on();
    });
}

/// Two routers read one partition for a while.
fn second_router(world: &Arc<World>) {
    let number = u16::try_from(world.sim.below(u64::from(SOURCES))).unwrap_or(0);
    world.sim.saw("two routers of one partition");
    tokio::spawn(Arc::clone(world).keep_router(number, false));
    let (world, after) = (Arc::clone(world), world.sim.up_to_ms(5000));
    tokio::spawn(async move {
        sleep(after).await;
        let lives = world.running.lock().get(&(Kind::Router, number)).cloned().unwrap_or_default();
        let alive: Vec<_> = lives.iter().filter(|process| !process.is_dead()).collect();
        // whichever: both say the same
        if let [first, _, ..] = alive[..] {
            first.kill("one of two");
        }
    });
}

/// A person has a router say again what it has said to a shard since some time. Everything is a repeat.
async fn rewind(world: &Arc<World>) {
    let shard = u16::try_from(world.sim.below(u64::from(SHARDS))).unwrap_or(0);
    let end = world.log.end(Topic::Mailbox, shard).await.unwrap_or(0);
    let from = world.sim.below(end);
    let entries = if end == 0 { Vec::new() } else { world.log.read(Topic::Mailbox, shard, from, 1).await.unwrap_or_default() };
    let Some(record) = entries.first().and_then(|entry| MailboxRecord::decode(&entry.payload).ok()) else { return };
    let router = world.routers.lock().get(&record.source.partition).cloned();
    let request = Rewind { source: record.source, shard: ShardId(shard), high_water: record.link, hole: end };
    world.sim.note(|| format!("a person asks for {request:?}"));
    if router.is_some_and(|router| router.try_send(request).is_ok()) {
        world.sim.saw("rewind asked for by a person");
    }
}

/// Mailboxes come back from a copy that numbers them otherwise: nobody's cursor means anything now. As a person would: everybody who holds
/// a number is stopped first.
async fn renumber(world: &Arc<World>) {
    world.sim.saw("mailboxes numbered anew");
    for lives in world.running.lock().iter().filter(|((kind, _), _)| *kind != Kind::Router).map(|(_, lives)| lives) {
        lives.iter().for_each(|process| process.kill("the mailboxes are numbered anew"));
    }
    world.store.renumber();
    world.devices_are_born().await;
}
