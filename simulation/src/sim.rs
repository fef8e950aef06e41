//! What everything in one world shares: chance, the weather, the trace, what has been seen, what is wrong.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Of 10,000.
pub type Odds = u64;

/// How bad this world is: drawn once for each seed, so that seeds differ in kind and not only in luck.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Nothing that may lose a hint: then every event must come without healing.
    pub hints_are_safe: bool,
    /// Longest ordinary delay of a call, ms.
    pub delay_ms: u64,
    /// A call fails and nothing is done.
    pub fails: Odds,
    /// A call is done and fails.
    pub unknown: Odds,
    /// A call fails and is done later.
    pub late: Odds,
    /// A call kills its process, before or after it is done.
    pub crashes: Odds,
    /// An append is done twice.
    pub doubled_appends: Odds,
    /// A link breaks while it carries something.
    pub links_break: Odds,
    /// A push is lost behind its link.
    pub push_lost: Odds,
    /// A push comes twice.
    pub push_doubled: Odds,
    /// A push is overtaken by those behind it.
    pub push_late: Odds,
    /// Longest delay of such a push, ms.
    pub push_late_ms: u64,
    /// The registry does not answer.
    pub registry_fails: Odds,
    /// The registry answers with something else.
    pub registry_lies: Odds,
    /// Mean time between two acts of chaos, ms; 0: none.
    pub chaos_ms: u64,
    /// The mailboxes of a shard are numbered anew once.
    pub new_epoch: bool,
    /// Shards move, and are set back to a backup.
    pub databases_change: bool,
    /// Sends of a user in a second.
    pub sends_per_s: u32,
    /// Mean time between two sends of a device, ms.
    pub send_ms: u64,
    /// A client sends an id again with another body.
    pub reuse: Odds,
    /// Longest time a device stays connected, ms.
    pub stay_ms: u64,
}

/// SplitMix64: small, and the same in every build.
#[derive(Debug)]
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of these.
    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.next() % choices.len() as u64) as usize]
    }
}

impl Weather {
    fn draw(chance: &mut Generator) -> Self {
        let calm = chance.of(&[true, false, false, false]);
        let rough = |chance: &mut Generator, choices: &[u64]| if calm { 0 } else { chance.of(choices) };
        // calm: shorter than anybody waits for the registry, and longer at rest, so that what is late is seen
        let either =
            |chance: &mut Generator, calm_one: &[u64], rough_one: &[u64]| chance.of(if calm { calm_one } else { rough_one });
        Self {
            hints_are_safe: calm,
            delay_ms: either(chance, &[40, 90], &[3, 20, 120]),
            fails: chance.of(&[0, 50, 300]),
            unknown: chance.of(&[0, 50, 300]),
            late: chance.of(&[0, 50, 300]),
            crashes: rough(chance, &[0, 0, 20, 60]),
            doubled_appends: chance.of(&[0, 50, 300]),
            links_break: rough(chance, &[0, 100, 500]),
            push_lost: rough(chance, &[0, 300, 3000]),
            push_doubled: chance.of(&[0, 500]),
            push_late: chance.of(&[0, 500]),
            push_late_ms: either(chance, &[5, 200], &[5, 200, 6000]),
            registry_fails: rough(chance, &[0, 200, 1500]),
            registry_lies: rough(chance, &[0, 0, 500]),
            chaos_ms: rough(chance, &[0, 600, 2000]),
            new_epoch: rough(chance, &[0, 0, 0, 1]) == 1,
            databases_change: rough(chance, &[0, 1]) == 1,
            sends_per_s: chance.of(&[6, 50, 50]),
            send_ms: either(chance, &[500, 1500, 3000], &[150, 500, 1500]),
            reuse: chance.of(&[0, 0, 500]),
            stay_ms: either(chance, &[3000, 6000], &[300, 3000, 20_000]),
        }
    }
}

#[derive(Debug, Default)]
struct Trace {
    hasher: DefaultHasher,
    lines: Option<Vec<String>>,
}

/// One world's shared parts.
pub struct Sim {
    /// How bad it is.
    pub weather: Weather,
    generator: Mutex<Generator>,
    trace: Mutex<Trace>,
    seen: Mutex<BTreeMap<&'static str, u64>>,
    wrong: Mutex<Vec<String>>,
    healed: Mutex<bool>,
    last_call: Mutex<bool>,
    began: Instant,
}

impl Sim {
    /// The shared parts of a seed's world.
    pub fn new(seed: u64, keep_trace: bool) -> Arc<Self> {
        let mut generator = Generator(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5357_4954_4348);
        let weather = Weather::draw(&mut generator);
        Arc::new(Self {
            weather,
            generator: Mutex::new(generator),
            trace: Mutex::new(Trace { lines: keep_trace.then(Vec::new), ..Trace::default() }),
            seen: Mutex::default(),
            wrong: Mutex::default(),
            healed: Mutex::new(false),
            last_call: Mutex::new(false),
            began: Instant::now(),
        })
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.generator.lock().next() % end }
    }

    /// 64 random bits.
    pub fn bits(&self) -> u64 {
        self.generator.lock().next()
    }

    /// Whether something happens; nothing bad happens any more when the world is healed.
    pub fn strikes(&self, odds: Odds) -> bool {
        odds > 0 && !self.is_healed() && self.below(10_000) < odds
    }

    /// A time up to `max` ms.
    pub fn up_to_ms(&self, max: u64) -> Duration {
        Duration::from_millis(self.below(max + 1))
    }

    /// An ordinary delay: mostly short.
    pub fn delay(&self) -> Duration {
        self.now_ms();
        let max = if self.is_healed() { 2 } else { self.weather.delay_ms };
        let often_long = if self.weather.hints_are_safe { 2 } else { 4 };
        let max = if self.below(often_long) == 0 { max } else { max / 10 };
        self.up_to_ms(max)
    }

    /// Virtual milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        crate::determinism::tell_time(now_ms);
        now_ms
    }

    /// No more faults from now on.
    pub fn heal(&self) {
        self.note(|| "healed".into());
        *self.healed.lock() = true;
    }

    /// Whether the faults are over.
    pub fn is_healed(&self) -> bool {
        *self.healed.lock()
    }

    /// Everything is said: each device attaches once more and is done.
    pub fn call_last(&self) {
        self.note(|| "last call".into());
        *self.last_call.lock() = true;
    }

    /// Whether everything is said.
    pub fn is_last_call(&self) -> bool {
        *self.last_call.lock()
    }

    /// A line of the trace.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let line = format!("{:>8} {}", self.now_ms(), line());
        let mut trace = self.trace.lock();
        line.hash(&mut trace.hasher);
        if let Some(lines) = &mut trace.lines {
            lines.push(line);
        }
    }

    /// A race has happened.
    pub fn saw(&self, race: &'static str) {
        *self.seen.lock().entry(race).or_default() += 1;
    }

    /// Something is wrong.
    pub fn wrong(&self, what: String) {
        self.note(|| format!("WRONG {what}"));
        self.wrong.lock().push(what);
    }

    /// Hash of the trace, its lines if they were kept, the races, what is wrong.
    pub fn results(&self) -> (u64, Vec<String>, BTreeMap<&'static str, u64>, Vec<String>) {
        let mut trace = self.trace.lock();
        (trace.hasher.finish(), trace.lines.take().unwrap_or_default(), self.seen.lock().clone(), self.wrong.lock().clone())
    }
}
