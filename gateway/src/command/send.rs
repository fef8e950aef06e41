//! `send`: checks that need nothing but the frame and the sender's own limits; then the record goes to its lane and on to be made durable.

use std::sync::Arc;

use protocol::frame::{FrameError, Recipient, Send, ServerFrame};
use protocol::limits::{ID_AGE_DAYS_MAX, ID_AHEAD_DAYS_MAX};
use protocol::record::{Identity, Record};
use protocol::{CloseCode, ConversationId, ErrorCode, MessageId, UserId};
use router::submit::{Outcome, Report};

use super::error;
use crate::connection::Client;
use crate::lanes::Offer;
use crate::metrics;
use crate::node::now_ms;
use crate::outbound::Frames;
use crate::wheel::Tick;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// Refusals for rate in one second, times the rate, before the connection is closed.
const RATE_REFUSALS_FACTOR: u32 = 10;

impl Client {
    pub(super) fn send(&mut self, send: Send, out: &mut Frames) {
        self.node.metrics.sends.increment(1);
        let Some(sender) = self.who.as_ref().map(|who| who.user) else { return };
        let (id, now) = (send.id, now_ms());
        let record = match check(send, sender, self.node.config.limits.body_bytes, now) {
            Ok(record) => record,
            Err(why) => return self.error(why, None, out),
        };
        let conversation = record.identity.conversation;
        if self.close == Some(CloseCode::Draining) {
            return self.refuse(id, ErrorCode::Unavailable, None, out);
        }
        if self.lanes.as_ref().is_some_and(|lanes| lanes.fence_stops(conversation, id)) {
            return self.refuse(id, ErrorCode::Fenced, None, out);
        }
        if let Err(retry_after_ms) = self.node.limiter.send(sender) {
            return self.over_rate(conversation, id, retry_after_ms, out);
        }
        let tick = self.node.wheel.now();
        match self.lanes.get_or_insert_default().offer(record, self.node.config.limits.in_flight, tick) {
            Offer::Submit(ticket, record) => self.submit(ticket, record),
            Offer::Waits => {}
            Offer::Refuse(code) => self.refuse(id, code, None, out),
            Offer::TooManyLanes => self.close_with(CloseCode::Rate),
        }
    }

    fn submit(&mut self, ticket: u64, record: Record) {
        self.arm_overdue();
        let sink = Arc::clone(&self.outbox);
        self.node.ports.submit.submit(record, Report::new(sink, ticket));
    }

    /// One look at late reports is due while any send is under way; not one for each send.
    fn arm_overdue(&mut self) {
        let now = self.node.wheel.now();
        if self.overdue_at <= now {
            self.overdue_at = now + self.report_ticks() + 1;
            self.node.wheel.arm(&self.outbox, self.overdue_at);
        }
    }

    fn report_ticks(&self) -> Tick {
        Tick::try_from(self.node.config.report_deadline.as_secs()).unwrap_or(5)
    }

    fn over_rate(&mut self, conversation: ConversationId, id: MessageId, retry_after_ms: u64, out: &mut Frames) {
        let max = self.node.config.limits.sends_per_s.saturating_mul(RATE_REFUSALS_FACTOR);
        let fenced = self.lanes.get_or_insert_default().fence(conversation, id);
        if !fenced || !self.clocks.rate_refusal(self.node.wheel.now(), max) {
            self.close_with(CloseCode::Rate);
        }
        self.refuse(id, ErrorCode::Rate, Some(retry_after_ms), out);
    }

    fn refuse(&mut self, id: MessageId, code: ErrorCode, retry_after_ms: Option<u64>, out: &mut Frames) {
        metrics::refused(code);
        let retry_after_ms = retry_after_ms.or_else(|| self.node.pressure.refused(code));
        out.server(&ServerFrame::Refused { id, code, field: None, retry_after_ms });
    }

    /// The report of an attempt: answers it and whatever waited for it.
    pub(crate) fn settled(&mut self, ticket: u64, outcome: Outcome, out: &mut Frames) {
        let tick = self.node.wheel.now();
        let Some(lanes) = &mut self.lanes else { return };
        let settled = lanes.settled(ticket, outcome, tick);
        // those behind the first are told the same time: they wait for it
        let mut again = None;
        for answer in settled.answers {
            match answer.outcome {
                Outcome::Accepted => {
                    self.node.metrics.accepted.increment(1);
                    self.node.pressure.accepted();
                    out.server(&ServerFrame::Accepted { id: answer.id, conversation: answer.conversation });
                }
                Outcome::Refused(code) => {
                    again = again.or_else(|| self.node.pressure.refused(code));
                    self.refuse(answer.id, code, again, out);
                }
                Outcome::Unknown => self.tell_unknown(answer.id, out),
            }
        }
        if let Some((ticket, record)) = settled.next {
            self.submit(ticket, record);
        }
    }

    /// Tells of sends whose report is late. They may be messages or not; the client asks again with the same id.
    pub(crate) fn tell_overdue(&mut self, now: Tick, out: &mut Frames) {
        let since = now.saturating_sub(self.report_ticks());
        let Some(lanes) = &mut self.lanes else { return };
        let (late, owed) = (lanes.overdue(since), lanes.in_flight() > 0);
        for id in late {
            self.tell_unknown(id, out);
        }
        if owed {
            self.arm_overdue();
        }
    }

    fn tell_unknown(&mut self, id: MessageId, out: &mut Frames) {
        metrics::refused(ErrorCode::OutcomeUnknown);
        let mut error = error(ErrorCode::OutcomeUnknown, None, "no report in time: send it again with the same id");
        error.id = Some(id);
        let retry_after_ms = self.node.pressure.refused(ErrorCode::OutcomeUnknown);
        out.server(&ServerFrame::Error { error, retry_after_ms });
    }
}

/// What the frame alone decides. Refusals from here are final.
pub(crate) fn check(send: Send, sender: UserId, body_bytes_max: usize, now_ms: u64) -> Result<Record, FrameError> {
    let id = send.id;
    let refused = |code, field, message| Err(FrameError { id: Some(id), ..error(code, Some(field), message) });
    let conversation = match send.to {
        Recipient::User(user) => ConversationId::direct(sender, user),
        Recipient::Conversation(conversation) if conversation.has(sender) => conversation,
        Recipient::Conversation(_) => return refused(ErrorCode::BadRecipient, "to", "not your conversation"),
    };
    let time = id.time_ms();
    if time + ID_AGE_DAYS_MAX * DAY_MS < now_ms || time > now_ms + ID_AHEAD_DAYS_MAX * DAY_MS {
        return refused(ErrorCode::BadId, "id", "the id's time is more than 30 days ago or 1 day ahead");
    }
    if send.content.is_empty() {
        return refused(ErrorCode::Empty, "body.text", "the body is empty");
    }
    if send.content.len() > body_bytes_max {
        return refused(ErrorCode::TooLarge, "body.text", "the body is over limits.body_bytes");
    }
    let identity = Identity { sender, conversation, id };
    Ok(Record { identity, content: send.content, reply_to: send.reply_to, at_ms: now_ms })
}
