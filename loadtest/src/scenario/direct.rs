//! A steady open load of durable one-to-one messages between pairs of sockets, measured and judged.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lane::{Course, Lane, Report, Signal};
use super::{Attached, Common, attach, fresh_device};
use crate::frame::Limits;
use crate::pace::{Latencies, Schedule};
use crate::process::Process;
use crate::tokens::Account;

/// Progress is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The first send is due this long after the last handshake.
const LEAD: Duration = Duration::from_millis(200);

/// The options of `direct`.
#[derive(Debug, Clone, Args)]
#[group(skip)] // options are flattened into each other
pub struct Options {
    /// Where, who, how many.
    #[command(flatten)]
    pub common: Common,
    /// Sends a second, of all sockets together.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// How long is measured.
    #[arg(long, default_value = "30s", value_parser = super::duration)]
    pub duration: Duration,
    /// How long is sent before that.
    #[arg(long, default_value = "5s", value_parser = super::duration)]
    pub warmup: Duration,
    /// The bytes of a body.
    #[arg(long, default_value_t = 200)]
    pub body: usize,
    /// After the last send, messages may take this long without any progress.
    #[arg(long, default_value = "10s", value_parser = super::duration)]
    pub grace: Duration,
}

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// The rate that was asked for.
    pub rate: f64,
    /// The rate of `accepted` answers in the measured time.
    pub achieved: f64,
    /// From the intended time to the answer.
    pub accepted: Arc<Latencies>,
    /// From the intended time to the receiver's event.
    pub delivered: Arc<Latencies>,
    /// Processor seconds of the server for a million accepted messages.
    pub cpu_per_million: Option<f64>,
    /// What was wrong.
    pub tally: Tally,
}

/// What was wrong in a run, by kind.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sends that were due.
    pub sends: u64,
    /// Sends that were accepted.
    pub accepted: u64,
    /// Accepted, but never shown to the receiver.
    pub lost: u64,
    /// Neither accepted nor finally refused.
    pub silent: u64,
    /// Finally refused.
    pub refused: u64,
    /// Shown twice.
    pub duplicates: u64,
    /// Shown after a later one of the same sender.
    pub inversions: u64,
    /// Holes in a mailbox.
    pub holes: u64,
    /// Shown, but not sent by the partner in this run.
    pub phantoms: u64,
    /// Attempts the server put off (not wrong, but late).
    pub put_back: u64,
    /// Sockets that broke, and the first reason.
    pub broken: (u64, Option<String>),
}

impl Tally {
    /// Whether every send was accepted and shown once, in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let wrong = [self.lost, self.silent, self.refused, self.duplicates, self.inversions, self.holes, self.phantoms];
        self.accepted == self.sends && self.sends > 0 && wrong.iter().all(|count| *count == 0) && self.broken.0 == 0
    }

    fn of(reports: &[Report], sends: u64) -> Self {
        let mut tally = Self { sends, ..Self::default() };
        for (index, report) in reports.iter().enumerate() {
            tally.accepted += report.accepted.count();
            // Without its partner's report nothing of this lane was shown.
            tally.lost += reports.get(index ^ 1).map_or(0, |partner| report.accepted.missing_in(&partner.arrived));
            tally.refused += report.refused_finally;
            tally.duplicates += report.duplicates;
            tally.inversions += report.inversions;
            tally.holes += report.holes;
            tally.phantoms += report.phantoms;
            tally.put_back += report.put_back;
            if let Some(why) = &report.broken {
                tally.broken.0 += 1;
                tally.broken.1.get_or_insert_with(|| why.clone());
            }
        }
        tally.silent = sends.saturating_sub(tally.accepted + tally.refused);
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_clean() { "clean" } else { "WRONG" };
        write!(out, "verdict: {verdict}: {} sends, {} accepted, ", self.sends, self.accepted)?;
        write!(out, "{} lost, {} silent, {} refused, ", self.lost, self.silent, self.refused)?;
        write!(out, "{} duplicate, {} inverted, {} holes, ", self.duplicates, self.inversions, self.holes)?;
        write!(out, "{} phantom, {} put off", self.phantoms, self.put_back)?;
        match &self.broken {
            (0, _) => Ok(()),
            (count, why) => write!(out, ", {count} sockets broke: {}", why.as_deref().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "rate: {:.0}/s intended, {:.0}/s accepted", self.rate, self.achieved)?;
        writeln!(out, "accepted:  {}", self.accepted.summary())?;
        writeln!(out, "delivered: {}", self.delivered.summary())?;
        if let Some(cpu) = self.cpu_per_million {
            writeln!(out, "server CPU: {cpu:.1} s for a million messages")?;
        }
        write!(out, "{}", self.tally)
    }
}

/// Runs the scenario. Returns whether the verdict is clean.
///
/// # Errors
/// When the load cannot be set up.
pub async fn run(options: Options) -> Result<bool> {
    let outcome = measure(&options).await?;
    println!("{outcome}");
    Ok(outcome.tally.is_clean())
}

/// Sets the load up, runs it, and judges it.
///
/// # Errors
/// When the load cannot be set up: tokens, sockets, or a rate above what the server allows a user.
pub async fn measure(options: &Options) -> Result<Outcome> {
    let accounts = options.common.accounts()?;
    ensure!(accounts.len() >= 2 && accounts.len().is_multiple_of(2), "pairs need an even number of --sockets");
    ensure!(options.rate > 0.0 && options.rate.is_finite(), "--rate must be above 0");
    let run: u32 = rand::random();
    let attached = attach_all(options, &accounts, &fresh_device(run)).await?;
    let limits = attached.first().map(|first| first.welcome.limits).unwrap_or_default();
    check_limits(options, limits)?;

    let start = Instant::now() + LEAD;
    let course = course(options, run, start);
    let mut lanes = JoinSet::new();
    for (index, attached) in attached.into_iter().enumerate() {
        let partner = accounts.get(index ^ 1).map(|account| account.user).context("a lane without a partner")?;
        let lane = Lane::new(Arc::clone(&course), attached, u32::try_from(index)?, partner);
        lanes.spawn(async move { (index, lane.run().await) });
    }
    let server = options.common.server();
    let before = drive(&course, start + options.warmup, server).await?;
    quiet(&course, options.grace).await;
    let after = server.map(|server| server.cpu_seconds()).transpose()?;
    let cpu = before.zip(after).map(|(before, after)| after - before);
    course.leave.send_replace(true);
    let mut reports: Vec<_> = lanes.join_all().await;
    reports.sort_by_key(|(index, _)| *index);
    let reports: Vec<_> = reports.into_iter().map(|(_, report)| report).collect();
    Ok(outcome(options, &course, &reports, (start + options.warmup, cpu)))
}

async fn attach_all(options: &Options, accounts: &[Account], device: &str) -> Result<Vec<Attached>> {
    let targets = options.common.targets().await?;
    let device: Arc<str> = device.into();
    // partners are neighbours in the list: with several gateways they are at different ones
    let coming = stream::iter(accounts.iter().cloned().enumerate()).map(move |(index, account)| {
        let (target, device) = (targets[index % targets.len()].with_token(&account.token), Arc::clone(&device));
        async move { attach(&target, &device, None).await.with_context(|| format!("attaching user {}", account.user)) }
    });
    coming.buffered(options.common.handshakes.max(1)).try_collect().await
}

#[expect(clippy::cast_precision_loss, reason = "a count of sockets")]
fn check_limits(options: &Options, limits: Limits) -> Result<()> {
    let (sockets, allowed) = (options.common.sockets as f64, f64::from(limits.sends_per_s));
    let each = options.rate / sockets;
    let need = (options.rate / allowed).ceil();
    ensure!(
        each <= allowed,
        "{}/s over {sockets} sockets are {each:.0}/s for each user, the server allows {allowed}/s: use --sockets {need} or more, or raise its limit",
        options.rate
    );
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of sends, far below 2^53")]
fn course(options: &Options, run: u32, start: Instant) -> Arc<Course> {
    let sockets = options.common.sockets;
    Arc::new(Course {
        run,
        schedule: Schedule::new(start, options.rate, options.warmup + options.duration),
        sockets: sockets as u64,
        body: options.body,
        measured_from: (options.rate * options.warmup.as_secs_f64()) as u64,
        signals: std::iter::repeat_with(Signal::default).take(sockets).collect(),
        accepted: Arc::default(),
        delivered: Arc::default(),
        settled: AtomicU64::new(0),
        arrived: AtomicU64::new(0),
        leave: watch::Sender::new(false),
    })
}

/// Sends what is due. Returns the processor seconds the server had used when measuring began.
async fn drive(course: &Arc<Course>, measured_from: Instant, server: Option<Process>) -> Result<Option<f64>> {
    let before = async {
        tokio::time::sleep_until(measured_from).await;
        server.map(|server| server.cpu_seconds()).transpose()
    };
    let sending = course.schedule.run(|n| {
        let lane = usize::try_from(n % course.sockets).unwrap_or_default();
        if let Some(signal) = course.signals.get(lane) {
            signal.one_more();
        }
    });
    let (before, ()) = tokio::join!(before, sending);
    before.context("is --server-pid right?")
}

/// Waits until everything arrived or nothing moves any more.
async fn quiet(course: &Course, grace: Duration) {
    let all = course.schedule.count();
    let mut last = (0, 0, Instant::now());
    loop {
        let (settled, arrived) = (course.settled.load(Ordering::Relaxed), course.arrived.load(Ordering::Relaxed));
        if settled == all && arrived == all {
            return;
        }
        if (settled, arrived) != (last.0, last.1) {
            last = (settled, arrived, Instant::now());
        } else if last.2.elapsed() > grace {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of messages, far below 2^53")]
fn outcome(options: &Options, course: &Arc<Course>, reports: &[Report], (measured_from, cpu): (Instant, Option<f64>)) -> Outcome {
    let tally = Tally::of(reports, course.schedule.count());
    let measured = course.accepted.count() as f64;
    let last = reports.iter().filter_map(|report| report.last_accepted).max().unwrap_or(measured_from);
    let seconds = last.saturating_duration_since(measured_from).max(options.duration).as_secs_f64();
    Outcome {
        rate: options.rate,
        achieved: measured / seconds,
        accepted: Arc::clone(&course.accepted),
        delivered: Arc::clone(&course.delivered),
        cpu_per_million: cpu.map(|seconds| seconds * 1e6 / measured.max(1.0)),
        tally,
    }
}
