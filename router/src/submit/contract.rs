//! What every implementation of [`Submit`] promises: run by the embedded cycle's tests, and by Kafka's when it comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::record::{Content, Identity, Record};
use protocol::{ConversationId, MessageId, UserId};
use tokio::sync::Notify;

use super::{Outcome, Report, ReportSink, Submit};

/// Longer than any implementation may take to report.
const PATIENCE: Duration = Duration::from_secs(60);

/// Collects reports by ticket.
#[derive(Debug, Default)]
struct Reports {
    by_ticket: Mutex<BTreeMap<u64, Vec<Outcome>>>,
    came: Notify,
}

impl ReportSink for Reports {
    fn settled(&self, ticket: u64, outcome: Outcome) {
        self.by_ticket.lock().entry(ticket).or_default().push(outcome);
        self.came.notify_one();
    }
}

impl Reports {
    async fn all(&self, count: usize) -> BTreeMap<u64, Vec<Outcome>> {
        let all = async {
            while self.by_ticket.lock().len() < count {
                self.came.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("every attempt is reported");
        self.by_ticket.lock().clone()
    }
}

/// A record from user 1 to user 2 under a numbered id.
pub fn record(id: u64, text: &str) -> Record {
    let mut bytes = [0x70; 16];
    bytes[8..].copy_from_slice(&id.to_be_bytes());
    let user = UserId::from_stored;
    let id = MessageId::from_stored(&bytes).expect("16 bytes");
    let identity = Identity { sender: user(1), conversation: ConversationId::direct(user(1), user(2)), id };
    Record { identity, content: Content::Text(text.to_owned()), reply_to: None, at_ms: 0 }
}

/// Runs the suite. `make` gives a working implementation that takes at least 1,000 attempts at once.
///
/// # Panics
/// When a promise is broken.
pub async fn run(make: impl AsyncFn() -> Arc<dyn Submit>) {
    every_attempt_is_reported_exactly_once(make().await).await;
    a_repeat_is_accepted_again(make().await).await;
    a_report_nobody_gives_says_unknown().await;
}

async fn every_attempt_is_reported_exactly_once(submit: Arc<dyn Submit>) {
    const ATTEMPTS: u64 = 1000;
    let reports = Arc::new(Reports::default());
    for ticket in 0..ATTEMPTS {
        submit.submit(record(ticket, "once"), Report::new(Arc::clone(&reports) as _, ticket));
    }
    let settled = reports.all(1000).await;
    assert!(settled.values().all(|outcomes| *outcomes == [Outcome::Accepted]), "accepted, once each");
    assert_eq!(settled.len() as u64, ATTEMPTS, "and each under its own ticket");
}

async fn a_repeat_is_accepted_again(submit: Arc<dyn Submit>) {
    let reports = Arc::new(Reports::default());
    for ticket in 0..3 {
        submit.submit(record(7, "the same"), Report::new(Arc::clone(&reports) as _, ticket));
    }
    let settled = reports.all(3).await;
    assert!(settled.values().all(|outcomes| *outcomes == [Outcome::Accepted]), "a retry is answered like the first");
}

async fn a_report_nobody_gives_says_unknown() {
    let reports = Arc::new(Reports::default());
    drop(Report::new(Arc::clone(&reports) as _, 1));
    assert_eq!(reports.all(1).await[&1], [Outcome::Unknown], "silence is no answer");
}
