//! One socket stops taking its events. It costs the server little, disturbs nobody, and misses nothing.

mod support;

use std::collections::HashSet;

use loadtest::actor::Actor;
use loadtest::check::{Expect, judge};
use loadtest::client::{Client, ClientError, Target};
use loadtest::frame::{Hello, ServerFrame, direct_name};
use loadtest::process::Process;
use loadtest::record::Recorder;
use loadtest::tokens::Account;
use support::{PATIENCE, Server, Stand, actor, all_reach, settle_and_read_back};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Events for the slow socket.
const EVENTS: usize = 20_000;
/// They come in so many portions; between two of them the same comes for a user who is offline.
const PORTIONS: usize = 20;
const BODY: usize = 200;
const MIB: i64 = 1 << 20;

/// The users: a slow one, one who is offline, two who chat, and those who flood.
const SLOW: u64 = 1;
const OFFLINE: u64 = 2;
const WITNESSES: [u64; 2] = [3, 4];
const FLOODERS: std::ops::RangeInclusive<u64> = 5..=12;
const USERS: u64 = 12;

/// How the slow socket is slow.
#[derive(Clone, Copy, PartialEq)]
enum Stall {
    /// It reads, but never acknowledges.
    Acknowledgements,
    /// It does not read at all, and its receive buffer is small.
    Bytes,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_socket_that_never_acknowledges() {
    check(Stall::Acknowledgements).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_socket_that_does_not_read() {
    check(Stall::Bytes).await;
}

async fn check(stall: Stall) {
    let mut stand = Stand::new(&[("SWITCHBOARD_LIMITS__SENDS_PER_S", "5000"), ("SWITCHBOARD_LIMITS__SENDS_BURST", "10000")]);
    let accounts = stand.accounts(USERS).await;
    let server = stand.start().await;
    let target = stand.target().await;
    let (witnessed, flooded) = (Recorder::in_memory(), Recorder::in_memory());
    let witnesses: Vec<_> = WITNESSES.iter().map(|user| actor(&target, of(&accounts, *user), "phone", &witnessed)).collect();
    let flooders: Vec<_> = FLOODERS.map(|user| actor(&target, of(&accounts, user), "phone", &flooded)).collect();
    all_reach(&witnesses, "first attach", |status| status.attached).await;
    all_reach(&flooders, "first attach", |status| status.attached).await;

    let slow_target = target.with_token(&of(&accounts, SLOW).token);
    let stalled = stall_now(&slow_target, stall).await;
    let reader = Reader::start(stalled, stall);
    let growth = flood(&server, &flooders, &witnesses).await;
    println!("{growth}");
    let (client, mut seen) = reader.wake(&slow_target).await;
    read_rest(client, &slow_target, &mut seen).await;
    assert_whole(&seen);
    assert!(growth.extra() < MIB, "{growth}");

    let pair: Vec<_> = WITNESSES.iter().map(|user| of(&accounts, *user).clone()).collect();
    let name = direct_name(WITNESSES[0], WITNESSES[1]);
    let entries = settle_and_read_back(&target, &pair, witnesses, |_| vec![name.clone()], &witnessed).await;
    let verdict = judge(&entries, Expect::sends(2 * PORTIONS));
    println!("{verdict}");
    assert!(verdict.is_clean(), "the witnesses were disturbed: {verdict}\n{}", stand.tail());
    for flooder in flooders {
        flooder.stop().await.expect("no actor panics");
    }
    server.kill().await;
}

fn of(accounts: &[Account], user: u64) -> &Account {
    accounts.iter().find(|account| account.user == user).expect("a token for every user")
}

/// An event as the slow one keeps it: number and text.
type Shown = (u64, String);

async fn stall_now(target: &Target, stall: Stall) -> Client {
    let target = match stall {
        Stall::Acknowledgements => target.clone(),
        Stall::Bytes => target.clone().with_receive_buffer(4096),
    };
    let mut client = Client::connect(&target).await.expect("the slow one connects");
    client.hello(Hello { device: "slow", cursor: Some(0), epoch: None }).await.expect("the slow one attaches");
    loop {
        if let ServerFrame::Live { head } = client.next().await.expect("the slow one goes live") {
            assert_eq!(head, 0, "nothing has come yet");
            return client;
        }
    }
}

/// What the slow one does meanwhile.
enum Reader {
    Reads { task: JoinHandle<Stopped>, wake: oneshot::Sender<()> },
    Sleeps(Box<Client>),
}

/// The connection, unless the server closed it, and what came.
struct Stopped {
    client: Option<Client>,
    shown: Vec<Shown>,
}

impl Reader {
    fn start(client: Client, stall: Stall) -> Self {
        match stall {
            Stall::Acknowledgements => {
                let (wake, woken) = oneshot::channel();
                Self::Reads { task: tokio::spawn(read_without_acknowledging(client, woken)), wake }
            }
            Stall::Bytes => Self::Sleeps(Box::new(client)),
        }
    }

    /// Wakes the slow one up: its connection, or a new one from where it was.
    async fn wake(self, target: &Target) -> (Client, Vec<Shown>) {
        let Stopped { client, shown } = match self {
            Self::Sleeps(client) => Stopped { client: Some(*client), shown: Vec::new() },
            Self::Reads { task, wake } => {
                wake.send(()).expect("it reads until it is woken");
                task.await.expect("no panic")
            }
        };
        let Some(mut client) = client else {
            return (resume(target, shown.len() as u64).await, shown);
        };
        if let Some((last, _)) = shown.last() {
            client.received(*last).await.expect("the connection stands");
        }
        (client, shown)
    }
}

/// Reads whatever comes until it is woken. More than a window must not come.
async fn read_without_acknowledging(mut client: Client, mut woken: oneshot::Receiver<()>) -> Stopped {
    let mut shown = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = client.next() => frame,
            _ = &mut woken => return Stopped { client: Some(client), shown },
        };
        match frame {
            Ok(ServerFrame::Event(event)) => shown.push((event.seq, event.text().to_owned())),
            Ok(_) => {}
            Err(error) => {
                expect_too_slow(&error);
                // The waker must find somebody; the connection is gone.
                let _ = woken.await;
                return Stopped { client: None, shown };
            }
        }
        assert!(shown.len() <= WINDOW, "more than a window came without an acknowledgement");
    }
}

/// The server sends no more than this without an acknowledgement.
const WINDOW: usize = 256;

async fn resume(target: &Target, cursor: u64) -> Client {
    let mut client = Client::connect(target).await.expect("the slow one connects again");
    client.hello(Hello { device: "slow", cursor: Some(cursor), epoch: None }).await.expect("the slow one resumes");
    client
}

/// Reads on and acknowledges; a connection closed for slowness is resumed.
async fn read_rest(mut client: Client, target: &Target, seen: &mut Vec<Shown>) {
    let rest = async {
        while seen.len() < EVENTS {
            match client.next().await {
                Ok(ServerFrame::Event(event)) => {
                    seen.push((event.seq, event.text().to_owned()));
                    if event.seq % 64 == 0 {
                        // A connection that is closed meanwhile says so at the next read.
                        let _ = client.received(event.seq).await;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    expect_too_slow(&error);
                    client = resume(target, seen.len() as u64).await;
                }
            }
        }
    };
    if tokio::time::timeout(PATIENCE, rest).await.is_err() {
        panic!("only {} of {EVENTS} events came", seen.len());
    }
    client.close().await;
}

/// Being slow has one close code; a reset may stand for it when the close frame could not be written.
#[track_caller]
fn expect_too_slow(error: &ClientError) {
    let slow = matches!(error, ClientError::Closed { code: Some(4408) | None, .. } | ClientError::Socket(_));
    assert!(slow, "closed for another reason than slowness: {error}");
}

/// Every event once, in order, and every message once.
fn assert_whole(seen: &[Shown]) {
    assert_eq!(seen.len(), EVENTS);
    for (index, (seq, _)) in seen.iter().enumerate() {
        assert_eq!(*seq, index as u64 + 1, "the numbers have no hole and no repeat");
    }
    let texts: HashSet<_> = seen.iter().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), EVENTS, "every message came once");
}

/// How the server's memory grew over each portion, by who it was for.
struct Growth {
    offline: Vec<i64>,
    slow: Vec<i64>,
}

impl Growth {
    /// What the slow one cost beyond the offline one, over all portions: from medians, because storage flushes its
    /// memory at moments of its own.
    fn extra(&self) -> i64 {
        (median(&self.slow) - median(&self.offline)) * i64::try_from(PORTIONS).expect("small")
    }
}

impl std::fmt::Display for Growth {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (offline, slow) = (median(&self.offline) / 1024, median(&self.slow) / 1024);
        let kib = |values: &[i64]| values.iter().map(|value| value / 1024).collect::<Vec<_>>();
        writeln!(out, "KiB for each portion to the offline one: median {offline} of {:?}", kib(&self.offline))?;
        writeln!(out, "KiB for each portion to the slow one: median {slow} of {:?}", kib(&self.slow))?;
        write!(out, "the slow socket cost {} KiB in all", self.extra() / 1024)
    }
}

fn median(values: &[i64]) -> i64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Portions for the offline and for the slow one in turn, so that both see the same storage; the witnesses chat.
async fn flood(server: &Server, flooders: &[Actor], witnesses: &[Actor]) -> Growth {
    let process = server.process();
    portion(flooders, OFFLINE, PORTIONS).await;
    let mut growth = Growth { offline: Vec::new(), slow: Vec::new() };
    for number in 0..PORTIONS {
        chat(witnesses, number).await;
        let before = memory(process);
        portion(flooders, OFFLINE, number).await;
        let between = memory(process);
        portion(flooders, SLOW, number).await;
        growth.offline.push(between - before);
        growth.slow.push(memory(process) - between);
    }
    growth
}

fn memory(process: Process) -> i64 {
    i64::try_from(process.memory().expect("the server lives")).expect("fits")
}

/// One portion of events for one user from all flooders, until every one is accepted and shown to its sender.
async fn portion(flooders: &[Actor], to: u64, number: usize) {
    for n in 0..EVENTS / PORTIONS {
        let flooder = &flooders[n % flooders.len()];
        let mut text = format!("{to} {number} {n} ");
        text.extend(std::iter::repeat_n('x', BODY - text.len()));
        flooder.send(&direct_name(flooder.client().user, to), text).expect("room in the outbox");
    }
    all_reach(flooders, "the portion is settled", |status| status.attached && status.unsettled == 0).await;
}

/// One message each way; both must be shown to both while the other socket stalls.
async fn chat(witnesses: &[Actor], number: usize) {
    let name = direct_name(WITNESSES[0], WITNESSES[1]);
    for witness in witnesses {
        witness.send(&name, format!("{number} from {}", witness.client())).expect("room in the outbox");
    }
    let head = 2 * (number as u64 + 1);
    all_reach(witnesses, "the witnesses chat on", move |status| status.cursor >= head && status.unsettled == 0).await;
}
