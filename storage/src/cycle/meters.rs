//! What the cycle counts. Handles are made once. What senders are told is counted where it is told, in the gateway.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// The cycle's metrics.
pub(super) struct Meters {
    pub(super) depth: Gauge,
    pub(super) records: Histogram,
    /// From `submit` to the start of its batch.
    pub(super) queue: Histogram,
    /// Expansion, look-ups and sequencing.
    pub(super) sequence: Histogram,
    /// The whole commit: encoding, then the stage `fsync`, which the store records (journal, fsync, memtables).
    pub(super) commit: Histogram,
    /// Registry look-up, push and reports.
    pub(super) deliver: Histogram,
    pub(super) repeats: Counter,
    /// Marks that were worked in, and receipts that they changed.
    pub(super) marks: Counter,
    pub(super) marks_lost: Counter,
    pub(super) receipts: Counter,
    /// Commits that had nothing but receipts: what they cost in fsyncs.
    pub(super) mark_commits: Counter,
    pub(super) lookups_failed: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        let stage = |stage: &'static str| histogram!("switchboard_stage_seconds", "stage" => stage);
        Self {
            depth: gauge!("switchboard_cycle_queue_depth"),
            records: histogram!("switchboard_cycle_batch_records"),
            queue: stage("queue"),
            sequence: stage("sequence"),
            commit: stage("commit"),
            deliver: stage("deliver"),
            repeats: counter!("switchboard_repeats_total"),
            marks: counter!("switchboard_marks_total"),
            marks_lost: counter!("switchboard_drops_total", "what" => "mark", "why" => "store"),
            receipts: counter!("switchboard_receipts_changed_total"),
            mark_commits: counter!("switchboard_receipt_commits_total"),
            lookups_failed: counter!("switchboard_registry_errors_total"),
        }
    }
}
