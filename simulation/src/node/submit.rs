//! Sends into the log: a report says `accepted` only when the append is durable.

use std::sync::Arc;

use protocol::plant::{Bug, planted};
use protocol::record::Record;
use protocol::{ConversationId, ErrorCode};
use router::log::{Log, LogError, Topic};
use router::submit::{Outcome, Report, Submit};

use crate::process::Process;

/// The partition of a conversation's messages.
pub fn partition_of(conversation: ConversationId, partitions: u16) -> u16 {
    let ConversationId::Direct(low, high) = conversation;
    u16::try_from((low.get() * 7 + high.get()) % u64::from(partitions)).unwrap_or(0)
}

/// Sends of one process.
pub(super) struct LogSubmit {
    log: Arc<dyn Log>,
    process: Arc<Process>,
    partitions: u16,
}

impl LogSubmit {
    /// Appends to this log, in tasks of this process.
    pub(super) fn new(log: Arc<dyn Log>, process: &Arc<Process>, partitions: u16) -> Self {
        Self { log, process: Arc::clone(process), partitions }
    }
}

impl Submit for LogSubmit {
    fn submit(&self, record: Record, report: Report) {
        let log = Arc::clone(&self.log);
        let partition = partition_of(record.identity.conversation, self.partitions);
        self.process.spawn(async move {
            if planted(Bug::AckBeforeDurable) {
                report.settle(Outcome::Accepted);
                drop(log.append(Topic::Messages, partition, record.encode()).await);
                return;
            }
            report.settle(match log.append(Topic::Messages, partition, record.encode()).await {
                Ok(_) => Outcome::Accepted,
                Err(LogError::Unavailable(_)) => Outcome::Refused(ErrorCode::Unavailable),
                Err(LogError::Unknown) => Outcome::Unknown,
                Err(LogError::Refused(_)) => Outcome::Refused(ErrorCode::TooLarge),
            });
        });
    }
}
