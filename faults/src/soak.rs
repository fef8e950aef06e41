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
/// No message takes longer, whatever happens to it.
const WELL_WITHIN: Duration = Duration::from_secs(60);
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
    /// Two happen at once.
    pub(crate) pairs: bool,
    pub(crate) rate: u32,
    pub(crate) seed: u64,
}

fn choose_one(rng: &mut StdRng, stand: &Stand) -> Happening {
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

impl Happening {
    /// How long it lasts before somebody comes to bring things back.
    fn lasts(&self) -> Duration {
        match self {
            Self::Kill(_, away) | Self::StandStill(_, away) => *away,
            Self::Die(..) => Duration::from_millis(500),
            Self::Restart(_) | Self::Flush | Self::Move(_) => Duration::ZERO,
        }
    }

    /// Whom it happens to: a process, or all of a kind.
    fn whom(&self) -> &str {
        match self {
            Self::Kill(name, _) | Self::StandStill(name, _) | Self::Restart(name) => name,
            Self::Die(_, kind) => kind,
            Self::Flush => "redis",
            Self::Move(_) => "postgres",
        }
    }

    /// Whether it can happen while something else does. An operator would wait with the rest until all is well.
    fn comes_unasked(&self) -> bool {
        !matches!(self, Self::Restart(_) | Self::Move(_))
    }

    /// What is brought back first: engines, then what needs them.
    fn rank(&self) -> usize {
        ["kafka", "redis", "postgres", "storage", "router"].iter().position(|kind| self.whom().starts_with(kind)).unwrap_or(9)
    }
}

/// Makes it happen.
async fn harm(stand: &Stand, what: &Happening) -> Result<()> {
    match what {
        Happening::Kill(name, _) => stand.does("kill", name),
        Happening::Die(place, _) => {
            stand.halt_at(place)?;
            stand.halted_at(place).await
        }
        Happening::StandStill(name, _) => stand.does("pause", name),
        Happening::Restart(name) => stand.does("restart", name),
        Happening::Flush => flush(stand),
        Happening::Move(shard) => {
            let to = if stand.database_of(*shard)? == "a" { "b" } else { "a" };
            stand.fault(format!("move of shard {shard} to {to}"));
            let (ok, said) = stand.admin(&["shard", "move", &shard.to_string(), "--to", to])?;
            ensure!(ok, "shard {shard} to {to}: {said}");
            Ok(())
        }
    }
}

/// Does what must be done for things to come back.
fn mend(stand: &Stand, what: &Happening) -> Result<()> {
    match what {
        Happening::Kill(name, _) => stand.does("start", name),
        Happening::Die(_, kind) => stand.members(kind).iter().try_for_each(|name| stand.does("start", name)),
        Happening::StandStill(name, _) => stand.does("resume", name),
        Happening::Restart(_) | Happening::Flush | Happening::Move(_) => Ok(()),
    }
}

/// One thing, or two at once.
fn choose(rng: &mut StdRng, stand: &Stand, pairs: bool) -> Vec<Happening> {
    if !pairs {
        return vec![choose_one(rng, stand)];
    }
    let kind = |one: &Happening| one.whom().split('-').next().unwrap_or_default().to_owned();
    loop {
        let (one, other) = (choose_one(rng, stand), choose_one(rng, stand));
        if one.comes_unasked() && other.comes_unasked() && kind(&one) != kind(&other) {
            return vec![one, other];
        }
    }
}

async fn happen(stand: &Stand, mut what: Vec<Happening>) -> Result<()> {
    // who dies at a place in the code has to come there first
    what.sort_by_key(|one| !matches!(one, Happening::Die(..)));
    let mut harmed = Ok(());
    for one in &what {
        harmed = harmed.and(harm(stand, one).await);
    }
    sleep(what.iter().map(Happening::lasts).max().unwrap_or_default()).await;
    what.sort_by_key(Happening::rank);
    harmed.and(what.iter().try_for_each(|one| mend(stand, one)))
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
            happen(stand, choose(&mut rng, stand, plan.pairs)).await?;
        }
        sleep_until(end).await;
        Ok(())
    })
    .await?;
    ensure!(!seen.faults.is_empty(), "nothing happened");
    ensure!(seen.slowest < WELL_WITHIN, "a message took {:?}", seen.slowest);
    stand.all_ready().await?;
    Ok(seen)
}
