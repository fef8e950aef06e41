//! A crew: all the clients of one process. It is given a job, obeys barriers, and says every second what it counted.
//!
//! Senders and receivers of a message are in one crew. So one clock measures it, one ledger judges it, and nothing about
//! single messages has to be told to anybody else: the runs of many crews are merged by adding up counts and buckets.

mod control;
mod director;
mod echo;
mod lane;
mod ledger;
mod meters;
mod offence;
mod reads;
mod serve;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::body::{Bodies, mix};
use crate::client::{ClientError, Source, Target};
use crate::contacts::Book;
use crate::scenario::Scenario;
use crate::tls::Authority;
use crate::tokens::Account;
use control::{Control, Want};
use lane::Lane;
use ledger::Ledger;
use meters::Meters;

pub use meters::{Counts, Tick};
pub use offence::{Fault, Found};

/// A tick goes out so often.
const TICK: Duration = Duration::from_secs(1);
/// A client that does nothing reads pings only.
const IDLE_READ_BUFFER: usize = 512;
/// The receive buffer of a client that is to be slow: the kernel must not read for it.
const SLOW_RECEIVE_BUFFER: u32 = 4096;
/// So long may lanes take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// Sockets of one source address: below what the range of local ports holds.
const SOCKETS_PER_SOURCE: usize = 8000;

/// What a crew is to do: the scenario, with the counts and rates of its part, and whom it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Its part of the scenario.
    pub scenario: Scenario,
    /// One for each user.
    pub accounts: Vec<Account>,
    /// Where the server is.
    pub urls: Vec<String>,
    /// Who may have signed its certificate.
    pub authority: Authority,
    /// Local addresses to connect from; none: the kernel chooses.
    pub sources: Vec<Ipv4Addr>,
    /// The number of the run, the same in all crews.
    pub run: u32,
    /// The number of its first stream: streams are numbered through all crews.
    pub first_stream: u32,
    /// Its part of a schedule is shifted by so much of the distance of two sends, so that crews do not send at one moment.
    pub phase: f64,
}

/// What a crew is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// All crews are at the barrier: go on.
    Go,
}

/// What a crew says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// It is at this barrier and waits.
    At(String),
    /// What it counted.
    Tick(Box<Tick>),
    /// It is done; this is the last tick.
    Done(Box<Tick>),
    /// It cannot go on.
    Failed(String),
}

/// What all lanes share.
#[derive(Debug)]
struct Crew {
    scenario: Scenario,
    first_stream: u32,
    phase: f64,
    run: u32,
    devices: u32,
    users: Vec<u64>,
    controls: Vec<Control>,
    seen: Vec<AtomicBool>,
    ledger: Ledger,
    meters: Meters,
    book: Book,
    bodies: Bodies,
    reads: reads::Reads,
    handshakes: Option<Arc<Semaphore>>,
    began: Instant,
    /// When the load began and when measuring begins, on the crew's clock.
    load_began_us: AtomicU64,
    measured_from_us: AtomicU64,
    gave_up: Mutex<Option<String>>,
}

impl Crew {
    fn new(job: &Job) -> Result<Self> {
        let scenario = job.scenario.clone();
        let users: Vec<_> = job.accounts.iter().map(|account| account.user).collect();
        let (devices, count) = (scenario.devices, u32::try_from(users.len())?);
        let lanes = users.len() * devices as usize;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let bodies = Bodies::new(job.run, now, scenario.body.clone());
        let handshakes = scenario.connect.rate.is_none().then(|| Arc::new(Semaphore::new(scenario.connect.at_once)));
        Ok(Self {
            first_stream: job.first_stream,
            phase: job.phase,
            run: job.run,
            devices,
            controls: std::iter::repeat_with(Control::default).take(lanes).collect(),
            seen: std::iter::repeat_with(AtomicBool::default).take(lanes).collect(),
            ledger: Ledger::new(users.clone(), devices, job.first_stream, bodies.clone()),
            meters: Meters::default(),
            book: Book::new(count, &scenario.contacts),
            bodies,
            reads: reads::Reads::default(),
            handshakes,
            began: Instant::now(),
            load_began_us: AtomicU64::new(0),
            measured_from_us: AtomicU64::new(u64::MAX),
            gave_up: Mutex::default(),
            users,
            scenario,
        })
    }

    /// The crew's clock.
    fn now_us(&self) -> u64 {
        self.us_of(Instant::now())
    }

    fn us_of(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    fn load_began_us(&self) -> u64 {
        self.load_began_us.load(Ordering::Relaxed)
    }

    fn is_measured(&self, due_us: u64) -> bool {
        due_us >= self.measured_from_us.load(Ordering::Relaxed)
    }

    fn gives_up(&self) -> bool {
        self.scenario.load.as_ref().is_some_and(|load| load.give_up.is_some())
    }

    /// Whether a send of this time that has not gone out yet is not wanted any more.
    fn is_given_up(&self, due_us: u64) -> bool {
        let after = self.scenario.load.as_ref().and_then(|load| load.give_up);
        after.is_some_and(|after| Duration::from_micros(self.now_us().saturating_sub(due_us)) > after.0)
    }

    /// Whether what is due then is due after the surge.
    fn is_recovered(&self, due_us: u64) -> bool {
        let since = Duration::from_micros(due_us.saturating_sub(self.load_began_us()));
        self.scenario.recovered_at().is_some_and(|at| since >= at)
    }

    fn user_number(&self, user: u32) -> u64 {
        self.users.get(user as usize).copied().unwrap_or_default()
    }

    /// A name no earlier run has used, so that every run begins at the head of its mailboxes.
    fn device_name(&self, device: u32) -> String {
        format!("load-{:08x}-{device}", self.run)
    }

    /// Waits for its turn, where turns are taken.
    async fn handshake(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(self.handshakes.as_ref()?).acquire_owned().await.ok()
    }

    /// Marks a device as known to the server. Returns whether it was.
    fn been_live(&self, lane: u32) -> bool {
        self.seen.get(lane as usize).is_some_and(|seen| seen.swap(true, Ordering::Relaxed))
    }

    /// How often each send may be on the wire at once.
    fn copies(&self) -> usize {
        self.scenario.retry.as_ref().map_or(1, |retry| retry.copies as usize)
    }

    /// How often this send goes out.
    #[expect(clippy::cast_precision_loss, reason = "a draw of 32 bits")]
    fn copies_of(&self, id: Uuid) -> u32 {
        let Some(retry) = &self.scenario.retry else { return 1 };
        let draw = (mix(id.as_u64_pair().1) >> 32) as f64 / f64::from(u32::MAX);
        if draw < retry.share { retry.copies } else { 1 }
    }

    fn broke(&self, lane: u32, error: &ClientError) {
        self.meters.broken.fetch_add(1, Ordering::Relaxed);
        self.meters.trouble(|| error.to_string());
        if !self.scenario.may_break() {
            let (user, device) = (self.user_number(lane / self.devices), lane % self.devices);
            self.ledger.offences.note(Fault::Broken, || format!("{user}/{device}: {error}"));
        }
    }

    /// The run makes no sense any more.
    fn give_up(&self, why: String) {
        self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// # Errors
    /// When the run makes no sense any more.
    fn check(&self) -> Result<()> {
        match &*self.gave_up.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }

    fn tick(&self) -> Tick {
        self.meters.tick(self.ledger.offences.snapshot())
    }
}

/// Does a job. Says what it counts, and at the end `Done` or `Failed`.
pub async fn run(job: Job, mut orders: mpsc::Receiver<Order>, news: mpsc::Sender<News>) {
    let last = match Box::pin(work(job, &mut orders, &news)).await {
        Ok(tick) => News::Done(Box::new(tick)),
        Err(why) => News::Failed(format!("{why:#}")),
    };
    // Whoever does not listen any more does not want to know.
    let _ = news.send(last).await;
}

async fn work(job: Job, orders: &mut mpsc::Receiver<Order>, news: &mpsc::Sender<News>) -> Result<Tick> {
    let crew = Arc::new(Crew::new(&job)?);
    let mut lanes = start_lanes(&crew, &job).await?;
    let ticker = tokio::spawn(tick(Arc::clone(&crew), news.clone()));
    let directed = director::direct(&crew, orders, news).await;
    crew.controls.iter().for_each(|control| control.set(Want::Gone));
    let goodbye = async { while lanes.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
        lanes.abort_all();
    }
    ticker.abort();
    directed?;
    crew.ledger.close();
    for (lane, control) in crew.controls.iter().enumerate() {
        for _ in 0..control.due_left() {
            crew.ledger.offences.note(Fault::Unsent, || format!("a send of connection {lane} was due and had no room"));
        }
    }
    Ok(crew.tick())
}

async fn tick(crew: Arc<Crew>, news: mpsc::Sender<News>) {
    let mut clock = tokio::time::interval(TICK);
    loop {
        clock.tick().await;
        if news.send(News::Tick(Box::new(crew.tick()))).await.is_err() {
            return;
        }
    }
}

async fn start_lanes(crew: &Arc<Crew>, job: &Job) -> Result<JoinSet<()>> {
    let mut targets = Vec::new();
    for url in &job.urls {
        let target = Target::resolve_by(url, &job.authority).await?.with_encoding(crew.scenario.encoding);
        targets.push(if crew.scenario.load.is_none() { target.with_read_buffer(IDLE_READ_BUFFER) } else { target });
    }
    let sources: Vec<_> = job.sources.iter().map(|address| Arc::new(Source::new(*address))).collect();
    let mut lanes = JoinSet::new();
    for index in 0..u32::try_from(crew.controls.len())? {
        let account = job.accounts.get((index / crew.devices) as usize).context("an account for every user")?;
        let source = sources.get(index as usize / SOCKETS_PER_SOURCE).cloned();
        let own = targets.iter().map(|target| {
            let target = target.with_token(&account.token).from_source(source.clone());
            if director::is_slow(crew, index) { target.with_receive_buffer(SLOW_RECEIVE_BUFFER) } else { target }
        });
        let seed = mix(u64::from(job.run) << 32 | u64::from(crew.first_stream + index));
        lanes.spawn(Lane::new(Arc::clone(crew), index, own.collect(), seed).run());
    }
    Ok(lanes)
}

/// How many source addresses so many sockets need.
#[must_use]
pub fn sources_for(sockets: usize) -> usize {
    sockets.div_ceil(SOCKETS_PER_SOURCE)
}
