//! The rows of the fault matrix. Each brings its fault about under load, waits for what must come back, and says what it saw. A row whose fault did
//! not bite is a failed row.

mod ours;

mod engines;

mod registry;

mod databases;

mod disk;

mod slow_disk;

mod network;

mod clients;

mod crowd;

mod limits;

mod operator;

mod health;

mod mended;

mod pair;

use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;

use crate::load::Load;
use crate::seen::Seen;
use crate::stand::Stand;

pub(crate) use registry::flush;

/// What a row saw: stretches of load, and what is to be said besides.
pub(crate) struct Outcome {
    pub(crate) seen: Vec<Seen>,
    pub(crate) more: String,
}

impl From<(Seen, String)> for Outcome {
    fn from((seen, more): (Seen, String)) -> Self {
        Self { seen: vec![seen], more }
    }
}

impl From<Seen> for Outcome {
    fn from(seen: Seen) -> Self {
        Self { seen: vec![seen], more: String::new() }
    }
}

type Run = for<'a> fn(&'a Stand) -> Pin<Box<dyn Future<Output = Result<Outcome>> + 'a>>;

/// One row.
pub(crate) struct Row {
    /// Its number in the fault matrix of the design, with a letter where there are several.
    pub(crate) name: &'static str,
    /// What happens.
    pub(crate) what: &'static str,
    /// When it runs without being named.
    pub(crate) when: When,
    pub(crate) run: Run,
}

/// When a row runs without being named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Always.
    Always,
    /// With `--long`: it takes minutes.
    Long,
    /// Never: it needs something that is not everywhere, or leaves another cluster behind.
    Named,
}

macro_rules! row {
    ($name:literal, $what:literal, $when:ident, $run:path) => {
        Row { name: $name, what: $what, when: When::$when, run: |stand| Box::pin($run(stand)) }
    };
}

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    row!("F0", "nothing", Always, ours::nothing),
    row!("F1", "a gateway is killed", Always, ours::gateway_killed),
    row!("F2", "routers are killed at each place of their work", Always, ours::routers_killed),
    row!("F3", "storage owners are killed at each place of their work", Always, ours::owners_killed),
    row!("F4", "a broker is killed", Always, engines::broker_killed),
    row!("F5", "two brokers of three are killed", Named, engines::two_brokers_killed),
    row!("F6a", "Redis is flushed", Always, registry::emptied),
    row!("F6b", "Redis stands still for 15 s", Always, registry::stands_still),
    row!("F6c", "Redis is killed and comes back empty", Always, registry::killed),
    row!("F6d", "Redis is set back by 20 s, in which a process of each role has died", Long, registry::set_back),
    row!("F6r", "Redis' primary is killed, and its replica takes over, twice", Named, registry::failed_over),
    row!("F7", "a database is killed", Always, engines::database_killed),
    row!("F7s", "a database dies, and its standby, seconds behind, takes its place", Always, databases::standby_promoted),
    row!("F7b", "a database is put back as it was 20 s before", Long, databases::backup_restored),
    row!("F8", "an owner stands still while another takes over", Always, ours::owner_stands_still),
    row!("F8e", "each part stands still for 5 s", Long, engines::each_stands_still),
    row!("F8l", "each part stands still for 45 s", Long, engines::each_stands_still_long),
    row!("F8x", "each part stands still for two minutes", Named, engines::each_stands_still_for_minutes),
    row!("F9", "devices that never read", Long, clients::never_read),
    row!("F10", "a gateway is cut off from its engines and from those who push to it", Always, network::gateway_cut_off),
    row!("F10w", "a router and an owner are cut off from their engines", Long, network::workers_cut_off),
    row!("F10l", "a router and an owner are cut off from their engines for 40 s", Long, network::workers_cut_off_long),
    row!("F12", "links are slow, lossy, sliced into bytes, reset", Long, network::bad_links),
    row!("F13k", "the disk of the broker is full", Named, disk::broker_full),
    row!("F13p", "the disk of a database is full", Named, disk::database_full),
    row!("F14", "each sync of a database takes 200 ms longer, then one fails", Named, slow_disk::slow_then_failed),
    row!("F16", "everybody is cut off at once and comes back", Long, clients::storm),
    row!("F1k", "a gateway with 9,500 sockets of 19,000 is killed", Long, crowd::killed),
    row!("F16k", "10,000 sockets of a gateway are cut off at once and come back", Long, crowd::cut_off),
    row!("O1", "three times as much as is worked in, for a minute", Long, crowd::overload),
    row!("F17", "every process of ours is replaced, one after the other", Always, operator::rolling),
    row!("F22", "shards move under load, and a mover is killed", Always, operator::shards_move),
    row!("J1", "processes join and leave", Always, operator::join_and_leave),
    row!("S1", "one device attaches at two gateways", Always, clients::one_device_twice),
    row!("A1", "devices attach elsewhere while their events are on the way", Always, ours::attach_elsewhere),
    row!("L1", "one user at two gateways has the limits of one", Always, limits::one_user),
    row!("H1", "all of a kind stands still, and health says so", Long, health::standstill_is_seen),
    row!("M1", "records nobody can read stop a router and an owner", Long, mended::stopped),
    row!("M2", "nobody routes and nobody stores for longer than half of what the log keeps", Long, mended::late),
    row!("M3", "the mailboxes of a shard are other ones", Always, mended::stream_epoch),
    row!("M4", "the log is lost and begins anew", Named, mended::new_log),
];

/// The gateways devices connect to.
pub(crate) const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];
/// Load before the fault and after it: enough that something is always on its way.
const BEFORE: Duration = Duration::from_millis(1500);

/// The load of most rows.
fn usual(row: &str) -> Load<'_> {
    Load { row, gateways: &GATEWAYS, users: 6, rate: 100 }
}
