//! What a client can say: one file for each frame, in three parts: check, apply, answer. The table of them is [`Client::command`].

mod conversations;
mod hello;
mod history;
mod ping;
mod received;
mod send;

use protocol::frame::{ClientFrame, FrameError, ServerFrame};
use protocol::{CloseCode, ErrorCode, Position};

use crate::connection::Client;
use crate::outbound::Frames;
use crate::outbox::Answer;

/// Pages one connection may have under way.
const QUERIES_MAX: u8 = 4;

impl Client {
    /// Works in one frame. Before a good hello nothing else is taken.
    pub(crate) fn command(&mut self, frame: ClientFrame, out: &mut Frames) {
        match frame {
            ClientFrame::Hello(hello) => self.hello(hello, out),
            _ if self.who.is_none() => self.close_with(CloseCode::Unauthenticated),
            ClientFrame::Send(send) => self.send(send, out),
            ClientFrame::Received(seq) => self.received(seq),
            ClientFrame::History { conversation, before, limit } => self.history(conversation, before, limit, out),
            ClientFrame::Conversations { before, limit } => self.conversations(before, limit, out),
            ClientFrame::Ping => Self::application_ping(out),
        }
    }

    /// The bounds of a page, checked; or the error is answered.
    fn page_bounds(&mut self, before: Option<Position>, limit: Option<u32>, out: &mut Frames) -> Option<(Position, u32)> {
        const DEFAULT: u32 = 50;
        let max = self.node.config.limits.page_events;
        let limit = limit.unwrap_or(DEFAULT.min(max));
        if !(1..=max).contains(&limit) {
            self.error(error(ErrorCode::BadField, Some("limit"), &format!("from 1 to {max}")), None, out);
            return None;
        }
        if self.queries >= QUERIES_MAX {
            const RETRY_MS: u64 = 200;
            self.error(error(ErrorCode::Busy, None, "wait for the pages asked for before"), Some(RETRY_MS), out);
            return None;
        }
        Some((before.unwrap_or(Position::MAX), limit))
    }

    /// Asks the store for a page beside the connection; the answer comes through the outbox.
    fn query<F>(&mut self, page: F)
    where
        F: Future<Output = Result<ServerFrame, storage::store::StoreError>> + Send + 'static,
    {
        self.queries += 1;
        let outbox = std::sync::Arc::clone(&self.outbox);
        tokio::spawn(async move {
            let frame = page.await.unwrap_or_else(|why| {
                tracing::warn!(%why, "a page could not be read");
                let error = error(ErrorCode::Unavailable, None, "the store does not answer");
                ServerFrame::Error { error, retry_after_ms: Some(1000) }
            });
            outbox.answer(Answer::Page(Box::new(frame)));
        });
    }
}

pub(crate) fn error(code: ErrorCode, field: Option<&str>, message: &str) -> FrameError {
    FrameError { code, field: field.map(str::to_owned), message: message.to_owned(), id: None }
}
