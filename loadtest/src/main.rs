//! The command line of the load tests.

mod cli;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use loadtest::fleet::{agent, wire};
use loadtest::scenario::BUILT_IN;

use cli::compare::Compare;
use cli::run::{Direct, Idle, Run};
use cli::search::Search;

/// The verdict is wrong, or something expected does not hold.
const WRONG: u8 = 1;
/// The run could not be made: a mistake in the scenario, no server, no tokens.
const NOT_RUN: u8 = 2;

/// Load for a Switchboard server, measured and judged.
#[derive(Debug, Parser)]
#[command(
    name = "switchboard-loadtest",
    version,
    after_help = "\
Exit codes: 0 the verdict is clean and what was expected holds, 1 it is not, 2 the run could not be made.

Try it, against a server of `switchboard serve` on this machine:
  switchboard-loadtest run direct --sockets 200 --rate 200 --duration 10s --html report.html"
)]
struct Arguments {
    /// Threads of this program; worker processes (--workers) have one each.
    #[arg(long, default_value_t = 1, global = true)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario.
    Run(Box<Run>),
    /// The built-in scenarios; with a name, its file.
    Scenarios {
        /// Print this one.
        name: Option<String>,
    },
    /// A steady open load between pairs of users, bodies of 200 bytes.
    Direct(Box<Direct>),
    /// Many sockets that stand still: connect time, server memory and processor time a socket.
    Idle(Box<Idle>),
    /// The highest rate that meets a service level.
    Search(Box<Search>),
    /// Compare two reports of --json.
    Compare(Compare),
    /// Do the work of conductors on other machines that know the token.
    Agent {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// File with the token [default: the environment variable LOADTEST_TOKEN].
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// A worker process of `run`, commanded over standard input and output.
    #[command(hide = true)]
    Worker,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let threads = arguments.threads.max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    // Spawned, so that the scenario itself runs on a worker and the main thread sleeps.
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async move { tokio::spawn(run(arguments.command)).await.context("a bug of this program")? })
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG),
        Err(why) => {
            eprintln!("{why:#}");
            ExitCode::from(NOT_RUN)
        }
    }
}

async fn run(command: Command) -> Result<bool> {
    match command {
        Command::Run(run) => Box::pin(run.run()).await,
        Command::Direct(direct) => Box::pin(direct.run()).await,
        Command::Idle(idle) => Box::pin(idle.run()).await,
        Command::Search(search) => Box::pin(search.run()).await,
        Command::Compare(compare) => compare.run(),
        Command::Scenarios { name } => scenarios(name.as_deref()),
        Command::Agent { listen, token_file } => {
            let token = match token_file {
                Some(file) => std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?,
                None => std::env::var("LOADTEST_TOKEN").context("an agent needs a token: --token-file, or LOADTEST_TOKEN")?,
            };
            let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| format!("listening at {listen}"))?;
            println!("waiting for conductors at {}", listener.local_addr()?);
            agent::serve(listener, token.trim().to_owned()).await.map(|()| true)
        }
        Command::Worker => wire::obey(tokio::io::stdin(), tokio::io::stdout()).await.map(|()| true),
    }
}

fn scenarios(name: Option<&str>) -> Result<bool> {
    let Some(name) = name else {
        for (name, text) in BUILT_IN {
            let about = loadtest::scenario::parse(text, name).map(|scenario| scenario.about).unwrap_or_default();
            println!("{name:<16} {about}");
        }
        return Ok(true);
    };
    let (_, text) =
        BUILT_IN.iter().find(|(known, _)| *known == name).with_context(|| format!("no scenario {name} is built in"))?;
    print!("{text}");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        for line in [
            "switchboard-loadtest search --tokens t --sockets 200 --rate 2000 --duration 10s --factor 2 --threads 2",
            "switchboard-loadtest idle --url ws://127.0.0.1:8080/ws --tokens t --sockets 10000 --server-pid 7 --hold 30s",
            "switchboard-loadtest direct --tokens t --sockets 1000 --rate 1000 --duration 20s --warmup 3s --body 200 --server-pid 7",
            "switchboard-loadtest run soak --data /tmp/d --workers 2 --expect rate>900 --html r.html",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
