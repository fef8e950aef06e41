//! What a run found, for people and for machines: figures, verdict, timeline, and what was expected.

pub mod chart;
pub mod compare;
pub mod html;
pub mod text;
pub mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crew::{Counts, Found};
use crate::fleet::Plan;
use crate::scenario::Scenario;
use crate::series::{Buckets, Kind, Series};
use watch::{Mark, Watch};

/// So many points of a timeline are kept; beyond it two become one.
const POINTS_MAX: usize = 2048;

/// A run, from beginning to end. Its JSON form is what `--json` writes and `compare` reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The version of the program.
    pub version: String,
    /// What was done, with everything that flags changed.
    pub scenario: Scenario,
    /// Where.
    pub urls: Vec<String>,
    /// By how many crews.
    pub workers: usize,
    /// When it began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How long it took, with connecting and settling.
    pub seconds: f64,
    /// Sends a second that were intended in the measured time.
    pub intended_rate: f64,
    /// Sends a second that were accepted of those.
    pub achieved_rate: f64,
    /// Latencies by kind.
    pub series: BTreeMap<Kind, Summary>,
    /// Sums.
    pub counts: Counts,
    /// The verdict: every fault with its count, and the first offenders.
    pub found: Found,
    /// Why the first connection broke or could not be had.
    pub trouble: Option<String>,
    /// What the server cost.
    pub server: Option<ServerCost>,
    /// Growth of this program's memory while measuring, in bytes a minute.
    pub client_slope: Option<f64>,
    /// Processor seconds of this program.
    pub client_cpu: f64,
    /// What was expected, and whether it held.
    pub expectations: Vec<Judged>,
    /// When the fault command was run, in seconds since the beginning.
    pub faults: Vec<f64>,
    /// Second by second.
    pub timeline: Vec<Point>,
}

/// One latency series.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How many were counted.
    pub count: u64,
    /// In milliseconds, as all that follow.
    pub p50_ms: f64,
    /// 90 % are below.
    pub p90_ms: f64,
    /// 95 % are below.
    pub p95_ms: f64,
    /// 99 % are below.
    pub p99_ms: f64,
    /// 99.9 % are below.
    pub p999_ms: f64,
    /// The worst.
    pub max_ms: f64,
    /// The mean.
    pub mean_ms: f64,
    /// The histogram: microseconds and how often.
    pub buckets: Buckets,
}

/// What the server's processes cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerCost {
    /// Processor seconds for a million accepted messages.
    pub cpu_per_million: Option<f64>,
    /// Growth of its memory while measuring, in bytes a minute.
    pub slope: Option<f64>,
    /// What was measured at barriers.
    pub marks: Vec<Mark>,
}

/// An expectation and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Judged {
    /// As it was written.
    pub text: String,
    /// The figure, in seconds, bytes a minute, or plain; absent if it was not measured.
    pub value: Option<f64>,
    /// Whether it held. What was not measured does not hold.
    pub holds: bool,
}

/// About a second of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// Seconds since the beginning.
    pub seconds: f64,
    /// Whether it lies in the measured part.
    pub measured: bool,
    /// Live connections.
    pub sockets: i64,
    /// Sends that were due, a second.
    pub due: f64,
    /// Accepted, a second.
    pub accepted: f64,
    /// Shown to receivers, a second.
    pub delivered: f64,
    /// Put off by the server, a second.
    pub put_back: f64,
    /// New connections, a second.
    pub connects: f64,
    /// Connections that came back, a second.
    pub resumes: f64,
    /// Connections that broke or failed, a second.
    pub broken: f64,
    /// Offences so far.
    pub offences: u64,
    /// Milliseconds: p50, p99 and the worst of each kind that was seen.
    pub latency: BTreeMap<Kind, [f64; 3]>,
    /// Anonymous memory of the server, in bytes.
    pub server_memory: u64,
    /// Processors the server used.
    pub server_cpu: f64,
    /// Anonymous memory of this program, in bytes.
    pub client_memory: u64,
}

impl Point {
    /// The point between two sums.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a second")]
    pub fn of(seconds: f64, (before, now): (&Counts, &Counts), recent: &BTreeMap<Kind, Series>) -> Self {
        let grown = |pick: fn(&Counts) -> u64| pick(now).saturating_sub(pick(before)) as f64;
        Self {
            seconds,
            sockets: now.sockets,
            due: grown(|counts| counts.due),
            accepted: grown(|counts| counts.accepted),
            delivered: grown(|counts| counts.delivered),
            put_back: grown(|counts| counts.put_back),
            connects: grown(|counts| counts.connects),
            resumes: grown(|counts| counts.resumes),
            broken: grown(|counts| counts.broken + counts.failed),
            latency: recent
                .iter()
                .map(|(kind, series)| (*kind, [ms(series.quantile(0.5)), ms(series.quantile(0.99)), ms(series.quantile(1.0))]))
                .collect(),
            ..Self::default()
        }
    }

    /// Two points as one: rates on the average, latencies the worse, states the later.
    fn with(mut self, later: Self) -> Self {
        for (sum, other) in [
            (&mut self.due, later.due),
            (&mut self.accepted, later.accepted),
            (&mut self.delivered, later.delivered),
            (&mut self.put_back, later.put_back),
            (&mut self.connects, later.connects),
            (&mut self.resumes, later.resumes),
            (&mut self.broken, later.broken),
            (&mut self.server_cpu, later.server_cpu),
        ] {
            *sum = f64::midpoint(*sum, other);
        }
        for (kind, latency) in &later.latency {
            let own = self.latency.entry(*kind).or_default();
            own.iter_mut().zip(latency).for_each(|(own, other)| *own = own.max(*other));
        }
        Self {
            seconds: later.seconds,
            measured: self.measured || later.measured,
            sockets: later.sockets,
            offences: later.offences,
            server_memory: self.server_memory.max(later.server_memory),
            client_memory: self.client_memory.max(later.client_memory),
            ..self
        }
    }
}

/// Points of bounded number: when there are too many, two neighbours become one.
#[derive(Debug, Default)]
pub struct Timeline {
    points: Vec<Point>,
    /// How many seconds a point holds.
    width: usize,
    /// The point that is being put together, and of how many it is.
    open: Option<(Point, usize)>,
}

impl Timeline {
    /// Adds a second.
    pub fn push(&mut self, point: Point) {
        self.width = self.width.max(1);
        let (open, count) = match self.open.take() {
            Some((open, count)) => (open.with(point), count + 1),
            None => (point, 1),
        };
        if count < self.width {
            self.open = Some((open, count));
            return;
        }
        self.points.push(open);
        if self.points.len() >= POINTS_MAX {
            self.width *= 2;
            let mut pairs = std::mem::take(&mut self.points).into_iter();
            while let Some(first) = pairs.next() {
                self.points.push(match pairs.next() {
                    Some(second) => first.with(second),
                    None => first,
                });
            }
        }
    }

    /// All of them.
    #[must_use]
    pub fn into_points(self) -> Vec<Point> {
        self.points.into_iter().chain(self.open.map(|(point, _)| point)).collect()
    }
}

/// What is known of a run only at its end.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) started_unix_ms: u64,
    pub(crate) seconds: f64,
    pub(crate) workers: usize,
    pub(crate) client_cpu: f64,
    pub(crate) trouble: Option<String>,
    pub(crate) counts: Counts,
    pub(crate) found: Found,
}

impl Summary {
    /// The summary of a series.
    #[must_use]
    pub fn of(series: &Series) -> Self {
        let at = |share| ms(series.quantile(share));
        Self {
            count: series.count(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
            mean_ms: ms(series.mean()),
            buckets: series.buckets(),
        }
    }

    /// A statistic by its name in expectations, in seconds (the count plain).
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of messages")]
    pub fn statistic(&self, name: &str) -> Option<f64> {
        Some(match name {
            "count" => self.count as f64,
            "p50" => self.p50_ms / 1e3,
            "p90" => self.p90_ms / 1e3,
            "p95" => self.p95_ms / 1e3,
            "p99" => self.p99_ms / 1e3,
            "p99.9" => self.p999_ms / 1e3,
            "max" => self.max_ms / 1e3,
            "mean" => self.mean_ms / 1e3,
            _ => return None,
        })
    }
}

impl Report {
    /// Puts a report together and judges what was expected.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of messages, far below 2^53")]
    pub(crate) fn new(
        plan: &Plan,
        ending: Ending,
        totals: &BTreeMap<Kind, Series>,
        (timeline, mut watch): (Timeline, Watch),
    ) -> Self {
        let scenario = plan.scenario.clone();
        let Ending { started_unix_ms, seconds, workers, client_cpu, trouble, counts, found } = ending;
        // The time that accepting took, if that was longer than the measured time.
        let last = Duration::from_micros(counts.last_measured_us).saturating_sub(scenario.warmup.0);
        let took = last.max(scenario.duration.0).as_secs_f64().max(1e-9);
        let quiet = watch.marks.iter().find(|mark| mark.is("quiet")).map(|mark| mark.cpu_at);
        let spent = quiet.zip(watch.cpu_at_measured).map(|(end, start)| end - start);
        let a_minute = |slope: Option<f64>| slope.map(|slope| slope * 60.0);
        let server = watch.sees().then(|| ServerCost {
            cpu_per_million: spent.filter(|_| counts.measured > 0).map(|spent| spent * 1e6 / counts.measured as f64),
            slope: a_minute(watch.server_slope.slope()),
            marks: std::mem::take(&mut watch.marks),
        });
        let mut report = Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            urls: plan.urls.clone(),
            workers,
            started_unix_ms,
            seconds,
            intended_rate: scenario.rate(),
            achieved_rate: counts.measured as f64 / took,
            series: totals.iter().map(|(kind, series)| (*kind, Summary::of(series))).collect(),
            counts,
            found,
            trouble,
            server,
            client_slope: a_minute(watch.client_slope.slope()),
            client_cpu,
            expectations: Vec::new(),
            faults: watch.faults,
            timeline: timeline.into_points(),
            scenario,
        };
        report.expectations = report.judge();
        report
    }

    fn judge(&self) -> Vec<Judged> {
        let judge = |expectation: &crate::scenario::expect::Expectation| {
            let value = self.figure(&expectation.figure);
            Judged { text: expectation.to_string(), value, holds: value.is_some_and(|value| expectation.holds(value)) }
        };
        self.scenario.expect.iter().map(judge).collect()
    }

    /// A figure by its name in expectations.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of messages, far below 2^53")]
    pub fn figure(&self, name: &str) -> Option<f64> {
        Some(match name {
            "rate" => self.achieved_rate,
            "put_back" => self.counts.put_back as f64,
            "surge.share" => self.accepted_in_surge() / self.scenario.surge.as_ref().map(|_| self.intended_rate.max(1e-9))?,
            "given_up" => self.counts.given_up as f64,
            "broken" => self.counts.broken as f64,
            "late" => self.counts.late as f64,
            "server.slope" => self.server.as_ref()?.slope?,
            "client.slope" => self.client_slope?,
            "server.cpu_per_million" => self.server.as_ref()?.cpu_per_million?,
            _ => {
                let (series, statistic) = name.split_once('.')?;
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == series)?;
                self.series.get(&kind)?.statistic(statistic)?
            }
        })
    }

    /// Sends a second that were accepted during the surge; 0 without one.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of seconds")]
    pub fn accepted_in_surge(&self) -> f64 {
        let measured = || self.timeline.iter().filter(|point| point.measured);
        let Some((surge, first)) = self.scenario.surge.as_ref().zip(measured().next()) else { return 0.0 };
        let from = first.seconds + surge.after.0.as_secs_f64();
        let within = from..from + surge.lasts.0.as_secs_f64();
        let seconds: Vec<_> = measured().filter(|point| within.contains(&point.seconds)).map(|point| point.accepted).collect();
        seconds.iter().sum::<f64>() / seconds.len().max(1) as f64
    }

    /// Whether everything that was promised was kept, and everything due was done, or given up by its sender before it went out.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let sent = self.counts.accepted + self.counts.given_up == self.counts.due
            && (self.scenario.load.is_none() || self.counts.due > 0);
        self.found.is_clean() && sent
    }

    /// Whether no promise was broken; it may have been too slow, or have refused.
    #[must_use]
    pub fn is_true(&self) -> bool {
        !self.found.counts.iter().any(|(fault, count)| fault.is_untrue() && *count > 0)
    }

    /// Whether the run passes: a clean verdict, and what was expected holds.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.is_clean() && self.expectations.iter().all(|judged| judged.holds)
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_bounded_and_keeps_its_worst() {
        let mut timeline = Timeline::default();
        for second in 0..10_000_u32 {
            let worst = if second == 5000 { 900.0 } else { 1.0 };
            let latency = BTreeMap::from([(Kind::Delivered, [1.0, 1.0, worst])]);
            timeline.push(Point { seconds: f64::from(second), accepted: 100.0, latency, ..Point::default() });
        }
        let points = timeline.into_points();
        assert!(points.len() < POINTS_MAX && points.len() > POINTS_MAX / 4, "{}", points.len());
        assert!(points.iter().any(|point| point.latency[&Kind::Delivered][2] > 899.0));
        assert!(points.iter().all(|point| (point.accepted - 100.0).abs() < 1e-9));
        assert!((points.last().unwrap().seconds - 9999.0).abs() < 1e-9);
    }
}
