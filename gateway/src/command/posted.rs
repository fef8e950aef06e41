//! What a client says by POST while its session is a stream here: worked in as from a socket, but answered to the request.

use protocol::ErrorCode;
use protocol::frame::{ClientFrame, FrameError};

use super::error;
use crate::connection::Client;
use crate::outbox::Posted;

impl Client {
    /// Works one in.
    pub(crate) fn posted(&mut self, posted: Posted) {
        let taken = self.take_posted(posted.frame);
        // who has asked may have gone
        let _ = posted.answer.send(taken);
    }

    fn take_posted(&mut self, frame: ClientFrame) -> Result<(), FrameError> {
        match frame {
            // it attaches still, or was told to start over: the store takes it, as if there were no session
            ClientFrame::Received(_) if self.session.is_none() => {
                Err(error(ErrorCode::Unavailable, None, "the session has not begun"))
            }
            ClientFrame::Received(seq) => {
                let taken = self.acknowledge(seq).map(drop);
                taken.map_err(|_| error(ErrorCode::BadField, Some("seq"), "an event that was never sent to this device"))
            }
            ClientFrame::Watch(users) => self.watch_these(users),
            _ => Err(error(ErrorCode::UnknownType, None, "that is not said by POST")),
        }
    }
}
