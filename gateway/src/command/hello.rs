//! `hello`: who, which device, from where. Then attach, beside the connection if anything has to be waited for, and the session begins with its answer.

use std::future::Future as _;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use protocol::frame::{Hello, ServerFrame, Welcome};
use protocol::limits::PROTOCOL_VERSION;
use protocol::receipt::Receipt;
use protocol::{CloseCode, Seq, UserId};
use router::registry::Registration;
use storage::store::{Place, Slice, weight};

use crate::attach::{self, Attach, Attached, Start};
use crate::connection::Client;
use crate::connection::client::{Stage, Who};
use crate::deliver::UNREGISTERED;
use crate::goodbyes;
use crate::metrics;
use crate::node::{Gateway, now_ms};
use crate::outbound::Frames;
use crate::outbox::{Answer, Inbox, Outbox};
use crate::session::Session;
use crate::token::Claims;

/// Between two tries to read a mailbox that cannot be read now.
const RETRY: Duration = Duration::from_millis(500);
/// Receipts in one read.
const RECEIPTS: u32 = 128;

impl Client {
    pub(super) fn hello(&mut self, hello: Hello, out: &mut Frames) {
        match self.stage {
            Stage::Greeting => {}
            Stage::Resync => {
                // each costs an attach and may bring nothing but the next
                self.grumble();
                return self.begin_attach(&hello, out);
            }
            Stage::Attaching | Stage::Attached => return self.close_with(CloseCode::BadRequest),
        }
        match self.who_says(&hello) {
            Ok(who) => self.welcome(who, &hello, out),
            Err(code) => self.close_with(code),
        }
    }

    /// Checks version, token and device.
    fn who_says(&mut self, hello: &Hello) -> Result<Who, CloseCode> {
        if hello.version.is_some_and(|version| version != PROTOCOL_VERSION) {
            return Err(CloseCode::Version);
        }
        let claims: Claims = match (&hello.token, self.claims.take()) {
            (Some(token), _) => self.node.tokens.verify(token).map_err(|why| {
                tracing::debug!(%why, "hello refused");
                CloseCode::Unauthenticated
            })?,
            (None, Some(claims)) => *claims,
            (None, None) => return Err(CloseCode::Unauthenticated),
        };
        if self.node.tokens.is_revoked(claims.sid) {
            // since the handshake
            return Err(CloseCode::Unauthenticated);
        }
        let device = match (claims.device, &hello.device) {
            (Some(bound), Some(named)) if bound != *named => return Err(CloseCode::Forbidden),
            (Some(bound), _) => bound,
            (None, named) => named.clone().unwrap_or_default(),
        };
        Ok(Who { user: claims.sub, device, sid: claims.sid, registration: None, expires_s: claims.exp, reauth_told: false })
    }

    /// Enters the session here, so that pushes find it, tells the client so, and begins to attach.
    fn welcome(&mut self, who: Who, hello: &Hello, out: &mut Frames) {
        match self.node.sessions.enter(who.user, &who.device, &self.outbox, self.node.config.sockets_per_user) {
            Ok(Some(older)) => older.close(CloseCode::Superseded),
            Ok(None) => {}
            Err(_) => return self.close_with(CloseCode::Rate),
        }
        if self.node.is_draining() {
            return self.close_with(CloseCode::Draining);
        }
        self.clocks.greeted();
        self.node.metrics.sessions.increment(1.0);
        out.server(&ServerFrame::Welcome(Box::new(Welcome {
            user: who.user,
            device: who.device.clone(),
            session: format!("{:016x}", rand::random::<u64>()),
            epoch: self.node.ports.store.known_epoch(who.user),
            now_ms: now_ms(),
            heartbeat_s: self.heartbeat().into(),
            limits: self.node.config.limits,
        })));
        self.node.presences.entered(who.user);
        self.node.cursors.seen(who.user, &who.device, now_ms());
        if let (Some(sid), Some(accounts)) = (who.sid, self.node.accounts.get()) {
            accounts.seen(sid, now_ms());
        }
        self.who = Some(Box::new(who));
        // entered, then asked: whoever ends the session adds it to the ended ones, then looks at who has entered
        self.check_revoked();
        self.begin_attach(hello, out);
    }

    fn begin_attach(&mut self, hello: &Hello, out: &mut Frames) {
        if self.close.is_some() {
            // whoever is to go is shown nothing more
            return;
        }
        let Some(who) = &self.who else { return };
        self.stage = Stage::Attaching;
        self.told.hello(hello.rev);
        self.outbox.close_receipts();
        let limits = &self.node.config.limits;
        let request = Attach {
            user: who.user,
            device: who.device.clone(),
            epoch: hello.epoch,
            cursor: hello.cursor,
            max_events: limits.window_events,
            max_bytes: limits.window_bytes,
            devices_max: self.node.config.sockets_per_user,
        };
        let mut attach = Box::pin(attach_beside(Arc::clone(&self.node), Arc::clone(&self.outbox), request));
        if attach.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(attach);
        } else {
            // nobody had to be waited for: `live` goes out together with `welcome`
            let inbox = self.outbox.take_all_but_hints();
            self.inbox(inbox, out);
        }
    }

    /// The registry has an entry for this device, to be undone by this session. Of two, the newer stands there.
    pub(crate) fn registered(&mut self, registration: Registration) {
        if let Some(who) = &mut self.who {
            who.registration = newer(who.registration, Some(registration));
            self.node.sessions.registered(who.user, &self.outbox, registration.counter);
        }
    }

    /// Registry and store have answered: the session begins, or the cursor is no good.
    pub(crate) fn attached(&mut self, attached: Attached, out: &mut Frames) {
        if attached.start == Start::TooMany {
            return self.close_with(CloseCode::Rate);
        }
        match (attached.registration(), &self.who) {
            (Some(registration), _) => self.registered(registration),
            // the registry did not answer, and is asked again
            (None, Some(who)) => self.node.sessions.registered(who.user, &self.outbox, UNREGISTERED),
            (None, None) => {}
        }
        match attached.start {
            Start::Resync(head, reason) => {
                self.stage = Stage::Resync;
                out.server(&ServerFrame::Resync { epoch: attached.epoch, head: head.head, floor: head.floor, reason });
            }
            Start::TooMany => {}
            Start::At(cursor, slice) => {
                self.stage = Stage::Attached;
                self.outbox.stream(attached.epoch);
                if let Some(who) = &self.who {
                    // what the client has by its own account is delivered, whoever wrote it to which socket
                    self.node.receipts.acknowledged(who.user, Place { epoch: attached.epoch, seq: cursor });
                }
                let mut session = Session::new(Place { epoch: attached.epoch, seq: cursor }, &self.node.config.limits);
                // the read it would ask for first is the one that came with the attach
                session.next_step();
                self.session = Some(session);
                self.slice(Some(slice), out);
            }
        }
    }

    /// Part of the mailbox, read from the store.
    pub(crate) fn slice(&mut self, slice: Option<Slice>, out: &mut Frames) {
        let Some(session) = &mut self.session else { return };
        let epoch = session.epoch();
        if slice.as_ref().is_some_and(|slice| slice.epoch != epoch) {
            return self.close_with(CloseCode::EpochChanged);
        }
        let head = slice.map(|slice| {
            for event in &slice.events {
                if session.take(event.seq, weight(&event.body)) {
                    out.event(event);
                    self.node.metrics.events.increment(1);
                }
            }
            slice.head
        });
        if let Err(head) = session.read_done(head) {
            // retention has risen over it while it was attached: as good as gone for months
            self.session = None;
            self.stage = Stage::Resync;
            let reason = protocol::frame::ResyncReason::BelowFloor;
            out.server(&ServerFrame::Resync { epoch, head: head.head, floor: head.floor, reason });
        }
    }

    /// Reads on beside the connection.
    pub(crate) fn read_on(&self, after: Seq, max_events: u32, max_bytes: u32) {
        let Some(who) = &self.who else { return };
        self.node.metrics.catch_up_reads.increment(1);
        let (node, outbox, user) = (Arc::clone(&self.node), Arc::clone(&self.outbox), who.user);
        tokio::spawn(async move {
            let slice = match node.ports.store.read(user, after, max_events, max_bytes).await {
                Ok(slice) => {
                    if slice.events.is_empty() && slice.head.head <= after {
                        // heard of more than there is: a database that was set back is replaying
                        tokio::time::sleep(RETRY).await;
                    }
                    Some(slice)
                }
                Err(why) => {
                    metrics::dropped("read_try", "store");
                    tracing::debug!(%user, %why, "a mailbox could not be read and will be tried again");
                    tokio::time::sleep(RETRY).await;
                    None
                }
            };
            outbox.answer(Answer::Slice(slice));
        });
    }

    /// Reads the receipts the client is to be told, beside the connection.
    pub(crate) fn read_receipts(&self, after: u64) {
        let Some(who) = &self.who else { return };
        let (node, outbox, user) = (Arc::clone(&self.node), Arc::clone(&self.outbox), who.user);
        tokio::spawn(async move {
            let receipts = match node.ports.store.receipts_since(user, after, RECEIPTS).await {
                Ok(receipts) => Some(receipts),
                Err(why) => {
                    metrics::dropped("read_try", "store");
                    tracing::debug!(%user, %why, "receipts could not be read and will be tried again");
                    tokio::time::sleep(RETRY).await;
                    None
                }
            };
            outbox.answer(Answer::Receipts(receipts));
        });
    }

    /// Receipts, read from the store.
    pub(crate) fn receipts(&mut self, receipts: Option<Vec<Receipt>>, out: &mut Frames) {
        let receipts = receipts.map(|receipts| {
            for receipt in &receipts {
                self.tell(ServerFrame::Receipt(*receipt), out);
            }
            (receipts.last().map(|last| last.rev), receipts.len() == RECEIPTS as usize)
        });
        self.told.read(receipts);
    }

    /// The connection has ended: takes back what hello has entered.
    pub(crate) fn depart(&mut self, untaken: Inbox) {
        let Some(who) = self.who.take() else { return };
        self.node.metrics.sessions.decrement(1.0);
        self.unwatch();
        if let (Some(sid), Some(accounts)) = (who.sid, self.node.accounts.get()) {
            accounts.seen(sid, now_ms());
        }
        self.node.sessions.leave(who.user, &self.outbox);
        self.node.presences.left(who.user);
        self.node.cursors.seen(who.user, &who.device, now_ms());
        let registrations = untaken.answers.into_iter().map(|answer| match answer {
            Answer::Attached(attached) => attached.registration(),
            Answer::Registered(registration) => Some(registration),
            Answer::Slice(_) | Answer::Page(_) | Answer::Cursor(_) | Answer::Receipts(_) | Answer::Watched(_) => None,
        });
        let stands = registrations.fold(who.registration, newer);
        let Some(registration) = stands else {
            // an answer of the registry that did not come may have been of an entry
            return self.node.sessions.doubt(who.user);
        };
        // without a runtime the process is ending, and its lease with it
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let node = Arc::clone(&self.node);
            runtime.spawn(async move {
                goodbyes::say(&node, who.user, &who.device, registration).await;
            });
        }
    }
}

/// The entry that stands in the registry, of two of one device.
fn newer(one: Option<Registration>, other: Option<Registration>) -> Option<Registration> {
    [one, other].into_iter().flatten().max_by_key(|registration| registration.counter)
}

async fn attach_beside(node: Arc<Gateway>, outbox: Arc<Outbox>, request: Attach) {
    // whether the mailbox was complete before it was read: only then a cursor beyond it belongs to nothing
    let mut complete = false;
    let attached = loop {
        match attach::attach(&*node.ports.registry, &*node.ports.store, &node.known, node.node, &request).await {
            // being replayed, perhaps: then it will come to where the client is, or has since it was read
            Ok(attached) if attached.is_ahead() && !complete => {
                metrics::dropped("attach_try", "replay");
                if let Some(registration) = attached.registration() {
                    goodbyes::say(&node, request.user, &request.device, registration).await;
                }
                complete = !is_replaying(&node, request.user).await;
                if !complete {
                    tokio::time::sleep(RETRY).await;
                }
            }
            Ok(attached) => break attached,
            Err(why) => {
                tracing::debug!(user = %request.user, %why, "attach waits for the store");
                metrics::dropped("attach_try", "store");
                tokio::time::sleep(RETRY).await;
            }
        }
        if outbox.is_gone() {
            return node.sessions.doubt(request.user);
        }
    };
    if attached.start == Start::TooMany {
        // unless some of them are none
        node.sessions.doubt(request.user);
    } else if attached.registered.is_none() {
        node.sessions.registry_forgot.notify_one();
    }
    if let (Some(replaced), Some(links)) = (attached.registered.and_then(|registered| registered.replaced), &node.ports.links)
        && replaced.node != node.node
    {
        links.supersede(replaced.node, request.user, &request.device, replaced.counter);
    }
    // A newer session of the device may have entered while the registry was asked, and its own entry may be older than ours: then ours is
    // its entry now.
    let holder = node.sessions.holder(request.user, &request.device).filter(|holder| !Arc::ptr_eq(holder, &outbox));
    let untaken = match (holder, attached.registration()) {
        (Some(newer), Some(registration)) => newer.answer(Answer::Registered(registration)),
        (Some(_), None) => None,
        (None, _) => outbox.answer(Answer::Attached(Box::new(attached))),
    };
    let late = match untaken {
        Some(Answer::Attached(late)) => late.registration(),
        Some(Answer::Registered(late)) => Some(late),
        _ => None,
    };
    if let Some(registration) = late {
        goodbyes::say(&node, request.user, &request.device, registration).await;
    }
}

async fn is_replaying(node: &Gateway, user: UserId) -> bool {
    let Some(lag) = &node.ports.lag else { return false };
    match lag.caught_up(user).await {
        Ok(caught_up) => !caught_up,
        Err(why) => {
            tracing::debug!(%user, %why, "whether the mailbox is complete cannot be told now");
            true
        }
    }
}
