//! The port by which a gateway makes a record durable: the embedded commit cycle, or an append to Kafka ([`kafka`]). It answers by a report, once.

use std::sync::Arc;

use protocol::{ErrorCode, record::Record};

#[cfg(feature = "contract")]
pub mod contract;
pub mod kafka;
pub mod standing;

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Durable, now or by an earlier attempt with the same identity and body.
    Accepted,
    /// Not durable and never will be by this attempt. Whether the id may come again: [`ErrorCode::retryable`].
    Refused(ErrorCode),
    /// It may or may not be durable.
    Unknown,
}

/// Where reports arrive: a connection.
pub trait ReportSink: Send + Sync {
    /// Takes the outcome of the attempt it numbered `ticket`. Must not block; called from any thread.
    fn settled(&self, ticket: u64, outcome: Outcome);
}

/// The promise of one report. Dropped unanswered (a crash of the part that held it), it reports [`Outcome::Unknown`].
pub struct Report {
    sink: Option<Arc<dyn ReportSink>>,
    ticket: u64,
}

impl Report {
    /// A report that will reach `sink` under the caller's number.
    pub fn new(sink: Arc<dyn ReportSink>, ticket: u64) -> Self {
        Self { sink: Some(sink), ticket }
    }

    /// Says what became of the attempt.
    pub fn settle(mut self, outcome: Outcome) {
        if let Some(sink) = self.sink.take() {
            sink.settled(self.ticket, outcome);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.settled(self.ticket, Outcome::Unknown);
        }
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// Makes records durable.
pub trait Submit: Send + Sync + 'static {
    /// Takes one attempt and reports it exactly once, from any thread, possibly before this returns. Never blocks: when its bounded queue
    /// is full or [stands](standing) the attempt is refused with [`ErrorCode::Unavailable`]. Two attempts handed over in order by one caller for one
    /// conversation are not reordered unless the first fails.
    fn submit(&self, record: Record, report: Report);
}
