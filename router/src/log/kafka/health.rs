//! Whether the brokers can be reached. Clients say when they doubt it; a thread then asks until it knows. Nothing runs while all is well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// While in doubt the brokers are asked this often.
pub(super) const PROBE_EVERY: Duration = Duration::from_millis(500);
/// So long they may take to answer.
pub(super) const PROBE_WAIT: Duration = Duration::from_millis(500);
/// So many questions in a row must stay unanswered, unless a client says that no broker is left: one of several brokers may be frozen, and
/// the question may have gone to that one.
const UNANSWERED_MAX: u32 = 2;

/// How sure a client is that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// None.
    No,
    /// Something failed or takes long.
    Some,
    /// A client has no connection left.
    Grave,
}

#[derive(Debug)]
struct Known {
    doubt: Doubt,
    unanswered: u32,
    /// Since when it is as it is.
    since: Instant,
    /// Whether the present state was said in the log.
    said: bool,
    wake: bool,
}

#[derive(Debug)]
pub(super) struct Health {
    brokers: String,
    up: AtomicBool,
    known: Mutex<Known>,
    waker: Condvar,
    tell: watch::Sender<bool>,
}

impl Health {
    /// Nothing is known yet, and until a broker has answered none counts as reachable.
    pub(super) fn new(brokers: String) -> Self {
        metrics::gauge!("switchboard_log_reachable").set(0.0);
        let known = Known { doubt: Doubt::Some, unanswered: 0, since: Instant::now(), said: false, wake: false };
        let (tell, _) = watch::channel(false);
        Self { brokers, up: AtomicBool::new(false), known: Mutex::new(known), waker: Condvar::new(), tell }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.tell.subscribe()
    }

    /// A client doubts. Cheap, from any thread.
    pub(super) fn doubt(&self, doubt: Doubt) {
        let mut known = self.known.lock();
        if known.doubt < doubt {
            known.doubt = doubt;
            self.waker.notify_one();
        }
    }

    /// Wakes the thread that asks.
    pub(super) fn wake(&self) {
        self.known.lock().wake = true;
        self.waker.notify_one();
    }

    /// Waits until it is time to look again. True: a question is due.
    pub(super) fn wait(&self) -> bool {
        let mut known = self.known.lock();
        let fresh = self.is_up() && known.doubt > Doubt::No && known.unanswered == 0;
        if !fresh && !known.wake {
            self.waker.wait_for(&mut known, PROBE_EVERY);
        }
        known.wake = false;
        known.doubt > Doubt::No || !self.is_up()
    }

    /// A broker has answered, or none has.
    pub(super) fn answered(&self, answer: bool) {
        let mut known = self.known.lock();
        let was_up = self.is_up();
        if answer {
            (known.doubt, known.unanswered) = (Doubt::No, 0);
        } else {
            known.unanswered += 1;
        }
        let up = answer || was_up && known.doubt < Doubt::Grave && known.unanswered < UNANSWERED_MAX;
        let was_so = known.since.elapsed();
        if up != was_up {
            known.since = Instant::now();
            known.said = false;
        }
        let settled = up || known.doubt == Doubt::Grave || known.unanswered >= UNANSWERED_MAX;
        if settled && !known.said {
            known.said = true;
            if up {
                tracing::info!(brokers = self.brokers, after_s = was_so.as_secs_f64(), "the brokers of the log can be reached");
            } else {
                tracing::error!(
                    brokers = self.brokers,
                    "no broker of the log can be reached: sends are refused until one answers"
                );
            }
        }
        drop(known);
        self.up.store(up, Ordering::Release);
        metrics::gauge!("switchboard_log_reachable").set(if up { 1.0 } else { 0.0 });
        self.tell.send_if_modified(|told| std::mem::replace(told, up) != up);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unanswered_question_is_not_enough_unless_no_connection_is_left() {
        let health = Health::new("a:1".into());
        assert!(!health.is_up(), "nothing is known");
        health.answered(true);
        assert!(health.is_up());
        health.doubt(Doubt::Some);
        assert!(health.wait(), "asked at once");
        health.answered(false);
        assert!(health.is_up(), "the question may have gone to the one that is frozen");
        health.answered(false);
        assert!(!health.is_up());
        health.answered(true);
        assert!(health.is_up() && *health.subscribe().borrow());
        health.doubt(Doubt::Grave);
        health.answered(false);
        assert!(!health.is_up());
    }
}
