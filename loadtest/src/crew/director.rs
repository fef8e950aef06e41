//! The course of a run: everybody comes, the load runs while connections are cut, leave or freeze, everything settles.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::control::{Control, Want};
use super::offence::Fault;
use super::{Crew, News, Order};
use crate::body::mix;
use crate::pace::Schedule;

/// Progress is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The first send is due this long after the barrier.
const LEAD: Duration = Duration::from_millis(200);
/// So long may everybody take to leave between two rounds.
const LEAVING: Duration = Duration::from_secs(60);

type Orders = mpsc::Receiver<Order>;

/// Directs a whole run.
pub(super) async fn direct(crew: &Arc<Crew>, orders: &mut Orders, news: &mpsc::Sender<News>) -> Result<()> {
    let rounds = crew.scenario.connect.rounds;
    barrier(crew, "start", (orders, news)).await?;
    for round in 1..=rounds {
        gather(crew).await?;
        barrier(crew, &format!("attached {round}"), (orders, news)).await?;
        if round < rounds {
            crew.controls.iter().for_each(|control| control.set(Want::Left));
            until_sockets(crew, 0, LEAVING).await.context("sockets did not close")?;
            barrier(crew, &format!("left {round}"), (orders, news)).await?;
        }
    }
    let away = away(crew);
    away.iter().for_each(|control| control.set(Want::Left));
    until_sockets(crew, crew.controls.len() - away.len(), LEAVING).await.context("those to be offline did not leave")?;
    barrier(crew, "ready", (orders, news)).await?;
    run_load(crew).await?;
    come_back(crew, &away).await;
    quiet(crew).await?;
    barrier(crew, "quiet", (orders, news)).await
}

/// Says where the crew is and waits until all crews are there.
async fn barrier(crew: &Crew, name: &str, (orders, news): (&mut Orders, &mpsc::Sender<News>)) -> Result<()> {
    // What was counted until here belongs before the barrier.
    news.send(News::Tick(Box::new(crew.tick()))).await.context("nobody listens")?;
    news.send(News::At(name.to_owned())).await.context("nobody listens")?;
    match orders.recv().await {
        Some(Order::Go) => Ok(()),
        None => bail!("the run was called off"),
    }
}

/// Everybody comes, at the rate of the scenario or as handshakes end.
async fn gather(crew: &Arc<Crew>) -> Result<()> {
    let connect = &crew.scenario.connect;
    let start = Instant::now();
    match connect.rate {
        None => crew.controls.iter().for_each(|control| control.set(Want::Here)),
        Some(rate) => {
            for (n, control) in crew.controls.iter().enumerate() {
                let due = start + Duration::from_secs_f64((as_f64(n) + crew.phase) / rate);
                tokio::time::sleep_until(due).await;
                control.come(crew.us_of(due));
                crew.check()?;
            }
        }
    }
    until_sockets(crew, crew.controls.len(), connect.deadline.0).await
}

/// Waits until so many are live.
async fn until_sockets(crew: &Crew, want: usize, deadline: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        crew.check()?;
        let live = crew.meters.sockets.load(Ordering::Relaxed);
        if usize::try_from(live).ok() == Some(want) {
            return Ok(());
        }
        let why = || crew.meters.first_trouble().unwrap_or_else(|| "without an error".to_owned());
        ensure!(
            start.elapsed() < deadline,
            "{live} sockets are live after {deadline:?} where {want} should be; the first trouble: {}",
            why()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Those who are away during the load: the last users, with all their devices.
fn away(crew: &Crew) -> Vec<&Control> {
    let Some(offline) = &crew.scenario.offline else { return Vec::new() };
    let users = share_of(crew.users.len(), offline.share).min(crew.users.len().saturating_sub(1));
    crew.controls.iter().skip((crew.users.len() - users) * crew.devices as usize).collect()
}

/// Whether this lane is one of the slow ones: they are spread evenly over the crew, whole pairs of users excepted.
pub(super) fn is_slow(crew: &Crew, lane: u32) -> bool {
    let Some(slow) = &crew.scenario.slow else { return false };
    #[expect(clippy::cast_precision_loss, reason = "a draw of 32 bits")]
    let draw = (mix(u64::from(lane)) >> 32) as f64 / f64::from(u32::MAX);
    draw < slow.share
}

/// The load, and what becomes of connections meanwhile.
async fn run_load(crew: &Arc<Crew>) -> Result<()> {
    let start = Instant::now() + LEAD;
    let measured_from = start + crew.scenario.warmup.0;
    let end = measured_from + crew.scenario.duration.0;
    crew.load_began_us.store(crew.us_of(start), Ordering::Relaxed);
    crew.measured_from_us.store(crew.us_of(measured_from), Ordering::Relaxed);
    let over = watch::Sender::new(false);
    let load = async {
        if crew.scenario.load.is_some() {
            pace(crew, start).await?;
        }
        while Instant::now() < end {
            crew.check()?;
            tokio::time::sleep_until(end.min(Instant::now() + Duration::from_millis(200))).await;
        }
        over.send_replace(true);
        anyhow::Ok(())
    };
    let (load, (), (), ()) =
        tokio::join!(load, until(&over, cut(crew, start)), until(&over, churn(crew, start)), until(&over, freeze(crew, start)));
    load
}

async fn until(over: &watch::Sender<bool>, work: impl Future<Output = ()>) {
    let mut over = over.subscribe();
    tokio::select! {
        () = async { drop(over.wait_for(|over| *over).await) } => {}
        () = work => {}
    }
}

/// Sends what is due, by whoever is there.
async fn pace(crew: &Arc<Crew>, start: Instant) -> Result<()> {
    let schedule = Schedule::of(&crew.scenario);
    let arrivals = crew.scenario.load.as_ref().map(|load| load.arrivals).unwrap_or_default();
    let mut rng = StdRng::seed_from_u64(mix(u64::from(crew.run) << 32 | u64::from(crew.first_stream)));
    let mut turn = 0;
    for at in schedule.times(arrivals, crew.phase, &mut rng) {
        let due = start + Duration::from_secs_f64(at);
        if due > Instant::now() {
            crew.check()?;
            tokio::time::sleep_until(due).await;
        }
        let lanes = crew.controls.len();
        // Whoever is away on purpose does not write; if all are, one of them does when it is back.
        let sender = (0..lanes).map(|step| (turn + step) % lanes).find(|lane| crew.controls[*lane].want() == Want::Here);
        let sender = sender.unwrap_or(turn % lanes);
        turn = sender + 1;
        crew.meters.due.fetch_add(1, Ordering::Relaxed);
        if crew.controls[sender].push_due(crew.us_of(due)) {
            crew.meters.late.fetch_add(1, Ordering::Relaxed);
        } else {
            crew.ledger.offences.note(Fault::Unsent, || format!("connection {sender} has no room for more sends that wait"));
        }
    }
    Ok(())
}

/// Cuts a share of the connections at one moment, again and again.
async fn cut(crew: &Crew, start: Instant) {
    let Some(cut) = &crew.scenario.cut else { return };
    let mut rng = StdRng::seed_from_u64(mix(u64::from(crew.first_stream)));
    let mut at = start + cut.every.0;
    loop {
        tokio::time::sleep_until(at).await;
        let mut here: Vec<_> = crew.controls.iter().filter(|control| control.want() == Want::Here).collect();
        here.shuffle(&mut rng);
        here.truncate(share_of(crew.controls.len(), cut.share));
        here.iter().for_each(|control| control.set(Want::Cut));
        let mut back: Vec<_> = here.into_iter().map(|control| (at + cut.back_within.0.mul_f64(rng.random()), control)).collect();
        back.sort_by_key(|(back_at, _)| *back_at);
        for (back_at, control) in back {
            tokio::time::sleep_until(back_at).await;
            control.come(crew.us_of(back_at));
        }
        at += cut.every.0;
    }
}

/// Connections leave at a rate and come back after their time; every other one without a word.
async fn churn(crew: &Crew, start: Instant) {
    let Some(churn) = &crew.scenario.churn else { return };
    let mut rng = StdRng::seed_from_u64(mix(u64::from(crew.first_stream) + 1));
    let mut back: VecDeque<(Instant, &Control)> = VecDeque::new();
    let mut next = start;
    loop {
        let returns = back.front().map(|(at, _)| *at);
        if let Some(at) = returns.filter(|at| *at <= next) {
            tokio::time::sleep_until(at).await;
            if let Some((at, control)) = back.pop_front() {
                control.come(crew.us_of(at));
            }
            continue;
        }
        tokio::time::sleep_until(next).await;
        let control = &crew.controls[rng.random_range(0..crew.controls.len())];
        if control.want() == Want::Here {
            control.set(if rng.random() { Want::Cut } else { Want::Left });
            back.push_back((next + churn.away.0, control));
        }
        next += Duration::from_secs_f64(1.0 / churn.rate);
    }
}

/// The slow ones stop reading, and go on, and stop.
async fn freeze(crew: &Crew, start: Instant) {
    let Some(slow) = &crew.scenario.slow else { return };
    let slow_ones: Vec<_> =
        crew.controls.iter().zip(0..).filter(|(_, lane)| is_slow(crew, *lane)).map(|(control, _)| control).collect();
    tokio::time::sleep_until(start).await;
    loop {
        slow_ones.iter().filter(|control| control.want() == Want::Here).for_each(|control| control.set(Want::Frozen));
        tokio::time::sleep(slow.freeze.0).await;
        slow_ones.iter().filter(|control| control.want() == Want::Frozen).for_each(|control| control.set(Want::Here));
        tokio::time::sleep(slow.thaw.0).await;
    }
}

/// At the end of the load everybody is here again: who was offline within the time for it, all others at once.
async fn come_back(crew: &Crew, away: &[&Control]) {
    let start = Instant::now();
    let now_us = crew.us_of(start);
    let mut rng = StdRng::seed_from_u64(mix(u64::from(crew.first_stream) + 2));
    for control in crew.controls.iter().filter(|control| !away.iter().any(|away| std::ptr::eq(*away, *control))) {
        match control.want() {
            Want::Here | Want::Gone => {}
            Want::Frozen => control.set(Want::Here),
            Want::Left | Want::Cut => control.come(now_us),
        }
    }
    let within = crew.scenario.offline.as_ref().map(|offline| offline.back_within.0).unwrap_or_default();
    let mut back: Vec<_> = away.iter().map(|control| (start + within.mul_f64(rng.random()), control)).collect();
    back.sort_by_key(|(at, _)| *at);
    for (at, control) in back {
        tokio::time::sleep_until(at).await;
        control.come(crew.us_of(at));
    }
}

/// Waits until everything is settled and everybody is here, or nothing moves any more.
async fn quiet(crew: &Crew) -> Result<()> {
    let everybody = i64::try_from(crew.controls.len())?;
    let mut last = (0, 0, 0, Instant::now());
    loop {
        crew.check()?;
        let (sent, settled) = crew.ledger.progress();
        let (shown, live) = (crew.meters.delivered.load(Ordering::Relaxed), crew.meters.sockets.load(Ordering::Relaxed));
        if settled == sent && live == everybody && crew.meters.late.load(Ordering::Relaxed) <= 0 {
            return Ok(());
        }
        if (settled, shown, live) != (last.0, last.1, last.2) {
            last = (settled, shown, live, Instant::now());
        } else if last.3.elapsed() > crew.scenario.grace.0 {
            let missing = everybody - live;
            if missing > 0 {
                let why = crew.meters.first_trouble().unwrap_or_default();
                crew.ledger.offences.note(Fault::Broken, || format!("{missing} connections are not back: {why}"));
            }
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count of sockets")]
fn share_of(count: usize, share: f64) -> usize {
    (as_f64(count) * share).round() as usize
}

#[expect(clippy::cast_precision_loss, reason = "a count of sockets")]
fn as_f64(count: usize) -> f64 {
    count as f64
}
