//! What clients acknowledge and read, on its way to become receipts. Reads are collected for a tenth of a second after the first, acknowledgements for a second:
//! of each only the furthest counts, so a chatty client costs no more than a quiet one.
//!
//! **What is delivered.** A member has been delivered everything up to the furthest cursor of any of its devices: what it acknowledged, what it said
//! in `hello`, or where it was born. Each second the store is asked what of others lies between the place up to which that was told before and that
//! cursor; that place moves in the same commit as the marks. So no session remembers anything, and after a crash the next acknowledgement or
//! attach tells the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use parking_lot::Mutex;
use protocol::receipt::Marks;
use protocol::{ConversationId, Position, Seq, UserId};
use storage::receipt::{Mark, TakeMarks};
use storage::store::{Place, Store};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics;

/// How often reads are handed over.
const READS_EVERY: Duration = Duration::from_millis(100);
/// How often acknowledgements are made deliveries.
const DELIVERIES_EVERY: Duration = Duration::from_secs(1);
/// Read marks that wait; more are refused.
const READS_MAX: usize = 65_536;
/// Steps through one mailbox in a turn.
const STEPS: usize = 16;
/// Mailboxes asked for deliveries at once.
const ASKED_AT_ONCE: usize = 4;
/// Mailboxes asked without a pause; then messages have the store to themselves.
const PIECE: usize = 32;
/// Over so long a turn is spread, if the store keeps up.
const TURN: Duration = Duration::from_millis(800);

type Reads = HashMap<(UserId, ConversationId), Position>;
type Acknowledged = HashMap<UserId, Place>;

/// Too many read marks wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyReads;

/// Marks on their way. Acknowledgements: at most one for each user who was here within the last second.
pub struct Receipts {
    reads: Mutex<Reads>,
    acknowledged: Mutex<Acknowledged>,
    /// There are reads to be handed over.
    unread: Notify,
    store: Arc<dyn Store>,
    marks: Arc<dyn TakeMarks>,
}

impl Receipts {
    /// Marks that go there.
    pub fn new(store: Arc<dyn Store>, marks: Arc<dyn TakeMarks>) -> Self {
        Self { reads: Mutex::default(), acknowledged: Mutex::default(), unread: Notify::new(), store, marks }
    }

    /// A user has read a conversation up to a position. The furthest counts.
    ///
    /// # Errors
    /// [`TooManyReads`]: this one is forgotten.
    pub fn read(&self, user: UserId, conversation: ConversationId, position: Position) -> Result<(), TooManyReads> {
        let mut reads = self.reads.lock();
        if reads.len() >= READS_MAX && !reads.contains_key(&(user, conversation)) {
            return Err(TooManyReads);
        }
        if reads.is_empty() {
            self.unread.notify_one();
        }
        let furthest = reads.entry((user, conversation)).or_default();
        *furthest = position.max(*furthest);
        Ok(())
    }

    /// A device of the user has everything up to a place. Of two, the one of the newer incarnation counts, then the later one.
    pub fn acknowledged(&self, user: UserId, place: Place) {
        let mut acknowledged = self.acknowledged.lock();
        let furthest = acknowledged.entry(user).or_insert(place);
        if (place.epoch, place.seq) > (furthest.epoch, furthest.seq) {
            *furthest = place;
        }
    }

    /// Hands over what was read. What is beyond the conversation's last message means that message; a conversation in which nothing was said, nothing.
    pub async fn flush_reads(&self) {
        let mut by_user: HashMap<UserId, Vec<(ConversationId, Position)>> = HashMap::new();
        for ((user, conversation), position) in std::mem::take(&mut *self.reads.lock()) {
            by_user.entry(user).or_default().push((conversation, position));
        }
        let mut marks = Vec::new();
        for (member, reads) in by_user {
            let conversations: Vec<_> = reads.iter().map(|(conversation, _)| *conversation).collect();
            match self.store.last_positions(member, &conversations).await {
                Ok(last) => marks.extend(reads.into_iter().zip(last).filter_map(|((conversation, position), last)| {
                    let marks = Marks { read: position.min(last?), ..Marks::default() };
                    Some(Mark::Marks { member, conversation, marks })
                })),
                Err(why) => {
                    tracing::debug!(%member, %why, "read marks wait for the store");
                    self.read_again(reads.into_iter().map(|(conversation, position)| (member, conversation, position)));
                }
            }
        }
        let left = self.hand_over(marks);
        self.read_again(left.into_iter().filter_map(|mark| match mark {
            Mark::Marks { member, conversation, marks } => Some((member, conversation, marks.read)),
            Mark::Through { .. } => None,
        }));
    }

    fn read_again(&self, reads: impl Iterator<Item = (UserId, ConversationId, Position)>) {
        for (member, conversation, position) in reads {
            if self.read(member, conversation, position).is_err() {
                metrics::dropped("mark", "full");
            }
        }
    }

    /// Makes deliveries of what was acknowledged, spread over so long. What cannot be told now is kept.
    pub async fn flush_deliveries(&self, within: Duration) {
        let users: Vec<_> = self.acknowledged.lock().keys().copied().collect();
        let pieces = users.chunks(PIECE);
        let pause = within.checked_div(u32::try_from(pieces.len()).unwrap_or(u32::MAX)).unwrap_or_default();
        let began = Instant::now();
        for (number, piece) in (0_u32..).zip(pieces) {
            tokio::time::sleep_until(began + pause * number).await;
            let acknowledged: Vec<_> = {
                let mut waiting = self.acknowledged.lock();
                piece.iter().filter_map(|user| waiting.remove_entry(user)).collect()
            };
            let told = stream::iter(acknowledged).map(|(user, place)| self.deliveries(user, place));
            told.buffer_unordered(ASKED_AT_ONCE).for_each(|()| async {}).await;
        }
    }

    /// A long backlog goes in steps, some of them a turn.
    async fn deliveries(&self, member: UserId, place: Place) {
        let mut told = 0;
        for _ in 0..STEPS {
            match self.step(member, place, told).await {
                Some(through) if through < place.seq => told = through,
                Some(_) => return,
                None => break,
            }
        }
        self.acknowledged(member, place);
    }

    /// One step behind `told`. Returns up to where it told; none: it cannot go on now.
    async fn step(&self, member: UserId, place: Place, told: Seq) -> Option<Seq> {
        let delivered = match self.store.delivered(member, place, told).await {
            Ok(Some(delivered)) => delivered,
            // told already
            Ok(None) => return Some(place.seq),
            Err(why) => {
                tracing::debug!(%member, %why, "deliveries wait for the store");
                return None;
            }
        };
        let mark = |(conversation, delivered)| {
            let marks = Marks { delivered, ..Marks::default() };
            Mark::Marks { member, conversation, marks }
        };
        let mut marks: Vec<_> = delivered.newest.into_iter().map(mark).collect();
        marks.push(Mark::Through { member, seq: delivered.through });
        self.hand_over(marks).is_empty().then_some(delivered.through)
    }

    fn hand_over(&self, marks: Vec<Mark>) -> Vec<Mark> {
        if marks.is_empty() { marks } else { self.marks.take_marks(marks) }
    }

    /// Hands over for ever.
    pub async fn run(&self) {
        let reads = async {
            loop {
                self.unread.notified().await;
                tokio::time::sleep(READS_EVERY).await;
                self.flush_reads().await;
            }
        };
        let deliveries = async {
            let mut every = tokio::time::interval(DELIVERIES_EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                self.flush_deliveries(TURN).await;
            }
        };
        tokio::join!(reads, deliveries);
    }
}
