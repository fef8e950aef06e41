//! Many at once, by the scenarios of the load harness: more than is worked in, thousands cut off at one moment, thousands on a gateway that dies.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use loadtest::fleet::{self, Plan};
use loadtest::report::Report;
use loadtest::scenario::{self, Cut, Scenario, Span};
use loadtest::series::Kind;
use loadtest::tls::Authority;
use tokio::time::{Instant, sleep};

use super::{GATEWAYS, Outcome};
use crate::seen::{Fault, Seen};
use crate::stand::Stand;

/// Sockets of one gateway that are cut off at once.
const CUT_OFF: usize = 10_000;
/// Sockets on each gateway, of which one dies: together as many as one process may open here.
const KILLED: usize = 9_500;
/// Sends a second of them.
const CROWD_RATE: f64 = 100.0;
/// All of them are back by then.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// It is too much when less than this share of it is accepted.
const BITES_BELOW: f64 = 0.9;
/// And then as much is accepted as of this share of the rate without a surge, or more.
const KEPT: f64 = 0.8;
/// The first rate that is tried three times over; it is doubled until that is too much.
const FIRST_RATE: f64 = 4_000.0;
const TRIES: u32 = 5;
/// An attempt that is accepted was written first at most so long before, 99 of 100.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(5);

/// Runs a scenario through these gateways, and judges it.
async fn run(stand: &Stand, gateways: &[&str], scenario: Scenario) -> Result<Report> {
    let urls = gateways.iter().map(|name| Ok(format!("ws://{}/ws", stand.address(name)?))).collect::<Result<Vec<_>>>()?;
    let servers = gateways.iter().map(|name| Ok(loadtest::process::Process::new(stand.cluster(&["pid", name])?.parse()?)));
    let plan = Plan {
        accounts: stand.accounts(scenario.users() as u64)?,
        servers: servers.collect::<Result<Vec<_>>>()?,
        urls,
        authority: Authority::default(),
        workers: 0,
        agents: Vec::new(),
        agent_token: String::new(),
        find_servers: false,
        fault_command: None,
        spread_sources: true,
        scenario,
    };
    let report = fleet::run(&plan, |_| ()).await?;
    ensure!(report.is_clean(), "{report}");
    Ok(report)
}

fn seen(report: &Report, faults: Vec<Fault>) -> Seen {
    let worst = |kind| report.series.get(&kind).map_or(Duration::ZERO, |series| Duration::from_secs_f64(series.max_ms / 1e3));
    let counts = &report.counts;
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let p99 = |kind| report.series.get(&kind).map(|series| Duration::from_secs_f64(series.p99_ms / 1e3));
    Seen {
        rate: format!("{:.0}", report.intended_rate).parse().unwrap_or_default(),
        took: report.scenario.duration.0,
        sends: number(counts.due - counts.given_up),
        accepted: number(counts.accepted),
        shown: number(counts.delivered + counts.accepted),
        cut: 0,
        closed: number(counts.broken),
        back: p99(Kind::Resume),
        slowest: worst(Kind::Delivered),
        faults,
    }
}

fn figure(report: &Report, name: &str) -> Result<Duration> {
    Ok(Duration::from_secs_f64(report.figure(name).with_context(|| format!("no {name}: {report}"))?))
}

/// More and more, until it is too much: then those who are accepted have not waited long, and afterwards all is as before.
pub(crate) async fn overload(stand: &Stand) -> Result<Outcome> {
    let mut rate = FIRST_RATE;
    for _ in 0..TRIES {
        let mut scenario = scenario::load("overload")?;
        scenario.load.as_mut().context("it sends")?.rate = Some(rate);
        let surge = scenario.surge.clone().context("it surges")?;
        scenario.sockets = 2_000;
        let report = run(stand, &GATEWAYS, scenario).await?;
        let (peak, accepted) = (rate * surge.factor, report.accepted_in_surge());
        if accepted > BITES_BELOW * peak {
            println!("     {peak:.0}/s for {}: {accepted:.0}/s accepted", surge.lasts);
            rate *= 2.0;
            continue;
        }
        let (attempt, recovered) = (figure(&report, "attempt.p99")?, figure(&report, "recovered.p50")?);
        ensure!(accepted > rate * KEPT, "{accepted:.0}/s were accepted in the surge: {report}");
        ensure!(attempt < ATTEMPT_WITHIN, "who was accepted had waited: {report}");
        ensure!(recovered < Duration::from_secs(1), "it did not recover: {report}");
        let what = format!("{peak:.0}/s for {}", surge.lasts);
        let fault = Fault { what, at: surge.after.0, felt: Some(figure(&report, "delivered.max")?) };
        let more = format!(
            "{:.0}/s accepted of {:.0}/s, {} attempts put off, {} sends given up; accepted within {attempt:.1?} of its attempt (p99), \
             delivered within {:.1?} (p99), behind it {recovered:.1?} (p50)",
            accepted,
            peak,
            report.counts.put_back,
            report.counts.given_up,
            figure(&report, "delivered.p99")?,
        );
        return Ok((seen(&report, vec![fault]), more).into());
    }
    bail!("nearly all was accepted, at {rate}/s times three too: it did not bite")
}

fn crowd(sockets: usize) -> Result<Scenario> {
    let mut scenario = scenario::load("direct")?;
    scenario.name = "crowd".to_owned();
    (scenario.sockets, scenario.duration, scenario.grace) = (sockets, Span::seconds(50), Span::seconds(40));
    scenario.load.as_mut().context("it sends")?.rate = Some(CROWD_RATE);
    Ok(scenario)
}

/// Everybody is cut off at one moment, twice, and sets out again within a second.
pub(crate) async fn cut_off(stand: &Stand) -> Result<Outcome> {
    let mut scenario = crowd(CUT_OFF)?;
    scenario.cut = Some(Cut { share: 1.0, every: Span::seconds(20), back_within: Span::seconds(1) });
    let report = run(stand, &GATEWAYS[..1], scenario).await?;
    back(&report, 2 * CUT_OFF, &format!("{CUT_OFF} are cut off at once"))
}

/// A gateway with thousands of sockets is killed; the others notice nothing.
pub(crate) async fn killed(stand: &Stand) -> Result<Outcome> {
    let mut scenario = crowd(2 * KILLED)?;
    // a connection may break: this row does it by itself
    scenario.fault = Some(scenario::Fault { after: Span::seconds(3600), every: None });
    let (run, kill) = tokio::join!(run(stand, &GATEWAYS, scenario), async {
        let began = Instant::now();
        let sockets = || GATEWAYS.iter().map(|name| stand.metric(name, "switchboard_sessions", "")).sum::<f64>();
        while sockets() < 2.0 * KILLED as f64 {
            ensure!(began.elapsed() < Duration::from_secs(120), "they have not come");
            sleep(Duration::from_millis(500)).await;
        }
        sleep(Duration::from_secs(10)).await;
        stand.does("kill", GATEWAYS[0])?;
        stand.does("start", GATEWAYS[0])
    });
    kill?;
    let report = run?;
    let broke = report.counts.broken;
    ensure!(broke >= KILLED as u64, "{broke} connections broke, where {KILLED} were on the gateway that was killed: {report}");
    back(&report, KILLED, &format!("kill {} with {KILLED} sockets", GATEWAYS[0]))
}

fn back(report: &Report, came: usize, what: &str) -> Result<Outcome> {
    let resumed = report.counts.resumes;
    ensure!(resumed >= came as u64, "{resumed} came back where {came} should: {report}");
    let (p99, all) = (figure(report, "resume.p99")?, figure(report, "resume.max")?);
    ensure!(all < BACK_WITHIN, "the last was back after {all:.1?}: {report}");
    let fault = Fault { what: what.to_owned(), at: Duration::ZERO, felt: Some(all) };
    Ok((seen(report, vec![fault]), format!("back within {p99:.1?} (p99) and {all:.1?} (all)")).into())
}
