//! The load of a row: users with two devices each, spread over the gateways, that send on an open schedule whatever happens, and the judgement
//! of all they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use loadtest::actor::{Actor, Habits, Plan};
use loadtest::check::{Expect, judge};
use loadtest::client::Target;
use loadtest::frame::direct_name;
use loadtest::record::{ClientId, Recorder, What};
use loadtest::tokens::Account;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::stand::{PATIENCE, Stand};
use crate::support::{all_reach, settle_and_read_back};

const DEVICES: [&str; 2] = ["a", "b"];
/// Sends a second of all devices together.
const RATE: u32 = 100;

/// What a row saw.
pub(crate) struct Seen {
    /// Sends decided.
    pub(crate) sends: usize,
    /// Connections that broke with sends in flight.
    pub(crate) cut: usize,
    /// Connections that broke or were closed.
    pub(crate) closed: usize,
    /// The longest time from a send to its event at another device, of sends decided before the load ended.
    pub(crate) slowest: Duration,
}

/// Runs the load for as long as `during` takes, then judges. Panics when anything is wrong.
pub(crate) async fn under_load<F: Future<Output = ()>>(
    stand: &Stand,
    gateways: &[&str],
    (row, users): (&str, u64),
    during: F,
) -> Seen {
    let accounts = stand.accounts(users);
    let targets = stand.targets(gateways).await;
    let recorder = Recorder::in_memory();
    let actors: Vec<_> =
        accounts.iter().flat_map(|account| DEVICES.map(|device| actor(&targets, account, device, &recorder))).collect();
    all_reach(&actors, "first attach", |status| status.attached).await;
    let (stop, sends, actors) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(actors));
    // a task of its own: what is done to the cluster blocks its thread
    let loading = tokio::spawn(load(Arc::clone(&actors), accounts.clone(), (Arc::clone(&sends), Arc::clone(&stop))));
    during.await;
    stop.store(true, Ordering::Relaxed);
    loading.await.expect("the load runs to its end");
    let actors = Arc::into_inner(actors).expect("the load has ended");
    last_words(&actors, &accounts, &recorder, &sends).await;
    let sends = usize::try_from(sends.load(Ordering::Relaxed)).expect("fits");
    let conversations = |user| accounts.iter().map(|other| direct_name(user, other.user)).collect();
    let entries = settle_and_read_back(&targets[0], &accounts, actors, conversations, &recorder).await;
    let verdict = judge(&entries, Expect::sends(sends));
    if !verdict.is_clean() {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{row}.jsonl"));
        let lines: Vec<_> = entries.iter().map(|entry| serde_json::to_string(entry).expect("an entry is JSON")).collect();
        std::fs::write(&path, lines.join("\n")).expect("the recording is kept");
        panic!("{row}: {verdict}\nrecording: {}", path.display());
    }
    let closes = |entry: &loadtest::record::Entry| matches!(entry.what, What::Close { code, .. } if code != Some(1000));
    Seen {
        sends,
        cut: recorder.count(|entry| matches!(entry.what, What::Close { in_flight: 1.., .. })),
        closed: recorder.count(closes),
        slowest: slowest(&entries),
    }
}

fn actor(targets: &[Target], account: &Account, device: &str, recorder: &Recorder) -> Actor {
    let client = ClientId::new(account.user, device);
    let seed = account.user * 2 + u64::from(device == DEVICES[1]);
    let targets = targets.iter().map(|target| target.with_token(&account.token)).collect();
    Actor::start(Plan { targets, client, habits: Habits::default(), seed }, recorder)
}

async fn load(actors: Arc<Vec<Actor>>, accounts: Vec<Account>, (sends, stop): (Arc<AtomicU32>, Arc<AtomicBool>)) {
    let mut rng = StdRng::seed_from_u64(accounts[0].user);
    let start = Instant::now();
    for n in 0.. {
        tokio::time::sleep_until(start + Duration::from_secs(1) * n / RATE).await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let to = accounts[rng.random_range(0..accounts.len())].user;
        send(&actors[rng.random_range(0..actors.len())], to, &sends);
    }
}

fn send(sender: &Actor, to: u64, sends: &AtomicU32) {
    let number = sends.fetch_add(1, Ordering::Relaxed);
    let conversation = direct_name(sender.client().user, to);
    sender.send(&conversation, format!("message {number} of {}", sender.client())).expect("room in the outbox");
}

/// After the load each user says one more word in each conversation. When every device has heard all of them, everything before them has come too:
/// what goes from one conversation to one mailbox keeps its order.
async fn last_words(actors: &[Actor], accounts: &[Account], recorder: &Recorder, sends: &AtomicU32) {
    all_reach(actors, "settled", |status| status.attached && status.unsettled == 0).await;
    for account in accounts {
        let speaker = actors.iter().find(|actor| actor.client().user == account.user).expect("each user has devices");
        for other in accounts {
            sends.fetch_add(1, Ordering::Relaxed);
            let conversation = direct_name(account.user, other.user);
            speaker.send(&conversation, format!("last word of {}", account.user)).expect("room in the outbox");
        }
    }
    all_reach(actors, "last words accepted", |status| status.unsettled == 0).await;
    // one's own words to everybody, and everybody else's to oneself
    let words = 2 * accounts.len() - 1;
    let heard = |client: &ClientId| {
        recorder.count(|entry| {
            entry.client == *client && matches!(&entry.what, What::Deliver { seen, .. } if seen.text.starts_with("last word"))
        })
    };
    let end = Instant::now() + PATIENCE;
    for actor in actors {
        while heard(actor.client()) < words {
            let late = Instant::now() >= end;
            assert!(!late, "{} heard {} of {words} last words: {:?}", actor.client(), heard(actor.client()), actor.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The longest time from a send to its event at the last device that is to see it.
fn slowest(entries: &[loadtest::record::Entry]) -> Duration {
    let mut sent = std::collections::HashMap::new();
    let mut slowest = 0;
    for entry in entries {
        match &entry.what {
            What::Invoke { id, .. } => drop(sent.insert(*id, entry.t_us)),
            What::Deliver { seen, .. } if &*entry.client.device != "audit" => {
                slowest = slowest.max(sent.get(&seen.id).map_or(0, |at| entry.t_us.saturating_sub(*at)));
            }
            _ => {}
        }
    }
    Duration::from_micros(slowest)
}
