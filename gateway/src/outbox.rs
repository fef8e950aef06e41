//! What other threads have for a connection: pushed events, reports of its sends, answers of the store, signals. Bounded in every part; the
//! connection is woken once for a batch.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use protocol::frame::{ClientFrame, FrameError, Presence, ServerFrame};
use protocol::receipt::Receipt;
use protocol::record::Event;
use protocol::{CloseCode, ConversationId, Seq, UserId};
use router::registry::Registration;
use router::submit::{Outcome, ReportSink};
use storage::push::Wake;
use storage::store::{Place, Slice};
use tokio::sync::oneshot;

use crate::attach::Attached;
use crate::hints::{Hints, Waiting};
use crate::presence::Watch;

/// Most pushed events that wait; more are read from the store.
const PUSHES_MAX: usize = 256;
/// Most frames said by POST that wait.
const POSTED_MAX: usize = 16;
/// Most bytes of pushed events that wait.
const PUSHED_BYTES_MAX: usize = 256 * 1024;

/// What was asked of a port and came back.
#[derive(Debug)]
pub enum Answer {
    /// The attach is done.
    Attached(Box<Attached>),
    /// The device's entry in the registry, made by the attach of a session that this one has replaced meanwhile.
    Registered(Registration),
    /// Part of the mailbox, or nothing if the store did not answer.
    Slice(Option<Slice>),
    /// A page of history or conversations, or an error about it.
    Page(Box<ServerFrame>),
    /// How far the store knows the device to have come, or nothing if it did not answer.
    Cursor(Option<Place>),
    /// Receipts of the mailbox, or nothing if the store did not answer.
    Receipts(Option<Vec<Receipt>>),
    /// Users to be watched.
    Watched(Vec<Watch>),
}

/// What the client of a session says by POST, because its connection carries nothing up.
#[derive(Debug)]
pub struct Posted {
    /// The frame.
    pub frame: ClientFrame,
    /// Told whether it was taken.
    pub answer: oneshot::Sender<Result<(), FrameError>>,
}

/// Everything that waited for the connection.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Pushed events, in the order of pushing.
    pub pushes: VecDeque<Event>,
    /// The mailbox has grown at least to here.
    pub heard_of: Place,
    /// Hints, if there are any.
    pub hints: Option<Box<Hints>>,
    /// Reports of sends: ticket and outcome.
    pub settled: Vec<(u64, Outcome)>,
    /// Answers of ports.
    pub answers: Vec<Answer>,
    /// What the client has said by POST.
    pub posted: Vec<Posted>,
    /// Close with this code.
    pub close: Option<CloseCode>,
    /// Tell the client to go, after so many milliseconds.
    pub move_after_ms: Option<u32>,
    /// A deadline may have passed.
    pub tick: bool,
    /// The session of the account may have ended.
    pub look_again: bool,
}

#[derive(Debug, Default)]
struct State {
    inbox: Inbox,
    pushed_bytes: usize,
    /// Incarnation of the mailbox the session goes through; 0: no session yet.
    epoch: u64,
    listening: bool,
    hints: Waiting,
    in_wake_list: bool,
    /// The connection has gone.
    gone: bool,
}

impl State {
    /// The mailbox has come to this place. False: it is none of the session's. A newer incarnation ends the session; what an owner of an older
    /// one still says counts for nothing.
    fn hears(&mut self, place: Place) -> bool {
        if self.epoch != 0 && place.epoch > self.epoch {
            self.inbox.close.get_or_insert(CloseCode::EpochChanged);
        }
        let known = &mut self.inbox.heard_of;
        if self.epoch != 0 && place.epoch != self.epoch || place.epoch < known.epoch {
            return false;
        }
        *known = if place.epoch > known.epoch { place } else { Place { seq: known.seq.max(place.seq), ..place } };
        true
    }
}

impl State {
    fn take(&mut self) -> Inbox {
        self.pushed_bytes = 0;
        self.in_wake_list = false;
        let heard_of = self.inbox.heard_of;
        std::mem::replace(&mut self.inbox, Inbox { heard_of, ..Inbox::default() })
    }
}

/// One connection's outbox, shared with whoever has something for it.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    waker: AtomicWaker,
}

impl Outbox {
    /// A new one. It listens to pushes only when [`Self::listen`] was called.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Who is to be woken.
    pub fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Puts an event in, or only notes its seq when the session does not listen or has too much waiting. True: add it to a wake list.
    fn push(&self, epoch: u64, event: Event) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.hears(Place { epoch, seq: event.seq }) {
            return false;
        }
        if !state.listening {
            return false;
        }
        let weight = event.body.weight();
        if state.inbox.pushes.len() < PUSHES_MAX && state.pushed_bytes + weight <= PUSHED_BYTES_MAX {
            state.pushed_bytes += weight;
            state.inbox.pushes.push_back(event);
        } else {
            metrics::counter!("switchboard_drops_total", "what" => "push", "why" => "outbox_full").increment(1);
        }
        !std::mem::replace(&mut state.in_wake_list, true)
    }

    /// Puts a receipt in, in the place of an older one of the same member; or only notes its revision. True: add it to a wake list.
    fn receipt(&self, epoch: u64, receipt: Receipt) -> bool {
        let mut state = self.state.lock();
        // a session that has not begun reads what it wants when it is live
        let foreign = state.epoch != 0 && state.epoch != epoch;
        if foreign || state.gone || !state.hints.receipt(receipt) {
            return false;
        }
        !std::mem::replace(&mut state.in_wake_list, true)
    }

    /// Somebody is writing to the client.
    pub fn typing(&self, conversation: ConversationId, from: UserId) {
        if self.state.lock().hints.typing(conversation, from) {
            self.waker.wake();
        }
    }

    /// Whether somebody is there has changed, or is told for the first time.
    pub fn presence(&self, user: UserId, presence: Presence) {
        self.state.lock().hints.presence(user, presence);
        self.waker.wake();
    }

    /// What waits of presence belongs to users that are watched no more.
    pub fn forget_presence(&self) {
        self.state.lock().hints.forget_presence();
    }

    /// The client has everything.
    pub fn live(&self) {
        self.state.lock().hints.live();
    }

    /// Receipts are taken from now on, unless one was let go before: then its revision is returned, and they are not.
    pub fn open_receipts(&self) -> Option<u64> {
        self.state.lock().hints.open()
    }

    /// Receipts are not taken until [`Self::open_receipts`].
    pub fn close_receipts(&self) {
        self.state.lock().hints.close();
    }

    /// Wakes the connection if hints wait that it left behind.
    pub fn wake_for_hints(&self) {
        if !self.state.lock().hints.is_empty() {
            self.waker.wake();
        }
    }

    /// Takes everything but hints: they wait, and what is newer takes their place.
    pub fn take_all_but_hints(&self) -> Inbox {
        self.state.lock().take()
    }

    /// Takes everything.
    pub fn take(&self) -> Inbox {
        let mut state = self.state.lock();
        let hints = state.hints.take();
        Inbox { hints, ..state.take() }
    }

    /// The session goes through this incarnation of its mailbox: pushes of another one are none of its.
    pub fn stream(&self, epoch: u64) {
        let mut state = self.state.lock();
        let newer = state.inbox.heard_of.epoch > epoch;
        if state.inbox.heard_of.epoch != epoch {
            state.inbox.heard_of = Place { epoch, seq: 0 };
        }
        state.epoch = epoch;
        if newer {
            state.inbox.close.get_or_insert(CloseCode::EpochChanged);
            drop(state);
            self.waker.wake();
        }
    }

    /// The mailbox is known to have come to this place, whoever has not told. Wakes the connection if it did not know.
    pub fn newest(&self, place: Place) {
        let mut state = self.state.lock();
        let known = state.inbox.heard_of;
        if state.epoch == 0 || (known.epoch == place.epoch && known.seq >= place.seq) {
            return;
        }
        if state.hears(place) || state.inbox.close.is_some() {
            drop(state);
            self.waker.wake();
        }
    }

    /// Whether pushes are wanted from now on. Returns the newest seq heard of, which may have come just before.
    pub fn listen(&self, listening: bool) -> Seq {
        let mut state = self.state.lock();
        state.listening = listening;
        state.inbox.heard_of.seq
    }

    /// The answer to something that was asked. The connection asks for little at a time, so this is bounded by it. An answer that comes too
    /// late is given back: whoever has made something of it must undo that.
    pub fn answer(&self, answer: Answer) -> Option<Answer> {
        let mut state = self.state.lock();
        if state.gone {
            return Some(answer);
        }
        state.inbox.answers.push(answer);
        drop(state);
        self.waker.wake();
        None
    }

    /// The client says something by POST. Given back when there is no room for it, or nobody to hear it.
    pub fn post(&self, posted: Posted) -> Option<Posted> {
        let mut state = self.state.lock();
        if state.gone || state.inbox.posted.len() >= POSTED_MAX {
            return Some(posted);
        }
        state.inbox.posted.push(posted);
        drop(state);
        self.waker.wake();
        None
    }

    /// Whether the connection has gone.
    pub fn is_gone(&self) -> bool {
        self.state.lock().gone
    }

    /// The connection has gone: nobody will take anything any more. Returns what was not taken.
    pub fn gone(&self) -> Inbox {
        let mut state = self.state.lock();
        state.gone = true;
        state.listening = false;
        std::mem::take(&mut state.inbox)
    }

    /// Asks the connection to close.
    pub fn close(&self, code: CloseCode) {
        self.state.lock().inbox.close.get_or_insert(code);
        self.waker.wake();
    }

    /// Asks the connection to tell its client to go.
    pub fn move_after(&self, ms: u32) {
        self.state.lock().inbox.move_after_ms = Some(ms);
        self.waker.wake();
    }

    /// The session of the account may have ended.
    pub fn look_again(&self) {
        self.state.lock().inbox.look_again = true;
        self.waker.wake();
    }

    /// A deadline may have passed.
    pub fn tick(&self) {
        self.state.lock().inbox.tick = true;
        self.waker.wake();
    }
}

impl ReportSink for Outbox {
    fn settled(&self, ticket: u64, outcome: Outcome) {
        self.state.lock().inbox.settled.push((ticket, outcome));
        self.waker.wake();
    }
}

/// Connections to wake when a batch is complete.
#[derive(Debug, Default)]
pub struct WakeList(Vec<Arc<Outbox>>);

impl WakeList {
    /// Puts an event into an outbox and remembers to wake it.
    pub fn push(&mut self, outbox: &Arc<Outbox>, epoch: u64, event: Event) {
        if outbox.push(epoch, event) {
            self.0.push(Arc::clone(outbox));
        }
    }
}

impl WakeList {
    /// Puts a receipt into an outbox and remembers to wake it.
    pub fn receipt(&mut self, outbox: &Arc<Outbox>, epoch: u64, receipt: Receipt) {
        if outbox.receipt(epoch, receipt) {
            self.0.push(Arc::clone(outbox));
        }
    }
}

impl Wake for WakeList {}

impl Drop for WakeList {
    fn drop(&mut self) {
        for outbox in &self.0 {
            outbox.waker.wake();
        }
    }
}
