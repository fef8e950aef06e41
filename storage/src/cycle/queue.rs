//! The bounded queue in front of the cycle. The taker gets everything that has arrived at once: one lock a batch, and it sleeps when there
//! is nothing.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use protocol::record::Record;
use router::submit::Report;
use router::submit::standing::Standing;

use super::Limits;
use crate::receipt::Mark;

/// One attempt that waits.
pub(super) struct Waiting {
    pub(super) record: Record,
    pub(super) report: Report,
    pub(super) since: Instant,
}

struct State {
    waiting: VecDeque<Waiting>,
    marks: VecDeque<Mark>,
    bytes: usize,
    standing: Standing,
    closed: bool,
    asleep: bool,
}

/// Why an attempt was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The cycle ends.
    Closed,
    /// There is no room.
    Full,
    /// More comes than is worked in, for longer than a burst.
    Stands,
}

impl NotTaken {
    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Full => "full",
            Self::Stands => "stands",
        }
    }
}

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    limits: Limits,
}

/// Memory that a waiting record is counted with beside its content.
const OVERHEAD: usize = 256;

fn size(record: &Record) -> usize {
    record.content.len() + OVERHEAD
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            marks: VecDeque::new(),
            bytes: 0,
            standing: Standing::new(limits.queue_wait, limits.queue_burst),
            closed: false,
            asleep: false,
        };
        Self { state: Mutex::new(state), arrived: Condvar::new(), limits }
    }

    /// Puts an attempt behind the others, or gives its report back when the queue is full, stands, or is closed.
    pub(super) fn put(&self, record: Record, report: Report) -> Result<(), (Report, NotTaken)> {
        let since = Instant::now();
        let mut state = self.state.lock();
        let bytes = state.bytes + size(&record);
        if state.closed {
            return Err((report, NotTaken::Closed));
        }
        if state.waiting.len() >= self.limits.queue_records || bytes > self.limits.queue_bytes {
            return Err((report, NotTaken::Full));
        }
        let oldest = state.waiting.front().map(|first| since.saturating_duration_since(first.since));
        // canaries are there to be late
        if state.standing.refuses(oldest, since) && !record.identity.sender.is_server() {
            return Err((report, NotTaken::Stands));
        }
        state.bytes = bytes;
        state.waiting.push_back(Waiting { record, report, since });
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Puts marks behind the others, and gives back those for which there is no room.
    pub(super) fn put_marks(&self, mut marks: Vec<Mark>) -> Vec<Mark> {
        let mut state = self.state.lock();
        let room = if state.closed { 0 } else { self.limits.queue_marks.saturating_sub(state.marks.len()) };
        let left = marks.split_off(room.min(marks.len()));
        let wake = !marks.is_empty() && std::mem::take(&mut state.asleep);
        state.marks.extend(marks);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        left
    }

    /// Waits for attempts and marks, and moves as many as a batch may hold. Says how many attempts stay behind; nothing when closed and empty.
    pub(super) fn take(&self, batch: &mut Vec<Waiting>, marks: &mut Vec<Mark>) -> Option<usize> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && state.marks.is_empty() {
            if state.closed {
                return None;
            }
            state.asleep = true;
            self.arrived.wait(&mut state);
        }
        let mut bytes = 0;
        while let Some(next) = state.waiting.front() {
            let more = size(&next.record);
            if !batch.is_empty() && (batch.len() >= self.limits.batch_records || bytes + more > self.limits.batch_bytes) {
                break;
            }
            bytes += more;
            batch.extend(state.waiting.pop_front());
        }
        state.bytes -= bytes;
        let count = state.marks.len().min(self.limits.batch_marks.saturating_sub(marks.len()));
        marks.extend(state.marks.drain(..count));
        Some(state.waiting.len())
    }

    /// Whether nobody is let in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Lets nobody in any more; what waits is still taken.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Closes and drops what waits: every report in it says that its outcome is unknown.
    pub(super) fn abandon(&self) {
        self.close();
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use protocol::record::{Content, Identity};
    use protocol::{ConversationId, MessageId, UserId};
    use router::submit::{Outcome, ReportSink};

    use super::*;

    struct Nobody;

    impl ReportSink for Nobody {
        fn settled(&self, _: u64, _: Outcome) {}
    }

    fn put(queue: &Queue, sender: UserId) -> Result<(), NotTaken> {
        let conversation = ConversationId::direct(sender, UserId::new(2).unwrap());
        let identity = Identity { sender, conversation, id: MessageId::from_stored(&[7; 16]).unwrap() };
        let record = Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 0 };
        queue.put(record, Report::new(Arc::new(Nobody), 0)).map_err(|(_, why)| why)
    }

    fn standing() -> Queue {
        Queue::new(Limits { queue_wait: Duration::ZERO, queue_burst: Duration::ZERO, queue_records: 2, ..Limits::default() })
    }

    #[test]
    fn a_queue_that_stands_refuses_all_but_canaries_and_takes_again_when_it_is_empty() {
        let (queue, user) = (standing(), UserId::new(1).unwrap());
        assert_eq!(put(&queue, user), Ok(()), "an empty one takes");
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(put(&queue, user), Err(NotTaken::Stands));
        assert_eq!(put(&queue, UserId::canary(0)), Ok(()));
        assert_eq!(put(&queue, UserId::canary(1)), Err(NotTaken::Full));
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch, &mut Vec::new()), Some(0));
        assert_eq!((batch.len(), put(&queue, user)), (2, Ok(())));
        queue.close();
        assert_eq!(put(&queue, user), Err(NotTaken::Closed));
    }
}
