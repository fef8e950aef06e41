//! Accounts on a real file, with a clock of the test's own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use accounts::code::{Code, LIFETIME_MS, TRIES_MAX};
use accounts::delivery::{Delivery, Undelivered};
use accounts::idempotency::{Answer, Earlier, KEPT_MS};
use accounts::phone::Phone;
use accounts::refresh;
use accounts::revoked::Revoked;
use accounts::secret::Keys;
use accounts::session::{ACCESS_S, Why};
use accounts::store::Store;
use accounts::store::sessions::{self, Which};
use accounts::{Accounts, AccountsError, Asked, Caller, Config, Grant, Parts, Proof};
use parking_lot::Mutex;
use protocol::{DeviceName, UserId};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NOW: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Keeps what it is given.
#[derive(Default)]
struct Letterbox(Mutex<Vec<(Phone, Code)>>);

#[async_trait::async_trait]
impl Delivery for Letterbox {
    async fn deliver(&self, phone: &Phone, code: &Code) -> Result<(), Undelivered> {
        self.0.lock().push((phone.clone(), code.clone()));
        Ok(())
    }
}

struct Stand {
    accounts: Arc<Accounts>,
    letterbox: Arc<Letterbox>,
    revoked: Arc<Revoked>,
    told: Arc<Mutex<Vec<UserId>>>,
}

fn config() -> Config {
    Config { codes_per_hour: 5, codes_per_day: 10, code_pause_s: 30, ..Config::development() }
}

async fn open(folder: &Path, config: Config, secret: [u8; 32], previous: Option<[u8; 32]>) -> Stand {
    let (letterbox, revoked, told) =
        (Arc::<Letterbox>::default(), Arc::<Revoked>::default(), Arc::<Mutex<Vec<UserId>>>::default());
    let hears = Arc::clone(&told);
    let parts = Parts {
        config,
        keys: Keys::new(&secret, previous.as_ref().map(|secret| &secret[..])),
        delivery: Some(Arc::clone(&letterbox) as _),
        shows_codes: true,
        revoked: Arc::clone(&revoked),
        on_end: Arc::new(move |user| hears.lock().push(user)),
    };
    let accounts = Accounts::open(&folder.join("accounts.sqlite"), parts, NOW).await.expect("the test stands");
    Stand { accounts: Arc::new(accounts), letterbox, revoked, told }
}

fn phone(last: u32) -> Phone {
    format!("+49151{last:08}").parse().expect("the test stands")
}

fn device(name: &str) -> DeviceName {
    name.parse().expect("the test stands")
}

impl Stand {
    async fn ask(&self, phone: &Phone, now_ms: u64) -> Result<Asked, AccountsError> {
        self.accounts.ask(phone, &Caller { address: HOME, device: None }, now_ms).await
    }

    async fn answer(
        &self,
        phone: &Phone,
        code: &Code,
        (name, key): (&str, Option<&str>),
        now_ms: u64,
    ) -> Result<Grant, AccountsError> {
        let proof = Proof { phone, code, device: &device(name), label: "Ann's phone", name: "Ann", key };
        self.accounts.verify(&proof, HOME, now_ms).await
    }

    async fn log_in(&self, phone: &Phone, name: &str, now_ms: u64) -> Grant {
        let code = self.ask(phone, now_ms).await.expect("the test stands").shown.expect("the test stands");
        self.answer(phone, &code, (name, None), now_ms).await.expect("the test stands")
    }
}

#[tokio::test]
async fn a_whole_life() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), config(), [7; 32], None).await;
    let first = stand.log_in(&phone(1), "phone", NOW).await;
    assert!(first.new && first.user.get() >= 1 << 32 && first.user.get() < 1 << 53);
    assert_eq!(first.issued_ms, NOW);
    let second = stand.log_in(&phone(1), "laptop", NOW + 60_000).await;
    assert!(!second.new);
    assert_eq!(second.user, first.user);
    let turned = stand.accounts.refresh(&second.refresh_token, None, NOW + 70_000).await.unwrap();
    assert_eq!((turned.user, turned.sid, &turned.device), (second.user, second.sid, &second.device));
    assert_ne!(turned.refresh_token, second.refresh_token);
    let profile = stand.accounts.edit(first.user, None, Some("<i>hello</i> \u{202e}")).await.unwrap();
    assert_eq!((profile.name.as_str(), profile.about.as_str()), ("Ann", "<i>hello</i> \u{202e}"));
    assert_eq!(stand.accounts.look_up(first.user, &phone(1)).await.unwrap(), profile);
    assert_eq!(stand.accounts.look_up(first.user, &phone(2)).await, Err(AccountsError::NotFound));
    stand.accounts.seen(first.sid, NOW + 80_000);
    let devices = stand.accounts.devices(first.user, NOW + 80_000).await.unwrap();
    let names: Vec<_> = devices.iter().map(|device| (device.device.as_str(), device.label.as_str(), device.seen_ms)).collect();
    assert_eq!(names, [("phone", "Ann's phone", NOW + 80_000), ("laptop", "Ann's phone", NOW + 70_000)]);

    let laptop = device("laptop");
    stand.accounts.end(Which::Device(first.user, &laptop), Why::Remote, NOW + 90_000).await.unwrap();
    assert!(stand.revoked.contains(second.sid) && !stand.revoked.contains(first.sid));
    assert_eq!(*stand.told.lock(), [first.user]);
    assert_eq!(stand.accounts.refresh(&turned.refresh_token, None, NOW + 95_000).await, Err(AccountsError::Unauthenticated));
    let again = stand.accounts.end(Which::Device(first.user, &laptop), Why::Remote, NOW + 95_000).await;
    assert_eq!(again, Err(AccountsError::NotFound));
    stand.accounts.close().await;

    let stand = open(folder.path(), config(), [7; 32], None).await;
    assert!(stand.revoked.contains(second.sid) && !stand.revoked.contains(first.sid), "known again after a restart");
    assert_eq!(stand.accounts.devices(first.user, NOW).await.unwrap()[0].seen_ms, NOW + 80_000, "written at the end");
}

#[tokio::test]
async fn a_code_lives_five_minutes_and_is_good_once() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), config(), [7; 32], None).await;
    let code = stand.ask(&phone(1), NOW).await.unwrap().shown.unwrap();
    assert_eq!(stand.letterbox.0.lock().first(), None, "delivery goes on beside the answer");
    let late = stand.answer(&phone(1), &code, ("a", None), NOW + LIFETIME_MS).await;
    assert_eq!(late, Err(AccountsError::BadCode));
    assert_eq!(stand.answer(&phone(2), &code, ("a", None), NOW).await, Err(AccountsError::BadCode), "never asked for");
    let newer = stand.ask(&phone(1), NOW + 30_000).await.unwrap().shown.unwrap();
    if newer != code {
        assert_eq!(
            stand.answer(&phone(1), &code, ("a", None), NOW + 30_000).await,
            Err(AccountsError::BadCode),
            "the newest counts"
        );
    }
    assert!(stand.answer(&phone(1), &newer, ("a", None), NOW + 30_000).await.is_ok());
    assert_eq!(stand.answer(&phone(1), &newer, ("a", None), NOW + 30_000).await, Err(AccountsError::BadCode));
    assert_eq!(
        stand.letterbox.0.lock().iter().map(|(to, code)| (to.clone(), code.clone())).collect::<Vec<_>>(),
        [(phone(1), code), (phone(1), newer)]
    );
}

/// Ten thousand guesses at once: five are compared, and then not even the right code is good.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_guesses_have_five_tries() {
    let folder = tempfile::tempdir().unwrap();
    let stand = Arc::new(open(folder.path(), config(), [7; 32], None).await);
    let code = stand.ask(&phone(1), NOW).await.unwrap().shown.unwrap();
    let guesses: Vec<_> =
        (0..10_000u32).map(|guess| Code::parse(&format!("{guess:06}")).unwrap()).filter(|guess| *guess != code).collect();
    let tries = guesses.into_iter().map(|guess| {
        let stand = Arc::clone(&stand);
        tokio::spawn(async move { stand.answer(&phone(1), &guess, ("a", None), NOW).await })
    });
    for answer in tries.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        assert!(matches!(answer, Err(AccountsError::BadCode | AccountsError::Unavailable(_))), "{answer:?}");
    }
    assert_eq!(tries_of(folder.path()).await, i64::from(TRIES_MAX));
    assert_eq!(stand.answer(&phone(1), &code, ("a", None), NOW).await, Err(AccountsError::BadCode), "locked");
    let next = stand.ask(&phone(1), NOW + 30_000).await.unwrap().shown.unwrap();
    assert!(stand.answer(&phone(1), &next, ("a", None), NOW + 30_000).await.is_ok(), "a new code has tries of its own");
}

/// The right code, many times at once, makes one account and one session.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_right_code_is_good_once_whatever_runs_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let stand = Arc::new(open(folder.path(), config(), [7; 32], None).await);
    let code = stand.ask(&phone(1), NOW).await.unwrap().shown.unwrap();
    let tries = (0..50).map(|number| {
        let (stand, code) = (Arc::clone(&stand), code.clone());
        tokio::spawn(async move { stand.answer(&phone(1), &code, (&format!("device-{number}"), None), NOW).await })
    });
    let mut good = 0;
    for answer in tries.collect::<Vec<_>>() {
        good += u32::from(answer.await.unwrap().is_ok());
    }
    assert_eq!(good, 1);
}

async fn tries_of(folder: &Path) -> i64 {
    let store = Store::open(&folder.join("accounts.sqlite")).await.expect("the test stands");
    sqlx::query_scalar("SELECT tries FROM challenge").fetch_one(store.readers()).await.expect("the test stands")
}

#[tokio::test]
async fn limits_of_a_number_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), config(), [7; 32], None).await;
    let asked = stand.ask(&phone(1), NOW).await.unwrap();
    assert_eq!(asked.retry_after_ms, 30_000);
    assert_eq!(stand.ask(&phone(1), NOW + 10_000).await, Err(AccountsError::Rate { retry_after_ms: 20_000 }));
    assert!(stand.ask(&phone(2), NOW + 10_000).await.is_ok());
    stand.accounts.close().await;
    let stand = open(folder.path(), config(), [7; 32], None).await;
    for ask in 1..5 {
        stand.ask(&phone(1), NOW + ask * 30_000).await.unwrap();
    }
    let Err(AccountsError::Rate { retry_after_ms }) = stand.ask(&phone(1), NOW + 150_000).await else { panic!("five an hour") };
    assert_eq!(retry_after_ms, 3_600_000 - 150_000);
    stand.accounts.tidy(NOW + 2 * DAY_MS).await.unwrap();
    assert!(stand.ask(&phone(1), NOW + 2 * DAY_MS).await.is_ok());
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_a_copy_ends_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), config(), [7; 32], None).await;
    let code = stand.ask(&phone(1), NOW).await.unwrap().shown.unwrap();
    let first = stand.answer(&phone(1), &code, ("a", Some("key-1")), NOW).await.unwrap();
    assert_eq!(stand.answer(&phone(1), &code, ("a", Some("key-1")), NOW + 1000).await.unwrap(), first, "the same answer");
    for (name, key) in [("a", Some("key-2")), ("a", None), ("b", Some("key-1"))] {
        assert_eq!(stand.answer(&phone(1), &code, (name, key), NOW + 1000).await, Err(AccountsError::BadCode), "{name} {key:?}");
    }
    let later = NOW + 1000;
    let second = stand.accounts.refresh(&first.refresh_token, Some("key-3"), later).await.unwrap();
    let again = stand.accounts.refresh(&first.refresh_token, Some("key-3"), later + refresh::AGAIN_MS).await.unwrap();
    assert_eq!(again, second, "the same tokens");
    assert_eq!(stand.answer(&phone(1), &code, ("a", Some("key-1")), later).await, Err(AccountsError::BadCode), "it has gone on");
    let third = stand.accounts.refresh(&second.refresh_token, None, later + DAY_MS).await.unwrap();
    let copy = stand.accounts.refresh(&first.refresh_token, Some("key-3"), later + DAY_MS).await;
    assert_eq!(copy, Err(AccountsError::Unauthenticated), "a used one, now that the next is used as well");
    assert!(stand.revoked.contains(first.sid));
    assert_eq!(stand.accounts.refresh(&third.refresh_token, None, later + DAY_MS).await, Err(AccountsError::Unauthenticated));
}

/// Two copies of one token at the same time: one wins, and the session is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_copies_at_once_end_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let stand = Arc::new(open(folder.path(), config(), [7; 32], None).await);
    let grant = stand.log_in(&phone(1), "a", NOW).await;
    let copies = (0..20).map(|_| {
        let (stand, token) = (Arc::clone(&stand), grant.refresh_token.clone());
        tokio::spawn(async move { stand.accounts.refresh(&token, None, NOW).await })
    });
    let mut good = Vec::new();
    for copy in copies.collect::<Vec<_>>() {
        good.extend(copy.await.unwrap().ok());
    }
    assert_eq!(good.len(), 1);
    assert!(stand.revoked.contains(grant.sid));
    assert_eq!(stand.accounts.refresh(&good[0].refresh_token, None, NOW).await, Err(AccountsError::Unauthenticated));
}

#[tokio::test]
async fn a_device_has_one_session_and_a_user_so_many_devices() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), Config { devices_max: 2, ..config() }, [7; 32], None).await;
    let first = stand.log_in(&phone(1), "a", NOW).await;
    let anew = stand.log_in(&phone(1), "a", NOW + 30_000).await;
    assert!(stand.revoked.contains(first.sid), "the device logged in anew");
    let b = stand.log_in(&phone(1), "b", NOW + 60_000).await;
    stand.accounts.refresh(&anew.refresh_token, None, NOW + 70_000).await.unwrap();
    let c = stand.log_in(&phone(1), "c", NOW + 90_000).await;
    assert!(stand.revoked.contains(b.sid), "not seen for longest");
    assert_eq!([anew.sid, c.sid].map(|sid| stand.revoked.contains(sid)), [false, false]);
}

#[tokio::test]
async fn another_process_ends_a_session_beside_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), config(), [7; 32], None).await;
    let grant = stand.log_in(&phone(1), "a", NOW).await;
    let beside = Store::open(&folder.path().join("accounts.sqlite")).await.unwrap();
    assert_eq!(sessions::end(beside.writer(), Which::User(grant.user), Why::Operator, NOW + 500).await.unwrap().len(), 1);
    assert!(!stand.revoked.contains(grant.sid));
    stand.accounts.look(NOW + 1000).await.unwrap();
    assert!(stand.revoked.contains(grant.sid));
    stand.accounts.look(NOW + 2000).await.unwrap();
    assert_eq!(*stand.told.lock(), [grant.user], "once");
    // looks fail for an hour: the next good one begins where the last good one was
    let other = stand.log_in(&phone(2), "a", NOW + 3000).await;
    sessions::end(beside.writer(), Which::User(other.user), Why::Operator, NOW + 4000).await.unwrap();
    stand.accounts.look(NOW + 3_600_000).await.unwrap();
    assert!(stand.revoked.contains(other.sid));
}

#[tokio::test]
async fn closed_registration_lets_known_numbers_in_and_tells_strangers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), config(), [7; 32], None).await;
    let known = stand.log_in(&phone(1), "a", NOW).await;
    stand.accounts.close().await;
    let stand = open(folder.path(), Config { open: false, ..config() }, [7; 32], None).await;
    let stranger = stand.ask(&phone(2), NOW + 60_000).await.unwrap();
    let friend = stand.ask(&phone(1), NOW + 60_000).await.unwrap();
    assert_eq!(stranger.retry_after_ms, friend.retry_after_ms);
    let code = stranger.shown.unwrap();
    assert_eq!(stand.answer(&phone(2), &code, ("a", None), NOW + 60_000).await, Err(AccountsError::BadCode));
    let back = stand.answer(&phone(1), &friend.shown.unwrap(), ("a", None), NOW + 60_000).await.unwrap();
    assert_eq!(back.user, known.user);
    while stand.letterbox.0.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(stand.letterbox.0.lock().iter().all(|(to, _)| *to == phone(1)), "nobody else gets one");
}

#[tokio::test]
async fn sessions_expire_and_an_older_secret_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), config(), [7; 32], None).await;
    let (stays, goes) = (stand.log_in(&phone(1), "a", NOW).await, stand.log_in(&phone(2), "b", NOW).await);
    stand.accounts.close().await;
    let stand = open(folder.path(), config(), [8; 32], Some([7; 32])).await;
    let stays = stand.accounts.refresh(&stays.refresh_token, None, NOW + 59 * DAY_MS).await.unwrap();
    let late = stand.accounts.refresh(&goes.refresh_token, None, NOW + 60 * DAY_MS).await;
    assert_eq!(late, Err(AccountsError::Unauthenticated));
    assert!(stand.accounts.devices(goes.user, NOW + 60 * DAY_MS).await.unwrap().is_empty());
    stand.accounts.tidy(NOW + 60 * DAY_MS).await.unwrap();
    stand.accounts.close().await;
    let stand = open(folder.path(), config(), [8; 32], None).await;
    assert!(stand.accounts.refresh(&stays.refresh_token, None, NOW + 60 * DAY_MS).await.is_ok(), "made with the newer one");
    let ended = stand.log_in(&phone(3), "c", NOW).await;
    stand.accounts.end(Which::Session(ended.sid), Why::LogOut, NOW).await.unwrap();
    stand.accounts.tidy(NOW + (ACCESS_S + 200) * 1000).await.unwrap();
    assert!(!stand.revoked.contains(ended.sid), "its tokens have expired by themselves");
}

#[tokio::test]
async fn answers_are_kept_for_a_day_and_nothing_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let stand = open(folder.path(), config(), [7; 32], None).await;
    let request = stand.accounts.request("caller-in-clear", ("POST /v1/things", "key-in-clear"), b"body-in-clear");
    assert_eq!(stand.accounts.earlier(&request, NOW).await.unwrap(), Earlier::Nothing);
    let answer = Answer { status: 200, body: Some(b"{}".to_vec()) };
    stand.accounts.keep(&request, &answer, NOW).await.unwrap();
    assert_eq!(stand.accounts.earlier(&request, NOW + 1).await.unwrap(), Earlier::Same(answer));
    let other = stand.accounts.request("caller-in-clear", ("POST /v1/things", "key-in-clear"), b"other");
    assert_eq!(stand.accounts.earlier(&other, NOW + 1).await.unwrap(), Earlier::Other);
    assert_eq!(stand.accounts.earlier(&other, NOW + KEPT_MS).await.unwrap(), Earlier::Nothing);
    let grant = stand.log_in(&phone(1), "device-in-clear", NOW).await;
    stand.ask(&phone(4_711), NOW).await.unwrap();
    stand.accounts.close().await;
    let bytes: Vec<u8> =
        std::fs::read_dir(folder.path()).unwrap().flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("device-in-clear") && holds(phone(1).as_str()), "the search finds what is there");
    for secret in [&grant.refresh_token, "caller-in-clear", "key-in-clear", "body-in-clear", phone(4_711).as_str()] {
        assert!(!holds(secret), "{secret}");
    }
    let stand = open(folder.path(), config(), [7; 32], None).await;
    stand.accounts.tidy(NOW + KEPT_MS).await.unwrap();
}
