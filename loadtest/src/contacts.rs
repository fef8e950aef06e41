//! Whom a user writes to: a few people much, many little (Zipf's law).

use rand::{Rng, RngExt};

use crate::body::mix;
use crate::scenario::Contacts;

/// The contacts of all users of a crew, who are counted from 0.
#[derive(Debug)]
pub struct Book {
    users: u32,
    /// The share of writing that goes to the first k contacts; empty: users come in pairs.
    cumulated: Vec<f64>,
}

impl Book {
    /// The contacts of `users` users, as the scenario says.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of contacts")]
    pub fn new(users: u32, contacts: &Contacts) -> Self {
        let count = contacts.count.min(users.saturating_sub(1) as usize);
        if contacts.count == 1 || count == 0 {
            return Self { users, cumulated: Vec::new() };
        }
        let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-contacts.zipf)).collect();
        let all: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let cumulated = weights.iter().map(|weight| {
            sum += weight / all;
            sum
        });
        Self { users, cumulated: cumulated.collect() }
    }

    /// Draws somebody for `user` to write to: never the user.
    pub fn pick(&self, user: u32, rng: &mut impl Rng) -> u32 {
        if self.cumulated.is_empty() {
            return user ^ 1;
        }
        let draw: f64 = rng.random();
        let rank = self.cumulated.partition_point(|share| *share < draw).min(self.cumulated.len() - 1);
        self.contact(user, rank)
    }

    /// The contact of this rank: the same at every call. Several ranks may be one person.
    fn contact(&self, user: u32, rank: usize) -> u32 {
        let others = u64::from(self.users - 1);
        let step = 1 + mix(u64::from(user) << 32 | rank as u64) % others;
        u32::try_from((u64::from(user) + step) % u64::from(self.users)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn the_first_contact_gets_twice_what_the_second_gets() {
        let book = Book::new(1000, &Contacts { count: 20, zipf: 1.0 });
        let mut rng = StdRng::seed_from_u64(5);
        let (first, second) = (book.contact(7, 0), book.contact(7, 1));
        let picks: Vec<_> = (0..20_000).map(|_| book.pick(7, &mut rng)).collect();
        let count = |who| picks.iter().filter(|pick| **pick == who).count();
        assert!(picks.iter().all(|pick| *pick != 7 && *pick < 1000));
        let (first, second) = (count(first), count(second));
        assert!(first > second * 17 / 10 && first < second * 23 / 10, "{first} and {second}");
    }

    #[test]
    fn one_contact_makes_pairs() {
        let book = Book::new(4, &Contacts { count: 1, zipf: 1.0 });
        let mut rng = StdRng::seed_from_u64(5);
        assert_eq!([0, 1, 2, 3].map(|user| book.pick(user, &mut rng)), [1, 0, 3, 2]);
    }
}
