//! The command line.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use protocol::{DeviceName, UserId};

/// A real-time messaging server in which accepted means durable.
#[derive(Debug, Parser)]
#[command(name = "switchboard", version, about = "A real-time messaging server in which accepted means durable", long_about = None, arg_required_else_help = true, after_help = "\
Settings come from, later over earlier: built-in defaults, the file of --config, environment variables, flags.
A key such as limits.body_bytes is SWITCHBOARD_LIMITS__BODY_BYTES in the environment.
`switchboard config check` shows what is in force, or what is wrong with it.

Try it:
  switchboard serve                       then open http://127.0.0.1:8080 in two tabs
  switchboard token --user 42             a token for any WebSocket tool")]
pub(crate) struct Args {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of everything that is kept [default: ./switchboard-data].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server, whole and embedded: no other process is needed.
    ///
    /// On a loopback address without a configured secret it runs in development mode: anybody on this machine gets a token for the asking, signed
    /// with a random secret that is made at the first start and kept in the data folder. Elsewhere auth.secret_file (or auth.secret) is needed.
    Serve(Serve),
    /// Print a token for a user; works while the server runs and while it does not.
    Token(Token),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Where to listen [default: 127.0.0.1:8080]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Development mode on any address: tokens for the asking. Never on a network you don't trust.
    #[arg(long)]
    pub(crate) dev: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    /// One user.
    #[arg(long, value_name = "USER", required_unless_present = "users", conflicts_with = "users")]
    pub(crate) user: Option<UserId>,
    /// Many users, such as 1-10000: one line `<user> <token>` for each.
    #[arg(long, value_name = "FIRST-LAST", value_parser = range)]
    pub(crate) users: Option<RangeInclusive<u64>>,
    /// Bind the token to one device.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Write to a file (mode 0600) instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check file, environment and flags, and show what is in force. Secrets are not shown.
    Check(Serve),
}

fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let user = |text: &str| text.parse::<UserId>().map(UserId::get).map_err(|why| why.to_string());
    let (first, last) = text.split_once('-').ok_or("a range is FIRST-LAST, such as 1-10000")?;
    let range = user(first)?..=user(last)?;
    if range.is_empty() { Err("the first user is above the last".into()) } else { Ok(range) }
}
