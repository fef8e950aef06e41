//! What a broker is told of what we want: pure. A fetch session (KIP-227) lets a request name only what has changed since the one before, so that a
//! fetch of hundreds of partitions costs what came, not what is followed.

use std::collections::BTreeMap;

use super::Next;
use crate::log::kafka::leaders::Key;

/// A fetch session with one broker, as far as it is known to stand.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Its number; 0: there is none.
    id: i32,
    /// The number of the next request in it; 0: the one that begins it.
    epoch: i32,
    /// From where on the broker gives us what.
    known: BTreeMap<Key, Next>,
}

/// A request in terms of the session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: i32,
    pub(super) epoch: i32,
    /// Partitions that are new, or go on from elsewhere.
    pub(super) named: Vec<(Key, Next)>,
    /// Partitions that are wanted no more.
    pub(super) forgotten: Vec<Key>,
}

impl Session {
    /// The request for exactly these partitions from these offsets on.
    pub(super) fn ask(&mut self, wanted: &BTreeMap<Key, Next>) -> Asked {
        let named = wanted.iter().filter(|(key, next)| self.known.get(key) != Some(next)).map(|(key, next)| (*key, *next));
        let named = named.collect();
        let forgotten = self.known.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        self.known.clone_from(wanted);
        Asked { id: self.id, epoch: self.epoch, named, forgotten }
    }

    /// The broker has answered in this session; 0: it keeps none for us.
    pub(super) fn answered(&mut self, id: i32) {
        if self.id == 0 && id == 0 {
            return self.reset();
        }
        self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
        self.id = id;
    }

    /// Nothing is known to stand any more: the next request begins anew.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Topic;
    use proptest::prelude::*;

    const A: Key = (Topic::Mailbox, 1);
    const B: Key = (Topic::Mailbox, 2);

    fn at(offset: u64) -> Next {
        Next { offset, epoch: 1 }
    }

    #[test]
    fn only_changes_are_named() {
        let mut session = Session::default();
        let all = |a, b| BTreeMap::from([(A, at(a)), (B, at(b))]);
        assert_eq!(session.ask(&all(5, 7)), Asked { id: 0, epoch: 0, named: vec![(A, at(5)), (B, at(7))], forgotten: vec![] });
        session.answered(99);
        assert_eq!(session.ask(&all(6, 7)), Asked { id: 99, epoch: 1, named: vec![(A, at(6))], forgotten: vec![] });
        session.answered(99);
        assert_eq!(session.ask(&BTreeMap::from([(B, at(7))])), Asked { id: 99, epoch: 2, named: vec![], forgotten: vec![A] });
        session.reset();
        assert_eq!(session.ask(&all(6, 7)), Asked { id: 0, epoch: 0, named: vec![(A, at(6)), (B, at(7))], forgotten: vec![] });
        session.answered(0);
        assert_eq!(session.ask(&all(6, 7)).named.len(), 2, "a broker without room for sessions is told everything");
    }

    proptest! {
        /// Whatever is asked and lost: what the broker believes we want is what we want.
        #[test]
        fn the_broker_believes_what_we_want(steps in proptest::collection::vec((proptest::collection::btree_map(0..4_u16, 0..3_u64, 0..4), 0..5_u8), 1..30)) {
            let (mut session, mut broker) = (Session::default(), BTreeMap::new());
            for (wanted, luck) in steps {
                let wanted: BTreeMap<Key, Next> = wanted.into_iter().map(|(number, offset)| ((Topic::Mailbox, number), at(offset))).collect();
                let asked = session.ask(&wanted);
                if luck == 0 {
                    session.reset(); // the request was lost
                    continue;
                }
                if asked.id == 0 {
                    broker.clear();
                }
                broker.extend(asked.named);
                asked.forgotten.iter().for_each(|key| { broker.remove(key); });
                prop_assert_eq!(&broker, &wanted);
                session.answered(if luck == 1 && asked.id == 0 { 0 } else { 7 });
            }
        }
    }
}
