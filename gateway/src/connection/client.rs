//! The client behind a connection: who it is, its session, its unanswered sends. What it says is worked in by [`crate::command`]; on a stream of
//! server-sent events it says hello with the request, and the rest by POST.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;

use accounts::Sid;
use protocol::codec::Encoding;
use protocol::frame::{ClientFrame, FrameError, Hello, ServerFrame};
use protocol::limits::{BAD_FRAMES_MAX, FRAGMENTED_S_MAX};
use protocol::plant::{Bug, planted};
use protocol::{CloseCode, DeviceName, ErrorCode, UserId};
use router::registry::Registration;
use storage::store::{Place, weight};

use super::Handler;
use super::clocks::{Clocks, Due, Pong};
use crate::command::query::Queries;
use crate::command::typing::Typed;
use crate::command::watch::Watching;
use crate::hints::Hints;
use crate::lanes::Lanes;
use crate::metrics;
use crate::node::{Gateway, now_ms};
use crate::outbound::{Frames, Framing};
use crate::outbox::{Answer, Inbox, Outbox};
use crate::session::{Session, Step};
use crate::token::Claims;
use crate::told::{Next, Told};
use crate::wheel::Tick;

/// Heartbeat of a stream, seconds: proxies forget a silent one sooner than a WebSocket.
const STREAM_HEARTBEAT_S: u64 = 15;

/// A client that has said a good hello.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) user: UserId,
    pub(crate) device: DeviceName,
    /// The session of the account that the token belongs to.
    pub(crate) sid: Option<Sid>,
    pub(crate) registration: Option<Registration>,
    /// When the token expires, seconds since 1970.
    pub(crate) expires_s: u64,
    pub(crate) reauth_told: bool,
}

/// How far the client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for hello.
    Greeting,
    /// Waits for registry and store.
    Attaching,
    /// Has a session.
    Attached,
    /// Was told that its cursor is no good; may say hello again.
    Resync,
}

/// The client behind a connection.
pub struct Client {
    pub(crate) node: Arc<Gateway>,
    pub(crate) outbox: Arc<Outbox>,
    address: IpAddr,
    framing: Framing,
    /// From the handshake, until hello takes them.
    pub(crate) claims: Option<Box<Claims>>,
    /// A hello that came with the request.
    greeting: Option<Box<Hello>>,
    pub(crate) who: Option<Box<Who>>,
    pub(crate) stage: Stage,
    pub(crate) session: Option<Session>,
    listening: bool,
    pub(crate) lanes: Option<Box<Lanes>>,
    /// Pages asked for and not answered.
    pub(crate) queries: Option<Box<Queries>>,
    pub(crate) told: Told,
    pub(crate) typed: Option<Box<Typed>>,
    pub(crate) watching: Option<Box<Watching>>,
    bad_frames: u8,
    pub(crate) clocks: Clocks,
    pub(crate) close: Option<CloseCode>,
    dead: bool,
    /// The socket has taken everything.
    drained: bool,
    /// The second for which the wheel is armed to look for late reports.
    pub(crate) overdue_at: Tick,
    /// The second for which the wheel is armed to ask the store how far a stream's client has come.
    pub(crate) ask_cursor_at: Tick,
}

impl Client {
    /// A client that has just been upgraded. `claims`: from a token in the handshake.
    pub fn new(node: Arc<Gateway>, address: IpAddr, encoding: Encoding, claims: Option<Box<Claims>>) -> Self {
        Self::with(node, address, Framing::WebSocket(encoding), claims)
    }

    /// A client of a stream of server-sent events.
    pub fn of_stream(node: Arc<Gateway>, address: IpAddr, claims: Box<Claims>, hello: Box<Hello>) -> Self {
        let mut client = Self::with(node, address, Framing::EventStream, Some(claims));
        client.greeting = Some(hello);
        client
    }

    fn with(node: Arc<Gateway>, address: IpAddr, framing: Framing, claims: Option<Box<Claims>>) -> Self {
        let now = node.wheel.now();
        let hello_by = now + Tick::try_from(node.config.hello_deadline.as_secs()).unwrap_or(Tick::MAX / 2);
        // spread, so that 10,000 pings never fire together
        let ping_at = now + 1 + rand::random_range(0..heartbeat(framing, &node));
        let clocks = Clocks::new(hello_by, ping_at);
        let outbox = Outbox::new();
        node.wheel.arm(&outbox, hello_by);
        node.wheel.arm(&outbox, ping_at);
        node.metrics.sockets.increment(1.0);
        Self {
            node,
            outbox,
            address,
            framing,
            claims,
            greeting: None,
            who: None,
            stage: Stage::Greeting,
            session: None,
            listening: false,
            lanes: None,
            queries: None,
            told: Told::default(),
            typed: None,
            watching: None,
            bad_frames: 0,
            clocks,
            close: None,
            dead: false,
            drained: true,
            overdue_at: 0,
            ask_cursor_at: 0,
        }
    }

    /// Whether its frames are events of a stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.framing == Framing::EventStream
    }

    /// Between two signs of life, seconds.
    pub(crate) fn heartbeat(&self) -> Tick {
        heartbeat(self.framing, &self.node)
    }

    /// Closes with this code when the input at hand is worked in.
    pub(crate) fn close_with(&mut self, code: CloseCode) {
        self.close.get_or_insert(code);
    }

    /// Answers a frame that cannot be taken.
    pub(crate) fn error(&mut self, error: FrameError, retry_after_ms: Option<u64>, out: &mut Frames) {
        metrics::refused(error.code);
        self.grumble();
        match error.id {
            Some(id) => out.server(&ServerFrame::Refused { id, code: error.code, field: error.field, retry_after_ms }),
            None => out.server(&ServerFrame::Error { error, retry_after_ms }),
        }
    }

    /// Something that costs the server work and brings the client nothing: errors, pings, stale acknowledgements. Too many a second close.
    pub(crate) fn grumble(&mut self) {
        if !self.clocks.grumble(self.node.wheel.now()) {
            self.close_with(CloseCode::Rate);
        }
    }

    fn bad_frame(&mut self, error: FrameError, out: &mut Frames) {
        if error.code == ErrorCode::BadRequest {
            self.bad_frames += 1;
            if u32::from(self.bad_frames) >= BAD_FRAMES_MAX {
                self.close_with(CloseCode::BadRequest);
            }
        }
        self.error(error, None, out);
    }

    /// The first frame cannot be read. A field at fault is named, so that nobody looks for a better token.
    fn bad_greeting(&mut self, error: FrameError, out: &mut Frames) {
        if error.code == ErrorCode::BadField {
            self.error(error, None, out);
            self.close_with(CloseCode::BadRequest);
        } else {
            self.close_with(CloseCode::Unauthenticated);
        }
    }

    /// What waited in the outbox.
    pub(crate) fn inbox(&mut self, inbox: Inbox, out: &mut Frames) {
        for (ticket, outcome) in inbox.settled {
            self.settled(ticket, outcome, out);
        }
        for answer in inbox.answers {
            match answer {
                Answer::Attached(attached) => self.attached(*attached, out),
                Answer::Registered(registration) => self.registered(registration),
                Answer::Slice(slice) => self.slice(slice, out),
                Answer::Page(page) => self.page(&page, out),
                Answer::Cursor(cursor) => self.cursor_elsewhere(cursor),
                Answer::Receipts(receipts) => self.receipts(receipts, out),
                Answer::Watched(watches) => self.watched(&watches),
            }
        }
        for posted in inbox.posted {
            self.posted(posted);
        }
        if let Some(session) = &mut self.session {
            for event in inbox.pushes {
                if session.take(event.seq, weight(&event.body)) {
                    if planted(Bug::CursorBeforeWrite)
                        && let Some(who) = &self.who
                    {
                        self.node.cursors.acknowledged(who.user, &who.device, Place { epoch: session.epoch(), seq: event.seq });
                    }
                    out.event(&event);
                    self.node.metrics.events.increment(1);
                }
            }
            session.heard_of(inbox.heard_of.seq);
        }
        if let Some(hints) = inbox.hints {
            self.hints(*hints, out);
        }
        if let Some(ms) = inbox.move_after_ms {
            out.server(&ServerFrame::Move { after_ms: ms.into() });
        }
        if let Some(code) = inbox.close {
            self.close_with(code);
        }
        if inbox.look_again {
            self.check_revoked();
        }
        if inbox.tick {
            self.tick(out);
        }
    }

    /// Hints that waited; receipts ascending by revision, as they are told.
    fn hints(&mut self, hints: Hints, out: &mut Frames) {
        let mut receipts = hints.receipts;
        receipts.sort_unstable_by_key(|receipt| receipt.rev);
        for receipt in receipts {
            self.told.pushed(receipt.rev);
            self.tell(ServerFrame::Receipt(receipt), out);
        }
        for (conversation, from) in hints.typing {
            self.tell(ServerFrame::Typing { conversation, from }, out);
        }
        for (user, presence) in hints.presence {
            self.tell(ServerFrame::Presence { user, presence }, out);
        }
        if let Some(missed) = hints.missed {
            self.told.missed(missed);
        }
    }

    /// Writes a frame that is a hint.
    pub(crate) fn tell(&self, frame: ServerFrame, out: &mut Frames) {
        self.node.metrics.hints.increment(1);
        out.server(&frame);
    }

    /// Reads receipts that are due, or opens the outbox to pushed ones. Called when the socket has taken everything.
    fn next_receipts(&mut self) {
        match self.told.next_step() {
            Next::Wait => {}
            Next::Read(after) => self.read_receipts(after),
            Next::Open => {
                let missed = self.outbox.open_receipts();
                self.told.opened(missed);
                if missed.is_some() {
                    self.next_receipts();
                }
            }
        }
    }

    /// Ends the connection if the session of its account has ended.
    pub(crate) fn check_revoked(&mut self) {
        if self.who.as_ref().is_some_and(|who| self.node.tokens.is_revoked(who.sid)) {
            self.close_with(CloseCode::Unauthenticated);
        }
    }

    /// A second has come for which a clock was armed.
    fn tick(&mut self, out: &mut Frames) {
        let now = self.node.wheel.now();
        let heartbeat = self.heartbeat();
        while let Some(due) = self.clocks.due(now, heartbeat) {
            match due {
                Due::Hello => self.close_with(CloseCode::Unauthenticated),
                // while the peer does not take our data nothing is read from it: its message is not late
                Due::Fragments if !self.drained => {}
                Due::Fragments => self.close_with(CloseCode::Policy),
                Due::Stall => self.close_with(CloseCode::TooSlow),
                Due::Dead | Due::Unclosed => {
                    metrics::ended(if due == Due::Dead { "dead_peer" } else { "close_unanswered" });
                    self.dead = true;
                    return;
                }
                Due::Ping => {
                    out.ping();
                    self.node.wheel.arm(&self.outbox, now + heartbeat);
                    self.check_token(out);
                }
            }
        }
        self.tell_overdue(now, out);
        self.ask_cursor(now);
    }

    /// Tells of a token about to expire; ends the connection a grace after that. Looked at with each heartbeat.
    fn check_token(&mut self, out: &mut Frames) {
        self.check_revoked();
        let Some(who) = &mut self.who else { return };
        let (now_s, heartbeat_s) = (now_ms() / 1000, u64::from(heartbeat(self.framing, &self.node)));
        if now_s > who.expires_s + self.node.config.token_grace.as_secs() {
            self.close_with(CloseCode::Unauthenticated);
        } else if !who.reauth_told && now_s + 2 * heartbeat_s >= who.expires_s {
            who.reauth_told = true;
            out.server(&ServerFrame::Reauth { before_ms: who.expires_s * 1000 });
        }
    }

    /// Does what the session asks for, and listens to pushes while they could be written.
    fn next_steps(&mut self, out: &mut Frames) {
        loop {
            let Some(session) = &mut self.session else { return };
            match session.next_step() {
                Step::Read { after, max_events, max_bytes } => self.read_on(after, max_events, max_bytes),
                Step::Live(head) => {
                    out.server(&ServerFrame::Live(head));
                    self.told.live();
                    self.outbox.live();
                }
                Step::Wait => {
                    let listens = session.listens();
                    if listens == self.listening {
                        return;
                    }
                    self.listening = listens;
                    session.heard_of(self.outbox.listen(listens));
                }
            }
        }
    }
}

/// Between two signs of life, seconds.
fn heartbeat(framing: Framing, node: &Gateway) -> Tick {
    let seconds = node.config.heartbeat.as_secs();
    let seconds = if framing == Framing::EventStream { seconds.min(STREAM_HEARTBEAT_S) } else { seconds };
    Tick::try_from(seconds).unwrap_or(30)
}

impl Handler for Client {
    fn framing(&self) -> Framing {
        self.framing
    }

    fn wake(&mut self, cx: &mut Context<'_>, out: &mut Frames) {
        self.outbox.register(cx.waker());
        // while the socket does not take what there is, hints wait: they only replace each other
        let inbox = if self.drained { self.outbox.take() } else { self.outbox.take_all_but_hints() };
        if let Some(hello) = self.greeting.take() {
            self.command(ClientFrame::Hello(*hello), out);
        }
        self.inbox(inbox, out);
    }

    fn message(&mut self, text: bool, payload: &[u8], out: &mut Frames) -> Result<(), CloseCode> {
        let encoding = self.framing.encoding();
        if text != encoding.is_text() {
            return Err(CloseCode::Unsupported);
        }
        match encoding.decode(payload) {
            Ok(frame) => {
                self.bad_frames = 0;
                self.command(frame, out);
            }
            Err(error) if self.stage == Stage::Greeting => self.bad_greeting(error, out),
            Err(error) => self.bad_frame(error, out),
        }
        self.wants_close().map_or(Ok(()), Err)
    }

    fn ping(&mut self) -> Result<bool, CloseCode> {
        match self.clocks.ping(self.node.wheel.now()) {
            Pong::Answer => Ok(true),
            Pong::Omit => {
                metrics::dropped("pong", "rate");
                Ok(false)
            }
            Pong::Close => Err(CloseCode::Rate),
        }
    }

    fn heard(&mut self, bytes: usize, completed: bool, mid_message: bool) {
        self.node.metrics.bytes_in.increment(bytes as u64);
        let now = self.node.wheel.now();
        let limit = Tick::try_from(FRAGMENTED_S_MAX).unwrap_or(10);
        if let Some(by) = self.clocks.heard(completed, mid_message, now, limit) {
            self.node.wheel.arm(&self.outbox, by);
        }
    }

    fn settle(&mut self, out: &mut Frames) {
        self.next_steps(out);
        self.arm_ask_cursor();
        if self.lanes.as_ref().is_some_and(|lanes| lanes.is_idle()) {
            self.lanes = None;
        }
    }

    fn written(&mut self, all: bool, bytes: usize) {
        self.node.metrics.bytes_out.increment(bytes as u64);
        let now = self.node.wheel.now();
        let limit = Tick::try_from(self.node.config.stall_deadline.as_secs()).unwrap_or(20);
        if all && !std::mem::replace(&mut self.drained, all) {
            self.outbox.wake_for_hints();
        }
        self.drained = all;
        if all {
            self.next_query();
            self.next_receipts();
        }
        if all && self.is_stream() {
            // nobody answers a heartbeat: that it was taken is the sign of life
            self.clocks.heard(false, false, now, limit);
        }
        if let Some(by) = self.clocks.written(all, bytes > 0, now, limit) {
            self.node.wheel.arm(&self.outbox, by);
        }
    }

    fn wants_close(&mut self) -> Option<CloseCode> {
        let owed = self.lanes.as_ref().is_some_and(|lanes| lanes.in_flight() > 0);
        // who is asked to leave gets the answers it is owed first
        if self.close == Some(CloseCode::Draining) && owed { None } else { self.close }
    }

    fn closing(&mut self) {
        let by = self.clocks.closing(self.node.wheel.now());
        self.node.wheel.arm(&self.outbox, by);
    }

    fn gave_up(&self) -> bool {
        self.dead
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.node.metrics.sockets.decrement(1.0);
        self.node.limiter.socket_gone(self.address);
        self.node.sockets.fetch_sub(1, Ordering::Relaxed);
        let untaken = self.outbox.gone();
        self.depart(untaken);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_idle_client_is_small() {
        // what it only has while it uses it is behind a pointer
        assert!(std::mem::size_of::<super::Client>() <= 240);
        assert!(std::mem::size_of::<super::Outbox>() <= 224);
    }
}
