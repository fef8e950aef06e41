//! The chain from one source partition to each virtual shard: pure. Each mailbox record names the link before it, so storage knows a repeat
//! from a new record, and a hole from the end; whoever sends it, and however often.
//!
//! A link's digest is XXH3-64 over these bytes, which no build may change: the previous digest and the source offset (each 8 bytes, little
//! endian), one byte for the verdict (0 deliver, 1 refuse) and, for a refusal, the wire name of its code and a zero byte; then the owners of
//! this shard ascending, 8 bytes each, little endian. What the message says is not in it: the offset stands for that.

use std::collections::BTreeMap;

use protocol::UserId;
use protocol::plant::{Bug, planted};
use protocol::record::{Link, MailboxRecord, Source, Verdict};
use xxhash_rust::xxh3::Xxh3Default;

use crate::expand::ShardId;

/// Version of the rules by which records are expanded and linked. Another one begins by a control record, never by a build.
pub const RULES: u32 = 1;

/// The digest of the link behind `previous` for this verdict about the record at `offset`.
pub fn digest(previous: u64, offset: u64, verdict: &Verdict) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(&previous.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    match verdict {
        Verdict::Deliver(_, owners) => {
            hasher.update(&[0]);
            for owner in ascending(owners).iter() {
                hasher.update(&owner.get().to_le_bytes());
            }
        }
        Verdict::Refuse(refusal) => {
            hasher.update(&[1]);
            hasher.update(refusal.code.name().as_bytes());
            hasher.update(&[0]);
            hasher.update(&refusal.identity.sender.get().to_le_bytes());
        }
    }
    hasher.digest()
}

/// They come ascending; a digest must not depend on it.
fn ascending(owners: &[UserId]) -> std::borrow::Cow<'_, [UserId]> {
    if owners.is_sorted() {
        return owners.into();
    }
    let mut owners = owners.to_vec();
    owners.sort_unstable();
    owners.into()
}

/// The link behind `previous` for this verdict about the record at `offset`.
pub fn link(previous: Link, offset: u64, verdict: &Verdict) -> Link {
    Link { next_offset: offset + 1, digest: digest(previous.digest, offset, verdict) }
}

/// The router's side: the newest link to each virtual shard, as of a place in the source partition. Bounded by the number of shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    links: BTreeMap<ShardId, Link>,
}

impl Chain {
    /// The newest link to a shard; all zero before the first.
    pub fn at(&self, shard: ShardId) -> Link {
        self.links.get(&shard).copied().unwrap_or_default()
    }

    /// Every link there is, ascending by shard.
    pub fn links(&self) -> impl Iterator<Item = (ShardId, Link)> + '_ {
        self.links.iter().map(|(shard, link)| (*shard, *link))
    }

    /// Takes this as the newest link to a shard.
    pub fn set(&mut self, shard: ShardId, link: Link) {
        self.links.insert(shard, link);
    }

    /// Links a verdict about the record at `offset` behind what went to this shard before.
    pub fn extend(&mut self, source: Source, offset: u64, (shard, verdict): (ShardId, Verdict)) -> MailboxRecord {
        let previous = self.at(shard);
        let link = link(previous, offset, &verdict);
        self.set(shard, link);
        MailboxRecord { source, link, previous, verdict }
    }
}

impl FromIterator<(ShardId, Link)> for Chain {
    fn from_iter<I: IntoIterator<Item = (ShardId, Link)>>(links: I) -> Self {
        Self { links: links.into_iter().collect() }
    }
}

/// What storage does with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is the next link: take it.
    Take,
    /// It was taken before: skip it.
    Repeat,
    /// It is not what was taken before, or not what its own digest says: this source stands until a person rewinds it.
    WrongDigest,
    /// Something before it is missing: drop it and ask its source to rewind to here.
    Hole {
        /// The last link taken.
        high_water: Link,
    },
}

/// Judges a record against the last link taken from its source.
pub fn judge(high_water: Link, record: &MailboxRecord) -> Judgement {
    let (link, previous) = (record.link, record.previous);
    let Some(offset) = link.next_offset.checked_sub(1) else { return Judgement::WrongDigest };
    if link.next_offset <= previous.next_offset || digest(previous.digest, offset, &record.verdict) != link.digest {
        return Judgement::WrongDigest;
    }
    if link.next_offset < high_water.next_offset || link == high_water {
        return Judgement::Repeat;
    }
    if previous == high_water {
        return Judgement::Take;
    }
    if previous.next_offset > high_water.next_offset {
        if planted(Bug::HoleSteppedOver) {
            return Judgement::Take;
        }
        return Judgement::Hole { high_water };
    }
    // it says that something else stood at or before the place that was taken
    Judgement::WrongDigest
}

/// Storage's side: the last link taken from each source. Bounded by the number of source partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HighWaters {
    taken: BTreeMap<Source, Link>,
}

impl HighWaters {
    /// The last link taken from a source; all zero before the first.
    pub fn at(&self, source: Source) -> Link {
        self.taken.get(&source).copied().unwrap_or_default()
    }

    /// Judges a record, and moves on when it is taken.
    pub fn judge(&mut self, record: &MailboxRecord) -> Judgement {
        let judgement = judge(self.at(record.source), record);
        if judgement == Judgement::Take {
            self.taken.insert(record.source, record.link);
        }
        judgement
    }
}

impl FromIterator<(Source, Link)> for HighWaters {
    fn from_iter<I: IntoIterator<Item = (Source, Link)>>(links: I) -> Self {
        Self { taken: links.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::record::{BodyHash, Content, Identity, Record, Refusal};
    use protocol::{ConversationId, ErrorCode, MessageId, Position};

    const SOURCE: Source = Source { partition: 3, epoch: 1 };
    const SHARD: ShardId = ShardId(5);

    fn user(number: u64) -> UserId {
        UserId::from_stored(number)
    }

    fn verdict(owners: &[u64]) -> Verdict {
        let identity = Identity {
            sender: user(1),
            conversation: ConversationId::direct(user(1), user(2)),
            id: MessageId::from_stored(&[7; 16]).unwrap(),
        };
        let record = Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 0 };
        Verdict::Deliver(record, owners.iter().map(|owner| user(*owner)).collect())
    }

    /// What a router sends to one shard for records at these offsets.
    fn emitted(offsets: impl IntoIterator<Item = u64>) -> Vec<MailboxRecord> {
        let mut chain = Chain::default();
        offsets.into_iter().map(|offset| chain.extend(SOURCE, offset, (SHARD, verdict(&[1 + offset % 3, 9])))).collect()
    }

    #[test]
    fn digests_are_stable_across_builds() {
        assert_eq!(digest(0, 0, &verdict(&[1, 2])), 0xa796_19a4_541b_5f43);
        assert_eq!(digest(0, 0, &verdict(&[2, 1])), digest(0, 0, &verdict(&[1, 2])));
        let Verdict::Deliver(record, _) = verdict(&[]) else { panic!("made so") };
        let refusal = Refusal {
            identity: record.identity,
            position: Position::new(1, 4),
            body_hash: BodyHash(0),
            code: ErrorCode::Forbidden,
            at_ms: 0,
        };
        assert_eq!(digest(7, 4, &Verdict::Refuse(refusal)), 0xd7c5_9051_e5e8_cccd);
    }

    #[test]
    fn another_verdict_at_the_same_offset_is_a_wrong_digest() {
        let mut high_waters = HighWaters::default();
        let mut chain = Chain::default();
        assert_eq!(high_waters.judge(&chain.clone().extend(SOURCE, 4, (SHARD, verdict(&[1])))), Judgement::Take);
        let fork = chain.extend(SOURCE, 4, (SHARD, verdict(&[2])));
        assert_eq!(high_waters.judge(&fork), Judgement::WrongDigest);
        assert_eq!(high_waters.judge(&chain.extend(SOURCE, 5, (SHARD, verdict(&[1])))), Judgement::WrongDigest, "it stands");
        let other = Source { partition: 4, epoch: 1 };
        assert_eq!(
            high_waters.judge(&Chain::default().extend(other, 0, (SHARD, verdict(&[1])))),
            Judgement::Take,
            "others go on"
        );
    }

    #[test]
    fn a_record_that_belies_itself_is_never_taken() {
        let good = emitted([4]).remove(0);
        let mut bad = good.clone();
        bad.verdict = verdict(&[8]);
        assert_eq!(judge(Link::default(), &bad), Judgement::WrongDigest);
        let mut bad = good.clone();
        bad.link.next_offset = 0;
        assert_eq!(judge(Link::default(), &bad), Judgement::WrongDigest);
        let mut bad = good;
        bad.previous = bad.link;
        assert_eq!(judge(bad.link, &bad), Judgement::WrongDigest);
    }

    #[test]
    fn a_chain_that_leaves_out_what_was_taken_is_a_fork() {
        let (all, without) = (emitted([1, 2, 3]), emitted([1, 3]));
        let mut high_waters = HighWaters::default();
        assert_eq!(high_waters.judge(&all[0]), Judgement::Take);
        assert_eq!(high_waters.judge(&all[1]), Judgement::Take);
        assert_eq!(high_waters.judge(&without[1]), Judgement::WrongDigest);
        assert_eq!(high_waters.judge(&all[2]), Judgement::Take);
    }

    proptest! {
        /// Whatever is repeated, lost on the way or sent by two routers: taken once each, in order, without a hole; and once the whole run
        /// has come in order, all of it.
        #[test]
        fn taken_once_and_in_order(
            gaps in proptest::collection::vec(1..4_u64, 1..20),
            sends in proptest::collection::vec((0..20_usize, 1..6_usize), 0..30),
            lost in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let offsets = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) });
            let run = emitted(offsets);
            // pieces of the run: a router that begins somewhere behind its checkpoint and dies
            let pieces = sends.iter().flat_map(|(from, count)| run.iter().skip(from % run.len()).take(*count));
            let mut lost = lost.into_iter();
            let log: Vec<_> = pieces.filter(|_| !lost.next().unwrap_or(false)).chain(&run).collect();
            let (mut high_waters, mut taken) = (HighWaters::default(), Vec::new());
            for record in log {
                let before = high_waters.at(SOURCE);
                match high_waters.judge(record) {
                    Judgement::Take => taken.push(record.link.next_offset),
                    Judgement::Repeat => prop_assert!(taken.contains(&record.link.next_offset)),
                    Judgement::Hole { high_water } => {
                        prop_assert_eq!(high_water, before);
                        prop_assert!(!taken.contains(&record.link.next_offset));
                    }
                    Judgement::WrongDigest => prop_assert!(false, "an honest router was doubted"),
                }
            }
            prop_assert_eq!(taken, run.iter().map(|record| record.link.next_offset).collect::<Vec<_>>());
        }

        /// A router that goes on from any link says what the first one said.
        #[test]
        fn a_successor_says_the_same(count in 1..20_u64, cut in 0..20_u64) {
            let run = emitted(0..count);
            let cut = cut % count;
            let mut chain = Chain::default();
            if cut > 0 { chain.set(SHARD, run[cut as usize - 1].link) }
            let rest: Vec<_> = (cut..count).map(|offset| chain.extend(SOURCE, offset, (SHARD, verdict(&[1 + offset % 3, 9])))).collect();
            prop_assert_eq!(&rest, &run[cut as usize..]);
        }
    }
}
