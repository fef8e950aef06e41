//! Who works on which partition (pure): of the live members of a role, for each partition those count that reach what it needs: the log, and for a
//! virtual shard the database that serves it (`router::members::reach`).

use std::collections::BTreeMap;

use router::assign::{Kind, owner_of};
use router::expand::ShardId;
use router::members::{Role as Lease, View};
use router::registry::NodeId;

/// The log, in what members say they reach.
pub(super) const LOG: &str = "log";

/// A database, in what members say they reach.
pub(super) fn database(name: &str) -> String {
    format!("database {name}")
}

/// Whose role it is.
pub(super) const fn lease_of(kind: Kind) -> Lease {
    match kind {
        Kind::Messages => Lease::Router,
        Kind::Mailbox => Lease::Storage,
    }
}

/// The owner of each of `count` partitions of a kind, by what all members say now; absent: nobody has the role. `held`: the shards that each database
/// is thought to serve; a shard that is nowhere there needs what all need.
pub(super) fn owners(view: &View, kind: Kind, count: u16, held: &[(String, Vec<ShardId>)]) -> BTreeMap<u16, NodeId> {
    let mut owners = BTreeMap::new();
    let mut own = |partition: u16, able: &[NodeId]| {
        if let Some(owner) = owner_of(kind, partition, able) {
            owners.entry(partition).or_insert(owner);
        }
    };
    if kind == Kind::Mailbox {
        for (name, shards) in held {
            let able = view.able(lease_of(kind), &[LOG, &database(name)]);
            shards.iter().filter(|ShardId(shard)| *shard < count).for_each(|ShardId(shard)| own(*shard, &able));
        }
    }
    let able = view.able(lease_of(kind), &[LOG]);
    (0..count).for_each(|partition| own(partition, &able));
    owners
}

#[cfg(test)]
mod tests {
    use router::members::lease::{Answer, Judge, Seen};
    use router::members::reach::Observer;
    use router::members::{Member, Roles, Troubles};
    use tokio::time::Instant;

    use super::*;

    const S: u64 = 1_000_000;
    const HELD: u16 = 10;

    fn member(number: u16, reaches: &[(&str, bool)]) -> Seen {
        let parts: Vec<_> = reaches.iter().map(|(name, there)| ((*name).to_owned(), *there)).collect();
        let node = NodeId { node: number, boot: u64::from(number) };
        let reach = Some(Observer::default().look(&parts, Instant::now(), S));
        let (name, version, address, troubles) = (String::new(), String::new(), None, Troubles::default());
        let member = Member { node, name, roles: Roles::ALL, address, version, started_ms: 0, troubles, reach };
        Seen { member, seen_us: 100 * S, since_us: S }
    }

    fn view(members: Vec<Seen>) -> View {
        let (now_us, born_us, before_us) = (100 * S, S, 100 * S - S / 2);
        Judge::new(Instant::now())
            .heard(Answer { request: 1, now_us, born_us, before_us, members, buried: vec![] }, Instant::now())
            .clone()
    }

    /// Shards 0 to 9 in a, 10 to 19 in b; of 20 to 23 nobody has said here where they are.
    fn held() -> Vec<(String, Vec<ShardId>)> {
        vec![("a".to_owned(), (0..HELD).map(ShardId).collect()), ("b".to_owned(), (HELD..20).map(ShardId).collect())]
    }

    #[test]
    fn a_database_that_one_does_not_reach_moves_its_shards_and_no_others() {
        let all = [("log", true), ("database a", true), ("database b", true)];
        let before = owners(&view(vec![member(1, &all), member(2, &all)]), Kind::Mailbox, 24, &held());
        assert_eq!(before.len(), 24);
        assert!(before.values().any(|owner| owner.node == 1) && before.values().any(|owner| owner.node == 2));
        let cut = [("log", true), ("database a", false), ("database b", true)];
        let view = view(vec![member(1, &all), member(2, &cut)]);
        let after = owners(&view, Kind::Mailbox, 24, &held());
        assert!((0..HELD).all(|shard| after[&shard].node == 1), "{after:?}");
        assert!((HELD..24).all(|shard| after[&shard] == before[&shard]), "the others stay");
        let routers = owners(&view, Kind::Messages, 12, &held());
        assert!(routers.values().any(|owner| owner.node == 2), "routing needs no database");
    }

    #[test]
    fn what_nobody_reaches_stays_where_it_is() {
        let all = [("log", true), ("database a", true), ("database b", true)];
        let cut = [("log", false), ("database a", false), ("database b", false)];
        let before = owners(&view(vec![member(1, &all), member(2, &all)]), Kind::Mailbox, 24, &held());
        assert_eq!(owners(&view(vec![member(1, &cut), member(2, &cut)]), Kind::Mailbox, 24, &held()), before);
        assert!(owners(&View::default(), Kind::Mailbox, 24, &held()).is_empty(), "nobody has the role");
    }
}
