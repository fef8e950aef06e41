//! One connection of a simulated gateway: the same steps as the gateway crate's `Client`, without sockets and frames.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use gateway::attach::{Attach, Attached, Start, attach};
use gateway::lanes::{Lanes, Offer};
use gateway::outbox::{Answer, Inbox, Outbox};
use gateway::session::{Session, Step};
use protocol::plant::{Bug, planted};
use protocol::record::{Content, Event, Identity, Record};
use protocol::{ConversationId, DeviceName, MessageId, Seq, UserId};
use router::registry::Registration;
use router::submit::{Outcome, Report, Submit as _};
use storage::store::{Head, Place, Slice, weight};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Node;
use crate::net::{Ask, Say};

/// Between two tries to read a mailbox that cannot be read now.
const RETRY: Duration = Duration::from_millis(500);
/// A hint that may not be lost comes within this time.
const PROMPT_MS: u64 = 1500;
/// Most sessions of a user on a node.
const SESSIONS_MAX: usize = 16;

/// Who says hello: in the simulation the first ask names it, since there are no tokens.
pub(crate) type Who = (UserId, DeviceName);

/// One connection.
pub(super) struct Seat {
    node: Arc<Node>,
    says: mpsc::Sender<Say>,
    outbox: Arc<Outbox>,
    who: Option<Who>,
    registration: Option<Registration>,
    session: Option<Session>,
    listening: bool,
    lanes: Lanes,
    heard_of: Seq,
    /// Events that came by a read after catch-up, and when.
    unhinted: VecDeque<(Seq, u64)>,
    closes: bool,
}

impl Seat {
    /// A connection that has just been made.
    pub(super) fn new(node: Arc<Node>, says: mpsc::Sender<Say>) -> Self {
        Self {
            node,
            says,
            outbox: Outbox::new(),
            who: None,
            registration: None,
            session: None,
            listening: false,
            lanes: Lanes::default(),
            heard_of: 0,
            unhinted: VecDeque::new(),
            closes: false,
        }
    }

    /// Serves until the client goes.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let (heal, mut heads) = mpsc::channel(1);
        let number = self.node.sim.bits();
        while !self.closes {
            tokio::select! {
                biased;
                ask = asks.recv() => match ask {
                    Some(Ask::Hello { who, epoch, cursor }) => {
                        self.node.seats.lock().insert(number, (who.0, heal.clone()));
                        self.hello(who, epoch, cursor);
                    }
                    Some(Ask::Send(id, to, text)) => self.send(id, to, text),
                    Some(Ask::Received(seq)) => self.received(seq),
                    None => break,
                },
                inbox = next_inbox(&self.outbox, self.heard_of) => self.inbox(inbox),
                Some(head) = heads.recv() => self.compare(head),
            }
            self.next_steps();
            self.check_hints();
        }
        self.node.seats.lock().remove(&number);
        self.depart();
    }

    fn say(&mut self, say: Say) {
        if self.says.try_send(say).is_err() {
            self.closes = true;
        }
    }

    fn hello(&mut self, who: Who, epoch: Option<u64>, cursor: Option<Seq>) {
        match self.node.sessions.enter(who.0, &who.1, &self.outbox, SESSIONS_MAX) {
            Ok(Some(older)) => older.close(protocol::CloseCode::Superseded),
            Ok(None) => {}
            Err(_) => self.closes = true,
        }
        let request = Attach {
            user: who.0,
            device: who.1.clone(),
            epoch,
            cursor,
            max_events: self.node.limits.window_events,
            max_bytes: self.node.limits.window_bytes,
        };
        self.who = Some(who);
        self.node.process.spawn(attach_beside(Arc::clone(&self.node), Arc::clone(&self.outbox), request));
    }

    fn inbox(&mut self, inbox: Inbox) {
        self.heard_of = inbox.heard_of.seq;
        for (ticket, outcome) in inbox.settled {
            self.settled(ticket, outcome);
        }
        for answer in inbox.answers {
            match answer {
                Answer::Attached(attached) => self.attached(*attached),
                Answer::Slice(slice) => self.slice(slice),
                Answer::Page(_) | Answer::Registered(_) => {}
            }
        }
        for event in inbox.pushes {
            let Some(session) = &mut self.session else { break };
            let (next, seq) = (session.next(), event.seq);
            if session.take(seq, weight(&event.body)) {
                self.write(event);
            } else if seq < next {
                self.node.sim.saw("event pushed that was read or pushed before");
            } else if seq > next {
                self.node.sim.saw("push before its time: the hole is read");
            }
        }
        if let Some(session) = &mut self.session {
            session.heard_of(inbox.heard_of.seq);
        }
        self.closes |= inbox.close.is_some();
    }

    fn write(&mut self, event: Event) {
        if planted(Bug::CursorBeforeWrite)
            && let Some((user, device)) = &self.who
        {
            let epoch = self.session.as_ref().map_or(1, Session::epoch);
            self.node.cursors.acknowledged(*user, device, Place { epoch, seq: event.seq });
        }
        self.say(Say::Event(event));
    }

    fn attached(&mut self, attached: Attached) {
        self.registration = attached.registration;
        match attached.start {
            Start::Resync(_, reason) => {
                self.node.sim.note(|| format!("{:?} must resync: {}", self.who, reason.name()));
                self.say(Say::Resync(attached.epoch));
            }
            Start::At(cursor, slice) => {
                self.say(Say::Welcome(attached.epoch));
                self.outbox.stream(attached.epoch);
                let mut session = Session::new(Place { epoch: attached.epoch, seq: cursor }, &self.node.limits);
                // the read it would ask for first is the one that came with the attach
                session.next_step();
                self.session = Some(session);
                self.slice(Some(slice));
            }
        }
    }

    fn slice(&mut self, slice: Option<Slice>) {
        let Some(session) = &mut self.session else { return };
        let mut taken = Vec::new();
        let epoch = session.epoch();
        if slice.as_ref().is_some_and(|slice| slice.epoch != epoch) {
            self.closes = true;
            return;
        }
        let head = slice.map(|slice| {
            taken.extend(slice.events.into_iter().filter(|event| session.take(event.seq, weight(&event.body))));
            slice.head
        });
        self.closes |= session.read_done(head).is_err();
        if session.is_live() {
            let now_ms = self.node.sim.now_ms();
            self.unhinted.extend(taken.iter().map(|event| (event.seq, now_ms)));
        }
        taken.into_iter().for_each(|event| self.write(event));
    }

    fn next_steps(&mut self) {
        loop {
            let Some(session) = &mut self.session else { return };
            match session.next_step() {
                Step::Read { after, max_events, max_bytes } => self.read_on(after, max_events, max_bytes),
                Step::Live(head) => self.say(Say::Live(head)),
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

    fn read_on(&self, after: Seq, max_events: u32, max_bytes: u32) {
        let Some((user, _)) = self.who else { return };
        let (node, outbox) = (Arc::clone(&self.node), Arc::clone(&self.outbox));
        self.node.process.spawn(async move {
            let slice = node.store.read(user, after, max_events, max_bytes).await.ok();
            if slice.is_none() {
                sleep(RETRY).await;
            }
            drop(outbox.answer(Answer::Slice(slice)));
        });
    }

    /// The store says how far the mailbox goes.
    fn compare(&mut self, head: Head) {
        let (Some(session), Some((user, _))) = (&mut self.session, &self.who) else { return };
        let missed = session.is_live() && session.listens() && head.head >= session.next();
        session.heard_of(head.head);
        let at_ms = self.node.committed.at_ms(*user, head.head);
        if missed && at_ms.is_some_and(|at_ms| at_ms + PROMPT_MS < self.node.sim.now_ms()) {
            self.node.sim.saw("lost hint healed by heads");
        }
    }

    /// Where nothing loses hints, every event that came by a read after catch-up must have been pushed here too: otherwise a look-up came too
    /// early, or a registration too late, and only luck has healed it.
    fn check_hints(&mut self) {
        let (Some((user, _)), Some(registration)) = (&self.who, self.registration) else { return };
        let (sim, node) = (&self.node.sim, &self.node);
        while let Some((seq, at_ms)) = self.unhinted.front().copied().filter(|(_, at_ms)| at_ms + PROMPT_MS < sim.now_ms()) {
            self.unhinted.pop_front();
            // whose entry was replaced is not to hear; who attached anew elsewhere does
            let entered = !node.replaced.has(registration);
            if sim.weather.hints_are_safe && entered && !node.gateways.was_hinted(node.id, *user, seq) {
                sim.wrong(format!(
                    "silent: event {seq} of {user}, read at {at_ms} ms, was never pushed, and nothing had lost its hint"
                ));
            }
        }
    }

    fn send(&mut self, id: MessageId, conversation: ConversationId, text: String) {
        let Some((sender, _)) = self.who else { return };
        let identity = Identity { sender, conversation, id };
        let record = Record { identity, content: Content::Text(text), reply_to: None, at_ms: self.node.sim.now_ms() };
        match self.lanes.offer(record, self.node.limits.in_flight, 0) {
            Offer::Submit(ticket, record) => self.submit(ticket, record),
            Offer::Waits => self.node.sim.saw("send waited for the one before it"),
            Offer::Refuse(code) => self.say(Say::Refused(id, code)),
            Offer::TooManyLanes => self.closes = true,
        }
    }

    fn submit(&self, ticket: u64, record: Record) {
        self.node.submit.submit(record, Report::new(Arc::clone(&self.outbox) as _, ticket));
    }

    fn settled(&mut self, ticket: u64, outcome: Outcome) {
        let settled = self.lanes.settled(ticket, outcome, 0);
        for answer in settled.answers {
            self.say(match answer.outcome {
                Outcome::Accepted => Say::Accepted(answer.id),
                Outcome::Refused(code) => Say::Refused(answer.id, code),
                Outcome::Unknown => Say::Unknown(answer.id),
            });
        }
        if let Some((ticket, record)) = settled.next {
            self.submit(ticket, record);
        }
    }

    fn received(&mut self, seq: Seq) {
        let (Some(session), Some((user, device))) = (&mut self.session, &self.who) else { return };
        match session.received(seq) {
            Ok(true) => self.node.cursors.acknowledged(*user, device, session.acked()),
            Ok(false) => {}
            Err(_) => self.node.sim.wrong(format!("{user} acknowledged {seq}, which was never written")),
        }
    }

    fn depart(&mut self) {
        let untaken = self.outbox.gone();
        let Some((user, device)) = self.who.take() else { return };
        self.node.sessions.leave(user, &self.outbox);
        let late = untaken.answers.into_iter().find_map(|answer| match answer {
            Answer::Attached(attached) => attached.registration,
            _ => None,
        });
        if let Some(registration) = self.registration.or(late) {
            let node = Arc::clone(&self.node);
            self.node.process.spawn(async move {
                drop(node.registry.deregister(user, &device, registration).await);
            });
        }
    }
}

/// Waits until something is in the outbox.
async fn next_inbox(outbox: &Outbox, heard_of: Seq) -> Inbox {
    poll_fn(|cx| {
        outbox.register(cx.waker());
        let inbox = outbox.take();
        let something = !(inbox.pushes.is_empty() && inbox.settled.is_empty() && inbox.answers.is_empty());
        if something || inbox.heard_of.seq > heard_of || inbox.close.is_some() { Poll::Ready(inbox) } else { Poll::Pending }
    })
    .await
}

async fn attach_beside(node: Arc<Node>, outbox: Arc<Outbox>, request: Attach) {
    let head = node.committed.head(request.user);
    let attached = loop {
        match attach(&*node.registry, &*node.store, node.id, &request).await {
            Ok(attached) => break attached,
            Err(_) => sleep(RETRY).await,
        }
        if outbox.is_gone() {
            return;
        }
    };
    if node.committed.head(request.user) > head {
        node.sim.saw("event committed while its owner attached");
    }
    if let Some(Answer::Attached(late)) = outbox.answer(Answer::Attached(Box::new(attached)))
        && let Some(registration) = late.registration
    {
        drop(node.registry.deregister(request.user, &request.device, registration).await);
    }
}
