//! Bytes to WebSocket messages (RFC 6455 section 5): pure and incremental, so it is cancel-safe by construction and holds no memory between
//! messages. The `fastwebsockets` crate unmasks and writes; reading is ours because its reader allocates 8 KiB a socket, is not
//! cancel-safe, and lets through unmasked frames, long control frames and cut code points (docs/decisions/0003).

use fastwebsockets::unmask;
use protocol::close_code::{CloseCode, acceptable_from_peer};
use protocol::limits::{CONTROL_BYTES_MAX, FRAGMENTS_MAX};

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole message; `text` is valid UTF-8.
    Message {
        /// Text (else binary).
        text: bool,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// A ping, to be answered with the same bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A close frame, with its code if it had one.
    Close(Option<u16>),
}

/// How a peer broke the protocol; the code to close with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation(pub CloseCode);

const PROTOCOL: Violation = Violation(CloseCode::Protocol);
const TOO_BIG: Violation = Violation(CloseCode::TooBig);
const NOT_UTF8: Violation = Violation(CloseCode::NotUtf8);

/// The head of a frame: 2 bytes, a length of 0, 2 or 8, a mask of 4.
#[derive(Debug, Clone, Copy, Default)]
struct Partial {
    bytes: [u8; 14],
    len: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// A frame whose payload is arriving.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    mask: [u8; 4],
    remaining: usize,
}

impl Frame {
    const fn is_control(&self) -> bool {
        matches!(self.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// A data message that did not arrive in one piece.
#[derive(Debug, Default)]
struct Assembly {
    text: bool,
    payload: Vec<u8>,
    /// Up to here the text is known to be UTF-8.
    valid_up_to: usize,
    fragments: u32,
    /// At least one frame of it is complete and the last is not.
    open: bool,
}

/// Reader of one connection. Between messages it is a few words and no heap.
#[derive(Debug)]
pub struct FrameReader {
    partial: Partial,
    frame: Option<Frame>,
    assembly: Option<Box<Assembly>>,
    control: Vec<u8>,
    done: Option<Box<Assembly>>,
    message_bytes_max: usize,
}

impl FrameReader {
    /// A reader that takes messages up to this size, bytes.
    pub const fn new(message_bytes_max: usize) -> Self {
        let partial = Partial { bytes: [0; 14], len: 0 };
        Self { partial, frame: None, assembly: None, control: Vec::new(), done: None, message_bytes_max }
    }

    /// Whether a message has begun and not ended.
    pub const fn is_mid_message(&self) -> bool {
        self.assembly.is_some()
    }

    /// Takes bytes from the front of `input` until something has arrived whole, or all is used up. Call again until `None`.
    ///
    /// # Errors
    /// [`Violation`]: close with its code; nothing more can be read.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i mut [u8]) -> Result<Option<Incoming<'a>>, Violation> {
        self.done = None;
        loop {
            if self.frame.is_none() && !self.read_head(input)? {
                return Ok(None);
            }
            let Some(frame) = &mut self.frame else { return Ok(None) };
            let chunk = split_front(input, frame.remaining);
            unmask(chunk, frame.mask);
            frame.mask.rotate_left(chunk.len() % 4);
            frame.remaining -= chunk.len();
            let frame = *frame;
            let whole = frame.remaining == 0;
            if whole {
                self.frame = None;
            }
            if frame.is_control() {
                if whole {
                    return self.control(frame.opcode, chunk).map(Some);
                }
                self.control.extend_from_slice(chunk);
            } else if whole && frame.fin && self.assembly.is_none() {
                let text = frame.opcode == Opcode::Text;
                if text && simdutf8::basic::from_utf8(chunk).is_err() {
                    return Err(NOT_UTF8);
                }
                return Ok(Some(Incoming::Message { text, payload: chunk }));
            } else if self.assemble(frame, chunk, whole)? {
                self.done = self.assembly.take();
                let done = self.done.as_ref().map(|done| Incoming::Message { text: done.text, payload: &done.payload });
                return Ok(done);
            }
            if input.is_empty() && self.frame.is_some() {
                return Ok(None);
            }
        }
    }

    /// Reads a head, as far as it is there, and checks each byte as soon as it is known. True: a frame has begun.
    fn read_head(&mut self, input: &mut &mut [u8]) -> Result<bool, Violation> {
        loop {
            let partial = &mut self.partial;
            let need = match (partial.len, partial.bytes[1] & 0x7f) {
                (0 | 1, _) => partial.len + 1,
                (_, 126) => 8,
                (_, 127) => 14,
                _ => 6,
            };
            if partial.len >= 2 && partial.len == need {
                break;
            }
            let chunk = split_front(input, usize::from(need - partial.len));
            if chunk.is_empty() {
                return Ok(false);
            }
            let at = usize::from(partial.len);
            partial.bytes[at..at + chunk.len()].copy_from_slice(chunk);
            // at most 14
            partial.len += chunk.len() as u8;
            self.check_head()?;
        }
        let frame = self.begin_frame()?;
        self.partial = Partial::default();
        self.frame = Some(frame);
        Ok(true)
    }

    /// The checks that need no more than the bytes there are: fail fast.
    fn check_head(&self) -> Result<(), Violation> {
        let [first, second, ..] = self.partial.bytes;
        let opcode = opcode(first)?;
        let control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        let fin = first & 0x80 != 0;
        let open = self.assembly.as_ref().is_some_and(|assembly| assembly.open);
        let in_order = control || (opcode == Opcode::Continuation) == open;
        if first & 0x70 != 0 || (control && !fin) || !in_order {
            return Err(PROTOCOL);
        }
        let unmasked = second & 0x80 == 0;
        let long_control = control && usize::from(second & 0x7f) > CONTROL_BYTES_MAX;
        if self.partial.len >= 2 && (unmasked || long_control) {
            return Err(PROTOCOL);
        }
        Ok(())
    }

    /// A complete head: its length, checked before anything is kept.
    fn begin_frame(&self) -> Result<Frame, Violation> {
        let bytes = &self.partial.bytes;
        let (length, mask_at) = match bytes[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            127 => (bytes[2..10].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)), 10),
            short => (u64::from(short), 2),
        };
        if length >> 63 != 0 {
            return Err(PROTOCOL);
        }
        let opcode = opcode(bytes[0])?;
        let before = match opcode {
            Opcode::Continuation => self.assembly.as_ref().map_or(0, |assembly| assembly.payload.len()),
            _ => 0,
        };
        let remaining = usize::try_from(length).map_err(|_| TOO_BIG)?;
        if remaining.saturating_add(before) > self.message_bytes_max {
            return Err(TOO_BIG);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&bytes[mask_at..mask_at + 4]);
        Ok(Frame { opcode, fin: bytes[0] & 0x80 != 0, mask, remaining })
    }

    /// Part of a data message that is not in one piece. True: the message is complete.
    fn assemble(&mut self, frame: Frame, chunk: &[u8], whole: bool) -> Result<bool, Violation> {
        let assembly = self.assembly.get_or_insert_with(Box::default);
        if frame.opcode == Opcode::Text {
            assembly.text = true;
        }
        assembly.payload.extend_from_slice(chunk);
        let complete = whole && frame.fin;
        if assembly.text {
            match std::str::from_utf8(&assembly.payload[assembly.valid_up_to..]) {
                Ok(_) => assembly.valid_up_to = assembly.payload.len(),
                Err(why) if why.error_len().is_some() || complete => return Err(NOT_UTF8),
                Err(why) => assembly.valid_up_to += why.valid_up_to(),
            }
        }
        if whole && !complete {
            assembly.open = true;
            assembly.fragments += 1;
            if assembly.fragments >= FRAGMENTS_MAX {
                return Err(TOO_BIG);
            }
        }
        Ok(complete)
    }

    /// A complete control frame; its payload is what was kept before and this last piece.
    fn control<'a>(&'a mut self, opcode: Opcode, last: &'a mut [u8]) -> Result<Incoming<'a>, Violation> {
        let payload: &'a [u8] = if self.control.is_empty() {
            last
        } else {
            let mut kept = std::mem::take(&mut self.control);
            kept.extend_from_slice(last);
            self.done = Some(Box::new(Assembly { payload: kept, ..Assembly::default() }));
            self.done.as_ref().map_or(&[], |done| &done.payload)
        };
        match opcode {
            Opcode::Ping => Ok(Incoming::Ping(payload)),
            Opcode::Pong => Ok(Incoming::Pong),
            _ => close(payload),
        }
    }
}

/// Checks a close frame's payload (RFC 6455 section 5.5.1).
fn close(payload: &[u8]) -> Result<Incoming<'_>, Violation> {
    match payload {
        [] => Ok(Incoming::Close(None)),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !acceptable_from_peer(code) {
                return Err(PROTOCOL);
            }
            std::str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
            Ok(Incoming::Close(Some(code)))
        }
        _ => Err(PROTOCOL),
    }
}

const fn opcode(first: u8) -> Result<Opcode, Violation> {
    Ok(match first & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        _ => return Err(PROTOCOL),
    })
}

/// Takes up to `len` bytes off the front.
fn split_front<'a>(input: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let len = len.min(input.len());
    let (front, rest) = std::mem::take(input).split_at_mut(len);
    *input = rest;
    front
}

#[cfg(test)]
mod tests;
