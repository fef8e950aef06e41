//! What befalls whole processes and engines: death, standstill while others take over, partitions, a Redis that forgets everything or comes back
//! old, shards that move, are set back or are numbered anew.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use protocol::record::MailboxRecord;
use router::consume::Rewind;
use router::expand::ShardId;
use router::log::{Log as _, Topic};
use tokio::time::sleep;

use crate::node::Node;
use crate::process::Part;
use crate::world::{NODES, SHARDS, World};

/// Longest standstill and partition, ms: longer than a role lease, some longer than a node lease.
const AWAY_MS: [u64; 4] = [1500, 4000, 8000, 14_000];

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
            world.databases.renumber(any_shard(world)).await;
            continue;
        }
        act(world).await;
    }
}

/// Nothing bad happens any more: who stands still goes on, and a move that was broken off is ended.
pub async fn mend(world: &Arc<World>) {
    let nodes: Vec<_> = world.nodes.lock().values().cloned().collect();
    nodes.iter().for_each(|node| node.process.go_on());
    for shard in (0..SHARDS).map(ShardId) {
        if world.databases.find(shard).is_none() && !world.databases.open(shard).await {
            world.sim.wrong(format!("shard {} is nowhere", shard.0));
        }
    }
}

fn any_node(world: &World) -> Option<Arc<Node>> {
    let number = u16::try_from(world.sim.below(u64::from(NODES))).unwrap_or(0);
    world.nodes.lock().get(&number).filter(|node| !node.process.is_dead()).cloned()
}

fn any_shard(world: &World) -> ShardId {
    ShardId(u16::try_from(world.sim.below(u64::from(SHARDS))).unwrap_or(0))
}

fn a_while(world: &World) -> Duration {
    let longest = AWAY_MS[usize::try_from(world.sim.below(AWAY_MS.len() as u64)).unwrap_or(0)];
    Duration::from_millis(200) + world.sim.up_to_ms(longest)
}

async fn act(world: &Arc<World>) {
    match world.sim.below(14) {
        0 | 1 => {
            if let Some(node) = any_node(world) {
                world.sim.saw("process killed");
                node.process.kill("killed");
            }
        }
        2..=4 => stand_still(world),
        5..=7 => cut_off(world),
        8 => {
            world.sim.note(|| "Redis forgets everything".into());
            world.sim.saw("registry forgot everything");
            world.redis.forget_all();
        }
        9 => {
            world.redis.save();
            let (world, after) = (Arc::clone(world), world.sim.up_to_ms(8000));
            tokio::spawn(async move {
                sleep(after).await;
                if !world.sim.is_healed() {
                    world.sim.note(|| format!("Redis is as it was {after:?} ago"));
                    world.sim.saw("Redis failed over to an old replica");
                    world.redis.fail_over();
                }
            });
        }
        10 => rewind(world).await,
        11 if world.sim.weather.databases_change => set_back(world),
        12 | 13 if world.sim.weather.databases_change => {
            tokio::spawn(move_shard(Arc::clone(world), any_shard(world)));
        }
        _ => {}
    }
}

/// A process stands still, others take its work, and then it goes on as if nothing had happened.
fn stand_still(world: &Arc<World>) {
    let Some(node) = any_node(world) else { return };
    world.sim.saw("process stood still");
    node.process.stand_still();
    let after = a_while(world);
    tokio::spawn(async move {
        sleep(after).await;
        node.process.go_on();
    });
}

/// The network between a process and something it needs is cut.
fn cut_off(world: &Arc<World>) {
    let Some(node) = any_node(world) else { return };
    let parts = [Part::Log, Part::Store, Part::Redis, Part::Peers];
    let part = parts[usize::try_from(world.sim.below(4)).unwrap_or(0)];
    world.sim.saw("network partition");
    node.process.cut(part, a_while(world));
}

/// A backup is made; later the shard is set back to it.
fn set_back(world: &Arc<World>) {
    let shard = any_shard(world);
    world.databases.back_up(shard);
    let (world, after) = (Arc::clone(world), world.sim.up_to_ms(6000));
    tokio::spawn(async move {
        sleep(after).await;
        if !world.sim.is_healed() {
            world.databases.set_back(shard).await;
        }
    });
}

/// A shard moves while it serves. The mover may die at each step; then somebody runs it again, from the start or from its pause on.
async fn move_shard(world: Arc<World>, shard: ShardId) {
    let (sim, databases) = (&world.sim, &world.databases);
    while !sim.is_healed() {
        sleep(sim.up_to_ms(600)).await;
        if databases.find(shard).is_none() {
            // broken off in its pause: only this can follow
            if databases.open(shard).await {
                sim.saw("move broken off in its pause was ended");
            }
            return;
        }
        let Some(token) = databases.copy(shard) else { continue };
        sim.note(|| format!("shard {} is being copied", shard.0));
        sleep(sim.up_to_ms(1500)).await;
        if sim.strikes(2000) {
            sim.saw("mover died while it copied");
            continue;
        }
        if sim.is_healed() || !databases.close(shard, token) {
            sim.saw("move given up: another one has begun");
            return;
        }
        sim.note(|| format!("shard {} serves nobody", shard.0));
        sleep(sim.up_to_ms(400)).await;
        if sim.strikes(2000) {
            sim.saw("mover died in the pause");
            sleep(sim.up_to_ms(2000)).await;
            continue;
        }
        databases.open(shard).await;
        return;
    }
}

/// A person has a router say again what it has said to a shard since some time. Everything is a repeat.
async fn rewind(world: &Arc<World>) {
    let shard = any_shard(world);
    let end = world.log.end(Topic::Mailbox, shard.0).await.unwrap_or(0);
    let from = world.sim.below(end);
    let entries = if end == 0 { Vec::new() } else { world.log.read(Topic::Mailbox, shard.0, from, 1).await.unwrap_or_default() };
    let Some(record) = entries.first().and_then(|entry| MailboxRecord::decode(&entry.payload).ok()) else { return };
    let request = Rewind { source: record.source, shard, high_water: record.link, hole: end };
    world.sim.note(|| format!("a person asks for {request:?}"));
    let nodes: Vec<_> = world.nodes.lock().values().cloned().collect();
    let ways = nodes.iter().filter_map(|node| node.routers.lock().get(&request.source.partition).cloned());
    let taken = ways.filter(|way| way.try_send(request).is_ok()).count();
    if taken > 0 {
        world.sim.saw("rewind asked for by a person");
    }
}
