//! The fuzz targets of `fuzz/`, in every run of the tests: the corpus is replayed, then mutated a while. What breaks is kept in a file, to be
//! put into the corpus.
//!
//! `FUZZ_SEED=n` takes another seed than 1, `FUZZ_TARGET=name` takes one target, `FUZZ_RUNS=n` mutates longer, `FUZZ_WRITE_SEEDS=1` writes the first inputs anew.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

mod mutate;
#[path = "../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "a library of its own elsewhere")]
mod targets;

// The targets name each other as they do in their own crate.
use targets::{handshake, messages};

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mutate::Mutator;
use targets::{TARGETS, Target};

/// Mutated inputs of each target: together about half a minute of one core in a development build.
fn runs(name: &str) -> usize {
    match name {
        "session" => 5_000,
        "token" => 60_000,
        _ => 150_000,
    }
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name)
}

/// The inputs of a target, in the order of their names.
fn inputs(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<_> = fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs an input; keeps it if it breaks the target.
fn run(name: &str, target: Target, input: &[u8], from: &str) {
    let broken = catch_unwind(AssertUnwindSafe(|| target(input))).is_err();
    if broken {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&path, input).unwrap();
        panic!("{name} breaks on {from}; input ({} bytes) kept in {}: {input:02x?}", input.len(), path.display());
    }
}

#[test]
fn the_corpus_is_replayed() {
    let write = std::env::var_os("FUZZ_WRITE_SEEDS").is_some();
    for (name, file, bytes) in targets::seeds() {
        let path = corpus(name).join(file.replace(' ', "-").replace(',', ""));
        if write {
            fs::create_dir_all(corpus(name)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(path.exists(), "{} is missing: FUZZ_WRITE_SEEDS=1 writes it", path.display());
    }
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for (path, input) in inputs {
            assert!(input.len() <= 64 * 1024, "{} is no small file", path.display());
            run(name, target, &input, &path.display().to_string());
        }
    }
}

#[test]
fn the_corpus_is_mutated() {
    // the same in every run of CI: what a new seed finds is not the fault of the change it is found in
    let seed = number("FUZZ_SEED").unwrap_or(1);
    println!("FUZZ_SEED={seed}");
    let only = std::env::var("FUZZ_TARGET").ok();
    for (name, target) in TARGETS.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        let inputs: Vec<_> = inputs(name).into_iter().map(|(_, input)| input).collect();
        let runs = number("FUZZ_RUNS").map_or_else(|| runs(name), |runs| usize::try_from(runs).unwrap());
        let began = std::time::Instant::now();
        let mut mutator = Mutator::new(seed, &inputs);
        for number in 0..runs {
            let input = mutator.next_input();
            run(name, target, &input, &format!("mutation {number} of FUZZ_SEED={seed}"));
        }
        println!("{name}: {runs} inputs in {:.1?}", began.elapsed());
    }
}
