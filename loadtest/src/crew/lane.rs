//! One device of one user: it comes and goes as the director wishes, sends what is due, and shows the ledger what it sees.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Crew;
use super::control::{Control, Want};
use super::echo::Echoes;
use super::offence::Fault;
use super::reads::Reading;
use crate::actor::Outbox;
use crate::client::{Client, ClientError, Target};
use crate::frame::Hello;
use crate::series::Kind;

/// One device.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) crew: Arc<Crew>,
    /// Its number in the crew.
    pub(super) index: u32,
    pub(super) targets: Vec<Target>,
    at: usize,
    pub(super) rng: StdRng,
    pub(super) outbox: Outbox,
    pub(super) echoes: Echoes,
    pub(super) reading: Reading,
    pub(super) window: usize,
    /// The last `seq` that was shown; `None` until the first live.
    pub(super) cursor: Option<u64>,
    epoch: Option<String>,
    pub(super) acknowledged: u64,
    pub(super) unacknowledged_bytes: usize,
    /// Until then (the crew's clock) it was away or did not read, because it was told so.
    pub(super) absent_until_us: u64,
    /// It is absent now, on purpose.
    pub(super) absent: bool,
    pub(super) live: bool,
    pub(super) answered: Instant,
    permit: Option<OwnedSemaphorePermit>,
    /// The last position shown in each conversation, by the other user.
    pub(super) positions: HashMap<u64, u64>,
    /// The last number shown of each stream in each conversation.
    pub(super) numbers: HashMap<(u32, u64), u32>,
}

impl Lane {
    /// Lane `index` of the crew. It starts at the target its number says, so that all of them share the lanes.
    pub(super) fn new(crew: Arc<Crew>, index: u32, targets: Vec<Target>, seed: u64) -> Self {
        Self {
            at: index as usize % targets.len().max(1),
            rng: StdRng::seed_from_u64(seed),
            outbox: Outbox::default(),
            echoes: Echoes::default(),
            reading: Reading::default(),
            window: 1,
            cursor: None,
            epoch: None,
            acknowledged: 0,
            unacknowledged_bytes: 0,
            absent_until_us: 0,
            absent: false,
            live: false,
            answered: Instant::now(),
            permit: None,
            positions: HashMap::new(),
            numbers: HashMap::new(),
            crew,
            index,
            targets,
        }
    }

    pub(super) fn user(&self) -> u32 {
        self.index / self.crew.devices
    }

    pub(super) fn device(&self) -> u32 {
        self.index % self.crew.devices
    }

    pub(super) fn stream(&self) -> u32 {
        self.crew.first_stream + self.index
    }

    /// Runs until the run is over.
    pub(super) async fn run(mut self) {
        let crew = Arc::clone(&self.crew);
        let Some(control) = crew.controls.get(self.index as usize) else { return };
        let mut attempt = 0;
        loop {
            match control.want() {
                Want::Gone => return,
                Want::Left | Want::Cut => {
                    attempt = 0;
                    control.changed.notified().await;
                }
                Want::Here | Want::Frozen => {
                    let ended = self.session(control).await;
                    let was_live = self.ended();
                    match ended {
                        Ok(()) => self.absent = true,
                        Err(error) => {
                            attempt = if was_live { 0 } else { attempt + 1 };
                            self.broke(control, &error, (was_live, attempt)).await;
                        }
                    }
                }
            }
        }
    }

    /// One connection, from setting out to its end. `Ok` when the director wished it to end.
    async fn session(&mut self, control: &Control) -> Result<(), ClientError> {
        if self.permit.is_none() && self.cursor.is_none() {
            self.permit = self.crew.handshake().await;
        }
        control.set_out(self.crew.now_us());
        let departures = control.departures();
        let Some(target) = self.targets.get(self.at) else { return Ok(()) };
        let mut client = Client::connect(target).await?;
        let hello = Hello { device: &self.crew.device_name(self.device()), cursor: self.cursor, epoch: self.epoch.as_deref() };
        let welcome = client.hello(hello).await?;
        self.epoch = Some(welcome.epoch);
        let unsettled = self.crew.scenario.load.as_ref().and_then(|load| load.unsettled).unwrap_or(usize::MAX);
        self.window = (welcome.limits.in_flight / self.crew.copies()).clamp(1, unsettled);
        (self.acknowledged, self.unacknowledged_bytes) = (self.cursor.unwrap_or_default(), 0);
        self.answered = Instant::now();
        self.serve(&mut client, (control, departures)).await?;
        if matches!(control.want(), Want::Left | Want::Gone) {
            client.close().await;
        } else {
            client.cut();
        }
        Ok(())
    }

    /// The server said that everything has been shown.
    pub(super) fn went_live(&mut self, control: &Control, head: u64) {
        let shown = self.cursor.get_or_insert(head);
        if *shown < head {
            let (shown, stream) = (*shown, self.stream());
            self.crew.ledger.offences.note(Fault::Gap, || format!("stream {stream}: live at {head}, but only {shown} was shown"));
            self.cursor = Some(head);
        }
        self.permit = None;
        if self.live {
            return;
        }
        self.live = true;
        let now_us = self.crew.now_us();
        if std::mem::take(&mut self.absent) {
            self.absent_until_us = now_us;
        }
        let took = Duration::from_micros(now_us.saturating_sub(control.take_since(now_us)));
        let meters = &self.crew.meters;
        let again = self.crew.been_live(self.index);
        meters.add(if again { Kind::Resume } else { Kind::Connect }, took);
        if again { &meters.resumes } else { &meters.connects }.fetch_add(1, Ordering::Relaxed);
        meters.sockets.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection is no more. Returns whether it had been live.
    fn ended(&mut self) -> bool {
        self.permit = None;
        self.outbox.disconnected();
        self.echoes.clear();
        let was_live = std::mem::take(&mut self.live);
        if was_live {
            self.crew.meters.sockets.fetch_sub(1, Ordering::Relaxed);
        }
        was_live
    }

    /// A connection broke or could not be had: it is counted, and tried again after full-jitter back-off.
    async fn broke(&mut self, control: &Control, error: &ClientError, (was_live, attempt): (bool, u32)) {
        let crew = Arc::clone(&self.crew);
        if was_live && control.want() == Want::Here {
            crew.broke(self.index, error);
        } else if control.want().connected() {
            crew.meters.failed.fetch_add(1, Ordering::Relaxed);
            crew.meters.trouble(|| error.to_string());
        }
        // Who was let in once may be refused by a server that is overloaded: that is measured, not given up.
        if let Some(why) = fatal(error).filter(|_| self.cursor.is_none()) {
            crew.give_up(format!("{why}: {error} (user {})", crew.user_number(self.user())));
        }
        control.set_out(crew.now_us());
        self.at = (self.at + 1) % self.targets.len().max(1);
        let connect = &crew.scenario.connect;
        let bound = connect.backoff.0.saturating_mul(1 << attempt.min(16)).min(connect.backoff_max.0);
        let least = match error {
            ClientError::Http { retry_after: Some(after), .. } => *after,
            _ => Duration::ZERO,
        };
        let pause = least.max(bound.mul_f64(self.rng.random()));
        // A wish of the director ends the pause.
        let _ = tokio::time::timeout(pause, async {
            while control.want() == Want::Here {
                control.changed.notified().await;
            }
        })
        .await;
    }
}

/// What repeating cannot help, in words.
fn fatal(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Http { status: 401, .. } => {
            Some("the server does not take this token: was it made with another secret, or has it expired?")
        }
        ClientError::Http { status: 400 | 403 | 404 | 405 | 426, .. } => Some("the server refuses the upgrade"),
        ClientError::Closed { code: Some(4401), .. } => Some("the server does not take this token"),
        ClientError::Closed { code: Some(4400 | 4403 | 4409 | 4426), .. } => Some("the server refuses this client"),
        ClientError::Contract(_) => Some("the server does not keep the protocol"),
        _ => None,
    }
}
