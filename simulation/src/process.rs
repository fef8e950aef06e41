//! A process that can die at any call, stand still and go on later, or lose a part of its network. What it holds in memory dies with it.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::sim::{Odds, Sim};

/// Finished tasks are forgotten when there are so many.
const TIDY_AT: usize = 64;
/// A call over a cut network fails after at most so long.
const CUT_MS: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Runs,
    Stands,
    Dead,
}

/// What a process may be cut off from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The log.
    Log,
    /// The databases.
    Store,
    /// Registry and leases.
    Redis,
    /// The other processes.
    Peers,
}

/// One life of one process.
pub struct Process {
    /// Its name in the trace.
    pub name: String,
    sim: Arc<Sim>,
    tasks: Mutex<Vec<AbortHandle>>,
    /// Not a watch: that one wakes its readers in an order of its own chance.
    life: Mutex<Life>,
    turned: Notify,
    cuts: Mutex<BTreeMap<Part, Instant>>,
}

impl Process {
    /// A new one.
    pub fn start(sim: &Arc<Sim>, name: String) -> Arc<Self> {
        sim.note(|| format!("{name} starts"));
        let (tasks, life, cuts) = (Mutex::default(), Mutex::new(Life::Runs), Mutex::default());
        Arc::new(Self { name, sim: Arc::clone(sim), tasks, life, turned: Notify::new(), cuts })
    }

    /// A task of this process, and the way to drop it. A dead process starts none.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        if self.is_dead() {
            return None;
        }
        let mut tasks = self.tasks.lock();
        if tasks.len() >= TIDY_AT {
            tasks.retain(|task| !task.is_finished());
        }
        let handle = tokio::spawn(task).abort_handle();
        tasks.push(handle.clone());
        Some(handle)
    }

    /// `kill -9`: no task of it does another step, and no call of one that it does not know of.
    pub fn kill(&self, why: &str) {
        if self.is_dead() {
            return;
        }
        self.sim.note(|| format!("{} dies: {why}", self.name));
        *self.life.lock() = Life::Dead;
        self.turned.notify_waiters();
        let tasks: Vec<_> = self.tasks.lock().drain(..).collect();
        tasks.into_iter().for_each(|task| task.abort());
    }

    /// Stands still: a long pause of the scheduler, a frozen virtual machine.
    pub fn stand_still(&self) {
        self.turn(Life::Runs, Life::Stands);
    }

    /// Goes on as if nothing had happened.
    pub fn go_on(&self) {
        self.turn(Life::Stands, Life::Runs);
    }

    fn turn(&self, from: Life, to: Life) {
        let turned = {
            let mut life = self.life.lock();
            let turns = *life == from;
            if turns {
                *life = to;
            }
            turns
        };
        if turned {
            self.sim.note(|| format!("{} {to:?}", self.name));
            self.turned.notify_waiters();
        }
    }

    /// Waits until it leads a life of this kind.
    async fn until(&self, wanted: impl Fn(Life) -> bool) -> Life {
        loop {
            // hears of every turn from here on
            let turned = self.turned.notified();
            let life = *self.life.lock();
            if wanted(life) {
                return life;
            }
            turned.await;
        }
    }

    /// Cuts it off from a part for a while.
    pub fn cut(&self, part: Part, time: Duration) {
        self.sim.note(|| format!("{} is cut off from {part:?} for {time:?}", self.name));
        self.cuts.lock().insert(part, Instant::now() + time);
    }

    /// Whether it is cut off from a part now.
    pub fn is_cut(&self, part: Part) -> bool {
        !self.sim.is_healed() && self.cuts.lock().get(&part).is_some_and(|until| *until > Instant::now())
    }

    /// Whether a call comes through: passes the gate, and when the part is cut off, comes back after a while with no.
    pub async fn reaches(&self, part: Part) -> bool {
        self.gate().await;
        if !self.is_cut(part) {
            return true;
        }
        self.sim.saw(match part {
            Part::Log => "call to the log in a partition",
            Part::Store => "call to a database in a partition",
            Part::Redis => "call to Redis in a partition",
            Part::Peers => "link cut by a partition",
        });
        sleep(self.sim.up_to_ms(CUT_MS)).await;
        self.gate().await;
        false
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        *self.life.lock() == Life::Dead
    }

    /// Waits until it is dead.
    pub async fn death(&self) {
        self.until(|life| life == Life::Dead).await;
    }

    /// Where every call goes through, before and after: waits while the process stands still.
    pub async fn gate(&self) {
        if self.until(|life| life != Life::Stands).await == Life::Dead {
            pending::<()>().await;
        }
    }

    /// Waits while it stands still; whether it is alive then.
    pub async fn lives_on(&self) -> bool {
        self.until(|life| life != Life::Stands).await == Life::Runs
    }

    /// Perhaps the process dies here.
    pub async fn danger(&self, odds: Odds, at: &str) {
        if self.sim.strikes(odds) {
            self.sim.saw("process died at a call");
            self.kill(at);
            pending::<()>().await;
        }
    }
}
