//! `received`: the client has stored everything up to a seq. The window opens; the cursor goes to the store with the next batch.

use std::sync::Arc;

use protocol::{CloseCode, Seq};
use storage::store::Place;

use crate::connection::Client;
use crate::outbox::Answer;
use crate::session::NeverSent;
use crate::wheel::Tick;

impl Client {
    pub(super) fn received(&mut self, seq: Seq) {
        match self.acknowledge(seq) {
            Ok(true) => {}
            Ok(false) => {
                self.node.metrics.stale_acks.increment(1);
                self.grumble();
            }
            Err(NeverSent) => self.close_with(CloseCode::BadRequest),
        }
    }

    /// Everything up to this seq is stored at the client. False: that was known, or there is nothing to acknowledge here.
    pub(super) fn acknowledge(&mut self, seq: Seq) -> Result<bool, NeverSent> {
        // before the session begins there is nothing to acknowledge here: the cursor came with hello
        let (Some(session), Some(who)) = (&mut self.session, &self.who) else { return Ok(true) };
        let moved = session.received(seq)?;
        if moved {
            self.node.cursors.acknowledged(who.user, &who.device, session.acked());
            self.node.receipts.acknowledged(who.user, session.acked());
        }
        Ok(moved)
    }

    /// A stream whose window is full, in a cluster: its client may have acknowledged by a POST to another node. Then the store knows.
    pub(crate) fn arm_ask_cursor(&mut self) {
        let waits =
            self.is_stream() && self.node.ports.links.is_some() && self.session.as_ref().is_some_and(|session| session.is_full());
        let now = self.node.wheel.now();
        if waits && self.ask_cursor_at == 0 {
            self.ask_cursor_at = now + 1;
            self.node.wheel.arm(&self.outbox, self.ask_cursor_at);
        }
    }

    /// Asks the store, if it is time.
    pub(crate) fn ask_cursor(&mut self, now: Tick) {
        let (Some(session), Some(who)) = (&self.session, &self.who) else { return };
        if self.ask_cursor_at == 0 || self.ask_cursor_at > now {
            return;
        }
        if !session.is_full() {
            self.ask_cursor_at = 0;
            return;
        }
        // none is asked for while this one is under way
        self.ask_cursor_at = Tick::MAX;
        let (store, outbox) = (Arc::clone(&self.node.ports.store), Arc::clone(&self.outbox));
        let (user, device) = (who.user, who.device.clone());
        tokio::spawn(async move {
            let cursor = store.cursor(user, &device, None).await;
            outbox.answer(Answer::Cursor(cursor.ok()));
        });
    }

    /// What the store knows of the device.
    pub(crate) fn cursor_elsewhere(&mut self, cursor: Option<Place>) {
        self.ask_cursor_at = 0;
        let Some(session) = &mut self.session else { return };
        if let Some(cursor) = cursor.filter(|cursor| cursor.epoch == session.epoch()) {
            // beyond what was written here it belongs to a session after this one
            let _ = session.received(cursor.seq);
        }
    }
}
