//! Worlds without a planted bug are clean, and a seed replays exactly.

use simulation::races::Table;
use simulation::run;

/// More run in CI and every night: `cargo run -p simulation -- --seeds 200 --from N`.
const SEEDS: u64 = 60;

#[test]
fn clean_worlds_are_clean() {
    let mut races = Table::default();
    for seed in 0..SEEDS {
        let outcome = run(seed, None, false);
        assert!(outcome.wrong.is_empty(), "seed {seed}: {:#?}", outcome.wrong);
        races.add(&outcome.races);
    }
    assert!(races.missing().len() <= 1, "even a short run has nearly all races; missing: {:?}", races.missing());
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
