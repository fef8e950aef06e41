//! What a client can say: one file for each frame, in three parts: check, apply, answer. The table of them is [`Client::command`].

mod conversations;
mod hello;
mod history;
mod ping;
mod posted;
pub(crate) mod query;
pub(crate) mod read;
mod received;
pub(crate) mod send;
pub(crate) mod typing;
pub(crate) mod watch;

use protocol::frame::{ClientFrame, FrameError};
use protocol::{CloseCode, ErrorCode};

use crate::connection::Client;
use crate::outbound::Frames;

impl Client {
    /// Works in one frame. Before a good hello nothing else is taken.
    pub(crate) fn command(&mut self, frame: ClientFrame, out: &mut Frames) {
        match frame {
            ClientFrame::Hello(hello) => self.hello(hello, out),
            _ if self.who.is_none() => self.close_with(CloseCode::Unauthenticated),
            ClientFrame::Send(send) => self.send(send, out),
            ClientFrame::Received(seq) => self.received(seq),
            ClientFrame::Read { conversation, position } => self.read_mark(conversation, position, out),
            ClientFrame::Typing(to) => self.typing(to, out),
            ClientFrame::Watch(users) => self.watch(users, out),
            ClientFrame::History { conversation, before, limit } => self.history(conversation, before, limit, out),
            ClientFrame::Conversations { before, limit } => self.conversations(before, limit, out),
            ClientFrame::Ping => self.application_ping(out),
        }
    }
}

pub(crate) fn error(code: ErrorCode, field: Option<&str>, message: &str) -> FrameError {
    FrameError { code, field: field.map(str::to_owned), message: message.to_owned(), id: None }
}
