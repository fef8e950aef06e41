//! What the server says.

use crate::core::{Core, Link, Output, Shown};
use crate::frame::{ClientFrame, ErrorFrame, Event, EventKind, Receipt, Refused, ServerFrame, Welcome};

impl Core {
    /// A frame came.
    pub(crate) fn frame(&mut self, frame: ServerFrame, now: u64) {
        if self.end.is_finished() {
            return;
        }
        self.heard(now);
        match frame {
            ServerFrame::Welcome(welcome) => self.welcome(&welcome),
            ServerFrame::Live { head } => self.live(head),
            ServerFrame::Event(event) => self.event(event),
            ServerFrame::Accepted { id, conversation } => {
                if let Some(entry) = self.outbox.settle(id) {
                    let label = self.ticks.accepted(id);
                    self.show(Shown::Accepted { id, conversation, label });
                    self.out.push(Output::DropMessage(entry));
                }
            }
            ServerFrame::Refused(refused) => self.refused(refused, now),
            ServerFrame::Error(error) => self.error(error, now),
            ServerFrame::Resync(resync) => {
                self.mailbox.resync(&resync);
                self.show(Shown::Resync(resync));
                self.keep_mailbox();
                self.write(ClientFrame::Hello(self.mailbox.hello(&self.options.device)));
            }
            ServerFrame::Move { after_ms } => self.leave(now, after_ms, false),
            ServerFrame::Reauth {} => self.leave(now, 0, true),
            ServerFrame::Receipt(receipt) => self.receipt(receipt),
            ServerFrame::Typing(typing) => self.show(Shown::Typing(typing)),
            ServerFrame::Presence(presence) => self.show(Shown::Presence(presence)),
            ServerFrame::Page(page) => {
                self.queries.pop_front();
                for event in &page.events {
                    self.shown(event);
                }
                self.show(Shown::Page(page));
            }
            ServerFrame::Conversations(conversations) => {
                self.queries.pop_front();
                self.show(Shown::Conversations(conversations));
            }
            ServerFrame::Pong {} | ServerFrame::Other => {}
        }
        self.go_on(now);
    }

    fn welcome(&mut self, welcome: &Welcome) {
        self.refused_token = false;
        self.in_flight = welcome.limits.in_flight.max(1);
        self.heartbeat_ms = welcome.heartbeat_s.unwrap_or(30).clamp(1, 600) * 1000;
        if self.mailbox.epoch.is_none() {
            self.mailbox.epoch = Some(welcome.epoch.clone());
        }
        if self.link == Link::Greeting {
            self.link = Link::Attached { live: false };
        }
    }

    /// Caught up: what waited for that is said.
    fn live(&mut self, head: u64) {
        self.backoff.reset();
        self.was_live = true;
        if self.mailbox.live(head) {
            self.keep_mailbox();
        }
        if let Link::Attached { .. } = self.link {
            self.link = Link::Attached { live: true };
        }
        self.show(Shown::Online);
        self.reads.live(&self.mailbox.reads);
        if !self.watch.is_empty() {
            self.write(ClientFrame::Watch { users: self.watch.clone() });
        }
        for query in self.queries.clone() {
            self.write(query);
        }
    }

    fn event(&mut self, event: Event) {
        let Some(seq) = event.seq else { return };
        if !self.mailbox.take(seq) {
            return;
        }
        match event.event {
            EventKind::Message => self.message(event),
            EventKind::Refused => {
                self.end.failed();
                let label = self.ticks.refused(event.id);
                let code = event.code.unwrap_or_default();
                self.show(Shown::Refused { id: event.id, code, field: None, label });
                self.keep_mailbox();
            }
            EventKind::Other => self.keep_mailbox(),
        }
    }

    fn message(&mut self, event: Event) {
        let own = event.from == Some(self.options.user);
        let echo = own && self.ticks.follows(event.id);
        self.shown(&event);
        let (id, conversation, position) = (event.id, event.conversation.clone(), event.position);
        self.show(Shown::Message { event, own, echo });
        self.keep_mailbox();
        if own {
            for (label, tick) in self.ticks.placed(id, &conversation, position) {
                self.show(Shown::Ticked { label, tick });
            }
            return;
        }
        self.end.got_message();
        if self.options.mark_read && self.mailbox.read(&conversation, position) {
            self.keep_mailbox();
            self.reads.made(&conversation);
        }
    }

    fn refused(&mut self, refused: Refused, now: u64) {
        if !refused.is_final {
            let random = self.random();
            return self.outbox.again(refused.id, now, refused.retry_after_ms.unwrap_or(0), random);
        }
        if let Some(entry) = self.outbox.settle(refused.id) {
            self.end.failed();
            let label = self.ticks.refused(refused.id);
            self.show(Shown::Refused { id: refused.id, code: refused.code, field: refused.field, label });
            self.out.push(Output::DropMessage(entry));
        }
    }

    fn error(&mut self, error: ErrorFrame, now: u64) {
        let send = error.id.as_deref().and_then(|id| id.parse().ok()).filter(|id| self.outbox.has(*id));
        if let Some(id) = send {
            let again = ["outcome_unknown", "rate", "busy", "fenced", "unavailable"].contains(&error.code.as_str());
            let (field, retry_after_ms) = (error.field, error.retry_after_ms);
            return self.refused(Refused { id, code: error.code, field, retry_after_ms, is_final: !again }, now);
        }
        if self.link == Link::Greeting {
            // the close that follows says what to do
            return;
        }
        // a mark that was too many comes again on the next connection
        if error.code == "rate" && self.reads.too_many(now, error.retry_after_ms.unwrap_or(0)) {
            return;
        }
        // pages are answered in the order they were asked for, an error in the place of one too
        if ["forbidden", "busy", "bad_field", "unavailable"].contains(&error.code.as_str()) {
            self.queries.pop_front();
        }
        self.end.failed();
        let message = error.message.unwrap_or_default();
        self.show(Shown::Error { code: error.code, message, field: error.field });
    }

    fn receipt(&mut self, receipt: Receipt) {
        let own = receipt.member == self.options.user;
        for (label, tick) in self.ticks.receipt(&receipt, Some(self.options.user)) {
            self.show(Shown::Ticked { label, tick });
        }
        self.show(Shown::Receipt(receipt.clone()));
        self.mailbox.receipt(&receipt, own);
        self.keep_mailbox();
    }
}
