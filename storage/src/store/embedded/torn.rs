//! The journal is looked at before the engine opens it, because fjall 3.1 is too strict and too lenient with it.
//!
//! Too strict: when the power fails in the middle of an fsync, blocks of the last batch are on disk in any order; if its end is there and a
//! block before it is not, fjall will not open the journal. Every batch is synced before the next begins, so a broken last batch was never
//! answered: it is cut off here. Too lenient: a wrong byte further up makes fjall drop everything behind it without a word. What stands there
//! was answered, so the server must not start as if it had never been; a person decides.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// Behind the checksum at the end of a batch; its last byte is the version of the format.
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Reads the journal's own form, as it is in fjall 3.1.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let part = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(part)
    }

    fn number<const N: usize>(&mut self) -> Option<u64> {
        let bytes = self.take(N)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Steps over a batch that has an end, and says whether its checksum is right. Nothing: here is no such batch.
    fn batch(&mut self) -> Option<bool> {
        (self.number::<1>()? == u64::from(START)).then_some(())?;
        let count = self.number::<4>()?;
        self.take(8)?;
        let mut hasher = Xxh3::new();
        for _ in 0..count {
            let from = self.at;
            (self.number::<1>()? == u64::from(ITEM)).then_some(())?;
            // kind, compression (none), keyspace
            self.take(1 + 1 + 8)?;
            let key = usize::try_from(self.number::<2>()?).ok()?;
            self.take(4)?;
            let value = usize::try_from(self.number::<4>()?).ok()?;
            self.take(key)?;
            self.take(value)?;
            hasher.update(&self.bytes[from..self.at]);
        }
        (self.number::<1>()? == u64::from(END)).then_some(())?;
        let good = self.number::<8>()? == hasher.digest();
        (self.take(TRAILER.len())? == TRAILER).then_some(good)
    }
}

/// What a journal looks like.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Batches, then nothing.
    Whole,
    /// A broken batch from here on, and no good one behind it.
    TornAt(usize),
    /// Something broken here, and a good batch behind it.
    DamagedAt(usize),
}

fn state(bytes: &[u8]) -> State {
    let mut walk = Walk { bytes, at: 0 };
    let mut start = 0;
    while walk.batch() == Some(true) {
        start = walk.at;
    }
    // journals are made longer than they are filled
    let Some(last) = bytes.iter().rposition(|byte| *byte != 0).filter(|last| *last >= start) else { return State::Whole };
    let good_behind = (start + 1..last).any(|at| bytes[at] == START && Walk { bytes, at }.batch() == Some(true));
    if good_behind { State::DamagedAt(start) } else { State::TornAt(start) }
}

/// All journals, oldest first. The last is the one that was written to.
fn journals(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// Looks at all journals and cuts a torn last batch off; what is cut stays beside the journal, for whoever wants to know.
///
/// # Errors
/// When a journal is damaged where its batches were durable.
pub(super) fn look(folder: &Path) -> io::Result<()> {
    let journals = journals(folder)?;
    for (at, path) in journals.iter().enumerate() {
        let bytes = std::fs::read(path)?;
        match state(&bytes) {
            State::Whole => {}
            // nothing was understood: not for us to judge
            State::TornAt(0) => {}
            State::TornAt(start) if at + 1 == journals.len() => cut(path, &bytes, start)?,
            State::TornAt(start) | State::DamagedAt(start) => {
                let why = format!("journal {} is damaged at byte {start}, before batches that were durable", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
    }
    Ok(())
}

fn cut(path: &Path, bytes: &[u8], start: usize) -> io::Result<()> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(start, |last| last + 1);
    std::fs::write(path.with_extension("torn"), &bytes[start..end])?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(start as u64)?;
    file.sync_all()?;
    tracing::warn!(journal = %path.display(), bytes = end - start, "the last batch was torn before its fsync was done and never answered: cut off");
    Ok(())
}
