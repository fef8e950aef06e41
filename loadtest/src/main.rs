//! The command line of the load scenarios.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use loadtest::scenario::{direct, idle, search};

/// Load for a Switchboard server, measured and judged.
#[derive(Debug, Parser)]
#[command(name = "switchboard-loadtest", version)]
struct Arguments {
    /// Worker threads of this program.
    #[arg(long, default_value_t = 1, global = true)]
    workers: usize,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Many sockets that stand still: connect time, server memory and processor time a socket.
    Idle(idle::Options),
    /// A steady open load of one-to-one messages: latency, rate, cost, verdict.
    Direct(direct::Options),
    /// The highest rate at which delivery stays fast.
    Search(search::Options),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.workers.max(1)).enable_all().build()?;
    // Spawned, so that the scenario itself runs on a worker and the main thread sleeps.
    let good = runtime.block_on(async move {
        tokio::spawn(async move {
            match arguments.scenario {
                Scenario::Idle(options) => Box::pin(idle::run(options)).await,
                Scenario::Direct(options) => Box::pin(direct::run(options)).await,
                Scenario::Search(options) => Box::pin(search::run(options)).await,
            }
        })
        .await
    })??;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        let line = "switchboard-loadtest search --tokens t --sockets 200 --rate 2000 --duration 10s --factor 2 --workers 2";
        assert!(Arguments::try_parse_from(line.split(' ')).is_ok());
        let line = "switchboard-loadtest idle --url ws://127.0.0.1:8080/ws --tokens t --sockets 10000 --server-pid 7 --hold 30s";
        assert!(Arguments::try_parse_from(line.split(' ')).is_ok());
    }
}
