//! Limits that are kept in memory: by address, by device of an address, by user, and for all together. GCRA by the `governor` crate. (Those of a number are
//! kept in the database: [`crate::code::may_ask`].)

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock, DefaultClock, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::{DefaultKeyedStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use protocol::{DeviceName, UserId};

use crate::config::Config;
use crate::error::AccountsError;
use crate::metrics;

/// Most keys of one limit that are remembered.
const KEYS_MAX: usize = 100_000;
/// While a limit remembers as many as it may, it forgets at most so often, and tells strangers to come again after it. Milliseconds.
const FULL_MS: u64 = 1000;

/// What counts as one address: an IPv4 address, or the 64-bit network that one IPv6 subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        })
    }
}

impl Default for Address {
    fn default() -> Self {
        Self(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// The states of keys, shared with their limiter: it cannot be asked whether it knows a key.
struct Known<K: Hash + Eq + Clone>(Arc<DefaultKeyedStateStore<K>>);

impl<K: Hash + Eq + Clone> Clone for Known<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone> StateStore for Known<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Known<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        ShrinkableKeyedStateStore::retain_recent(&*self.0, drop_below);
    }

    fn shrink_to_fit(&self) {
        ShrinkableKeyedStateStore::shrink_to_fit(&*self.0);
    }

    fn len(&self) -> usize {
        ShrinkableKeyedStateStore::len(&*self.0)
    }

    fn is_empty(&self) -> bool {
        ShrinkableKeyedStateStore::is_empty(&*self.0)
    }
}

/// Rates by key, of a bounded number of keys.
pub struct Keyed<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    limiter: RateLimiter<K, Known<K>, C, NoOpMiddleware<C::Instant>>,
    known: Known<K>,
    clock: C,
    keys_max: usize,
    tidied: Mutex<Option<C::Instant>>,
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Keyed<K, C> {
    /// With this quota.
    pub fn new(quota: Quota, clock: C) -> Self {
        let known = Known(Arc::default());
        let limiter = RateLimiter::new(quota, known.clone(), clock.clone());
        Self { limiter, known, clock, keys_max: KEYS_MAX, tidied: Mutex::new(None) }
    }

    /// One of this key. While as many keys are remembered as may be, a new one is refused; known ones go on.
    ///
    /// # Errors
    /// Milliseconds after which it may be tried again.
    pub fn check(&self, key: &K) -> Result<(), u64> {
        if !self.has_room_for(key) {
            return Err(FULL_MS);
        }
        self.limiter.check_key(key).map_err(|until| milliseconds(until.wait_time_from(self.clock.now())))
    }

    fn knows(&self, key: &K) -> bool {
        self.known.0.contains_key(key)
    }

    fn has_room_for(&self, key: &K) -> bool {
        self.limiter.len() < self.keys_max || self.knows(key) || self.makes_room()
    }

    /// Forgets keys that could do everything again; whether there is room then.
    fn makes_room(&self) -> bool {
        let now = self.clock.now();
        {
            let mut tidied = self.tidied.lock();
            if tidied.is_some_and(|at| now.duration_since(at).as_u64() < FULL_MS * 1_000_000) {
                return false;
            }
            *tidied = Some(now);
        }
        self.tidy();
        self.limiter.len() < self.keys_max
    }

    /// Forgets keys that could do everything again.
    pub fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn per_hour(count: u32) -> Quota {
    Quota::per_hour(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))
}

/// The limits of accounts.
pub struct Limits<C: Clock = DefaultClock> {
    codes: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    codes_by_address: Keyed<Address, C>,
    codes_by_device: Keyed<(Address, DeviceName), C>,
    tries_by_address: Keyed<Address, C>,
    tries_by_device: Keyed<(Address, DeviceName), C>,
    lookups: Keyed<UserId, C>,
    clock: C,
}

impl<C: Clock + Clone> Limits<C> {
    /// With these settings.
    pub fn new(config: &Config, clock: C) -> Self {
        let codes = Quota::per_second(NonZeroU32::new(config.codes_per_s).unwrap_or(NonZeroU32::MIN));
        Self {
            codes: RateLimiter::new(codes, InMemoryState::default(), clock.clone()),
            codes_by_address: Keyed::new(per_hour(config.codes_per_address), clock.clone()),
            codes_by_device: Keyed::new(per_hour(config.codes_per_device), clock.clone()),
            tries_by_address: Keyed::new(per_hour(config.tries_per_address), clock.clone()),
            tries_by_device: Keyed::new(per_hour(config.tries_per_device), clock.clone()),
            lookups: Keyed::new(per_hour(config.lookups_per_hour), clock.clone()),
            clock,
        }
    }

    /// A code is asked for: by its device, by its address, and of all; who is refused by one of them costs those behind it nothing.
    ///
    /// # Errors
    /// [`AccountsError::Rate`].
    pub fn ask(&self, address: Address, device: Option<&DeviceName>) -> Result<(), AccountsError> {
        match device {
            Some(device) => by_device(
                address,
                device,
                ("codes_by_device", &self.codes_by_device),
                ("codes_by_address", &self.codes_by_address),
            )?,
            None => refuse("codes_by_address", self.codes_by_address.check(&address))?,
        }
        let all = self.codes.check().map_err(|until| milliseconds(until.wait_time_from(self.clock.now())));
        refuse("codes", all)
    }

    /// A code is tried.
    ///
    /// # Errors
    /// [`AccountsError::Rate`].
    pub fn try_code(&self, address: Address, device: &DeviceName) -> Result<(), AccountsError> {
        by_device(address, device, ("tries_by_device", &self.tries_by_device), ("tries_by_address", &self.tries_by_address))
    }

    /// A user looks a number up.
    ///
    /// # Errors
    /// [`AccountsError::Rate`].
    pub fn look_up(&self, user: UserId) -> Result<(), AccountsError> {
        refuse("lookups", self.lookups.check(&user))
    }

    /// Forgets who could do everything again.
    pub fn tidy(&self) {
        self.codes_by_address.tidy();
        self.codes_by_device.tidy();
        self.tries_by_address.tidy();
        self.tries_by_device.tidy();
        self.lookups.tidy();
    }
}

/// A limit and what its metric calls it.
type Named<'a, K, C> = (&'static str, &'a Keyed<K, C>);

/// By a device and by its address. A device that is known is asked first: once it is refused it costs its neighbours nothing. Clients choose the
/// names of devices, so a new one is remembered only after its address could pay for it, and where there is no room for it the address is enough:
/// nobody can shut others out by filling the table with names.
fn by_device<C: Clock + Clone>(
    address: Address,
    device: &DeviceName,
    (device_name, devices): Named<'_, (Address, DeviceName), C>,
    (address_name, addresses): Named<'_, Address, C>,
) -> Result<(), AccountsError> {
    let key = (address, device.clone());
    if devices.knows(&key) {
        refuse(device_name, devices.check(&key))?;
        return refuse(address_name, addresses.check(&address));
    }
    refuse(address_name, addresses.check(&address))?;
    if devices.has_room_for(&key) { refuse(device_name, devices.check(&key)) } else { Ok(()) }
}

fn refuse(what: &'static str, checked: Result<(), u64>) -> Result<(), AccountsError> {
    checked.map_err(|retry_after_ms| {
        metrics::limited(what);
        AccountsError::Rate { retry_after_ms }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_subscriber_is_one_address() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
    }

    #[test]
    fn by_device_by_address_and_of_all() {
        let clock = FakeRelativeClock::default();
        let config = Config { codes_per_device: 2, codes_per_address: 3, codes_per_s: 4, ..Config::default() };
        let limits = Limits::new(&config, clock.clone());
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let (phone, tablet) = ("phone".parse().unwrap(), "tablet".parse().unwrap());
        assert!(limits.ask(one, Some(&phone)).is_ok());
        assert!(limits.ask(one, Some(&phone)).is_ok());
        assert!(limits.ask(one, Some(&phone)).is_err(), "the device is full");
        assert!(limits.ask(one, Some(&tablet)).is_ok(), "and costs its neighbour nothing");
        assert!(limits.ask(one, Some(&tablet)).is_err(), "the address is full");
        assert!(limits.ask(other, Some(&phone)).is_ok());
        let Err(AccountsError::Rate { retry_after_ms }) = limits.ask(other, None) else { panic!("all are full") };
        assert!(retry_after_ms <= 250);
        clock.advance(Duration::from_millis(retry_after_ms));
        assert!(limits.ask(other, None).is_ok());
        clock.advance(Duration::from_secs(3600));
        assert!(limits.ask(one, Some(&phone)).is_ok());
    }

    #[test]
    fn tries_and_lookups_have_their_own() {
        let clock = FakeRelativeClock::default();
        let config = Config { tries_per_device: 1, tries_per_address: 2, lookups_per_hour: 1, ..Config::default() };
        let limits = Limits::new(&config, clock);
        let (one, phone, user) = (address("10.0.0.1"), "phone".parse().unwrap(), UserId::new(1).unwrap());
        assert!(limits.try_code(one, &phone).is_ok());
        assert!(limits.try_code(one, &phone).is_err());
        assert!(limits.ask(one, Some(&phone)).is_ok());
        assert!(limits.look_up(user).is_ok());
        assert!(limits.look_up(user).is_err());
        assert!(limits.look_up(UserId::new(2).unwrap()).is_ok());
    }

    #[test]
    fn names_of_devices_fill_no_table() {
        let clock = FakeRelativeClock::default();
        let config = Config { tries_per_device: 2, tries_per_address: 5, ..Config::default() };
        let mut limits = Limits::new(&config, clock);
        let name = |number: u32| format!("device-{number}").parse::<DeviceName>().unwrap();
        let (one, other, third) = (address("10.0.0.1"), address("10.0.0.2"), address("10.0.0.3"));
        let good = (0..1000).filter(|number| limits.try_code(one, &name(*number)).is_ok()).count();
        assert_eq!(good, 5);
        assert_eq!(limits.tries_by_device.limiter.len(), 5, "no name is remembered that its address could not pay for");
        // full all the same: the limit of the address goes on alone, and known devices have theirs
        limits.tries_by_device.keys_max = 6;
        assert!(limits.try_code(other, &name(1)).is_ok());
        assert_eq!((1..10).filter(|_| limits.try_code(third, &name(1)).is_ok()).count(), 5);
        assert!(limits.try_code(other, &name(1)).is_ok());
        assert!(limits.try_code(other, &name(1)).is_err(), "of the device");
        assert!(limits.try_code(other, &name(2)).is_ok(), "the address has some left");
        assert_eq!(limits.tries_by_device.limiter.len(), 6);
    }

    #[test]
    fn keys_are_bounded_and_forgotten() {
        let clock = FakeRelativeClock::default();
        let mut keyed = Keyed::new(per_hour(1), clock.clone());
        keyed.keys_max = 10;
        for key in 0..10 {
            assert!(keyed.check(&key).is_ok());
        }
        assert_eq!(keyed.check(&10), Err(FULL_MS));
        let Err(wait) = keyed.check(&9) else { panic!("a known one has its own limit") };
        assert!(wait > FULL_MS);
        clock.advance(Duration::from_secs(7200));
        assert!(keyed.check(&10).is_ok());
        assert_eq!(keyed.limiter.len(), 1);
    }
}
