//! The command line.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use protocol::{DeviceName, UserId};
use router::log::Topic;

use crate::cluster::config::Role;

/// A real-time messaging server in which accepted means durable.
#[derive(Debug, Parser)]
#[command(name = "switchboard", version, about = "A real-time messaging server in which accepted means durable", long_about = None, arg_required_else_help = true, after_help = "\
Settings come from, later over earlier: built-in defaults, the file of --config, environment variables, flags.
A key such as limits.body_bytes is SWITCHBOARD_LIMITS__BODY_BYTES in the environment.
`switchboard config check` shows what is in force, or what is wrong with it.

Try it:
  switchboard serve                       then open http://127.0.0.1:8080 in two tabs
  switchboard chat --as +4915112345678    a client in this terminal
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
    /// The topics of a cluster's log.
    #[command(subcommand)]
    Topics(Topics),
    /// The virtual shards of a cluster's mailboxes, and the databases they are in.
    #[command(subcommand)]
    Shard(Shard),
    /// The partitions of a cluster's log: who works on them, and how far.
    #[command(subcommand)]
    Partition(Partition),
    /// The incarnation of the mailboxes of a virtual shard.
    #[command(subcommand)]
    StreamEpoch(StreamEpoch),
    /// The log of a cluster as a whole.
    #[command(subcommand)]
    Log(Log),
    /// Print a token for a user; works while the server runs and while it does not.
    Token(Token),
    /// Accounts: look at one, end sessions. Works beside a running server.
    #[command(subcommand)]
    User(User),
    /// Chat from a terminal, or from a script with --json. Needs no configuration: it is a client like any other.
    Chat(terminal::Args),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Where to listen [default: 127.0.0.1:8080]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// What this process does in a cluster [default: all]: gateway, router, storage, separated by commas. Needs the section `cluster` in the configuration.
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    pub(crate) roles: Vec<Role>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Topics {
    /// Make the topics that are missing, then verify all of them.
    Create,
    /// Say whether the topics keep what the server stands on; exit code 1 if one does not.
    Verify,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Shard {
    /// Make the tables in every database, and spread the virtual shards over them at the first time. Databases that are added later start empty.
    Init,
    /// Which virtual shard is where.
    List,
    /// Bring a database that was added to the configuration into the cluster, empty: then move shards to it.
    Add(Database),
    /// Move a virtual shard to another database, while it is in use. Run again after a crash, it goes on or begins anew.
    Move(Move),
    /// Give up a move that is not complete: the shard is served from where it was.
    Abort(One),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Partition {
    /// Every partition with its owner, position, the records that wait and for how long, and what its owner says of it.
    List {
        /// Only those that are stopped, late, or nobody's.
        #[arg(long)]
        troubled: bool,
    },
    /// Step over what a partition cannot go on from: a record that no build can read, whose bytes are kept in a file first, or records that
    /// the log has forgotten. Only at the place where the partition stands. Safe while the cluster runs.
    Skip(Skip),
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Show an account and its devices.
    Show {
        /// Its id, or its phone number with the plus.
        user: String,
    },
    /// End the sessions of an account: their tokens are refused, and a running server closes their sockets within seconds.
    Revoke {
        /// Its id.
        user: UserId,
        /// Only that of this device.
        #[arg(long, value_name = "DEVICE")]
        device: Option<DeviceName>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Skip {
    /// Which topic.
    pub(crate) topic: WorkedOn,
    /// Which of its partitions.
    pub(crate) partition: u16,
    /// Where it stands, as its owner's log line and `partition list` say.
    pub(crate) offset: u64,
    /// Where the record's bytes are kept; the file must not exist [default: TOPIC-PARTITION-OFFSET.record].
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Do it.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Topics whose partitions are worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WorkedOn {
    /// Accepted sends.
    Messages,
    /// What routers make of them; the partition is the virtual shard.
    Mailbox,
}

impl From<WorkedOn> for Topic {
    fn from(topic: WorkedOn) -> Self {
        match topic {
            WorkedOn::Messages => Self::Messages,
            WorkedOn::Mailbox => Self::Mailbox,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum StreamEpoch {
    /// Say that the mailboxes of these virtual shards are not the ones that devices know: their sessions are closed (4410), and devices read anew.
    Raise {
        /// The virtual shards.
        #[arg(required = true)]
        shards: Vec<u16>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Have every virtual shard begin at the front of a log that is new and empty, after the old one was lost: with every router and storage process
    /// stopped, and cluster.log_epoch raised in every configuration.
    Adopt(AdoptLog),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AdoptLog {
    /// Do it.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Database {
    /// Its name in cluster.postgres.databases.
    pub(crate) database: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Move {
    /// The virtual shard.
    pub(crate) shard: u16,
    /// Name of the database it goes to.
    #[arg(long, value_name = "DATABASE")]
    pub(crate) to: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// The virtual shard.
    pub(crate) shard: u16,
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
