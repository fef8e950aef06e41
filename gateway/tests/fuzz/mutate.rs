//! Small changes to inputs, from a seed: the same seed makes the same inputs.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Numbers at the edges of their types.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, (u64::MAX >> 1) + 1, u64::MAX];
/// Longest input.
const BYTES_MAX: usize = 8 * 1024;
/// Mutated inputs that others are made from, beside the corpus.
const POOL: usize = 256;

/// Makes inputs.
pub(crate) struct Mutator {
    rng: StdRng,
    pool: Vec<Vec<u8>>,
    corpus: usize,
}

impl Mutator {
    pub(crate) fn new(seed: u64, corpus: &[Vec<u8>]) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), pool: corpus.to_vec(), corpus: corpus.len() }
    }

    fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end.max(1))
    }

    /// One to eight changes of an input of the corpus, or of one that was made before.
    pub(crate) fn next_input(&mut self) -> Vec<u8> {
        let from = self.below(self.pool.len());
        let mut input = self.pool[from].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        // without feedback it is chance which of them leads on
        if self.below(16) == 0 {
            if self.pool.len() < self.corpus + POOL {
                self.pool.push(input.clone());
            } else {
                let at = self.corpus + self.below(POOL);
                self.pool[at].clone_from(&input);
            }
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        match self.below(10) {
            _ if input.is_empty() => input.push(self.rng.random()),
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = self.rng.random(),
            2 => input[at] = input[at].wrapping_add(1).wrapping_sub(2 * u8::from(self.rng.random::<bool>())),
            3 => input.insert(at, self.rng.random()),
            4 => drop(input.remove(at)),
            5 => input.truncate(at),
            6 => self.edge(input, at),
            7 => self.repeat(input, at),
            8 => self.splice(input, at),
            _ => self.swap(input, at),
        }
    }

    /// A number of an edge, in 1, 2, 4 or 8 bytes, either end first, or as text.
    fn edge(&mut self, input: &mut Vec<u8>, at: usize) {
        let number = EDGES[self.below(EDGES.len())];
        let bytes = match self.below(3) {
            0 => number.to_be_bytes()[8 - (1 << self.below(4))..].to_vec(),
            1 => number.to_le_bytes()[..1 << self.below(4)].to_vec(),
            _ => number.to_string().into_bytes(),
        };
        let end = if self.rng.random() { at } else { input.len().min(at + bytes.len()) };
        input.splice(at..end, bytes);
    }

    /// A part of it, several times.
    fn repeat(&mut self, input: &mut Vec<u8>, at: usize) {
        let end = at + 1 + self.below((input.len() - at).min(64));
        let part = input[at..end.min(input.len())].repeat(1 + self.below(40));
        input.splice(at..at, part);
    }

    /// Goes on as another input does.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize) {
        let other = self.pool[self.rng.random_range(0..self.pool.len())].clone();
        let from = self.below(other.len());
        input.truncate(at);
        input.extend_from_slice(&other[from..]);
    }

    /// Two parts change places.
    fn swap(&mut self, input: &mut [u8], at: usize) {
        let other = self.below(input.len());
        let length = 1 + self.below(8);
        for n in 0..length {
            if at.max(other) + n < input.len() {
                input.swap(at + n, other + n);
            }
        }
    }
}
