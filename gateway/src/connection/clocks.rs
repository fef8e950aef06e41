//! The deadlines of one connection, in seconds of the node's wheel: pure. The connection arms the wheel; when woken it asks here what has passed.

use crate::wheel::Tick;

/// Pings answered in one second.
const PINGS_ANSWERED_MAX: u16 = 20;
/// Pings in one second after which the connection is closed.
const PINGS_MAX: u16 = 200;
/// Errors, application pings, watches, needless typing and stale acknowledgements in one second after which the connection is closed.
const GRUMBLES_MAX: u16 = 200;
/// Read marks taken in one second.
const READ_MARKS_MAX: u16 = 100;
/// How long a peer has to answer our close frame, seconds.
const CLOSE_WAIT: Tick = 2;

/// What a look at the clocks found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// No good `hello` in time.
    Hello,
    /// A fragmented message was not finished in time.
    Fragments,
    /// The socket took nothing for too long.
    Stall,
    /// Silent for two heartbeats.
    Dead,
    /// Our close was not answered.
    Unclosed,
    /// It is time for a ping.
    Ping,
}

/// What to do about a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pong {
    /// Answer it.
    Answer,
    /// Too many: leave it unanswered.
    Omit,
    /// Far too many: close.
    Close,
}

/// Deadlines; 0 is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clocks {
    hello_by: Tick,
    fragments_by: Tick,
    stalled_by: Tick,
    close_by: Tick,
    ping_at: Tick,
    silent_pings: u8,
    rate_tick: Tick,
    pings: u16,
    rate_refusals: u16,
    grumbles: u16,
    read_marks: u16,
}

impl Clocks {
    /// Clocks of a connection that must say hello by then and is first pinged at `ping_at`.
    pub fn new(hello_by: Tick, ping_at: Tick) -> Self {
        Self { hello_by, ping_at, ..Self::default() }
    }

    /// The good `hello` has come.
    pub fn greeted(&mut self) {
        self.hello_by = 0;
    }

    /// Bytes have come; some message was completed by them or not, and another has begun or not. Returns the deadline to arm when a message has just begun to come in fragments.
    pub fn heard(&mut self, completed: bool, mid_message: bool, now: Tick, limit: Tick) -> Option<Tick> {
        self.silent_pings = 0;
        if completed {
            self.fragments_by = 0;
        }
        match (mid_message, self.fragments_by) {
            (false, _) => self.fragments_by = 0,
            (true, 0) => {
                self.fragments_by = now + limit;
                return Some(self.fragments_by);
            }
            (true, _) => {}
        }
        None
    }

    /// The socket was written to. Returns the deadline to arm when it has just begun to stall.
    pub fn written(&mut self, all: bool, progress: bool, now: Tick, limit: Tick) -> Option<Tick> {
        if all {
            self.stalled_by = 0;
        } else if (progress || self.stalled_by == 0) && self.stalled_by != now + limit {
            self.stalled_by = now + limit;
            return Some(self.stalled_by);
        }
        None
    }

    /// Our close frame is out. Returns the deadline to arm.
    pub fn closing(&mut self, now: Tick) -> Tick {
        *self = Self { close_by: now + CLOSE_WAIT, ..Self::default() };
        self.close_by
    }

    /// A ping has come: answer it, or not, or close.
    pub fn ping(&mut self, now: Tick) -> Pong {
        self.rate(now);
        self.pings = self.pings.saturating_add(1);
        if self.pings <= PINGS_ANSWERED_MAX {
            Pong::Answer
        } else if self.pings <= PINGS_MAX {
            Pong::Omit
        } else {
            Pong::Close
        }
    }

    /// A send was refused for its rate; false: this has gone too far.
    pub fn rate_refusal(&mut self, now: Tick, max: u32) -> bool {
        self.rate(now);
        self.rate_refusals = self.rate_refusals.saturating_add(1);
        u32::from(self.rate_refusals) <= max
    }

    /// A read mark has come; false: too many in this second.
    pub fn read_mark(&mut self, now: Tick) -> bool {
        self.rate(now);
        self.read_marks = self.read_marks.saturating_add(1);
        self.read_marks <= READ_MARKS_MAX
    }

    /// Work for nothing (errors, pings, stale acknowledgements); false: too much of it.
    pub fn grumble(&mut self, now: Tick) -> bool {
        self.rate(now);
        self.grumbles = self.grumbles.saturating_add(1);
        self.grumbles <= GRUMBLES_MAX
    }

    /// Counts begin anew each second.
    fn rate(&mut self, now: Tick) {
        if self.rate_tick != now {
            (self.rate_tick, self.pings, self.rate_refusals) = (now, 0, 0);
            (self.grumbles, self.read_marks) = (0, 0);
        }
    }

    /// What has passed by now; ask until nothing. A ping moves its own clock on by `heartbeat`.
    pub fn due(&mut self, now: Tick, heartbeat: Tick) -> Option<Due> {
        let passed = |by: Tick| by != 0 && now >= by;
        if passed(self.close_by) {
            return Some(Due::Unclosed);
        }
        if passed(self.hello_by) {
            self.hello_by = 0;
            return Some(Due::Hello);
        }
        if passed(self.fragments_by) {
            self.fragments_by = 0;
            return Some(Due::Fragments);
        }
        if passed(self.stalled_by) {
            self.stalled_by = 0;
            return Some(Due::Stall);
        }
        if passed(self.ping_at) {
            self.ping_at = now + heartbeat;
            if self.silent_pings >= 2 {
                return Some(Due::Dead);
            }
            self.silent_pings += 1;
            return Some(Due::Ping);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_silent_heartbeats_are_dead_and_any_byte_is_life() {
        let mut clocks = Clocks::new(0, 10);
        assert_eq!(clocks.due(9, 30), None);
        assert_eq!(clocks.due(10, 30), Some(Due::Ping));
        assert_eq!(clocks.due(10, 30), None);
        assert_eq!(clocks.due(40, 30), Some(Due::Ping));
        clocks.heard(true, false, 41, 10);
        assert_eq!(clocks.due(70, 30), Some(Due::Ping));
        assert_eq!(clocks.due(100, 30), Some(Due::Ping));
        assert_eq!(clocks.due(130, 30), Some(Due::Dead));
    }

    #[test]
    fn a_stall_counts_from_the_last_progress() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.written(false, true, 5, 20), Some(25));
        assert_eq!(clocks.written(false, false, 6, 20), None);
        assert_eq!(clocks.written(false, true, 20, 20), Some(40));
        assert_eq!(clocks.due(39, 30), None);
        assert_eq!(clocks.due(40, 30), Some(Due::Stall));
        clocks.written(false, false, 41, 20);
        clocks.written(true, true, 42, 20);
        assert_eq!(clocks.due(99, 30), None);
    }

    #[test]
    fn a_flood_of_pings_is_first_unanswered_then_fatal() {
        let mut clocks = Clocks::default();
        let answered = (0..200).filter(|_| clocks.ping(1) == Pong::Answer).count();
        assert_eq!(answered, 20);
        assert_eq!(clocks.ping(1), Pong::Close);
        assert_eq!(clocks.ping(2), Pong::Answer);
    }

    #[test]
    fn a_steady_upload_of_many_messages_is_not_one_late_message() {
        let mut clocks = Clocks::default();
        for second in 1..100 {
            clocks.heard(true, true, second, 10);
            assert_eq!(clocks.due(second, 30), None);
        }
    }

    #[test]
    fn a_message_in_fragments_has_one_deadline() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.heard(false, true, 1, 10), Some(11));
        assert_eq!(clocks.heard(false, true, 9, 10), None);
        assert_eq!(clocks.due(11, 30), Some(Due::Fragments));
        clocks.heard(true, false, 12, 10);
        assert_eq!(clocks.due(50, 30), None);
    }
}
