//! The soak: load in slices of minutes, and every 20 to 40 s something happens that the seed chose. Each slice is judged by itself.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep, sleep_until};

use crate::load::{Load, under_load};
use crate::rows::{GATEWAYS, flush};
use crate::seen::Seen;
use crate::stand::Stand;

/// How long something is dead or stands still, seconds.
const AWAY_S: Range<f64> = 0.5..6.0;
/// After a slice's last fault there is time to see what it did.
const REST: Duration = Duration::from_secs(15);
/// Virtual shards of the stand.
const SHARDS: u16 = 24;
/// Users of a slice: so many that each shard has one.
const USERS: u64 = SHARDS as u64;

/// Places in the code where a process dies, and the kind of process.
const PLACES: [(&str, &str); 8] = [
    ("router:read", "router"),
    ("router:appending", "router"),
    ("router:appended", "router"),
    ("router:checkpoint", "router"),
    ("storage:planned", "storage"),
    ("storage:committing", "storage"),
    ("storage:committed", "storage"),
    ("storage:pushed", "storage"),
];

/// One thing that happens.
#[derive(Debug, Clone, PartialEq)]
enum Happening {
    /// kill -9 of a process, dead for so long.
    Kill(String, Duration),
    /// It dies at a place in the code.
    Die(&'static str, &'static str),
    /// SIGSTOP, then SIGCONT.
    StandStill(String, Duration),
    /// SIGTERM and a new process.
    Restart(String),
    /// Redis forgets everything.
    Flush,
    /// A virtual shard moves to the other database.
    Move(u16),
}

/// What the soak is.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) slices: u32,
    pub(crate) slice: Duration,
    /// From one happening to the next, seconds.
    pub(crate) every_s: Range<f64>,
    pub(crate) rate: u32,
    pub(crate) seed: u64,
}

fn choose(rng: &mut StdRng, stand: &Stand) -> Happening {
    let ours: Vec<_> = ["gateway", "router", "storage"].iter().flat_map(|kind| stand.members(kind)).collect();
    let engines: Vec<_> = ["kafka", "redis", "postgres"].iter().flat_map(|kind| stand.members(kind)).collect();
    let all = [ours.clone(), engines].concat();
    let one = |from: &[String], rng: &mut StdRng| from.choose(rng).cloned().unwrap_or_default();
    let away = Duration::from_secs_f64(rng.random_range(AWAY_S));
    match rng.random_range(0..10) {
        0..3 => Happening::Kill(one(&all, rng), away),
        3..6 => PLACES.choose(rng).map_or(Happening::Flush, |(place, kind)| Happening::Die(place, kind)),
        6..8 => Happening::StandStill(one(&all, rng), away),
        8 if rng.random_bool(0.5) => Happening::Restart(one(&ours, rng)),
        8 => Happening::Flush,
        _ => Happening::Move(rng.random_range(0..SHARDS)),
    }
}

/// Makes it happen, and what must be done for things to come back.
async fn happen(stand: &Stand, what: Happening) -> Result<()> {
    match what {
        Happening::Kill(name, away) => {
            stand.does("kill", &name)?;
            sleep(away).await;
            stand.does("start", &name)
        }
        Happening::Die(place, kind) => {
            stand.halt_at(place)?;
            stand.halted_at(place).await?;
            sleep(Duration::from_millis(500)).await;
            stand.members(kind).iter().try_for_each(|name| stand.does("start", name))
        }
        Happening::StandStill(name, away) => {
            stand.does("pause", &name)?;
            sleep(away).await;
            stand.does("resume", &name)
        }
        Happening::Restart(name) => stand.does("restart", &name),
        Happening::Flush => flush(stand),
        Happening::Move(shard) => {
            let to = if stand.database_of(shard)? == "a" { "b" } else { "a" };
            stand.fault(format!("move of shard {shard} to {to}"));
            let (ok, said) = stand.admin(&["shard", "move", &shard.to_string(), "--to", to])?;
            ensure!(ok, "shard {shard} to {to}: {said}");
            Ok(())
        }
    }
}

/// One slice: the `number`th of its plan.
pub(crate) async fn slice(stand: &Stand, plan: &Plan, number: u32) -> Result<Seen> {
    let mut rng = StdRng::seed_from_u64(plan.seed ^ (u64::from(number) << 32));
    let name = format!("soak-{}-{number}", plan.seed);
    let load = Load { row: &name, gateways: &GATEWAYS, users: USERS, rate: plan.rate };
    let seen = under_load(stand, load, async {
        let end = Instant::now() + plan.slice;
        loop {
            let next = Instant::now() + Duration::from_secs_f64(rng.random_range(plan.every_s.clone()));
            if next + REST > end {
                break;
            }
            sleep_until(next).await;
            happen(stand, choose(&mut rng, stand)).await?;
        }
        sleep_until(end).await;
        Ok(())
    })
    .await?;
    ensure!(!seen.faults.is_empty(), "nothing happened");
    stand.all_ready().await?;
    Ok(seen)
}
