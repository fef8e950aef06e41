//! Logs to standard error, metrics to `/metrics`.

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{Format, Log};

/// Seconds, from a wake-up to a bad day.
const SECONDS: [f64; 16] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Records in a batch.
const RECORDS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
/// Without upkeep histograms grow while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Starts logging.
pub(crate) fn log(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level).context("log.level")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    match log.format {
        Format::Json => lines.json().flatten_event(true).init(),
        Format::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
    Ok(())
}

/// Starts counting. Before any handle is made.
pub(crate) fn metrics() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_records".into()), &RECORDS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("metrics")?;
    metrics::gauge!("switchboard_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Keeps histograms small, for ever.
pub(crate) async fn upkeep(handle: PrometheusHandle) {
    let mut every = tokio::time::interval(UPKEEP);
    loop {
        every.tick().await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Names of metrics in a text, without what Prometheus adds to a histogram's.
    fn metrics_in(text: &str) -> BTreeSet<&str> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let ours = words.filter_map(|word| word.strip_prefix("switchboard_"));
        ours.map(|name| name.trim_end_matches("_bucket")).collect()
    }

    #[test]
    fn alerts_stand_on_metrics_that_are_listed() {
        let (alerts, listed) = (include_str!("../../docs/alerts.yml"), include_str!("../../docs/metrics.md"));
        let alerts = metrics_in(alerts);
        assert!(alerts.len() >= 20, "{alerts:?}");
        let unlisted: Vec<_> = alerts.iter().filter(|name| !listed.contains(&format!("`{name}"))).collect();
        assert!(unlisted.is_empty(), "docs/metrics.md does not list {unlisted:?}");
    }
}
