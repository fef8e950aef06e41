//! One turn of the cycle: expand, sequence, commit, look up, push, report. In this order; each step's reason is the one before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use protocol::plant::{Bug, planted};
use protocol::receipt::Marks;
use protocol::{ErrorCode, Position, UserId};
use router::expand::{ShardId, Shards, expand};
use router::registry::{NodeId, Nodes, Registry};
use router::submit::{Outcome, Report};
use tokio::runtime::Handle;

use super::meters::Meters;
use super::queue::Waiting;
use crate::push::{Deliver, Push, ReceiptPush, Wake};
use crate::receipt::{self, Mark, Raised, ReceiptKey, ReceiptRow};
use crate::sequence::{self, Arrival, Placed, Plan};
use crate::store::embedded::EmbeddedStore;
use crate::store::{Checkpoint, Commit, StoreError};

/// The only shard there is.
pub(super) const SHARD: ShardId = ShardId(0);

/// Why the cycle cannot go on. Its process is about to end.
pub(super) struct Stopped;

/// What the cycle's thread owns.
pub(super) struct Worker {
    pub(super) store: Arc<EmbeddedStore>,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) deliver: Arc<dyn Deliver>,
    pub(super) runtime: Handle,
    pub(super) checkpoint: Checkpoint,
    pub(super) stream_epoch: u64,
    pub(super) log_epoch: u16,
    pub(super) meters: Meters,
}

impl Worker {
    /// Takes one batch all the way. Marks that cannot be worked in stay where they are, before those that come with the next batch.
    pub(super) fn turn(&mut self, batch: &mut Vec<Waiting>, marks: &mut Vec<Mark>) -> Result<(), Stopped> {
        let start = Instant::now();
        if !batch.is_empty() {
            self.meters.records.record(batch.len() as f64);
        }
        let (arrivals, mut reports) = self.arrivals(batch, start);
        let mut plan = match self.sequence(arrivals) {
            Ok(plan) => plan,
            // nothing was written, so this refusal is true
            Err(error) => {
                tracing::error!(%error, "the store cannot be read; sends are refused");
                refuse(reports);
                return Ok(());
            }
        };
        let mut raised = self.raise(marks, plan.placed.len() as u64);
        let early = planted(Bug::LookUpBeforeCommit).then(|| self.look_up(plan.rows.iter().map(|row| row.owner).collect()));
        if planted(Bug::AckBeforeDurable) {
            self.settle(&plan.placed, std::mem::take(&mut reports));
        }
        let sequenced = Instant::now();
        self.meters.sequence.record(sequenced - start);
        self.commit(&mut plan, &mut raised)?;
        let committed = Instant::now();
        self.meters.commit.record(committed - sequenced);
        // Commit, then look up: whoever registers after this reads what has been committed
        let nodes = early.unwrap_or_else(|| self.look_up(plan.rows.iter().map(|row| row.owner).collect()));
        let woken = self.push(&mut plan, nodes);
        let told = self.push_receipts(&raised.rows);
        self.settle(&plan.placed, reports);
        // connections wake now, once, for their events and their reports
        drop((woken, told));
        self.meters.deliver.record(committed.elapsed());
        Ok(())
    }

    /// Gives each attempt its position and its recipients.
    fn arrivals(&self, batch: &mut Vec<Waiting>, now: Instant) -> (Vec<Arrival>, Vec<Report>) {
        let mut arrivals = Vec::with_capacity(batch.len());
        let mut reports = Vec::with_capacity(batch.len());
        for (offset, waiting) in (self.checkpoint.offset..).zip(batch.drain(..)) {
            self.meters.queue.record(now.saturating_duration_since(waiting.since));
            let position = Position::new(self.log_epoch, offset);
            let mut verdicts = expand(&waiting.record, Shards::ONE);
            debug_assert_eq!(verdicts.len(), 1, "one shard, one verdict");
            arrivals.extend(verdicts.pop().map(|(_, verdict)| Arrival::new(position, verdict)));
            reports.push(waiting.report);
        }
        (arrivals, reports)
    }

    fn sequence(&self, arrivals: Vec<Arrival>) -> Result<Plan, StoreError> {
        let mut known = HashMap::with_capacity(arrivals.len() * 3);
        let look_for = |keys: Vec<_>, known: &mut HashMap<_, _>| -> Result<(), StoreError> {
            let rows = if keys.is_empty() { Vec::new() } else { self.store.keys_blocking(&keys)? };
            known.extend(keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))));
            Ok(())
        };
        look_for(sequence::keys_of(&arrivals), &mut known)?;
        look_for(sequence::refusal_keys_of(&arrivals, &known), &mut known)?;
        let owners = sequence::owners_of(&arrivals);
        let mut heads = HashMap::with_capacity(owners.len());
        for owner in owners {
            heads.insert(owner, self.store.head_blocking(owner)?);
        }
        Ok(sequence::plan(arrivals, &mut known, &mut heads))
    }

    /// What the marks change. Their revisions are the places behind those of the batch's attempts.
    fn raise(&self, marks: &mut Vec<Mark>, attempts: u64) -> Raised {
        if marks.is_empty() {
            return Raised::default();
        }
        let before = marks.len();
        let known = rows_of(marks, |keys| self.store.receipts_blocking(keys));
        let lost = before - marks.len();
        if lost > 0 {
            tracing::error!(marks = lost, "rows of receipts are damaged; their marks are dropped");
            self.meters.marks_lost.increment(lost as u64);
        }
        match known {
            Ok(known) => {
                let marks = std::mem::take(marks);
                self.meters.marks.increment(marks.len() as u64);
                let first = self.checkpoint.offset + attempts;
                receipt::raise(&marks, &known, |nth| Position::new(self.log_epoch, first + nth).get())
            }
            // not dropped: a later `Through` of the same member would say that what they told was told
            Err(error) => {
                tracing::error!(%error, marks = marks.len(), "receipts cannot be read; marks wait for the next batch");
                Raised::default()
            }
        }
    }

    /// Makes the plan durable, and the receipts with it. A plan that changes nothing (only repeats) is durable already.
    fn commit(&mut self, plan: &mut Plan, raised: &mut Raised) -> Result<(), Stopped> {
        let receipts_only = plan.rows.is_empty() && plan.keys.is_empty();
        if receipts_only && raised.rows.is_empty() && raised.through.is_empty() {
            return Ok(());
        }
        if receipts_only {
            self.meters.mark_commits.increment(1);
        }
        self.meters.receipts.increment(raised.rows.len() as u64);
        let commit = Commit {
            expect: self.checkpoint,
            next_offset: self.checkpoint.offset + plan.placed.len() as u64 + raised.revisions,
            fingerprint: 0,
            rows: std::mem::take(&mut plan.rows),
            keys: std::mem::take(&mut plan.keys),
            high_waters: Vec::new(),
            receipts: std::mem::take(&mut raised.rows),
            through: std::mem::take(&mut raised.through),
        };
        self.store.commit_blocking(SHARD, &commit).map_err(|error| {
            self.store.fail(&format!("a commit failed: {error}"));
            Stopped
        })?;
        self.checkpoint.offset = commit.next_offset;
        plan.rows = commit.rows;
        raised.rows = commit.receipts;
        Ok(())
    }

    /// Nodes of each owner. Without an answer nobody is told now; the heads heal it.
    fn look_up(&self, owners: Vec<UserId>) -> Vec<Nodes> {
        if owners.is_empty() {
            return Vec::new();
        }
        self.runtime.block_on(self.registry.nodes(&owners)).unwrap_or_else(|error| {
            self.meters.lookups_failed.increment(1);
            tracing::warn!(%error, "the registry did not answer; events wait for the next read");
            vec![Nodes::new(); owners.len()]
        })
    }

    fn push(&self, plan: &mut Plan, nodes: Vec<Nodes>) -> Vec<Box<dyn Wake>> {
        let mut by_node: Vec<(NodeId, Vec<Push>)> = Vec::new();
        for (row, nodes) in plan.rows.drain(..).zip(nodes) {
            for node in nodes {
                let push = Push { owner: row.owner, epoch: self.stream_epoch, event: row.event.clone() };
                match by_node.iter_mut().find(|(known, _)| *known == node) {
                    Some((_, pushes)) => pushes.push(push),
                    None => by_node.push((node, vec![push])),
                }
            }
        }
        by_node.into_iter().map(|(node, pushes)| self.deliver.push(node, pushes)).collect()
    }

    fn push_receipts(&self, rows: &[ReceiptRow]) -> Vec<Box<dyn Wake>> {
        let nodes = self.look_up(rows.iter().map(|row| row.owner).collect());
        let mut by_node: Vec<(NodeId, Vec<ReceiptPush>)> = Vec::new();
        for (row, nodes) in rows.iter().zip(nodes) {
            for node in nodes {
                let push = ReceiptPush { owner: row.owner, epoch: self.stream_epoch, receipt: row.receipt };
                match by_node.iter_mut().find(|(known, _)| *known == node) {
                    Some((_, pushes)) => pushes.push(push),
                    None => by_node.push((node, vec![push])),
                }
            }
        }
        by_node.into_iter().map(|(node, pushes)| self.deliver.receipts(node, pushes)).collect()
    }

    fn settle(&self, placed: &[Placed], reports: Vec<Report>) {
        let mut repeats = 0;
        for (report, placed) in reports.into_iter().zip(placed) {
            let outcome = match placed {
                Placed::New => Outcome::Accepted,
                Placed::Repeat => {
                    repeats += 1;
                    Outcome::Accepted
                }
                Placed::Reused => Outcome::Refused(ErrorCode::IdReused),
            };
            report.settle(outcome);
        }
        self.meters.repeats.increment(repeats);
    }
}

/// The stored rows of these marks. Marks of damaged rows are taken out: such a row stays so, and must not hold all others up for ever.
fn rows_of(
    marks: &mut Vec<Mark>,
    read: impl Fn(&[ReceiptKey]) -> Result<Vec<Option<Marks>>, StoreError>,
) -> Result<HashMap<ReceiptKey, Marks>, StoreError> {
    let all = |marks: &[Mark]| {
        let keys = receipt::keys_of(marks);
        let rows = read(&keys)?;
        Ok(keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))).collect())
    };
    match all(marks) {
        Err(StoreError::Damaged(_)) => {
            marks.retain(|mark| !matches!(read(&receipt::keys_of(std::slice::from_ref(mark))), Err(StoreError::Damaged(_))));
            all(marks)
        }
        read => read,
    }
}

fn refuse(reports: Vec<Report>) {
    for report in reports {
        report.settle(Outcome::Refused(ErrorCode::Unavailable));
    }
}

#[cfg(test)]
mod tests {
    use protocol::ConversationId;

    use super::*;

    fn user(number: u64) -> UserId {
        UserId::new(number).unwrap()
    }

    fn marks() -> Vec<Mark> {
        let marks = Marks { delivered: Position::from_stored(7), read: Position::from_stored(5) };
        let mark = |member, other| Mark::Marks {
            member: user(member),
            conversation: ConversationId::direct(user(member), user(other)),
            marks,
        };
        vec![mark(1, 2), mark(3, 4), Mark::Through { member: user(1), seq: 9 }]
    }

    #[test]
    fn marks_wait_while_the_store_cannot_be_read() {
        let mut waiting = marks();
        let failed = rows_of(&mut waiting, |_| Err(StoreError::Unavailable("input/output error".to_owned())));
        assert!(failed.is_err());
        assert_eq!(waiting, marks(), "with what is said behind them");
        let known = rows_of(&mut waiting, |keys| Ok(vec![Some(Marks::default()); keys.len()])).unwrap();
        assert_eq!((known.len(), waiting), (4, marks()));
    }

    #[test]
    fn a_damaged_row_costs_its_own_marks_only() {
        let mut waiting = marks();
        let damaged = |keys: &[ReceiptKey]| {
            let bad = keys.iter().any(|key| key.member == user(3));
            if bad { Err(StoreError::Damaged("a receipt".to_owned())) } else { Ok(vec![None; keys.len()]) }
        };
        assert!(rows_of(&mut waiting, damaged).unwrap().is_empty());
        let all = marks();
        assert_eq!(waiting, [all[0], all[2]]);
    }
}
