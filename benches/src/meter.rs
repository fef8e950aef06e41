//! What a run cost: time, processor time of the whole process, bytes on disk.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The kernel counts in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of this process so far, background threads included.
pub(crate) fn cpu() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    // fields 14 and 15, counted from 3 behind the name in brackets
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok()).context("no processor time");
    Ok(TICK * (ticks(11)? + ticks(12)?))
}

/// Waits until background work is done: no processor time for a while, at most a minute.
pub(crate) fn settle() -> anyhow::Result<()> {
    let start = Instant::now();
    let mut before = cpu()?;
    while start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(300));
        let now = cpu()?;
        if now <= before + TICK {
            break;
        }
        before = now;
    }
    Ok(())
}

/// Bytes of blocks in use under a folder.
pub(crate) fn disk(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = std::fs::symlink_metadata(path) else { return 0 };
    let inside = std::fs::read_dir(path).map(|entries| entries.flatten().map(|entry| disk(&entry.path())).sum()).unwrap_or(0);
    meta.blocks() * 512 + inside
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The load of the machine in the last minute, others included.
pub(crate) fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split_whitespace().next().unwrap_or("?").to_owned()
}
