//! The bare engines' own hops, to be printed beside the cluster's latency: a record produced and consumed, and a commit.
//!
//! A message of the cluster makes two hops through the log and one commit. Both engines are timed alone, one after the other, in an open
//! loop: latency counts from the time a record is due. The topic and the table are made for the run and removed after it.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use pace::Latencies;

mod pace;
mod kafka;
mod postgres;

/// A long name no other run has.
fn name() -> String {
    format!("switchboard_bench_{}", uuid::Uuid::now_v7().simple())
}

/// What the hops are timed with.
#[derive(Args, Clone)]
pub(crate) struct Hops {
    /// Kafka, `host:port,…`.
    #[arg(long)]
    brokers: String,
    /// One PostgreSQL database, `postgres://…`.
    #[arg(long)]
    postgres: String,
    /// Messages a second.
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// How long each engine is measured.
    #[arg(long, value_parser = crate::seconds, default_value = "10s")]
    duration: Duration,
    /// How long each engine is used before that, at the same rate.
    #[arg(long, value_parser = crate::seconds, default_value = "3s")]
    warmup: Duration,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 24)]
    partitions: u16,
    /// Copies of each record.
    #[arg(long, default_value_t = 1)]
    replication: u16,
    /// Copies that must have it before it counts as durable.
    #[arg(long, default_value_t = 1)]
    min_insync: u16,
    /// Bytes of a record.
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    /// How long the producer waits for more records, in milliseconds.
    #[arg(long, default_value_t = 0)]
    linger_ms: u64,
    /// Connections that commit, each one batch after the other.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Rows a message inserts.
    #[arg(long, default_value_t = 2)]
    rows: usize,
    /// Prints one line of JSON instead of the table.
    #[arg(long)]
    json: bool,
}

impl Hops {
    /// Sends that are made but not counted.
    fn ignored(&self) -> u64 {
        (self.rate * self.warmup.as_secs_f64()) as u64
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.rate > 0.0 && self.rate <= 1e6, "--rate must be above 0, at most 1000000");
        anyhow::ensure!(self.rate * self.duration.as_secs_f64() >= 1.0, "nothing would be sent");
        anyhow::ensure!((kafka::STAMP..=1_000_000).contains(&self.bytes), "--bytes must be {} to 1000000", kafka::STAMP);
        anyhow::ensure!(self.partitions > 0 && (1..=64).contains(&self.connections), "no partitions, or not 1 to 64 connections");
        anyhow::ensure!((1..=100).contains(&self.rows), "--rows must be 1 to 100");
        let first = self.brokers.split(',').next().unwrap_or_default();
        first.to_socket_addrs().with_context(|| format!("--brokers {first} is no host:port"))?;
        Ok(())
    }
}

/// What was timed.
struct Figures {
    /// From due to the delivery report.
    produced: Latencies,
    /// From due to the consumer's hands.
    hop: Latencies,
    /// From due to the end of the commit it was part of.
    commit: Latencies,
    /// Messages of each commit, on average.
    batch: f64,
}

/// Times both engines and prints it.
pub(crate) fn run(hops: &Hops) -> anyhow::Result<()> {
    hops.check()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let measured = runtime.block_on(async {
        let (produced, hop) = kafka::measure(hops).await?;
        let (commit, batch) = postgres::measure(hops).await?;
        anyhow::Ok(Figures { produced, hop, commit, batch })
    })?;
    if hops.json {
        println!("{}", as_json(hops, &measured));
    } else {
        print(hops, &measured);
    }
    Ok(())
}

const SHARES: [(f64, &str); 4] = [(0.5, "p50_ms"), (0.9, "p90_ms"), (0.99, "p99_ms"), (0.999, "p99.9_ms")];

fn millis(latency: &Latencies, share: f64) -> f64 {
    latency.quantile(share).as_secs_f64() * 1e3
}

/// Two hops and a commit: their percentiles added up.
fn sum(figures: &Figures, share: f64) -> f64 {
    2.0 * millis(&figures.hop, share) + millis(&figures.commit, share)
}

fn print(hops: &Hops, figures: &Figures) {
    println!(
        "{}/s for {:?} (after {:?}), {} partitions, {} copies, {} bytes, linger {} ms; {} connections, {} rows a message, {:.1} messages a commit; load {}",
        hops.rate,
        hops.duration,
        hops.warmup,
        hops.partitions,
        hops.replication,
        hops.bytes,
        hops.linger_ms,
        hops.connections,
        hops.rows,
        figures.batch,
        crate::meter::load()
    );
    println!("\n| bare engines | p50 ms | p90 ms | p99 ms | p99.9 ms | n |\n|---|---|---|---|---|---|");
    let rows = [
        ("Kafka: produce to delivery report", &figures.produced),
        ("Kafka: one hop, produce and consume", &figures.hop),
        ("Postgres: one commit", &figures.commit),
    ];
    for (what, latency) in rows {
        let shown = SHARES.map(|(share, _)| format!("{:.2}", millis(latency, share))).join(" | ");
        println!("| {what} | {shown} | {} |", latency.count());
    }
    let shown = SHARES.map(|(share, _)| format!("{:.2}", sum(figures, share))).join(" | ");
    println!("| two hops and one commit, added | {shown} | |");
}

fn as_json(hops: &Hops, figures: &Figures) -> serde_json::Value {
    let shares = |at: &dyn Fn(f64) -> f64| -> serde_json::Value {
        serde_json::Value::Object(SHARES.iter().map(|(share, name)| ((*name).to_owned(), at(*share).into())).collect())
    };
    let of = |latency: &Latencies| shares(&|share| millis(latency, share));
    serde_json::json!({
        "rate": hops.rate, "seconds": hops.duration.as_secs_f64(), "partitions": hops.partitions, "replication": hops.replication,
        "bytes": hops.bytes, "linger_ms": hops.linger_ms, "connections": hops.connections, "rows": hops.rows,
        "messages_a_commit": figures.batch, "count": figures.hop.count(),
        "produce": of(&figures.produced), "hop": of(&figures.hop), "commit": of(&figures.commit),
        "two_hops_and_commit": shares(&|share| sum(figures, share)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_two_hops_and_a_commit() {
        let one = |ms| {
            let latency = Latencies::default();
            latency.add(Duration::from_millis(ms));
            latency
        };
        let figures = Figures { produced: one(100), hop: one(3), commit: one(5), batch: 1.0 };
        assert!((sum(&figures, 0.99) - 11.0).abs() < 0.1, "{}", sum(&figures, 0.99));
    }
}
