//! The ports with bad luck: each call may be slow, fail before it is done, fail after it, be done later though it failed, or kill its process.

mod log;
mod places;
mod store;
mod redis;
mod registry;
mod links;

pub use links::{Book, Ear, Links};
pub use log::{FaultyLog, Honest};
pub use places::{Committed, Databases};
pub use redis::Redis;
pub use registry::FaultyRegistry;
pub use store::FaultyStore;

use crate::sim::Sim;

/// What happens to a call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is done and says so.
    Done,
    /// Nothing is done, and it says so.
    Fails,
    /// It is done, and nobody knows.
    Unknown,
    /// It is done later, and nobody knows.
    Late,
}

impl Fate {
    /// Drawn.
    pub fn draw(sim: &Sim) -> Self {
        let weather = &sim.weather;
        if sim.strikes(weather.fails) {
            Self::Fails
        } else if sim.strikes(weather.unknown) {
            Self::Unknown
        } else if sim.strikes(weather.late) {
            Self::Late
        } else {
            Self::Done
        }
    }
}
