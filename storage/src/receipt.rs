//! Receipts: how far each member of a conversation has come, as the mailboxes of that conversation have it. They are no events: watermarks that
//! merge by the larger, so a mark may come late, twice or in any order. Pure; the port by which gateways hand marks over is [`TakeMarks`].
//!
//! For each owner of a conversation there is one row a member. What a member has read goes to all owners (their own other devices among them),
//! what was delivered only to the others: nobody needs a tick on what was sent to oneself. A change gets one revision, the place at which it
//! was made in the shard's log; rows that a mark does not raise are not touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::receipt::{Marks, Receipt};
use protocol::{ConversationId, Seq, UserId};
use router::expand::owners;

/// What a member has done, on its way into the mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A member has come so far in a conversation.
    Marks {
        /// Who.
        member: UserId,
        /// Where.
        conversation: ConversationId,
        /// How far.
        marks: Marks,
    },
    /// What was delivered to a member up to this seq of the own mailbox is told by the marks handed over before.
    Through {
        /// Whose mailbox.
        member: UserId,
        /// Up to where.
        seq: Seq,
    },
}

/// The port by which a gateway makes marks durable: the embedded commit cycle.
pub trait TakeMarks: Send + Sync + 'static {
    /// Takes marks, in this order. Never blocks. Returns those it has no room for: they may be handed over again at any time.
    fn take_marks(&self, marks: Vec<Mark>) -> Vec<Mark>;
}

/// Where receipts are not kept: marks are taken, counted and forgotten.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotKept;

impl TakeMarks for NotKept {
    fn take_marks(&self, marks: Vec<Mark>) -> Vec<Mark> {
        metrics::counter!("switchboard_drops_total", "what" => "mark", "why" => "not_kept").increment(marks.len() as u64);
        Vec::new()
    }
}

/// Names a row: whose watermarks in whose mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiptKey {
    /// Whose mailbox.
    pub owner: UserId,
    /// In which conversation.
    pub conversation: ConversationId,
    /// Whose watermarks.
    pub member: UserId,
}

/// A row that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptRow {
    /// Whose mailbox.
    pub owner: UserId,
    /// The row as it is now.
    pub receipt: Receipt,
}

/// What to write for a batch of marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raised {
    /// Rows that change.
    pub rows: Vec<ReceiptRow>,
    /// Of whose mailboxes everything delivered up to a seq is told.
    pub through: Vec<(UserId, Seq)>,
    /// Revisions that were used.
    pub revisions: u64,
}

/// Rows that must be known before [`raise`], each once.
pub fn keys_of(marks: &[Mark]) -> Vec<ReceiptKey> {
    let mut keys = BTreeSet::new();
    for mark in marks {
        if let Mark::Marks { member, conversation, .. } = *mark {
            keys.extend(owners(conversation).into_iter().map(|owner| ReceiptKey { owner, conversation, member }));
        }
    }
    keys.into_iter().collect()
}

/// What marks change. `known` holds every stored row of [`keys_of`]; `rev` makes the revision of the n-th change.
pub fn raise(marks: &[Mark], known: &HashMap<ReceiptKey, Marks>, rev: impl Fn(u64) -> u64) -> Raised {
    let mut said: BTreeMap<(ConversationId, UserId), Marks> = BTreeMap::new();
    let mut through: BTreeMap<UserId, Seq> = BTreeMap::new();
    for mark in marks {
        match *mark {
            Mark::Marks { member, conversation, marks } => {
                let so_far = said.entry((conversation, member)).or_default();
                *so_far = so_far.merge(marks);
            }
            Mark::Through { member, seq } => {
                let so_far = through.entry(member).or_default();
                *so_far = seq.max(*so_far);
            }
        }
    }
    let mut raised = Raised { through: through.into_iter().collect(), ..Raised::default() };
    for ((conversation, member), said) in said {
        let next = rev(raised.revisions);
        let before = raised.rows.len();
        for owner in owners(conversation) {
            let was = known.get(&ReceiptKey { owner, conversation, member }).copied().unwrap_or_default();
            let marks = was.merge(said);
            // a member needs to know what was read on another device, and no ticks of the own
            let matters = if owner == member { marks.read > was.read } else { marks != was };
            if matters {
                raised.rows.push(ReceiptRow { owner, receipt: Receipt { conversation, member, marks, rev: next } });
            }
        }
        raised.revisions += u64::from(raised.rows.len() > before);
    }
    raised
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::Position;

    fn user(number: u64) -> UserId {
        UserId::from_stored(number)
    }

    fn said(member: u64, other: u64, delivered: u64, read: u64) -> Mark {
        let marks = Marks { delivered: Position::from_stored(delivered), read: Position::from_stored(read) };
        Mark::Marks { member: user(member), conversation: ConversationId::direct(user(member), user(other)), marks }
    }

    /// Rows as a store has them.
    type Stored = HashMap<ReceiptKey, (Marks, u64)>;

    /// Works batches in as the cycle does.
    fn work_in<'a>(batches: impl IntoIterator<Item = &'a [Mark]>) -> Stored {
        let (mut stored, mut next) = (Stored::new(), 100);
        for batch in batches {
            let known = keys_of(batch).into_iter().filter_map(|key| Some((key, stored.get(&key)?.0))).collect();
            let raised = raise(batch, &known, |nth| next + nth);
            for ReceiptRow { owner, receipt: Receipt { conversation, member, marks, rev } } in raised.rows {
                assert!(rev >= next && rev < next + raised.revisions);
                let before = stored.insert(ReceiptKey { owner, conversation, member }, (marks, rev));
                assert!(before.is_none_or(|(was, then)| was.merge(marks) == marks && was != marks && then < rev));
            }
            next += raised.revisions;
        }
        stored
    }

    fn watermarks(stored: &Stored) -> BTreeMap<ReceiptKey, Marks> {
        // of one's own deliveries a row only knows what it knew at the last read
        let own = |key: &ReceiptKey, marks: Marks| {
            if key.owner == key.member { Marks { read: marks.read, ..Marks::default() } } else { marks }
        };
        stored.iter().map(|(key, (marks, _))| (*key, own(key, *marks))).collect()
    }

    proptest! {
        #[test]
        fn any_order_any_batches_and_any_repeats_end_alike(
            marks in proptest::collection::vec((1..4_u64, 1..4_u64, 0..50_u64, 0..50_u64), 1..40),
            cuts in proptest::collection::vec(1..7_usize, 1..10),
            seed in any::<usize>(),
        ) {
            let marks: Vec<_> = marks.into_iter().map(|(member, other, delivered, read)| said(member, other, delivered, read)).collect();
            let straight = work_in([&marks[..]]);
            let mut twice = [marks.clone(), marks].concat();
            let length = twice.len();
            twice.rotate_left(seed % length);
            for at in 0..length {
                twice.swap(at, (at * 7 + seed) % length);
            }
            let (mut rest, mut batches) = (&twice[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (batch, behind) = rest.split_at((*cut).min(rest.len()));
                batches.push(batch);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(watermarks(&work_in(batches)), watermarks(&straight));
        }
    }

    #[test]
    fn a_delivery_is_told_to_the_other_and_a_read_to_both() {
        let raised = raise(&[said(2, 1, 7, 0)], &HashMap::new(), |nth| 10 + nth);
        assert_eq!(raised.rows.iter().map(|row| row.owner).collect::<Vec<_>>(), [user(1)]);
        let raised = raise(&[said(2, 1, 7, 5), Mark::Through { member: user(2), seq: 3 }], &HashMap::new(), |nth| 10 + nth);
        assert_eq!(
            raised.rows.iter().map(|row| (row.owner, row.receipt.rev)).collect::<Vec<_>>(),
            [(user(1), 10), (user(2), 10)]
        );
        assert_eq!((raised.revisions, raised.through), (1, vec![(user(2), 3)]));
    }

    #[test]
    fn what_is_known_already_changes_nothing_and_uses_no_revision() {
        let mark = said(2, 1, 7, 5);
        let Mark::Marks { marks, .. } = mark else { panic!("marks") };
        let known = keys_of(&[mark]).into_iter().map(|key| (key, marks)).collect();
        let raised = raise(&[mark, said(2, 1, 3, 0), said(3, 1, 1, 0)], &known, |nth| 10 + nth);
        assert_eq!(raised.rows.iter().map(|row| (row.receipt.member, row.receipt.rev)).collect::<Vec<_>>(), [(user(3), 10)]);
    }

    #[test]
    fn a_chat_with_oneself_has_a_read_position_and_no_ticks() {
        assert_eq!(raise(&[said(2, 2, 7, 0)], &HashMap::new(), |nth| nth).rows, []);
        assert_eq!(raise(&[said(2, 2, 0, 7)], &HashMap::new(), |nth| nth).rows.len(), 1);
    }
}
