//! The same rows into each engine: for a message one look-up of its key, one body, two mailbox rows, one key row, one history row, and for
//! each owner in the batch a head and the conversation; a checkpoint a batch; one fsync a batch.

use std::path::Path;
use std::time::Instant;

use rand::RngExt as _;
use uuid::Uuid;

use crate::Common;
use crate::meter;

mod fjall;
mod redb;
mod sqlite;

const USERS: u64 = 10_000;
const BODY: usize = 250;
const BATCHES: [usize; 3] = [20, 100, 1000];
/// Names of the tables.
const TABLES: [&str; 7] = ["bodies", "mailbox", "keys", "history", "conversations", "heads", "checkpoints"];

/// Rows of one batch, by table.
type Rows = [Vec<(Vec<u8>, Vec<u8>)>; TABLES.len()];

/// An engine under measurement.
trait Engine {
    /// Looks for keys (which are not there), then writes a batch durably.
    fn write(&mut self, rows: &Rows) -> anyhow::Result<()>;
}

/// Makes batches: dense seqs in random mailboxes, as the cycle would write them.
struct Source {
    heads: Vec<u64>,
    position: u64,
}

impl Source {
    fn new() -> Self {
        Self { heads: vec![0; USERS as usize], position: 0 }
    }

    fn batch(&mut self, size: usize) -> Rows {
        let mut rows = Rows::default();
        let mut random = rand::rng();
        let (mut heads, mut last) = (std::collections::HashMap::new(), std::collections::HashMap::new());
        for _ in 0..size {
            let (one, other) = (random.random_range(0..USERS), random.random_range(0..USERS));
            self.position += 1;
            let position = self.position.to_be_bytes();
            let conversation = [b"d", &one.min(other).to_be_bytes()[..], &one.max(other).to_be_bytes()].concat();
            let key = [Uuid::now_v7().as_bytes(), &one.to_be_bytes()[..], &conversation].concat();
            let body_key = [&position[..], &conversation].concat();
            let mut body = vec![0; BODY + 35];
            random.fill(&mut body[..]);
            rows[0].push((body_key.clone(), body));
            for owner in [one, other] {
                self.heads[owner as usize] += 1;
                let seq = self.heads[owner as usize];
                rows[1].push(([owner.to_be_bytes(), seq.to_be_bytes()].concat(), body_key.clone()));
                heads.insert(owner.to_be_bytes().to_vec(), [seq.to_be_bytes(), [0; 8]].concat());
                last.insert([&owner.to_be_bytes()[..], &conversation].concat(), position.to_vec());
            }
            rows[2].push((key, body_key.repeat(4)[..82].to_vec()));
            rows[3].push(([&conversation[..], &position].concat(), Vec::new()));
        }
        rows[4].extend(last);
        rows[5].extend(heads);
        rows[6].push((vec![0, 0], position_row(self.position)));
        rows
    }
}

fn position_row(position: u64) -> Vec<u8> {
    [1_u64.to_be_bytes(), position.to_be_bytes()].concat()
}

struct Figures {
    rate: f64,
    cpu_us: f64,
    disk: f64,
}

/// Writes for some seconds and waits for background work; processor time to make the rows is measured apart and taken off.
fn measure(engine: &mut dyn Engine, path: &Path, batch: usize, seconds: f64) -> anyhow::Result<Figures> {
    let mut source = Source::new();
    let making = Instant::now();
    (0..2_000_usize.div_ceil(batch)).for_each(|_| drop(source.batch(batch)));
    let made = 2_000_usize.div_ceil(batch) * batch;
    let making_us = making.elapsed().as_secs_f64() * 1e6 / made as f64;
    let mut source = Source::new();
    let (before, mut writing, mut count) = (meter::cpu()?, 0.0, 0_usize);
    while writing < seconds {
        let rows = source.batch(batch);
        let start = Instant::now();
        engine.write(&rows)?;
        writing += start.elapsed().as_secs_f64();
        count += batch;
    }
    meter::settle()?;
    let cpu_us = (meter::cpu()? - before).as_secs_f64() * 1e6 / count as f64 - making_us;
    Ok(Figures { rate: count as f64 / writing, cpu_us, disk: meter::disk(path) as f64 / count as f64 })
}

fn open(name: &str, path: &Path) -> anyhow::Result<Box<dyn Engine>> {
    Ok(match name {
        "fjall" => Box::new(fjall::Fjall::open(path)?),
        "redb" => Box::new(redb::Redb::open(path)?),
        _ => Box::new(sqlite::Sqlite::open(path)?),
    })
}

/// Rounds of all engines in turn, so that a busy minute hits each alike.
pub(crate) fn run(common: &Common) -> anyhow::Result<()> {
    println!("| engine | batch | messages/s | CPU µs a message | disk bytes a message |\n|---|---|---|---|---|");
    for batch in BATCHES {
        let engines = ["fjall", "redb", "sqlite"];
        let mut figures: Vec<Vec<Figures>> = engines.iter().map(|_| Vec::new()).collect();
        for _ in 0..common.rounds {
            for (name, figures) in engines.iter().zip(&mut figures) {
                let dir = tempfile::tempdir_in(&common.dir)?;
                let mut engine = open(name, dir.path())?;
                let one = measure(&mut *engine, dir.path(), batch, common.seconds)?;
                eprintln!("{name} {batch}: {:.0}/s {:.1} us {:.0} B, load {}", one.rate, one.cpu_us, one.disk, meter::load());
                figures.push(one);
            }
        }
        for (name, figures) in engines.iter().zip(&figures) {
            let of = |pick: fn(&Figures) -> f64| meter::median(figures.iter().map(pick).collect());
            println!("| {name} | {batch} | {:.0} | {:.1} | {:.0} |", of(|f| f.rate), of(|f| f.cpu_us), of(|f| f.disk));
        }
    }
    Ok(())
}
