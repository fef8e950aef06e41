//! The conductor keeps the barriers, adds up what crews count, and watches the server meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Hand, Plan};
use crate::crew::{Counts, Found, News, Order, Tick};
use crate::report::watch::{Mark, Watch};
use crate::report::{Ending, Point, Report, Timeline};
use crate::series::{Kind, Series};

/// A point of the timeline, and a look at the server.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known while a run goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Seconds since it began.
    pub seconds: f64,
    /// The last barrier that was passed.
    pub phase: String,
    /// The last second.
    pub point: Point,
    /// Sums of all crews.
    pub counts: Counts,
    /// What was found.
    pub found: Found,
    /// Why the first connection broke or could not be had.
    pub trouble: Option<String>,
}

struct Conductor<'a> {
    plan: &'a Plan,
    crews: Vec<Hand>,
    ticks: Vec<Tick>,
    /// The barrier each crew waits at.
    at: Vec<Option<String>>,
    done: usize,
    began: Instant,
    phase: String,
    totals: BTreeMap<Kind, Series>,
    /// Since the last point.
    recent: BTreeMap<Kind, Series>,
    before: Counts,
    timeline: Timeline,
    watch: Watch,
    fault_at: Option<Instant>,
    load_began: Option<Instant>,
}

/// Conducts a run to its end.
pub(super) async fn conduct(
    plan: &Plan,
    crews: Vec<Hand>,
    mut heard: mpsc::Receiver<(usize, News)>,
    mut progress: impl FnMut(&Progress),
) -> Result<Report> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = crews.len();
    let mut conductor = Conductor {
        plan,
        crews,
        ticks: vec![Tick::default(); count],
        at: vec![None; count],
        done: 0,
        began: Instant::now(),
        phase: "connecting".to_owned(),
        totals: BTreeMap::new(),
        recent: BTreeMap::new(),
        before: Counts::default(),
        timeline: Timeline::default(),
        watch: Watch::new(plan.servers.clone(), if plan.find_servers { &plan.urls } else { &[] }),
        fault_at: None,
        load_began: None,
    };
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while conductor.done < count {
        let fault_at = conductor.fault_at;
        let fault = async {
            match fault_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            news = heard.recv() => {
                let (crew, news) = news.context("all workers are gone")?;
                conductor.hear(crew, news)?;
                conductor.let_go().await?;
            }
            _ = clock.tick() => progress(&conductor.look()),
            () = fault => conductor.strike()?,
        }
    }
    progress(&conductor.look());
    conductor.report(started)
}

impl Conductor<'_> {
    fn hear(&mut self, crew: usize, news: News) -> Result<()> {
        match news {
            News::At(barrier) => self.at[crew] = Some(barrier),
            News::Tick(tick) => self.add(crew, *tick),
            News::Done(tick) => {
                self.add(crew, *tick);
                self.done += 1;
            }
            News::Failed(why) => {
                bail!("{why}{}", if self.crews.len() > 1 { format!(" (worker {})", crew + 1) } else { String::new() })
            }
        }
        Ok(())
    }

    fn add(&mut self, crew: usize, tick: Tick) {
        for (kind, buckets) in &tick.series {
            self.totals.entry(*kind).or_default().merge(buckets);
            self.recent.entry(*kind).or_default().merge(buckets);
        }
        self.ticks[crew] = Tick { series: BTreeMap::new(), ..tick };
    }

    /// When all crews are at one barrier, and the server was measured, they go on.
    async fn let_go(&mut self) -> Result<()> {
        let Some(Some(name)) = self.at.first().cloned() else { return Ok(()) };
        if !self.at.iter().all(|at| at.as_ref() == Some(&name)) {
            return Ok(());
        }
        let settle = if name.starts_with("attached") || name.starts_with("left") {
            self.plan.scenario.connect.settle.0
        } else {
            Duration::ZERO
        };
        let sockets = self.counts().sockets;
        let client_memory = self.ticks.iter().map(|tick| tick.memory).sum();
        let mark = self.watch.mark(&name, settle, (self.began, sockets)).await;
        self.watch.marks.push(Mark { client_memory, ..mark });
        if name == "ready" {
            self.load_began = Some(Instant::now());
            self.fault_at = self.plan.scenario.fault.as_ref().map(|fault| Instant::now() + fault.after.0);
        }
        if name == "quiet" {
            self.fault_at = None;
        }
        self.phase = name;
        self.at.fill(None);
        for crew in &self.crews {
            crew.orders.send(Order::Go).await.context("a worker is gone")?;
        }
        Ok(())
    }

    /// Does to the server what was asked for.
    fn strike(&mut self) -> Result<()> {
        let every = self.plan.scenario.fault.as_ref().and_then(|fault| fault.every);
        let end = self.load_began.map(|began| began + self.plan.scenario.warmup.0 + self.plan.scenario.duration.0);
        let next = self.fault_at.zip(every).map(|(at, every)| at + every.0);
        self.fault_at = next.filter(|next| end.is_some_and(|end| *next < end));
        let command = self.plan.fault_command.as_deref().context("this scenario needs --fault-command")?;
        let mut child = tokio::process::Command::new("sh").args(["-c", command]).spawn().context("starting --fault-command")?;
        self.watch.faults.push(self.began.elapsed().as_secs_f64());
        tokio::spawn(async move {
            match child.wait().await {
                Ok(status) if !status.success() => eprintln!("--fault-command: {status}"),
                Ok(_) => {}
                Err(why) => eprintln!("--fault-command: {why}"),
            }
        });
        Ok(())
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.ticks.iter().for_each(|tick| counts.add(&tick.counts));
        counts
    }

    fn found(&self) -> Found {
        let mut found = Found::default();
        self.ticks.iter().for_each(|tick| found.merge(tick.found.clone()));
        found
    }

    /// The last second as a point of the timeline.
    fn look(&mut self) -> Progress {
        let seconds = self.began.elapsed().as_secs_f64();
        let (counts, found) = (self.counts(), self.found());
        let mut point = Point::of(seconds, (&self.before, &counts), &self.recent);
        point.offences = found.counts.values().sum();
        point.client_memory = self.ticks.iter().map(|tick| tick.memory).sum();
        let server = self.watch.sample();
        (point.server_memory, point.server_cpu) = (server.memory, server.cores);
        point.measured = self.measured_at().is_some_and(|at| Instant::now() >= at) && self.phase == "ready";
        self.watch.look(&point);
        self.timeline.push(point.clone());
        self.recent.clear();
        self.before = counts;
        let trouble = self.ticks.iter().find_map(|tick| tick.first_trouble.clone());
        Progress { seconds, phase: self.phase.clone(), point, counts, found, trouble }
    }

    fn measured_at(&self) -> Option<Instant> {
        self.load_began.map(|began| began + self.plan.scenario.warmup.0)
    }

    fn report(self, started: Duration) -> Result<Report> {
        let (counts, found) = (self.counts(), self.found());
        let ending = Ending {
            started_unix_ms: u64::try_from(started.as_millis()).unwrap_or_default(),
            seconds: self.began.elapsed().as_secs_f64(),
            workers: self.crews.len(),
            client_cpu: self.ticks.iter().map(|tick| tick.cpu).sum(),
            trouble: self.ticks.iter().find_map(|tick| tick.first_trouble.clone()),
            counts,
            found,
        };
        Ok(Report::new(self.plan, ending, &self.totals, (self.timeline, self.watch)))
    }
}

/// The time of a barrier, for whoever reads marks.
impl Mark {
    /// Whether it is of this barrier.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }
}
