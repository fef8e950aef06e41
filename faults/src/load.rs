//! The load under which things die: users with two devices each, spread over the gateways, that send on an open schedule whatever happens, and the
//! judgement of all they saw.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use loadtest::actor::{Actor, Habits, Plan};
use loadtest::check::{Expect, judge};
use loadtest::client::Target;
use loadtest::frame::direct_name;
use loadtest::record::{ClientId, Entry, Recorder, What};
use loadtest::settle::{all_reach, read_back};
use loadtest::tokens::Account;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use crate::seen::Seen;
use crate::stand::{PATIENCE, Stand};

const DEVICES: [&str; 2] = ["a", "b"];

/// What load there is.
#[derive(Debug, Clone)]
pub(crate) struct Load<'a> {
    /// The row it is of: what a recording that is kept is called by.
    pub(crate) row: &'a str,
    /// Where devices connect, by name or address.
    pub(crate) gateways: &'a [&'a str],
    /// Users; everybody writes to everybody.
    pub(crate) users: u64,
    /// Sends a second of all devices together.
    pub(crate) rate: u32,
}

/// Runs the load for as long as `during` takes, then judges.
///
/// # Errors
/// When anything is wrong: what `during` says, an answer that never came, or what the checkers found (the recording is kept).
pub(crate) async fn under_load<F: Future<Output = Result<()>>>(stand: &Stand, load: Load<'_>, during: F) -> Result<Seen> {
    let accounts = stand.accounts(load.users)?;
    let targets = stand.targets(load.gateways).await?;
    let recorder = stand.begin_recording();
    let actors: Vec<_> =
        accounts.iter().flat_map(|account| DEVICES.map(|device| actor(&targets, account, device, &recorder))).collect();
    all_reach(&actors, "first attach", PATIENCE, |status| status.attached).await?;
    let (stop, sends, actors) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(actors));
    let began = Instant::now();
    // a task of its own: what is done to the cluster blocks its thread
    let sending = Sending { accounts: accounts.clone(), rate: load.rate, sends: Arc::clone(&sends), stop: Arc::clone(&stop) };
    let sending = tokio::spawn(sending.run(Arc::clone(&actors)));
    let done = during.await;
    stop.store(true, Ordering::Relaxed);
    sending.await.context("the load")??;
    let took = began.elapsed();
    let faults = stand.end_recording();
    done?;
    let Some(actors) = Arc::into_inner(actors) else { bail!("somebody still sends") };
    let conversations = |user| accounts.iter().map(|other| direct_name(user, other.user)).collect();
    let read = async {
        last_words(&actors, &accounts, &recorder, &sends).await?;
        read_back(&targets[0], &accounts, actors, (conversations, PATIENCE), &recorder).await
    };
    let entries = match read.await {
        Ok(entries) => entries,
        // what waits for ever may be what was lost
        Err(why) => {
            let path = keep(&stand.folder, load.row, &recorder.recording()?)?;
            return Err(why.context(format!("recording: {}", path.display())));
        }
    };
    let verdict = judge(&entries, Expect::sends(usize::try_from(sends.load(Ordering::Relaxed))?));
    if !verdict.is_clean() {
        bail!("{verdict}\nrecording: {}", keep(&stand.folder, load.row, &entries)?.display());
    }
    Ok(Seen::of(&entries, &verdict, (load.rate, took), faults))
}

/// The recording as JSON lines, beside the cluster's folder.
fn keep(folder: &std::path::Path, row: &str, entries: &[Entry]) -> Result<PathBuf> {
    let path = folder.with_file_name(format!("faults-{row}.jsonl"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    for entry in entries {
        use std::io::Write as _;
        writeln!(file, "{}", serde_json::to_string(entry)?)?;
    }
    Ok(path)
}

fn actor(targets: &[Target], account: &Account, device: &str, recorder: &Recorder) -> Actor {
    let client = ClientId::new(account.user, device);
    let seed = account.user * 2 + u64::from(device == DEVICES[1]);
    let targets = targets.iter().map(|target| target.with_token(&account.token)).collect();
    Actor::start(Plan { targets, client, habits: Habits::default(), seed }, recorder)
}

struct Sending {
    accounts: Vec<Account>,
    rate: u32,
    sends: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Sending {
    async fn run(self, actors: Arc<Vec<Actor>>) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(self.accounts[0].user);
        let start = Instant::now();
        for n in 0.. {
            sleep_until(start + Duration::from_secs(1) * n / self.rate).await;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let to = self.accounts[rng.random_range(0..self.accounts.len())].user;
            let sender = &actors[rng.random_range(0..actors.len())];
            let number = self.sends.fetch_add(1, Ordering::Relaxed);
            sender.send(&direct_name(sender.client().user, to), format!("message {number} of {}", sender.client()))?;
        }
        Ok(())
    }
}

/// After the load each user says one more word in each conversation. When every device has heard all of them, everything before them has come too:
/// what goes from one conversation to one mailbox keeps its order.
async fn last_words(actors: &[Actor], accounts: &[Account], recorder: &Recorder, sends: &AtomicU32) -> Result<()> {
    all_reach(actors, "settled", PATIENCE, |status| status.attached && status.unsettled == 0).await?;
    let from = recorder.size();
    for account in accounts {
        let speaker = actors.iter().find(|actor| actor.client().user == account.user).context("each user has devices")?;
        for other in accounts {
            sends.fetch_add(1, Ordering::Relaxed);
            speaker.send(&direct_name(account.user, other.user), format!("last word of {}", account.user))?;
        }
    }
    all_reach(actors, "last words accepted", PATIENCE, |status| status.unsettled == 0).await?;
    // one's own words to everybody, and everybody else's to oneself
    let words = 2 * accounts.len() - 1;
    let heard = |client: &ClientId| {
        recorder.count_from(from, |entry| {
            entry.client == *client && matches!(&entry.what, What::Deliver { seen, .. } if seen.text.starts_with("last word"))
        })
    };
    let end = Instant::now() + PATIENCE;
    for actor in actors {
        while heard(actor.client()) < words {
            let late = Instant::now() >= end;
            ensure!(!late, "{} heard {} of {words} last words: {:?}", actor.client(), heard(actor.client()), actor.status());
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
