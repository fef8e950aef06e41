//! What an answer of the lease store means (pure): who lives, who is dead for sure, whether to hold off. Every time is Redis's own, in
//! microseconds; the caller's clock only says for how long there was no answer.

use std::time::Duration;

use tokio::time::Instant;

use super::{Member, View};
use crate::registry::NodeId;

/// A member counts for its roles while it was seen within this.
pub const ROLE_LEASE_US: u64 = 2_000_000;
/// A member's registrations count while it was seen within this.
pub const NODE_LEASE_US: u64 = 10_000_000;
/// Nothing new is taken for this long after the store was empty or away. As long as a role lease: whoever lives has renewed by then.
pub const HOLD_OFF_US: u64 = ROLE_LEASE_US;
/// Without an answer for this long the store counts as unreachable: two renewals.
pub const UNREACHABLE: Duration = Duration::from_secs(1);

/// A member as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it said of itself.
    pub member: Member,
    /// When it renewed last.
    pub seen_us: u64,
    /// When this boot came.
    pub since_us: u64,
}

/// An answer of the lease store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Number of the request; it grows.
    pub request: u64,
    /// The time when it was answered.
    pub now_us: u64,
    /// When the store was last found empty, or set back.
    pub born_us: u64,
    /// This process's renewal before this one; 0: there is none.
    pub before_us: u64,
    /// Everybody, this process included.
    pub members: Vec<Seen>,
    /// Boots that were buried.
    pub buried: Vec<NodeId>,
}

/// What is remembered between answers.
#[derive(Debug)]
pub struct Judge {
    request: u64,
    now_us: u64,
    /// Since when this process has been in contact with the store without a gap.
    contact_us: u64,
    heard_at: Instant,
    view: View,
}

impl Judge {
    /// Before the first answer.
    pub fn new(at: Instant) -> Self {
        Self { request: 0, now_us: 0, contact_us: 0, heard_at: at, view: View::default() }
    }

    /// Redis's time of the last answer; 0 while the store is unreachable or has never answered.
    pub fn heard_us(&self) -> u64 {
        if self.view.unreachable_since.is_some() { 0 } else { self.now_us }
    }

    /// Judges an answer; one that is older than the last changes nothing.
    pub fn heard(&mut self, answer: Answer, at: Instant) -> &View {
        if answer.request <= self.request {
            return &self.view;
        }
        let gap = answer.now_us.saturating_sub(answer.before_us) > ROLE_LEASE_US;
        if gap || answer.now_us < self.now_us {
            self.contact_us = answer.now_us;
        }
        self.request = answer.request;
        self.now_us = answer.now_us;
        self.heard_at = at;
        let calm_us = answer.now_us.saturating_sub(self.contact_us.max(answer.born_us));
        self.view = judge(answer, calm_us, &self.view);
        &self.view
    }

    /// There was no answer. The view freezes as it is; after [`UNREACHABLE`] it says so.
    pub fn missed(&mut self, at: Instant) -> &View {
        let silent = at.saturating_duration_since(self.heard_at) >= UNREACHABLE;
        if silent && self.view.unreachable_since.is_none() {
            self.view.unreachable_since = Some(self.heard_at);
        }
        &self.view
    }
}

/// Whether a member counts for its roles. Who joins a cluster that runs counts when it has been there for as long as it holds off itself, so
/// that the others give up its partitions when it takes them; who comes with a new store counts at once.
fn acts(seen: &Seen, now_us: u64, born_us: u64) -> bool {
    let fresh = now_us.saturating_sub(seen.seen_us) < ROLE_LEASE_US;
    let joined = now_us.saturating_sub(seen.since_us) >= HOLD_OFF_US;
    let with_the_store = seen.since_us.saturating_sub(born_us) < HOLD_OFF_US;
    fresh && (joined || with_the_store)
}

/// `calm_us`: for how long the store has been in order and in contact with us.
fn judge(answer: Answer, calm_us: u64, before: &View) -> View {
    let Answer { now_us, born_us, members: all, buried, .. } = answer;
    let hold_off = calm_us < HOLD_OFF_US;
    let settled = calm_us >= NODE_LEASE_US;
    let followed = |old: &Seen| {
        let later = |new: &Seen| new.since_us > old.since_us && now_us.saturating_sub(new.seen_us) < ROLE_LEASE_US;
        let silent = now_us.saturating_sub(old.seen_us) >= ROLE_LEASE_US;
        silent && all.iter().any(|new| new.member.node.node == old.member.node.node && later(new))
    };
    let mut view = View { hold_off, settled, known: true, ..View::default() };
    for seen in &all {
        let node = seen.member.node;
        let silent_us = now_us.saturating_sub(seen.seen_us);
        if buried.contains(&node) || followed(seen) || (settled && silent_us >= NODE_LEASE_US) {
            view.dead.push(node);
        } else if silent_us < NODE_LEASE_US || hold_off {
            view.members.push(seen.member.clone());
            if acts(seen, now_us, born_us) {
                view.acting.push(node);
                view.reach.extend(seen.member.reach.as_ref().map(|reach| (node, reach.settled(now_us))));
            }
        }
    }
    view.dead.extend(buried);
    view.dead.sort_unstable();
    view.dead.dedup();
    if hold_off {
        keep(&mut view, before);
    }
    view.members.sort_unstable_by_key(|member| member.node);
    view.acting.sort_unstable();
    view.acting.dedup();
    view
}

/// While nothing new is taken, who was there before is there still: it may only not have come back yet.
fn keep(view: &mut View, before: &View) {
    for member in &before.members {
        let gone = view.dead.binary_search(&member.node).is_ok();
        let here = view.members.iter().any(|now| now.node == member.node);
        if !gone && !here {
            view.members.push(member.clone());
        }
    }
    let kept = before.acting.iter().filter(|node| view.members.iter().any(|member| member.node == **node));
    view.acting.extend(kept);
    let said: Vec<_> = view.reach.iter().map(|(node, _)| *node).collect();
    view.reach.extend(before.reach.iter().filter(|(node, _)| !said.contains(node)).cloned());
}

#[cfg(test)]
mod tests;
