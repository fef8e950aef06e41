//! A report as one HTML file that needs nothing else.

use std::fmt::Write as _;

use super::chart::{Chart, Line, Scale, escape};
use super::text::size;
use super::{Point, Report, Summary};
use crate::crew::Fault;
use crate::series::Kind;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}.good{color:#176f2c}.bad{color:#b3261e;font-weight:600}figure{margin:1em 0}figcaption{font-weight:600}\
svg{width:100%;height:auto}svg text{font-size:11px;fill:#555}.grid{stroke:#e6e6e6}.event{stroke:#b3261e;stroke-dasharray:4 3}\
.legend span{margin-right:1.2em}.legend i{display:inline-block;width:1em;height:3px;margin-right:.4em;vertical-align:middle}\
pre{background:#f6f6f6;padding:.8em;overflow:auto;white-space:pre-wrap}@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}\
td,th{border-color:#333}.grid{stroke:#2a2a2a}svg text{fill:#aaa}pre{background:#222}.good{color:#6fce84}.bad{color:#ff8a80}}";

/// The whole file.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut page = String::new();
    let title = format!("{} — {}", report.scenario.name, if report.passes() { "passed" } else { "FAILED" });
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style><h1>{0}</h1>",
        escape(&title)
    );
    let _ = write!(page, "<p>{}</p>", escape(&report.scenario.about));
    verdict(&mut page, report);
    latencies(&mut page, report);
    for chart in charts(report) {
        page.push_str(&chart.draw());
    }
    server(&mut page, report);
    let scenario = serde_json::to_string_pretty(&report.scenario).unwrap_or_default();
    let _ = write!(
        page,
        "<h2>Scenario</h2><p>{} by {} workers; switchboard-loadtest {}.</p><pre>{}</pre></html>",
        escape(&report.urls.join(", ")),
        report.workers,
        escape(&report.version),
        escape(&scenario)
    );
    page
}

fn verdict(page: &mut String, report: &Report) {
    let class = |good: bool| if good { "good" } else { "bad" };
    let clean = report.is_clean();
    let _ = write!(
        page,
        "<h2>Verdict: <span class=\"{}\">{}</span></h2><table><tr>",
        class(clean),
        if clean { "clean" } else { "wrong" }
    );
    for name in ["sends", "accepted", "shown"].into_iter().chain(Fault::ALL.map(Fault::name)) {
        let _ = write!(page, "<th>{name}</th>");
    }
    let counts = &report.counts;
    let _ = write!(page, "</tr><tr><td>{}</td><td>{}</td><td>{}</td>", counts.due, counts.accepted, counts.delivered);
    for fault in Fault::ALL {
        let count = report.found.count(fault);
        let _ = write!(page, "<td class=\"{}\">{count}</td>", class(count == 0));
    }
    page.push_str("</tr></table>");
    let _ = write!(
        page,
        "<p>{} put off by the server, {} connections broke, {} attempts to connect failed.",
        counts.put_back, counts.broken, counts.failed
    );
    if let Some(trouble) = &report.trouble {
        let _ = write!(page, " The first trouble: {}.", escape(trouble));
    }
    page.push_str("</p>");
    if !report.found.samples.is_empty() {
        let _ = write!(page, "<pre>{}</pre>", escape(&report.found.samples.join("\n")));
    }
    if !report.expectations.is_empty() {
        page.push_str("<h2>Expected</h2><table><tr><th>expectation</th><th>measured</th><th></th></tr>");
        for judged in &report.expectations {
            let value = judged.value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.6}"));
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{value}</td><td class=\"{}\">{}</td></tr>",
                escape(&judged.text),
                class(judged.holds),
                if judged.holds { "holds" } else { "fails" }
            );
        }
        page.push_str("</table>");
    }
}

fn latencies(page: &mut String, report: &Report) {
    if report.scenario.load.is_some() {
        let _ = write!(page, "<p>{:.0}/s intended, {:.0}/s accepted.</p>", report.intended_rate, report.achieved_rate);
    }
    page.push_str("<h2>Latency, ms, from the intended time</h2><table><tr><th></th><th>count</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>max</th><th>mean</th></tr>");
    for (kind, summary) in &report.series {
        let Summary { count, p50_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms, mean_ms, .. } = summary;
        let _ = write!(page, "<tr><td>{}</td><td>{count}</td>", kind.name());
        for value in [p50_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms, mean_ms] {
            let _ = write!(page, "<td>{value:.2}</td>");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes for a drawing")]
fn charts(report: &Report) -> Vec<Chart> {
    let over_time = |pick: &dyn Fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
        report.timeline.iter().filter_map(|point| Some((point.seconds, pick(point)?))).collect()
    };
    let line = |name: &str, pick: &dyn Fn(&Point) -> Option<f64>| Line { name: name.to_owned(), points: over_time(pick) };
    let timed = |title: &str, up: &'static str, (scale, lines): (Scale, Vec<Line>)| Chart {
        title: title.to_owned(),
        axes: ("seconds", up),
        scales: (Scale::Linear, scale),
        lines,
        events: report.faults.clone(),
    };
    let latency = |kind: Kind| {
        let names = ["p50", "p99", "max"].into_iter().enumerate();
        let lines = names
            .map(|(index, name)| line(name, &|point| point.latency.get(&kind).and_then(|latency| latency.get(index)).copied()));
        timed(&format!("Latency over time: {}", kind.name()), "ms", (Scale::Log, lines.collect()))
    };
    let mut charts = vec![timed(
        "Messages a second",
        "1/s",
        (
            Scale::Linear,
            vec![
                line("due", &|point| Some(point.due)),
                line("accepted", &|point| Some(point.accepted)),
                line("delivered", &|point| Some(point.delivered)),
                line("put off", &|point| Some(point.put_back)),
            ],
        ),
    )];
    charts.extend([Kind::Delivered, Kind::Accepted, Kind::Connect, Kind::Resume].map(latency));
    charts.push(percentiles(report));
    charts.push(timed("Connections", "", (Scale::Linear, vec![line("sockets", &|point| Some(point.sockets as f64))])));
    charts.push(timed(
        "Connections a second",
        "1/s",
        (
            Scale::Linear,
            vec![
                line("new", &|point| Some(point.connects)),
                line("back", &|point| Some(point.resumes)),
                line("broken or failed", &|point| Some(point.broken)),
            ],
        ),
    ));
    let mib = |bytes: u64| (bytes > 0).then_some(bytes as f64 / (1024.0 * 1024.0));
    charts.push(timed(
        "Memory (private)",
        "MiB",
        (
            Scale::Linear,
            vec![line("server", &|point| mib(point.server_memory)), line("load generator", &|point| mib(point.client_memory))],
        ),
    ));
    if report.server.is_some() {
        charts.push(timed(
            "Processors used by the server",
            "cores",
            (Scale::Linear, vec![line("server", &|point| Some(point.server_cpu))]),
        ));
    }
    charts
}

/// Latency over the share that is faster: the tail is as wide as the rest.
#[expect(clippy::cast_precision_loss, reason = "counts for a drawing")]
fn percentiles(report: &Report) -> Chart {
    let curve = |summary: &Summary| {
        let mut sum = 0;
        let mut points = Vec::new();
        for (micros, count) in &summary.buckets {
            let below = sum as f64 / summary.count.max(1) as f64;
            sum += count;
            // The last one would be at infinity: the worst stands where all but itself are below.
            let share = (sum as f64 / summary.count.max(1) as f64).min(1.0 - 0.5 / summary.count.max(1) as f64);
            points.push((share.max(below), *micros as f64 / 1e3));
        }
        points
    };
    let lines = report.series.iter().filter(|(_, summary)| summary.count > 0);
    Chart {
        title: "Latency by percentile".to_owned(),
        axes: ("share that is faster", "ms"),
        scales: (Scale::Nines, Scale::Log),
        lines: lines.map(|(kind, summary)| Line { name: kind.name().to_owned(), points: curve(summary) }).collect(),
        events: Vec::new(),
    }
}

fn server(page: &mut String, report: &Report) {
    let Some(server) = &report.server else { return };
    page.push_str(
        "<h2>Server</h2><table><tr><th>at</th><th>seconds</th><th>sockets</th><th>memory, KiB</th><th>CPU, s</th></tr>",
    );
    for mark in &server.marks {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{:.2}</td></tr>",
            escape(&mark.name),
            mark.seconds,
            mark.sockets,
            mark.memory / 1024,
            mark.cpu_at
        );
    }
    page.push_str("</table><p>");
    if let Some(cpu) = server.cpu_per_million {
        let _ = write!(page, "{cpu:.1} processor seconds for a million messages. ");
    }
    if let Some(slope) = server.slope {
        let _ = write!(page, "Memory {} a minute while measuring. ", size(slope));
    }
    if let Some(slope) = report.client_slope {
        let _ = write!(page, "Load generator {} a minute.", size(slope));
    }
    page.push_str("</p>");
}
