//! One task a socket, a hand-written future over state machines: take what waits in the outbox, read what has arrived, answer, write it all at
//! once. Idle it holds no buffer: reads go into the thread's, and only what the socket does not take is kept. A stream of server-sent events is
//! the same task in another framing, which nothing comes up on.

pub(crate) mod client;
mod clocks;
#[cfg(feature = "echo")]
pub mod echo;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use fastwebsockets::OpCode;
use protocol::CloseCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use client::Client;
pub use clocks::Clocks;

use crate::frame_reader::{FrameReader, Incoming};
use crate::metrics;
use crate::outbound::{Frames, Framing};

/// One read.
const READ_BYTES: usize = 16 * 1024;
/// Reads of one connection before others get their turn.
const READS_PER_TURN: usize = 8;
/// While the socket has not taken this much, nothing more is read from it.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1024;

thread_local!(static READ: RefCell<Box<[u8; READ_BYTES]>> = RefCell::new(Box::new([0; READ_BYTES])));

/// What a connection does with what it reads: serve a client, or echo in conformance tests.
pub trait Handler: Unpin {
    /// How its frames stand on the line.
    fn framing(&self) -> Framing;
    /// The task is woken: take what waits elsewhere, look at the clocks.
    fn wake(&mut self, cx: &mut Context<'_>, out: &mut Frames);
    /// A message came. An error closes with its code.
    fn message(&mut self, text: bool, payload: &[u8], out: &mut Frames) -> Result<(), CloseCode>;
    /// A control frame came: whether to answer a ping. An error closes with its code.
    fn ping(&mut self) -> Result<bool, CloseCode>;
    /// Bytes came; whether a message was completed by them, and whether another has begun.
    fn heard(&mut self, bytes: usize, completed: bool, mid_message: bool);
    /// All input is worked in: ask for more where there is room.
    fn settle(&mut self, out: &mut Frames);
    /// The socket took so many bytes, which were all or not.
    fn written(&mut self, all: bool, bytes: usize);
    /// A close wanted by the handler itself.
    fn wants_close(&mut self) -> Option<CloseCode>;
    /// Our close frame is sent: wait for the peer's, not for ever.
    fn closing(&mut self);
    /// Whether to end without another word: the peer is dead, or had its time to close.
    fn gave_up(&self) -> bool;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Our close frame is out or on its way; what comes is read and thrown away until the peer closes too.
    Closing,
    /// Both have closed: flush, shut down.
    Flushing,
}

/// A connection until it ends.
pub struct Connection<S, H> {
    stream: S,
    reader: FrameReader,
    /// What the socket did not take, from `written` on.
    unwritten: Vec<u8>,
    handler: H,
    phase: Phase,
    /// The peer broke the framing: what still comes is thrown away unread.
    broken: bool,
    message_bytes_max: usize,
    /// Bytes that came with the upgrade request.
    early: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> Connection<S, H> {
    /// A connection over a stream that has just been upgraded. `early`: bytes the client sent behind its request.
    pub fn new(stream: S, handler: H, message_bytes_max: usize, early: Vec<u8>) -> Self {
        Self::behind(Vec::new(), stream, handler, message_bytes_max, early)
    }

    /// The same, its first words written already: the head of an answer of HTTP whose body the connection is.
    pub fn behind(unwritten: Vec<u8>, stream: S, handler: H, message_bytes_max: usize, early: Vec<u8>) -> Self {
        Self {
            stream,
            reader: FrameReader::new(message_bytes_max),
            unwritten,
            handler,
            phase: Phase::Open,
            broken: false,
            message_bytes_max,
            early,
        }
    }

    /// Lets the handler take what waits. Nothing is said behind our close frame.
    fn wake(&mut self, cx: &mut Context<'_>, out: &mut Frames) {
        if self.phase == Phase::Open {
            return self.handler.wake(cx, out);
        }
        let mut unsaid = Frames::borrow(self.handler.framing());
        self.handler.wake(cx, &mut unsaid);
        unsaid.give_back();
    }

    /// Reads and works in what is there. `Ready`: the peer is gone or both have closed.
    fn read(&mut self, cx: &mut Context<'_>, out: &mut Frames) -> Poll<()> {
        if !self.early.is_empty() {
            let mut early = std::mem::take(&mut self.early);
            self.input(&mut early, out);
        }
        for _ in 0..READS_PER_TURN {
            if out.bytes().len() > UNWRITTEN_BYTES_MAX {
                return Poll::Pending;
            }
            let got = READ.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer.as_mut_slice());
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                let filled = buffer.filled_mut();
                let got = filled.len();
                self.input(filled, out);
                Poll::Ready(Ok::<_, io::Error>(got))
            });
            match ready!(got) {
                Ok(got) if got > 0 && self.phase != Phase::Flushing => {}
                Ok(_) => return Poll::Ready(()),
                Err(_) => {
                    metrics::ended("read_error");
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Bytes to frames to the handler.
    fn input(&mut self, bytes: &mut [u8], out: &mut Frames) {
        let (len, mut input) = (bytes.len(), bytes);
        if self.handler.framing() == Framing::EventStream {
            // the request was all there is to say
            return self.handler.heard(len, false, false);
        }
        let mut completed = false;
        while self.phase != Phase::Flushing && !self.broken {
            match self.reader.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Incoming::Close(code))) => {
                    if self.phase == Phase::Open {
                        out.close_with(code.unwrap_or(CloseCode::Normal.number()), "");
                        self.handler.closing();
                    }
                    self.phase = Phase::Flushing;
                }
                Ok(Some(_)) if self.phase == Phase::Closing => {}
                Ok(Some(incoming)) => {
                    completed |= matches!(incoming, Incoming::Message { .. });
                    if let Err(code) = dispatch(&mut self.handler, &incoming, out) {
                        self.close(code, out);
                    }
                }
                Err(violation) => {
                    self.close(violation.0, out);
                    // nothing after it can be read as frames, and nothing of it is kept
                    self.broken = true;
                    self.reader = FrameReader::new(self.message_bytes_max);
                }
            }
        }
        self.handler.heard(len, completed, self.reader.is_mid_message());
    }

    fn close(&mut self, code: CloseCode, out: &mut Frames) {
        if self.phase == Phase::Open {
            // on a stream nobody answers a close
            let answered = self.handler.framing() != Framing::EventStream;
            self.phase = if answered { Phase::Closing } else { Phase::Flushing };
            metrics::closed(code);
            out.close(code);
            self.handler.closing();
        }
    }

    /// Writes; keeps what the socket does not take. Whether it has taken everything; none: it is broken.
    fn write(&mut self, cx: &mut Context<'_>, out: Frames) -> Option<bool> {
        let mut written = 0;
        while written < out.bytes().len() {
            match Pin::new(&mut self.stream).poll_write(cx, &out.bytes()[written..]) {
                Poll::Ready(Ok(more)) if more > 0 => written += more,
                Poll::Ready(_) => {
                    metrics::ended("write_error");
                    return None;
                }
                Poll::Pending => break,
            }
        }
        // a plain socket has nothing to flush; a TLS session holds what the kernel has not taken
        let flushed = match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => {
                metrics::ended("write_error");
                return None;
            }
            Poll::Pending => false,
        };
        let rest = written < out.bytes().len();
        self.handler.written(flushed && !rest, written);
        if rest {
            self.unwritten = out.keep_from(written);
        } else {
            out.give_back();
        }
        Some(flushed && !rest)
    }

    fn out_buffer(&mut self) -> Frames {
        let framing = self.handler.framing();
        match std::mem::take(&mut self.unwritten) {
            rest if rest.is_empty() => Frames::borrow(framing),
            rest => Frames::behind(rest, framing),
        }
    }
}

fn dispatch(handler: &mut impl Handler, incoming: &Incoming<'_>, out: &mut Frames) -> Result<(), CloseCode> {
    match incoming {
        Incoming::Message { text, payload } => handler.message(*text, payload, out),
        Incoming::Ping(payload) => {
            if handler.ping()? {
                out.raw(OpCode::Pong, payload);
            }
            Ok(())
        }
        Incoming::Pong | Incoming::Close(_) => Ok(()),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> Future for Connection<S, H> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut out = this.out_buffer();
        this.wake(cx, &mut out);
        let gone = this.read(cx, &mut out).is_ready();
        if this.phase == Phase::Open {
            this.handler.settle(&mut out);
            if let Some(code) = this.handler.wants_close() {
                this.close(code, &mut out);
            }
        }
        let was_full = out.bytes().len() > UNWRITTEN_BYTES_MAX;
        let Some(flushed) = this.write(cx, out) else { return Poll::Ready(()) };
        if this.handler.gave_up() {
            return Poll::Ready(());
        }
        let ended = gone || this.phase == Phase::Flushing;
        if ended && (flushed || this.phase == Phase::Open) {
            if flushed {
                // over TLS the peer is told that nothing more comes; there is room for it, so nothing waits
                let _ = Pin::new(&mut this.stream).poll_shutdown(cx);
            }
            // dropping the stream closes it
            return Poll::Ready(());
        }
        if was_full && flushed {
            // reading was held back by what has now been taken
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
