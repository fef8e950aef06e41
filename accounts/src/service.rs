//! Accounts: what the gateway calls. Each call that changes something is one transaction.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use governor::clock::DefaultClock;
use parking_lot::Mutex;
use protocol::{DeviceName, UserId};
use sqlx::SqliteConnection;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::code::{self, Challenge, Code, Used, Verdict};
use crate::config::Config;
use crate::delivery::Delivery;
use crate::error::AccountsError;
use crate::idempotency::{self, Answer, Earlier, Request};
use crate::limits::Limits;
use crate::metrics;
use crate::phone::Phone;
use crate::profile::Profile;
use crate::refresh::{self, Turn};
use crate::revoked::Revoked;
use crate::secret::{Keys, Purpose, Tag};
use crate::session::{Device, Ended, Grant, Sid, Why};
use crate::store::sessions::{New, Which};
use crate::store::{Store, answers, challenges, sessions, users};

/// Codes on their way at once.
const DELIVERIES_MAX: usize = 256;
/// A delivery that takes longer is given up.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);
/// A code that is not right is answered after a multiple of this, so that it does not tell by its time what was wrong.
const BEAT: Duration = Duration::from_millis(50);
/// Sessions whose last sign of life waits to be written.
pub(crate) const SEEN_MAX: usize = 100_000;

/// Called for each user of whom a session has ended: its sockets are to be looked at.
pub type OnEnd = Arc<dyn Fn(UserId) + Send + Sync>;

/// Where a request without token comes from.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The address that is connected.
    pub address: IpAddr,
    /// What the client calls its device.
    pub device: Option<DeviceName>,
}

/// A code was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// When the number may ask again, milliseconds from now.
    pub retry_after_ms: u64,
    /// The code, in development mode only.
    pub shown: Option<Code>,
}

/// A code that came back, and with what.
#[derive(Debug, Clone)]
pub struct Proof<'a> {
    /// Whose.
    pub phone: &'a Phone,
    /// The code.
    pub code: &'a Code,
    /// The device that logs in.
    pub device: &'a DeviceName,
    /// What its owner will see it as.
    pub label: &'a str,
    /// Display name of an account that has none.
    pub name: &'a str,
    /// The idempotency key of the request.
    pub key: Option<&'a str>,
}

/// Sessions that a log-in has ended, and why.
type LoggedOut = Option<[(Vec<Ended>, Why); 2]>;

/// Accounts on one file.
pub struct Accounts {
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    config: Config,
    pub(crate) limits: Limits<DefaultClock>,
    delivery: Option<Arc<dyn Delivery>>,
    shows_codes: bool,
    deliveries: Arc<Semaphore>,
    pub(crate) revoked: Arc<Revoked>,
    on_end: OnEnd,
    pub(crate) seen: Mutex<HashMap<Sid, u64>>,
    /// When ended sessions were looked for last with success, milliseconds since 1970.
    pub(crate) looked_ms: AtomicU64,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What [`Accounts::open`] stands on.
pub struct Parts {
    /// Limits and lifetimes.
    pub config: Config,
    /// Keys of the deployment's secret.
    pub keys: Keys,
    /// How codes come to their owners; none: nobody can ask for one.
    pub delivery: Option<Arc<dyn Delivery>>,
    /// Whether the answer to asking holds the code: development mode.
    pub shows_codes: bool,
    /// Sessions that have ended; also asked where tokens are checked.
    pub revoked: Arc<Revoked>,
    /// Who looks at sockets when a session ends.
    pub on_end: OnEnd,
}

impl Accounts {
    /// Opens the file; sessions that have ended and may have good tokens are refused when this returns.
    ///
    /// # Errors
    /// [`AccountsError::File`], [`AccountsError::Unavailable`].
    pub async fn open(path: &Path, parts: Parts, now_ms: u64) -> Result<Self, AccountsError> {
        let store = Store::open(path).await?;
        for ended in sessions::ended_since(store.readers(), 0, now_ms, crate::revoked::SESSIONS_MAX).await? {
            parts.revoked.add(&ended);
        }
        Ok(Self {
            store,
            keys: parts.keys,
            limits: Limits::new(&parts.config, DefaultClock::default()),
            config: parts.config,
            delivery: parts.delivery,
            shows_codes: parts.shows_codes,
            deliveries: Arc::new(Semaphore::new(DELIVERIES_MAX)),
            revoked: parts.revoked,
            on_end: parts.on_end,
            seen: Mutex::default(),
            looked_ms: AtomicU64::new(now_ms),
        })
    }

    /// Whether codes can be brought to anybody.
    pub fn can_deliver(&self) -> bool {
        self.delivery.is_some()
    }

    /// A number asks for a code. Nothing here depends on whether it has an account, but for the delivery where registration is closed, and that
    /// goes on beside the answer.
    ///
    /// # Errors
    /// [`AccountsError::Rate`], [`AccountsError::NoDelivery`], [`AccountsError::Busy`], [`AccountsError::Unavailable`].
    pub async fn ask(&self, phone: &Phone, caller: &Caller, now_ms: u64) -> Result<Asked, AccountsError> {
        let delivery = self.delivery.clone().ok_or(AccountsError::NoDelivery)?;
        self.limits.ask(caller.address.into(), caller.device.as_ref())?;
        let place = Arc::clone(&self.deliveries).try_acquire_owned().map_err(|_| AccountsError::Busy)?;
        let (number, code) = (self.number(phone), Code::random());
        let challenge = Challenge::new(&self.keys, &number, &code, now_ms);
        let mut change = self.store.begin().await?;
        let mut asked = challenges::load(&mut change, &number).await?.map(|(_, asked)| asked).unwrap_or_default();
        code::may_ask(&mut asked, &self.config, now_ms).map_err(|retry_after_ms| {
            metrics::limited("codes_by_number");
            AccountsError::Rate { retry_after_ms }
        })?;
        asked.push(now_ms);
        challenges::put(&mut change, &number, &challenge, &asked).await?;
        change.commit().await?;
        metrics::code("asked");
        let (store, open, phone, sent) = (self.store.clone(), self.config.open, phone.clone(), code.clone());
        tokio::spawn(async move {
            deliver(&store, open, &*delivery, (&phone, &sent)).await;
            drop(place);
        });
        let retry_after_ms = code::wait_ms(&asked, &self.config, now_ms);
        Ok(Asked { retry_after_ms, shown: self.shows_codes.then_some(code) })
    }

    /// A code comes back. If it is right its number has an account afterwards, and the device a session; an older one of that device has ended.
    ///
    /// # Errors
    /// [`AccountsError::BadCode`], whatever is wrong with it; [`AccountsError::Rate`], [`AccountsError::Unavailable`].
    pub async fn verify(&self, proof: &Proof<'_>, address: IpAddr, now_ms: u64) -> Result<Grant, AccountsError> {
        let began = Instant::now();
        self.limits.try_code(address.into(), proof.device)?;
        match self.verify_now(proof, now_ms).await {
            Ok((grant, logged_out)) => {
                for (ended, why) in logged_out.into_iter().flatten() {
                    self.have_ended(&ended, why);
                }
                Ok(grant)
            }
            Err(AccountsError::BadCode) => {
                metrics::verified("wrong");
                let beats = began.elapsed().as_nanos() / BEAT.as_nanos() + 1;
                tokio::time::sleep_until(began + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)).await;
                Err(AccountsError::BadCode)
            }
            Err(why) => Err(why),
        }
    }

    async fn verify_now(&self, proof: &Proof<'_>, now_ms: u64) -> Result<(Grant, LoggedOut), AccountsError> {
        let number = self.number(proof.phone);
        let key = proof.key.map(|key| self.key(&number, key));
        let mut change = self.store.begin().await?;
        let Some((mut challenge, _)) = challenges::load(&mut change, &number).await? else { return Err(AccountsError::BadCode) };
        match challenge.attempt(&self.keys, &number, (proof.code, key.as_ref()), now_ms) {
            Verdict::Closed => Err(AccountsError::BadCode),
            Verdict::Wrong => {
                challenges::tried(&mut change, &number, &challenge).await?;
                change.commit().await?;
                Err(AccountsError::BadCode)
            }
            Verdict::Again(used) => {
                let session = sessions::load(&mut change, used.sid).await?;
                let session = session.filter(|session| !session.family.ended && session.family.number == 1);
                let session = session.filter(|session| session.device == *proof.device).ok_or(AccountsError::BadCode)?;
                metrics::verified("again");
                Ok((self.grant(used.sid, session, proof.phone.clone(), used.new), None))
            }
            Verdict::Right => {
                let (grant, logged_out) = self.log_in(&mut change, proof, now_ms).await?;
                challenge.used = Some(Used { at_ms: now_ms, sid: grant.sid, new: grant.new, key });
                challenges::tried(&mut change, &number, &challenge).await?;
                change.commit().await?;
                metrics::verified("right");
                Ok((grant, logged_out))
            }
        }
    }

    /// The account of a number, made if there is none and that is allowed, and a session of the device.
    async fn log_in(
        &self,
        change: &mut SqliteConnection,
        proof: &Proof<'_>,
        now_ms: u64,
    ) -> Result<(Grant, LoggedOut), AccountsError> {
        let known = users::by_phone(&mut *change, proof.phone).await?;
        let (user, new) = match known {
            Some(known) if known.name.is_empty() && !proof.name.is_empty() => {
                users::edit(&mut *change, known.user, Some(proof.name), None).await?;
                (known.user, false)
            }
            Some(known) => (known.user, false),
            // a code that was never delivered to anybody, guessed
            None if !self.config.open => return Err(AccountsError::BadCode),
            None => (users::create(change, proof.phone, proof.name, now_ms).await?, true),
        };
        let replaced = sessions::end(&mut *change, Which::Device(user, proof.device), Why::Replaced, now_ms).await?;
        let sid = Sid::random();
        let begin = New { sid, user, device: proof.device, label: proof.label, refresh_ms: self.refresh_ms() };
        sessions::begin(change, &begin, now_ms).await?;
        let displaced = sessions::end(&mut *change, Which::AllBut(user, self.config.devices_max), Why::Displaced, now_ms).await?;
        let session = sessions::load(change, sid).await?.ok_or(AccountsError::NotFound)?;
        let logged_out = Some([(replaced, Why::Replaced), (displaced, Why::Displaced)]);
        Ok((self.grant(sid, session, proof.phone.clone(), new), logged_out))
    }

    /// A refresh token comes, and the next one goes. A used one that comes again ends the session, unless it is the same request again: with the
    /// same idempotency key, within [`refresh::AGAIN_MS`], while what it was given was not used.
    ///
    /// # Errors
    /// [`AccountsError::Unauthenticated`], whatever is wrong with it; [`AccountsError::Unavailable`].
    pub async fn refresh(&self, token: &str, key: Option<&str>, now_ms: u64) -> Result<Grant, AccountsError> {
        let refused = || {
            metrics::refreshed("refused");
            AccountsError::Unauthenticated
        };
        let (sid, number) = refresh::read(&self.keys, token).ok_or_else(refused)?;
        let key = key.map(|key| self.key(sid.bytes(), key));
        let mut change = self.store.begin().await?;
        let mut session = sessions::load(&mut change, sid).await?.ok_or_else(refused)?;
        match session.family.present(number, key.as_ref(), now_ms, self.refresh_ms()) {
            Turn::Refused => Err(refused()),
            Turn::Reuse => {
                let ended = sessions::end(&mut *change, Which::Session(sid), Why::Reuse, now_ms).await?;
                change.commit().await?;
                metrics::refreshed("reuse");
                tracing::warn!(user = %session.user, "a used refresh token came again: its session has ended");
                self.have_ended(&ended, Why::Reuse);
                Err(AccountsError::Unauthenticated)
            }
            turn => {
                let phone = users::phone(&mut *change, session.user).await?.ok_or_else(refused)?.0;
                if turn == Turn::Next {
                    sessions::turned(&mut change, sid, &session.family).await?;
                    change.commit().await?;
                }
                metrics::refreshed(if turn == Turn::Next { "next" } else { "again" });
                Ok(self.grant(sid, session, phone, false))
            }
        }
    }

    /// Ends sessions of a user. Their tokens are refused, and their sockets told, when this returns.
    ///
    /// # Errors
    /// [`AccountsError::NotFound`] when there was none; [`AccountsError::Unavailable`].
    pub async fn end(&self, which: Which<'_>, why: Why, now_ms: u64) -> Result<(), AccountsError> {
        let ended = sessions::end(self.store.writer(), which, why, now_ms).await?;
        if ended.is_empty() {
            return Err(AccountsError::NotFound);
        }
        self.have_ended(&ended, why);
        Ok(())
    }

    /// Devices of a user, the one seen last first.
    ///
    /// # Errors
    /// [`AccountsError::Unavailable`].
    pub async fn devices(&self, user: UserId, now_ms: u64) -> Result<Vec<Device>, AccountsError> {
        let mut devices = sessions::devices(self.store.readers(), user, now_ms).await?;
        let seen = self.seen.lock();
        for device in &mut devices {
            device.seen_ms = seen.get(&device.sid).copied().unwrap_or_default().max(device.seen_ms);
        }
        devices.sort_by_key(|device| std::cmp::Reverse(device.seen_ms));
        Ok(devices)
    }

    /// A user as others see it.
    ///
    /// # Errors
    /// [`AccountsError::NotFound`], [`AccountsError::Unavailable`].
    pub async fn profile(&self, user: UserId) -> Result<Profile, AccountsError> {
        users::by_id(self.store.readers(), user).await?.ok_or(AccountsError::NotFound)
    }

    /// A user's own number, and when the account was made, milliseconds since 1970.
    ///
    /// # Errors
    /// [`AccountsError::NotFound`], [`AccountsError::Unavailable`].
    pub async fn phone(&self, user: UserId) -> Result<(Phone, u64), AccountsError> {
        users::phone(self.store.readers(), user).await?.ok_or(AccountsError::NotFound)
    }

    /// Changes what is given. The texts have been checked ([`crate::profile`]).
    ///
    /// # Errors
    /// [`AccountsError::NotFound`], [`AccountsError::Unavailable`].
    pub async fn edit(&self, user: UserId, name: Option<&str>, about: Option<&str>) -> Result<Profile, AccountsError> {
        users::edit(self.store.writer(), user, name, about).await?.ok_or(AccountsError::NotFound)
    }

    /// The user of exactly this number, asked for by a user.
    ///
    /// # Errors
    /// [`AccountsError::Rate`], [`AccountsError::NotFound`], [`AccountsError::Unavailable`].
    pub async fn look_up(&self, by: UserId, phone: &Phone) -> Result<Profile, AccountsError> {
        self.limits.look_up(by)?;
        users::by_phone(self.store.readers(), phone).await?.ok_or(AccountsError::NotFound)
    }

    /// A session gave a sign of life. Written with others some seconds later; one more than [`SEEN_MAX`] is forgotten.
    pub fn seen(&self, sid: Sid, now_ms: u64) {
        let mut seen = self.seen.lock();
        if seen.len() < SEEN_MAX || seen.contains_key(&sid) {
            seen.insert(sid, now_ms);
        }
    }

    /// Names a request with an idempotency key, without keeping anything of it in clear.
    pub fn request(&self, caller: &str, route_and_key: (&str, &str), body: &[u8]) -> Request {
        Request::new(&self.keys, caller, route_and_key, body)
    }

    /// What was answered to a request before.
    ///
    /// # Errors
    /// [`AccountsError::Unavailable`].
    pub async fn earlier(&self, request: &Request, now_ms: u64) -> Result<Earlier, AccountsError> {
        Ok(idempotency::judge(answers::load(self.store.readers(), &request.key).await?, request, now_ms))
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// [`AccountsError::Unavailable`].
    pub async fn keep(&self, request: &Request, answer: &Answer, now_ms: u64) -> Result<(), AccountsError> {
        answers::keep(self.store.writer(), request, answer, now_ms).await
    }

    /// Closes the file.
    pub async fn close(&self) {
        if let Err(why) = self.write_seen().await {
            tracing::warn!(%why, "when devices were seen last is not written");
        }
        self.store.close().await;
    }

    /// Refuses the tokens of ended sessions, then has their sockets looked at: in this order, as `hello` enters its session before it asks.
    pub(crate) fn refuse(&self, ended: &Ended) -> bool {
        let new = self.revoked.add(ended);
        if new {
            (self.on_end)(ended.user);
        }
        new
    }

    fn have_ended(&self, ended: &[Ended], why: Why) {
        for one in ended {
            self.refuse(one);
            metrics::ended(why.name());
        }
    }

    fn number(&self, phone: &Phone) -> Tag {
        self.keys.tag(Purpose::Number, &[phone.as_str().as_bytes()])
    }

    fn key(&self, of: &[u8], key: &str) -> Tag {
        self.keys.tag(Purpose::Answer, &[b"turn", of, key.as_bytes()])
    }

    const fn refresh_ms(&self) -> u64 {
        self.config.refresh_days * 24 * 3600 * 1000
    }

    fn grant(&self, sid: Sid, session: sessions::Session, phone: Phone, new: bool) -> Grant {
        Grant {
            user: session.user,
            phone,
            device: session.device,
            sid,
            new,
            issued_ms: session.family.turned_ms,
            refresh_token: refresh::token(&self.keys, sid, session.family.number),
            refresh_until_ms: session.family.until_ms,
        }
    }
}

/// Brings a code to its owner, or counts that it did not come. Where registration is closed strangers get none.
async fn deliver(store: &Store, open: bool, delivery: &dyn Delivery, (phone, code): (&Phone, &Code)) {
    if !open {
        match users::by_phone(store.readers(), phone).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(why) => return tracing::error!(%why, "a code is not delivered"),
        }
    }
    match tokio::time::timeout(DELIVERY_DEADLINE, delivery.deliver(phone, code)).await {
        Ok(Ok(())) => metrics::code("delivered"),
        Ok(Err(why)) => {
            metrics::code("undelivered");
            tracing::warn!(%why, "a code was not delivered");
        }
        Err(_) => {
            metrics::code("undelivered");
            tracing::warn!("a code was not delivered in time");
        }
    }
}
