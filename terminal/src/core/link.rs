//! The connection: when to open one, when one is lost, what is written on it without being asked.

use crate::core::mailbox::ACKNOWLEDGE_EVERY;
use crate::core::{Core, Ending, Output, Shown};
use crate::frame::ClientFrame;

/// An acknowledgement waits for others this long, milliseconds.
const ACKNOWLEDGE_MS: u64 = 200;
/// A server that wants us gone is not believed for longer, milliseconds.
const MOVE_MS_MAX: u64 = 60_000;
/// Answers that are owed are waited for this long after it is time to go, milliseconds.
const OWED_MS: u64 = 5_000;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Connect at this time.
    Waiting {
        at: u64,
        refresh: bool,
    },
    Dialing,
    /// `hello` is said.
    Greeting,
    Attached {
        live: bool,
    },
    /// Nothing new is sent; closed at this time, or when nothing is owed.
    Leaving {
        at: u64,
        refresh: bool,
    },
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It was closed, with the server's code if there was one.
    Closed(Option<u16>),
    /// The handshake or the refresh was answered with an HTTP error.
    Http { status: u16, retry_after_ms: u64 },
    /// It could not be opened, or broke.
    Broken(String),
    /// The refresh token is no good: the session is over.
    SignedOut,
    /// The certificate is of nobody we trust.
    Untrusted(String),
}

enum Remedy {
    Again,
    LongestWait,
    After(u64),
    Refresh,
    Forget,
    Never(Ending),
}

impl Loss {
    fn remedy(&self) -> Remedy {
        let unable = |what: &str| Remedy::Never(Ending::Unable(what.to_owned()));
        match self {
            Self::Closed(code) => match code {
                Some(4401) => Remedy::Refresh,
                Some(4403) => unable("the token is for another device"),
                Some(4409) => Remedy::Never(Ending::Elsewhere),
                Some(4410) => Remedy::Forget,
                Some(4426) => unable("the server speaks another version of the protocol: a newer client is needed"),
                Some(4429) => Remedy::LongestWait,
                Some(code @ (1002 | 1003 | 1007 | 1009 | 4400)) => {
                    unable(&format!("the server found fault with this client ({code})"))
                }
                _ => Remedy::Again,
            },
            Self::Http { status: 401, .. } => Remedy::Refresh,
            Self::Http { status: 429 | 500..=599 | 408, retry_after_ms } => Remedy::After(*retry_after_ms),
            Self::Http { status, .. } => unable(&format!("no chat server is there: it answers with HTTP {status}")),
            Self::Broken(_) => Remedy::Again,
            Self::SignedOut => Remedy::Never(Ending::SignedOut),
            Self::Untrusted(why) => unable(&format!("the certificate does not verify: {why}")),
        }
    }

    fn why(&self) -> String {
        match self {
            Self::Closed(Some(4500)) => "the server is stopping".into(),
            Self::Closed(Some(code)) => format!("closed with {code}"),
            Self::Closed(None) => "the connection broke".into(),
            Self::Http { status, .. } => format!("HTTP {status}"),
            Self::Broken(why) | Self::Untrusted(why) => why.clone(),
            Self::SignedOut => "the session is over".into(),
        }
    }
}

impl Core {
    /// A connection is open: greet.
    pub(crate) fn opened(&mut self, now: u64) {
        (self.heard, self.said) = (now, now);
        self.link = Link::Greeting;
        self.mailbox.connected();
        self.out.push(Output::Write(ClientFrame::Hello(self.mailbox.hello(&self.options.device))));
        self.go_on(now);
    }

    /// There is no connection.
    pub(crate) fn lost(&mut self, loss: &Loss, now: u64) {
        let random = self.random();
        self.outbox.rewind();
        self.acknowledge_at = None;
        let (wait, refresh) = match loss.remedy() {
            Remedy::Again => (self.backoff.next(random), false),
            Remedy::After(hint_ms) => (self.backoff.next(random).max(hint_ms), false),
            Remedy::LongestWait => {
                self.backoff.longest();
                (self.backoff.next(random), false)
            }
            // that a session is over, only the refresh says: a new token may be refused for other reasons, by a proxy or for a late `hello`
            Remedy::Refresh if std::mem::replace(&mut self.refused_token, true) => (self.backoff.next(random), true),
            Remedy::Refresh => (0, true),
            Remedy::Forget => {
                self.mailbox.forget();
                self.keep_mailbox();
                (self.backoff.next(random), false)
            }
            Remedy::Never(ending) => return self.finish(ending),
        };
        self.show(Shown::Offline { why: loss.why(), retry_in_ms: wait });
        self.link = Link::Waiting { at: now.saturating_add(wait), refresh };
        self.go_on(now);
    }

    /// Something came in, if only a ping.
    pub(crate) fn heard(&mut self, now: u64) {
        self.heard = now;
    }

    /// Time has passed.
    pub(crate) fn time(&mut self, now: u64) {
        self.go_on(now);
    }

    /// The server wants us to connect anew.
    pub(super) fn leave(&mut self, now: u64, after_ms: u64, refresh: bool) {
        if self.is_up() {
            self.link = Link::Leaving { at: now.saturating_add(after_ms.min(MOVE_MS_MAX)), refresh };
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.link, Link::Greeting | Link::Attached { .. } | Link::Leaving { .. })
    }

    pub(super) fn write(&mut self, frame: ClientFrame) {
        self.out.push(Output::Write(frame));
    }

    pub(super) fn write_if_live(&mut self, frame: ClientFrame) {
        if self.link == (Link::Attached { live: true }) {
            self.write(frame);
        }
    }

    /// Everything that is due.
    pub(super) fn go_on(&mut self, now: u64) {
        if self.end.is_finished() {
            return;
        }
        match self.link {
            Link::Waiting { at, refresh } if now >= at => {
                self.link = Link::Dialing;
                self.show(Shown::Connecting);
                self.out.push(Output::Connect { refresh });
            }
            Link::Leaving { at, refresh } if now >= at && (!self.outbox.is_owed() || now >= at.saturating_add(OWED_MS)) => {
                self.acknowledge();
                self.out.push(Output::Close);
                self.outbox.rewind();
                self.link = Link::Waiting { at: now, refresh };
                return self.go_on(now);
            }
            Link::Attached { live } => {
                let marks = if live { self.reads.due(now, &self.mailbox.reads) } else { Vec::new() };
                for frame in self.outbox.due(now, self.in_flight).into_iter().chain(marks) {
                    self.said = now;
                    self.write(frame);
                }
            }
            _ => {}
        }
        if self.is_up() {
            self.stay_alive(now);
        }
        self.look_for_the_end(now);
        if self.end.is_finished() && self.is_up() {
            self.acknowledge();
            // before the ending: it is carried out in this order
            if let Some(finish) = self.out.iter().rposition(|output| matches!(output, Output::Finish(_))) {
                let finish = self.out.remove(finish);
                self.out.extend([Output::Close, finish]);
            }
        }
    }

    fn stay_alive(&mut self, now: u64) {
        if self.mailbox.owed() >= ACKNOWLEDGE_EVERY || self.acknowledge_at.is_some_and(|at| now >= at) {
            self.acknowledge();
        } else if self.mailbox.owed() > 0 {
            self.acknowledge_at.get_or_insert(now.saturating_add(ACKNOWLEDGE_MS));
        }
        if now >= self.heard.saturating_add(2 * self.heartbeat_ms) {
            self.out.push(Output::Close);
            return self.lost(&Loss::Broken("the server is silent".into()), now);
        }
        if now >= self.said.saturating_add(self.heartbeat_ms) && self.link != Link::Greeting {
            self.said = now;
            self.write(ClientFrame::Ping);
        }
    }

    fn acknowledge(&mut self) {
        self.acknowledge_at = None;
        if let Some(seq) = self.mailbox.acknowledge() {
            self.write(ClientFrame::Received { seq });
        }
    }

    /// When [`Core::time`] is wanted next.
    pub(crate) fn deadline(&self, now: u64) -> Option<u64> {
        let link = match self.link {
            Link::Waiting { at, .. } => Some(at),
            Link::Leaving { at, .. } if now >= at => Some(at.saturating_add(OWED_MS)),
            Link::Leaving { at, .. } => Some(at),
            _ => None,
        };
        let sends = matches!(self.link, Link::Attached { .. }).then(|| self.outbox.deadline(now)).flatten();
        let marks = (self.link == Link::Attached { live: true }).then(|| self.reads.deadline()).flatten();
        let (ping, silent) = (self.said.saturating_add(self.heartbeat_ms), self.heard.saturating_add(2 * self.heartbeat_ms));
        let beats = match self.link {
            Link::Greeting => Some(silent),
            _ => self.is_up().then(|| ping.min(silent)),
        };
        [link, sends, marks, beats, self.acknowledge_at, self.end_deadline()].into_iter().flatten().min()
    }
}
