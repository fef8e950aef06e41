//! Where each virtual shard is, as this process knows it. Only a hint: every statement looks at the shard's row itself, and one that does not
//! find it open there has the map read again.

use router::expand::ShardId;

/// One shard as one database says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Which shard.
    pub(super) shard: u16,
    /// Whether it is open there.
    pub(super) open: bool,
    /// Grows with each change of state; the highest counts.
    pub(super) version: u64,
    /// Incarnation of its mailboxes.
    pub(super) stream_epoch: u64,
}

/// Where a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the database.
    pub(super) base: usize,
    version: u64,
    stream_epoch: u64,
}

/// All shards.
#[derive(Debug)]
pub(super) struct Map {
    places: Vec<Option<Place>>,
}

impl Map {
    /// Nothing is known.
    pub(super) fn new(shards: u16) -> Self {
        Self { places: vec![None; shards.into()] }
    }

    pub(super) fn place(&self, shard: ShardId) -> Option<Place> {
        self.places.get(usize::from(shard.0)).copied().flatten()
    }

    /// The last known stream epoch; of a shard never seen the first one.
    pub(super) fn stream_epoch(&self, shard: ShardId) -> u64 {
        self.place(shard).map_or(1, |place| place.stream_epoch)
    }

    /// The shards a database is thought to hold.
    pub(super) fn of(&self, base: usize) -> Vec<ShardId> {
        let held = (0_u16..).zip(&self.places).filter(|(_, place)| place.is_some_and(|place| place.base == base));
        held.map(|(shard, _)| ShardId(shard)).collect()
    }

    /// Shards whose place is unknown.
    pub(super) fn unknown(&self) -> usize {
        self.places.iter().filter(|place| place.is_none()).count()
    }

    /// Takes in what one database says. An older claim than the known one changes nothing: what a database that is away has said stands until
    /// a newer one is heard.
    pub(super) fn learn(&mut self, base: usize, claims: &[Claim]) {
        for claim in claims.iter().filter(|claim| claim.open) {
            let Some(place) = self.places.get_mut(usize::from(claim.shard)) else { continue };
            match place {
                Some(known) if known.version > claim.version => {}
                Some(known) if known.version == claim.version && known.base != base => {
                    tracing::error!(
                        shard = claim.shard,
                        "two databases say that they hold this shard: a copy was restored beside it"
                    );
                }
                _ => *place = Some(Place { base, version: claim.version, stream_epoch: claim.stream_epoch }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_claim_counts_in_whatever_order() {
        let claim = |version, open| Claim { shard: 1, open, version, stream_epoch: version };
        for order in [[(0, 1), (1, 3)], [(1, 3), (0, 1)]] {
            let mut map = Map::new(2);
            order.into_iter().for_each(|(base, version)| map.learn(base, &[claim(version, true)]));
            assert_eq!(map.place(ShardId(1)).unwrap().base, 1);
            map.learn(0, &[claim(4, false)]);
            assert_eq!(map.stream_epoch(ShardId(1)), 3, "one that is not open is no place");
            assert_eq!((map.of(1), map.of(0), map.unknown()), (vec![ShardId(1)], vec![], 1));
        }
        let mut map = Map::new(1);
        map.learn(0, &[claim(1, true)]);
        assert_eq!(map.place(ShardId(1)), None, "a shard beyond the last");
    }
}
