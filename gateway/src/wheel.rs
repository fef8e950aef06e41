//! One timer wheel for all connections of a node: slots of one second, a task that turns it. A connection arms the second at which its next
//! deadline may pass and is woken then; it looks at its own clocks. No timer a socket, no wake-up before its time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::outbox::Outbox;

const SLOTS: u32 = 64;

/// Seconds since the wheel began.
pub type Tick = u32;

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    now: AtomicU32,
    slots: [Mutex<Vec<Weak<Outbox>>>; SLOTS as usize],
}

impl Default for Wheel {
    fn default() -> Self {
        Self { now: AtomicU32::new(0), slots: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Wheel {
    /// The present second.
    pub fn now(&self) -> Tick {
        self.now.load(Ordering::Relaxed)
    }

    /// Wakes a connection at this second; at least one second from now, at most a turn of the wheel (then it arms again).
    pub fn arm(&self, outbox: &Arc<Outbox>, at: Tick) {
        loop {
            let now = self.now();
            let due = at.clamp(now + 1, now + SLOTS - 1);
            let mut slot = self.slots[(due % SLOTS) as usize].lock();
            // the wheel may have turned past it before the slot was locked; it does not while it is
            if self.now() < due {
                slot.push(Arc::downgrade(outbox));
                return;
            }
        }
    }

    /// One second on: wakes who is due.
    pub fn turn(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let due = std::mem::take(&mut *self.slots[(now % SLOTS) as usize].lock());
        for outbox in due.iter().filter_map(Weak::upgrade) {
            outbox.tick();
        }
    }

    /// Turns the wheel for ever.
    pub async fn run(&self) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        second.tick().await;
        loop {
            second.tick().await;
            self.turn();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_at_its_second_and_not_before() {
        let wheel = Wheel::default();
        let outbox = Outbox::new();
        wheel.arm(&outbox, 3);
        let ticks: Vec<bool> = (0..5)
            .map(|_| {
                wheel.turn();
                outbox.take().tick
            })
            .collect();
        assert_eq!(ticks, [false, false, true, false, false]);
    }

    #[test]
    fn the_past_is_the_next_second_and_the_far_future_one_turn() {
        let wheel = Wheel::default();
        let outbox = Outbox::new();
        wheel.arm(&outbox, 0);
        wheel.turn();
        assert!(outbox.take().tick);
        wheel.arm(&outbox, 1000);
        for _ in 0..SLOTS {
            wheel.turn();
        }
        assert!(outbox.take().tick);
    }
}
