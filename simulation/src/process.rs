//! A process that can die at any call, or stand still and go on later. What it holds in memory dies with it.

use std::future::{Future, pending};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::sim::{Odds, Sim};

/// Finished tasks are forgotten when there are so many.
const TIDY_AT: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Runs,
    Stands,
    Dead,
}

/// One life of one process.
pub struct Process {
    /// Its name in the trace.
    pub name: String,
    sim: Arc<Sim>,
    tasks: Mutex<Vec<AbortHandle>>,
    life: watch::Sender<Life>,
}

impl Process {
    /// A new one.
    pub fn start(sim: &Arc<Sim>, name: String) -> Arc<Self> {
        sim.note(|| format!("{name} starts"));
        Arc::new(Self { name, sim: Arc::clone(sim), tasks: Mutex::default(), life: watch::Sender::new(Life::Runs) })
    }

    /// A task of this process. A dead process starts none.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if self.is_dead() {
            return;
        }
        let mut tasks = self.tasks.lock();
        if tasks.len() >= TIDY_AT {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(tokio::spawn(task).abort_handle());
    }

    /// `kill -9`: no task of it does another step.
    pub fn kill(&self, why: &str) {
        if self.is_dead() {
            return;
        }
        self.sim.note(|| format!("{} dies: {why}", self.name));
        self.life.send_replace(Life::Dead);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
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
        let turned = self.life.send_if_modified(|life| {
            let turns = *life == from;
            if turns {
                *life = to;
            }
            turns
        });
        if turned {
            self.sim.note(|| format!("{} {to:?}", self.name));
        }
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        *self.life.borrow() == Life::Dead
    }

    /// Waits until it is dead.
    pub async fn death(&self) {
        let mut life = self.life.subscribe();
        if life.wait_for(|life| *life == Life::Dead).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Waits until it stands still.
    pub async fn standstill(&self) {
        let mut life = self.life.subscribe();
        if life.wait_for(|life| *life == Life::Stands).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Where every call goes through, before and after: waits while the process stands still.
    pub async fn gate(&self) {
        let mut life = self.life.subscribe();
        let runs = life.wait_for(|life| *life != Life::Stands).await.map(|life| *life);
        if !matches!(runs, Ok(Life::Runs)) {
            pending::<()>().await;
        }
    }

    /// Perhaps the process dies here.
    pub async fn danger(&self, odds: Odds, at: &str) {
        if self.sim.strikes(odds) {
            self.kill(at);
            pending::<()>().await;
        }
    }
}
