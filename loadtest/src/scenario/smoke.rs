//! A scenario in small: everything it does happens, a few times, in seconds.

use super::{Scenario, Span};

/// A multiple of every number of devices up to 4, and an even number of users.
const SOCKETS: usize = 24;

impl Scenario {
    /// The same with a few connections and for a few seconds, and without expectations: it shows that a scenario works
    /// and is judged clean, and nothing of how fast a server is.
    #[must_use]
    pub fn smoke(mut self) -> Self {
        self.sockets = SOCKETS.next_multiple_of(self.devices.max(1) as usize * 2);
        (self.duration, self.warmup) = (Span::seconds(2), Span::millis(300));
        self.connect.rate = self.connect.rate.map(|_| 200.0);
        self.connect.settle = Span::default();
        (self.connect.backoff, self.connect.backoff_max) = (Span::millis(50), Span::millis(200));
        self.contacts.count = self.contacts.count.min(5);
        if let Some(load) = &mut self.load {
            (load.rate, load.think) = (Some(100.0), None);
            load.give_up = load.give_up.map(|_| Span::millis(200));
        }
        if let Some(surge) = &mut self.surge {
            (surge.after, surge.lasts) = (Span::millis(500), Span::millis(500));
        }
        if let Some(cut) = &mut self.cut {
            (cut.every, cut.back_within) = (Span::millis(600), Span::millis(100));
        }
        if let Some(churn) = &mut self.churn {
            (churn.rate, churn.away) = (20.0, Span::millis(100));
        }
        if let Some(slow) = &mut self.slow {
            (slow.share, slow.freeze, slow.thaw) = (0.3, Span::millis(500), Span::millis(200));
        }
        if let Some(offline) = &mut self.offline {
            offline.back_within = Span::millis(200);
        }
        if let Some(fault) = &mut self.fault {
            fault.after = Span::millis(800);
        }
        self.expect.clear();
        self
    }
}
