//! Worlds without a planted bug are clean, and a seed replays exactly.

use std::process::Command;

use simulation::races::Table;
use simulation::run;

/// More run in CI and every night: `simulation --seeds 200 --from N`.
const SEEDS: u64 = 60;

#[test]
fn clean_worlds_are_clean() {
    let mut races = Table::default();
    for seed in 0..SEEDS {
        let outcome = run(seed, None, false);
        assert!(outcome.wrong.is_empty(), "seed {seed}: {:#?}", outcome.wrong);
        races.add(&outcome.races);
    }
    assert!(races.missing().len() <= 8, "even a short run has nearly all races; missing: {:?}", races.missing());
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 7, 16, 20] {
        let (once, again) = (run(seed, None, false), run(seed, None, true));
        assert_eq!((once.hash, once.races), (again.hash, again.races), "seed {seed}");
        assert!(again.trace.len() > 100 && once.trace.is_empty());
    }
    assert_ne!(run(1, None, false).hash, run(2, None, false).hash);
}

/// Hashes of some seeds, as another process finds them: at another time, at other addresses, with other seeds of its hash tables.
fn hashes(how: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_simulation"))
        .args(["--from", "20", "--seeds", "12", "--all", "--hash"])
        .args(how)
        .output()
        .expect("the binary was built with this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mut lines: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.len(), 12);
    lines
}

#[test]
fn a_seed_replays_exactly_in_every_process_after_and_beside_whatever_others() {
    let once = hashes(&[]);
    assert_eq!(once, hashes(&["--jobs", "2"]));
    assert_eq!(once, hashes(&["--backwards"]));
    let here = (20..32).map(|seed| format!("{seed} {:016x}", run(seed, None, false).hash));
    assert_eq!(once, here.collect::<Vec<_>>());
}
