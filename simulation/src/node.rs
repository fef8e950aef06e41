//! One process of the simulated cluster, wired as the server wires it: a lease, links, its share of the partitions, and perhaps a gateway.

mod lease;
mod share;
mod submit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway::config::Config;
use gateway::deliver::Sessions;
use gateway::token::Tokens;
use gateway::{Gateway, Ports};
use parking_lot::Mutex;
use protocol::limits::Limits;
use router::consume::Rewind;
use router::members::{Member, Members, Role, Roles};
use router::registry::NodeId;
use storage::lag::Lag;
use storage::store::Store;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::faults::{Ear, FaultyLog, FaultyRegistry, FaultyStore, Links};
use crate::process::Process;
use crate::world::{SOURCES, World};
pub use share::Kind;
pub use submit::partition_of;

/// Requests to rewind that wait.
const REWINDS: usize = 64;

/// One life of one process.
pub struct Node {
    /// Its number and boot.
    pub id: NodeId,
    /// What can befall it.
    pub process: Arc<Process>,
    /// Where it takes part.
    pub world: Arc<World>,
    /// Who else lives, as it believes.
    pub members: Members,
    /// Its streams to others.
    pub links: Arc<Links>,
    /// Its store.
    pub store: Arc<FaultyStore>,
    /// Its registry.
    pub registry: Arc<FaultyRegistry>,
    /// Its gateway, if it has that role.
    pub gateway: Option<Arc<Gateway>>,
    /// The ways to its routers.
    pub routers: Mutex<BTreeMap<u16, mpsc::Sender<Rewind>>>,
    /// To the routers of this process, from everywhere.
    rewinds: mpsc::Sender<Rewind>,
}

/// What a process of this number does.
pub const fn roles(number: u16) -> Roles {
    match number {
        0 => Roles { gateway: true, router: false, storage: false },
        1 | 2 => Roles::ALL,
        _ => Roles { gateway: false, router: true, storage: true },
    }
}

impl Node {
    /// Starts a process.
    pub fn start(world: &Arc<World>, number: u16) -> Arc<Self> {
        let sim = &world.sim;
        let process = Process::start(sim, format!("node-{number}"));
        let id = NodeId { node: number, boot: sim.bits() };
        let roles = roles(number);
        let (publisher, members) = Members::channel();
        let me = Member {
            node: id,
            name: process.name.clone(),
            roles,
            address: None,
            version: String::new(),
            started_ms: sim.now_ms(),
            troubles: router::members::Troubles::default(),
            reach: None,
        };
        process.spawn(lease::renew(Arc::clone(&world.redis), Arc::clone(&process), (me, publisher), Arc::clone(sim)));
        let links = Links::new(id, &process, sim, &world.book, members.clone());
        let registry = Arc::new(FaultyRegistry {
            redis: Arc::clone(&world.redis),
            process: Arc::clone(&process),
            sim: Arc::clone(sim),
            members: members.clone(),
            highest: 0.into(),
        });
        let store = Arc::new(FaultyStore {
            databases: Arc::clone(&world.databases),
            process: Arc::clone(&process),
            sim: Arc::clone(sim),
            hints: Mutex::default(),
        });
        let sessions = Arc::new(Sessions::default());
        let (rewinds, asked) = mpsc::channel(REWINDS);
        let gateway = roles.gateway.then(|| {
            let log = FaultyLog::new(&world.log, &process, sim, &world.honest, None);
            let ports = Ports {
                submit: Arc::new(submit::LogSubmit::new(log.clone(), &process, SOURCES)),
                registry: registry.clone(),
                budgets: None,
                marks: Arc::new(storage::receipt::NotKept),
                store: store.clone(),
                lag: Some(Arc::new(Lag { log, store: store.clone() as Arc<dyn Store>, shards: world.databases.shards })),
                links: Some(links.clone()),
            };
            let tokens = Tokens::new(&[7; 32]).expect("32 bytes are long enough");
            Gateway::new(config(world), ports, id, Arc::clone(&sessions), tokens)
        });
        let ear =
            Ear { process: Arc::clone(&process), sessions: gateway.is_some().then_some(sessions), rewinds: rewinds.clone() };
        world.book.enter(id, Arc::new(ear));
        let node = Arc::new(Self {
            id,
            process,
            world: Arc::clone(world),
            members,
            links,
            store,
            registry,
            gateway,
            routers: Mutex::default(),
            rewinds,
        });
        node.work(asked);
        node
    }

    fn work(self: &Arc<Self>, asked: mpsc::Receiver<Rewind>) {
        if let Some(gateway) = &self.gateway {
            self.process.spawn(Arc::clone(gateway).run_background());
        }
        self.process.spawn(lease::follow_members(Arc::clone(self)));
        let roles = roles(self.id.node);
        if roles.router {
            self.process.spawn(share::keep(Arc::clone(self), Kind::Router));
            self.process.spawn(share::hand_over(Arc::clone(self), asked));
        }
        if roles.storage {
            self.process.spawn(share::keep(Arc::clone(self), Kind::Storage));
        }
    }

    /// Hands a request to rewind to every live router; some are lost.
    pub async fn ask_routers(self: Arc<Self>, mut asks: mpsc::Receiver<Rewind>) {
        let mut last: BTreeMap<(u16, u16), (Rewind, u64)> = BTreeMap::new();
        while let Some(rewind) = asks.recv().await {
            let (sim, now_ms) = (&self.world.sim, self.world.sim.now_ms());
            sim.note(|| format!("{rewind:?}"));
            let key = (rewind.source.partition, rewind.shard.0);
            if last.get(&key).is_some_and(|(same, at_ms)| *same == rewind && at_ms + 1000 > now_ms) {
                continue; // the same again within a second
            }
            last.insert(key, (rewind, now_ms));
            if sim.strikes(sim.weather.fails) {
                sim.saw("request to rewind lost");
                continue;
            }
            sleep(sim.delay()).await;
            let _ = self.rewinds.try_send(rewind);
            for node in self.members.view().live(Role::Router) {
                if node != self.id {
                    self.links.rewind(node, rewind);
                }
            }
        }
    }
}

/// Small windows, short deadlines: everything that has a bound comes to it.
fn config(world: &World) -> Config {
    let sends_per_s = world.sim.weather.sends_per_s;
    Config {
        limits: Limits {
            window_events: 8,
            window_bytes: 4096,
            in_flight: 6,
            sends_per_s,
            sends_burst: 2 * sends_per_s,
            ..Limits::default()
        },
        heartbeat: Duration::from_secs(4),
        stall_deadline: Duration::from_secs(6),
        report_deadline: Duration::from_secs(1),
        canaries: 0,
        ..Config::default()
    }
}
