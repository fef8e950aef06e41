//! Whole sessions: the bytes are a program of what clients say and what happens around them, run against the real connection code on a gateway
//! in memory. Whatever the program, no panic; a bounded answer to each input; each send at most one answer; events dense and in order; a close
//! only with a documented code, and nothing behind it; nothing left behind in the end.

mod peer;
mod program;
mod world;

use std::cell::RefCell;

use program::Program;
use tokio::runtime::{Builder, Runtime};
use world::World;

/// Steps of one program; more are left out.
const STEPS_MAX: usize = 200;

thread_local!(static RUNTIME: RefCell<Runtime> = RefCell::new(
    // the clock stands still unless everybody waits for it
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime without sockets")
));

/// Runs a program.
pub fn session(data: &[u8]) {
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let mut program = Program::new(data);
            let mut world = World::new().await;
            for _ in 0..STEPS_MAX {
                let Some(step) = program.next_step() else { break };
                world.step(step).await;
            }
            world.end().await;
        });
    });
}

/// Inputs to begin with.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    program::seeds()
}
