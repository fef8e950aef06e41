//! What waits for a session beside its events: receipts, who is writing, who is there. Pure. Of each only the newest counts, so they wait side by side
//! and replace each other, bounded; holds no memory while there is nothing.

use protocol::frame::Presence;
use protocol::receipt::Receipt;
use protocol::{ConversationId, UserId};

/// Most receipts that wait; when there are more they are read from the store.
const RECEIPTS_MAX: usize = 256;
/// Most conversations of which it waits that somebody is writing there.
const TYPING_MAX: usize = 16;
/// Most users of whom it waits whether they are there: more than anybody may watch, twice.
const PRESENCE_MAX: usize = 2048;

/// Hints to be told.
#[derive(Debug, Default)]
pub struct Hints {
    /// Receipts, one for each member of each conversation.
    pub receipts: Vec<Receipt>,
    /// Who is writing, and where.
    pub typing: Vec<(ConversationId, UserId)>,
    /// Who is there, one for each user.
    pub presence: Vec<(UserId, Presence)>,
    /// Receipts from this revision on did not fit.
    pub missed: Option<u64>,
}

/// Hints as they wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    hints: Option<Box<Hints>>,
    /// The client has everything: it may be told who is writing.
    live: bool,
    /// Receipts are taken as they come.
    open: bool,
    /// The first receipt that was let go, by its revision. Behind it none is taken: what is told has no hole. 0: none was.
    missed: u64,
}

impl Waiting {
    pub(crate) const fn is_empty(&self) -> bool {
        self.hints.is_none()
    }

    /// The client has everything.
    pub(crate) const fn live(&mut self) {
        self.live = true;
    }

    /// A receipt: in the place of an older one of the same member, or only its revision is noted. False: nothing more waits.
    pub(crate) fn receipt(&mut self, receipt: Receipt) -> bool {
        let taken = self.open && self.missed == 0 && self.put(receipt);
        if !taken && (self.missed == 0 || receipt.rev < self.missed) {
            self.missed = receipt.rev;
        }
        taken
    }

    fn put(&mut self, receipt: Receipt) -> bool {
        let receipts = &mut self.hints.get_or_insert_default().receipts;
        let same = |other: &Receipt| other.conversation == receipt.conversation && other.member == receipt.member;
        if let Some(known) = receipts.iter_mut().find(|other| same(other)) {
            *known = receipt;
        } else if receipts.len() < RECEIPTS_MAX {
            receipts.push(receipt);
        } else {
            metrics::counter!("switchboard_drops_total", "what" => "receipt", "why" => "outbox_full").increment(1);
            return false;
        }
        true
    }

    /// Somebody is writing. False: nothing more waits.
    pub(crate) fn typing(&mut self, conversation: ConversationId, from: UserId) -> bool {
        if !self.live {
            return false;
        }
        let typing = &mut self.hints.get_or_insert_default().typing;
        let new = typing.len() < TYPING_MAX && !typing.contains(&(conversation, from));
        if new {
            typing.push((conversation, from));
        }
        new
    }

    /// Whether somebody is there.
    pub(crate) fn presence(&mut self, user: UserId, presence: Presence) {
        let waiting = &mut self.hints.get_or_insert_default().presence;
        if let Some(known) = waiting.iter_mut().find(|(known, _)| *known == user) {
            known.1 = presence;
        } else if waiting.len() < PRESENCE_MAX {
            waiting.push((user, presence));
        } else {
            metrics::counter!("switchboard_drops_total", "what" => "presence", "why" => "outbox_full").increment(1);
        }
    }

    /// What waits of presence belongs to users that are watched no more.
    pub(crate) fn forget_presence(&mut self) {
        if let Some(hints) = &mut self.hints {
            hints.presence = Vec::new();
        }
    }

    /// Receipts are taken from now on, unless one was let go before: then its revision is returned, and they are not.
    pub(crate) const fn open(&mut self) -> Option<u64> {
        let missed = std::mem::replace(&mut self.missed, 0);
        self.open = missed == 0;
        if missed == 0 { None } else { Some(missed) }
    }

    /// Receipts are not taken until [`Self::open`].
    pub(crate) const fn close(&mut self) {
        self.open = false;
    }

    /// Takes what waits. Was a receipt let go while they were taken, they are not any more.
    pub(crate) fn take(&mut self) -> Option<Box<Hints>> {
        if self.open && self.missed != 0 {
            self.hints.get_or_insert_default().missed = self.open();
        }
        self.hints.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Position;
    use protocol::receipt::Marks;

    fn receipt(member: u64, rev: u64) -> Receipt {
        let (one, member) = (UserId::from_stored(1), UserId::from_stored(member));
        let marks = Marks { delivered: Position::from_stored(rev), ..Marks::default() };
        Receipt { conversation: ConversationId::direct(one, member), member, marks, rev }
    }

    fn revs(hints: Option<Box<Hints>>) -> Vec<u64> {
        hints.unwrap_or_default().receipts.iter().map(|receipt| receipt.rev).collect()
    }

    #[test]
    fn nothing_is_held_while_receipts_are_not_taken_but_the_first_revision() {
        let mut waiting = Waiting::default();
        assert!(!waiting.receipt(receipt(2, 7)) && !waiting.receipt(receipt(3, 8)));
        assert!(waiting.is_empty());
        assert!(waiting.take().is_none(), "nobody asked yet");
        assert_eq!(waiting.open(), Some(7));
        assert!(!waiting.receipt(receipt(2, 9)), "it was not opened: read first");
        assert_eq!((waiting.open(), waiting.open()), (Some(9), None));
        assert!(waiting.receipt(receipt(2, 10)));
    }

    #[test]
    fn the_newest_of_a_member_counts_and_an_overflow_lets_all_behind_it_go() {
        let mut waiting = Waiting::default();
        waiting.open();
        for member in 0..RECEIPTS_MAX as u64 {
            assert!(waiting.receipt(receipt(10 + member, 1 + member)));
        }
        assert!(waiting.receipt(receipt(10, 1000)), "a newer one of the same member has room");
        assert!(!waiting.receipt(receipt(5, 1001)));
        assert!(!waiting.receipt(receipt(10, 1002)), "behind a hole not even that");
        let hints = waiting.take();
        let missed = hints.as_ref().and_then(|hints| hints.missed);
        let revs = revs(hints);
        assert_eq!((revs.len(), revs[0], missed), (RECEIPTS_MAX, 1000, Some(1001)));
        assert!(!waiting.receipt(receipt(10, 1003)), "until it is opened again");
        assert_eq!(waiting.open(), Some(1003));
    }

    #[test]
    fn typing_is_told_to_the_living_and_once() {
        let mut waiting = Waiting::default();
        let (conversation, from) = (receipt(2, 1).conversation, UserId::from_stored(2));
        assert!(!waiting.typing(conversation, from) && waiting.is_empty());
        waiting.live();
        assert!(waiting.typing(conversation, from) && !waiting.typing(conversation, from));
        for other in 3..100 {
            waiting.typing(receipt(other, 1).conversation, UserId::from_stored(other));
        }
        assert_eq!(waiting.take().unwrap().typing.len(), TYPING_MAX);
    }

    #[test]
    fn of_presence_the_newest_counts() {
        let mut waiting = Waiting::default();
        let user = UserId::from_stored(2);
        waiting.presence(user, Presence::Online);
        waiting.presence(user, Presence::Offline { last_seen_ms: None });
        assert_eq!(waiting.take().unwrap().presence, [(user, Presence::Offline { last_seen_ms: None })]);
        waiting.presence(user, Presence::Online);
        waiting.forget_presence();
        assert_eq!(waiting.take().unwrap().presence, []);
    }
}
