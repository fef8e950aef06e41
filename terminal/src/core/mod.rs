//! What the client decides, without a socket, a file or a clock: a command, a frame, a loss or the time goes in, [`Output`]s come out, to be
//! carried out **in their order**. That order is the promise: a message is kept before it is sent; an event is shown before the cursor moves
//! over it, and the cursor is kept before the event is acknowledged.
//!
//! **Bounds.** [`outbox::OUTBOX_MAX`] messages wait, [`QUERIES_MAX`] pages are asked for; at either no more input is taken ([`Core::takes_input`]).

pub(crate) mod backoff;
pub(crate) mod mailbox;
pub(crate) mod outbox;
pub(crate) mod reads;
pub(crate) mod ticks;
mod ending;
mod hear;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use protocol::{MessageId, Position, UserId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use crate::core::backoff::Backoff;
use crate::core::mailbox::Mailbox;
use crate::core::outbox::{Entry, NotTaken, Outbox};
use crate::core::reads::Reads;
use crate::core::ticks::{Tick, Ticks};
use crate::frame::{ClientFrame, Conversations, Event, History, List, Page, Presence, Receipt, ReplyTo, Resync, Typing};

pub(crate) use ending::Ending;
pub(crate) use link::{Link, Loss};

/// Pages that may be asked for at once: the server lets four wait.
pub(crate) const QUERIES_MAX: usize = 4;
/// Conversations whose newest shown position is remembered.
const NEWEST_MAX: usize = 1000;

/// What somebody wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Send {
        id: Option<MessageId>,
        to: String,
        text: String,
        reply_to: Option<ReplyTo>,
    },
    Read {
        conversation: String,
        position: Position,
    },
    /// Everything of the conversation that was shown.
    ReadShown {
        conversation: String,
    },
    Typing {
        to: String,
    },
    Watch {
        users: Vec<UserId>,
    },
    History(History),
    Conversations(List),
    /// Input that is no command; it was told already.
    Bad,
    /// There will be no more input. `hurry`: a person leaves, and waits for nothing longer than this, milliseconds.
    End {
        hurry: Option<u64>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Open a connection; with a new access token, if the old one was refused.
    Connect {
        refresh: bool,
    },
    Write(ClientFrame),
    /// Close the connection, in good manner.
    Close,
    KeepMessage(Entry),
    DropMessage(Entry),
    KeepMailbox(Mailbox),
    Show(Shown),
    Finish(Ending),
}

/// What is shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shown {
    Connecting,
    Online,
    /// And when it is tried again, milliseconds from now.
    Offline {
        why: String,
        retry_in_ms: u64,
    },
    /// In the outbox, on disk. The label is for people.
    Queued {
        id: MessageId,
        to: String,
        label: u64,
    },
    Accepted {
        id: MessageId,
        conversation: String,
        label: Option<u64>,
    },
    /// It will never be a message.
    Refused {
        id: MessageId,
        code: String,
        field: Option<String>,
        label: Option<u64>,
    },
    /// `echo`: it was written here, in this run.
    Message {
        event: Event,
        own: bool,
        echo: bool,
    },
    Ticked {
        label: u64,
        tick: Tick,
    },
    Receipt(Receipt),
    Typing(Typing),
    Presence(Presence),
    Page(Page),
    Conversations(Conversations),
    Resync(Resync),
    Error {
        code: String,
        message: String,
        field: Option<String>,
    },
    Read {
        conversation: String,
        position: Position,
    },
}

/// How this run behaves.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) device: String,
    pub(crate) user: UserId,
    /// What is shown counts as read.
    pub(crate) mark_read: bool,
    /// End with the first message of somebody else.
    pub(crate) once: bool,
    /// Stay this long after the end of the input, milliseconds.
    pub(crate) wait_ms: Option<u64>,
    /// Stay until ended from outside.
    pub(crate) follow: bool,
    /// Give up on what is not accepted this long after the end of the input, milliseconds.
    pub(crate) timeout_ms: u64,
}

/// See the module.
pub(crate) struct Core {
    options: Options,
    outbox: Outbox,
    mailbox: Mailbox,
    reads: Reads,
    ticks: Ticks,
    link: Link,
    backoff: Backoff,
    /// A connection was refused for its token, and no welcome has come since.
    refused_token: bool,
    /// `live` came on some connection of this run.
    was_live: bool,
    in_flight: usize,
    heartbeat_ms: u64,
    heard: u64,
    said: u64,
    acknowledge_at: Option<u64>,
    queries: VecDeque<ClientFrame>,
    watch: Vec<UserId>,
    newest: BTreeMap<String, Position>,
    end: ending::End,
    random: StdRng,
    out: Vec<Output>,
}

impl Core {
    pub(crate) fn new(options: Options, outbox: Vec<Entry>, mailbox: Mailbox, seed: u64) -> Self {
        let mut ticks = Ticks::default();
        let outbox = Outbox::restore(outbox);
        for id in outbox.ids() {
            ticks.follow(id);
        }
        Self {
            options,
            outbox,
            mailbox,
            reads: Reads::default(),
            ticks,
            link: Link::Waiting { at: 0, refresh: false },
            backoff: Backoff::default(),
            refused_token: false,
            was_live: false,
            in_flight: 1,
            heartbeat_ms: 30_000,
            heard: 0,
            said: 0,
            acknowledge_at: None,
            queries: VecDeque::new(),
            watch: Vec::new(),
            newest: BTreeMap::new(),
            end: ending::End::default(),
            random: StdRng::seed_from_u64(seed),
            out: Vec::new(),
        }
    }

    /// What is to be done, in this order; asked for after everything that went in.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Whether a command may be given now.
    pub(crate) fn takes_input(&self) -> bool {
        !self.outbox.is_full() && self.queries.len() < QUERIES_MAX && !self.end.is_ended()
    }

    /// Messages that are not accepted yet.
    pub(crate) fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// Somebody wants something.
    pub(crate) fn command(&mut self, command: Command, now: u64) {
        match command {
            Command::Send { id, to, text, reply_to } => self.send(id, to, text, reply_to),
            Command::Read { conversation, position } => self.read(conversation, position),
            Command::ReadShown { conversation } => match self.newest.get(&conversation).copied() {
                Some(position) => self.read(conversation, position),
                None => self.complain("nothing_shown", "nothing of that conversation was shown yet: look into its history first"),
            },
            Command::Typing { to } => self.write_if_live(ClientFrame::Typing { to }),
            Command::Watch { users } => {
                self.watch.clone_from(&users);
                self.write_if_live(ClientFrame::Watch { users });
            }
            Command::History(history) => self.query(ClientFrame::History(history)),
            Command::Conversations(list) => self.query(ClientFrame::Conversations(list)),
            Command::Bad => self.end.failed(),
            Command::End { hurry } => self.end.input_ended(now, hurry),
        }
        self.go_on(now);
    }

    fn send(&mut self, id: Option<MessageId>, to: String, text: String, reply_to: Option<ReplyTo>) {
        let Some(id) = id.or_else(|| MessageId::new(Uuid::now_v7())) else { return };
        match self.outbox.add(id, to.clone(), text, reply_to) {
            Ok(entry) => {
                let entry = entry.clone();
                let label = self.ticks.follow(id);
                self.out.push(Output::KeepMessage(entry));
                self.show(Shown::Queued { id, to, label });
            }
            Err(NotTaken::Again) => self.show(Shown::Queued { id, to, label: 0 }),
            Err(NotTaken::Reused) => {
                self.end.failed();
                self.show(Shown::Refused { id, code: "id_reused".into(), field: None, label: None });
            }
            Err(NotTaken::Full) => {
                self.end.failed();
                self.complain("busy", "too many messages wait to be accepted");
            }
        }
    }

    fn read(&mut self, conversation: String, position: Position) {
        if self.mailbox.read(&conversation, position) {
            self.keep_mailbox();
            self.reads.made(&conversation);
        }
        self.show(Shown::Read { conversation, position });
    }

    fn query(&mut self, frame: ClientFrame) {
        self.queries.push_back(frame.clone());
        self.write_if_live(frame);
    }

    /// Remembers how far a conversation was shown; others' messages only count.
    fn shown(&mut self, event: &Event) {
        if event.from.is_none() || event.from == Some(self.options.user) {
            return;
        }
        if self.newest.len() >= NEWEST_MAX && !self.newest.contains_key(&event.conversation) {
            self.newest.pop_first();
        }
        let newest = self.newest.entry(event.conversation.clone()).or_default();
        *newest = event.position.max(*newest);
    }

    fn show(&mut self, shown: Shown) {
        self.out.push(Output::Show(shown));
    }

    fn complain(&mut self, code: &str, message: &str) {
        self.show(Shown::Error { code: code.into(), message: message.into(), field: None });
    }

    fn keep_mailbox(&mut self) {
        self.out.push(Output::KeepMailbox(self.mailbox.clone()));
    }

    fn random(&mut self) -> f64 {
        self.random.random()
    }
}
