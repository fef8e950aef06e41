//! The careful chat client: one device of one user that survives faults.
//!
//! It holds a cursor and an outbox, and nothing else matters: it connects with full-jitter back-off, resends what is
//! unsettled in order under the same ids, honours `move`, acknowledges what it has recorded, and records what it saw.
//! It never gives up a send.

mod outbox;
mod session;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

pub use outbox::{Item, Outbox};

use crate::client::{ClientError, Target};
use crate::frame::members;
use crate::record::{ClientId, Recorder, What};
use session::End;

/// How an actor behaves.
#[derive(Debug, Clone)]
pub struct Habits {
    /// The first bound of the back-off; it doubles with every failure.
    pub backoff: Duration,
    /// The bound of the back-off.
    pub backoff_max: Duration,
    /// Acknowledge at least every so many events.
    pub ack_every: u64,
    /// Acknowledge at the latest after this time.
    pub ack_after: Duration,
    /// A connection that owes an answer for longer is given up.
    pub answer_deadline: Duration,
    /// The outbox takes no more than this.
    pub outbox_max: usize,
}

impl Default for Habits {
    /// Habits for tests: the back-off of the contract, with short caps.
    fn default() -> Self {
        Self {
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_millis(400),
            ack_every: 16,
            ack_after: Duration::from_millis(20),
            answer_deadline: Duration::from_secs(15),
            outbox_max: 20_000,
        }
    }
}

/// What one actor is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it connects, with its token: one of these, chosen by the seed, and the next whenever a connection has ended. At least one.
    pub targets: Vec<Target>,
    /// Who it is.
    pub client: ClientId,
    /// How it behaves.
    pub habits: Habits,
    /// The seed of its jitter.
    pub seed: u64,
}

/// What an actor is at now.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether it is attached.
    pub attached: bool,
    /// How often it was attached.
    pub attaches: u32,
    /// How often it was told to move.
    pub moves: u32,
    /// The last `seq` it recorded.
    pub cursor: u64,
    /// Sends that are not settled.
    pub unsettled: usize,
    /// Why it will not connect again.
    pub failure: Option<String>,
}

/// The outbox is full: the server has not settled sends for long.
#[derive(Debug, thiserror::Error)]
#[error("the outbox is full")]
pub struct OutboxFull;

#[derive(Debug)]
struct Shared {
    client: ClientId,
    outbox: Mutex<Outbox>,
    /// A send was added, or the actor is to stop.
    changed: Notify,
    stop: watch::Sender<bool>,
    outbox_max: usize,
    recorder: Recorder,
    status: watch::Sender<Status>,
}

impl Shared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // The outbox is consistent between its methods; a panic elsewhere does not spoil it.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running actor.
#[derive(Debug)]
pub struct Actor {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Actor {
    /// Starts the actor. It attaches from cursor 0.
    #[must_use]
    pub fn start(plan: Plan, recorder: &Recorder) -> Self {
        let shared = Arc::new(Shared {
            client: plan.client.clone(),
            outbox: Mutex::default(),
            changed: Notify::new(),
            stop: watch::Sender::new(false),
            outbox_max: plan.habits.outbox_max,
            recorder: recorder.clone(),
            status: watch::Sender::new(Status::default()),
        });
        let device = Device {
            shared: Arc::clone(&shared),
            rng: StdRng::seed_from_u64(plan.seed),
            at: usize::try_from(plan.seed).unwrap_or_default() % plan.targets.len().max(1),
            targets: plan.targets,
            habits: plan.habits,
            cursor: 0,
            epoch: None,
        };
        Self { shared, task: tokio::spawn(device.run()) }
    }

    /// Who it is.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.shared.client
    }

    /// Decides a send into a direct conversation; the actor brings it out whatever happens. Returns its id.
    ///
    /// # Errors
    /// When the outbox is full.
    pub fn send(&self, conversation: &str, text: String) -> Result<Uuid, OutboxFull> {
        let id = Uuid::now_v7();
        let mut outbox = self.shared.outbox();
        if outbox.len() >= self.shared.outbox_max {
            return Err(OutboxFull);
        }
        // Recorded under the lock of the outbox, so that the order of invocations is the order of sending.
        let invoke = What::Invoke { id, conversation: conversation.to_owned(), text: text.clone() };
        self.shared.recorder.note(&self.shared.client, invoke);
        outbox.push(Item { id, to: self.recipient(conversation), text });
        let unsettled = outbox.len();
        self.shared.status.send_modify(|status| status.unsettled = unsettled);
        drop(outbox);
        self.shared.changed.notify_one();
        Ok(id)
    }

    /// Both ways of naming a recipient are used: the other user, and for a note to oneself the conversation.
    fn recipient(&self, conversation: &str) -> String {
        let user = self.shared.client.user;
        match members(conversation) {
            Some([low, high]) if low != high => format!("u:{}", if low == user { high } else { low }),
            _ => conversation.to_owned(),
        }
    }

    /// What it is at now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Waits until the status passes the test; an actor that failed passes none.
    ///
    /// # Errors
    /// When the actor failed for good: the reason.
    pub async fn wait_until(&self, test: impl Fn(&Status) -> bool) -> Result<(), String> {
        let mut status = self.shared.status.subscribe();
        let seen = status.wait_for(|status| status.failure.is_some() || test(status)).await;
        let seen = seen.map_err(|_| format!("{} has ended", self.shared.client))?;
        match &seen.failure {
            Some(why) if !test(&seen) => Err(format!("{}: {why}", self.shared.client)),
            _ => Ok(()),
        }
    }

    /// Ends the actor and its connection. Unsettled sends stay unsettled.
    ///
    /// # Errors
    /// When the actor panicked.
    pub async fn stop(self) -> Result<Status, tokio::task::JoinError> {
        self.shared.stop.send_replace(true);
        self.shared.changed.notify_one();
        self.task.await?;
        Ok(self.shared.status.borrow().clone())
    }
}

/// The state of the device: all that must survive a connection.
#[derive(Debug)]
struct Device {
    shared: Arc<Shared>,
    rng: StdRng,
    targets: Vec<Target>,
    /// Which of them is next.
    at: usize,
    habits: Habits,
    cursor: u64,
    epoch: Option<String>,
}

impl Device {
    async fn run(mut self) {
        let mut failures = 0;
        while !*self.shared.stop.borrow() {
            let attaches = self.shared.status.borrow().attaches;
            let end = self.session().await;
            self.at = (self.at + 1) % self.targets.len();
            let in_flight = self.disconnected();
            let attached = self.shared.status.borrow().attaches > attaches;
            failures = if attached { 0 } else { failures + 1 };
            if let Some(error) = end.error() {
                if attached || in_flight > 0 {
                    let why = error.to_string();
                    self.note(What::Close { code: error.close_code(), in_flight, why });
                }
            } else {
                self.note(What::Close { code: Some(1000), in_flight, why: "left".to_owned() });
            }
            match self.next_step(&end, failures) {
                Some(pause) => self.pause(pause).await,
                None => break,
            }
        }
    }

    fn disconnected(&self) -> usize {
        let in_flight = self.shared.outbox().disconnected();
        self.shared.status.send_modify(|status| status.attached = false);
        in_flight
    }

    /// How long to wait before the next connection; `None`: there will be none.
    fn next_step(&mut self, end: &End, failures: u32) -> Option<Duration> {
        let error = match end {
            End::Stopped => return None,
            End::Moved => return Some(self.jitter(failures)),
            End::Broken(error) => error,
        };
        match error {
            ClientError::Http { retry_after: Some(least), .. } => return Some(*least + self.jitter(failures)),
            ClientError::Http { status: 401 | 403, .. } | ClientError::Url(_) | ClientError::Contract(_) => {
                return self.give_up(error);
            }
            _ => {}
        }
        match error.close_code() {
            Some(1002 | 1003 | 1007..=1009 | 4400..=4403 | 4409 | 4426) => self.give_up(error),
            Some(4410) => {
                (self.cursor, self.epoch) = (0, None);
                Some(self.jitter(failures))
            }
            Some(4429) => Some(self.habits.backoff_max),
            _ => Some(self.jitter(failures)),
        }
    }

    fn give_up(&self, error: &ClientError) -> Option<Duration> {
        self.shared.status.send_modify(|status| status.failure = Some(error.to_string()));
        None
    }

    /// Full jitter: a random time between 0 and min(max, first · 2^n).
    fn jitter(&mut self, failures: u32) -> Duration {
        let bound = self.habits.backoff.saturating_mul(1 << failures.min(16)).min(self.habits.backoff_max);
        bound.mul_f64(self.rng.random_range(0.0..1.0))
    }

    /// Waits, unless it is told to stop.
    async fn pause(&self, time: Duration) {
        let mut stop = self.shared.stop.subscribe();
        let until = Instant::now() + time;
        // Either way the loop looks again; the sender of `stop` lives in `shared`.
        let _ = tokio::time::timeout_at(until, stop.wait_for(|stop| *stop)).await;
    }

    fn note(&self, what: What) {
        self.shared.recorder.note(&self.shared.client, what);
    }
}
