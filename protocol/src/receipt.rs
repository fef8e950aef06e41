//! How far somebody has come in a conversation: two watermarks, each a position, that only ever rise. So they merge by the larger of each, in
//! any order, however often, and nothing has to be chained or counted.

use crate::id::{ConversationId, Position, UserId};

/// The watermarks of one member of one conversation; position 0 before the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Marks {
    /// The newest message of others that one of the member's devices has stored.
    pub delivered: Position,
    /// Everything up to here was read.
    pub read: Position,
}

impl Marks {
    /// Both taken together: the larger of each.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { delivered: self.delivered.max(other.delivered), read: self.read.max(other.read) }
    }
}

/// A member's watermarks as one mailbox has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// In which conversation.
    pub conversation: ConversationId,
    /// Whose watermarks.
    pub member: UserId,
    /// How far.
    pub marks: Marks,
    /// Which change of this mailbox's receipts it is: (epoch, offset) of the change, as in a [`Position`]. It only orders them.
    pub rev: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks() -> impl Strategy<Value = Marks> {
        let position = || any::<u64>().prop_map(Position::from_stored);
        (position(), position()).prop_map(|(delivered, read)| Marks { delivered, read })
    }

    proptest! {
        #[test]
        fn any_order_and_any_repeats_come_to_the_same(said in proptest::collection::vec(marks(), 1..12), order in any::<u64>()) {
            let straight = said.iter().fold(Marks::default(), |sum, one| sum.merge(*one));
            let mut other = [said.clone(), said.clone()].concat();
            other.rotate_left(order as usize % said.len());
            other.reverse();
            prop_assert_eq!(other.iter().fold(Marks::default(), |sum, one| sum.merge(*one)), straight);
            for one in said {
                prop_assert_eq!(straight.merge(one), straight, "nothing goes back");
            }
        }
    }
}
