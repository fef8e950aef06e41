use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Wake;

use protocol::codec::Encoding;

use super::*;

/// Takes what is written as TLS does, and has it with the kernel only when told so.
#[derive(Default)]
struct Held {
    kernel_takes: Rc<RefCell<bool>>,
    said_goodbye: Rc<RefCell<bool>>,
    input: Vec<u8>,
    output: Rc<RefCell<Vec<u8>>>,
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Poll::Pending;
        }
        buffer.put_slice(&std::mem::take(&mut self.input));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Held {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.output.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if *self.kernel_takes.borrow() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        *self.said_goodbye.borrow_mut() = true;
        Poll::Ready(Ok(()))
    }
}

/// Says one thing and notes what becomes of it.
struct Says {
    framing: Framing,
    closes: Option<CloseCode>,
    said: bool,
    written: Rc<RefCell<Vec<(bool, usize)>>>,
}

impl Default for Says {
    fn default() -> Self {
        Self { framing: Framing::WebSocket(Encoding::Json), closes: None, said: false, written: Rc::default() }
    }
}

impl Handler for Says {
    fn framing(&self) -> Framing {
        self.framing
    }
    fn wake(&mut self, _: &mut Context<'_>, out: &mut Frames) {
        if !std::mem::replace(&mut self.said, true) {
            out.raw(OpCode::Text, b"hello");
        }
    }
    fn message(&mut self, _: bool, _: &[u8], _: &mut Frames) -> Result<(), CloseCode> {
        Ok(())
    }
    fn ping(&mut self) -> Result<bool, CloseCode> {
        Ok(true)
    }
    fn heard(&mut self, _: usize, _: bool, _: bool) {}
    fn settle(&mut self, _: &mut Frames) {}
    fn written(&mut self, all: bool, bytes: usize) {
        self.written.borrow_mut().push((all, bytes));
    }
    fn wants_close(&mut self) -> Option<CloseCode> {
        self.closes
    }
    fn closing(&mut self) {}
    fn gave_up(&self) -> bool {
        false
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

fn poll(connection: &mut Connection<Held, Says>) -> Poll<()> {
    let waker = Arc::new(Nobody).into();
    Pin::new(connection).poll(&mut Context::from_waker(&waker))
}

#[test]
fn what_the_kernel_has_not_taken_is_not_written() {
    let (stream, handler) = (Held::default(), Says::default());
    let (kernel_takes, written) = (Rc::clone(&stream.kernel_takes), Rc::clone(&handler.written));
    let mut connection = Connection::new(stream, handler, 1024, Vec::new());
    assert!(poll(&mut connection).is_pending());
    assert!(poll(&mut connection).is_pending());
    assert_eq!(*written.borrow(), [(false, 7), (false, 0)], "a stall, as seen by the clocks");
    *kernel_takes.borrow_mut() = true;
    assert!(poll(&mut connection).is_pending());
    assert_eq!(written.borrow().last(), Some(&(true, 0)));
}

#[test]
fn the_answer_to_a_close_is_with_the_kernel_before_the_stream_is_let_go() {
    let close = vec![0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    let stream = Held { input: close, ..Held::default() };
    let (kernel_takes, said_goodbye) = (Rc::clone(&stream.kernel_takes), Rc::clone(&stream.said_goodbye));
    let mut connection = Connection::new(stream, Says::default(), 1024, Vec::new());
    assert!(poll(&mut connection).is_pending());
    assert!(!*said_goodbye.borrow());
    *kernel_takes.borrow_mut() = true;
    assert!(poll(&mut connection).is_ready());
    assert!(*said_goodbye.borrow());
}

#[test]
fn a_stream_says_why_it_ends_and_waits_for_no_answer() {
    let stream = Held { input: b"GET / HTTP/1.1\r\n\r\n".to_vec(), ..Held::default() };
    let (kernel_takes, output) = (Rc::clone(&stream.kernel_takes), Rc::clone(&stream.output));
    *kernel_takes.borrow_mut() = true;
    let handler = Says { framing: Framing::EventStream, closes: Some(CloseCode::Superseded), said: true, ..Says::default() };
    let mut connection = Connection::behind(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), stream, handler, 1024, Vec::new());
    assert!(poll(&mut connection).is_ready());
    let want = "HTTP/1.1 200 OK\r\n\r\nevent: close\ndata: {\"type\":\"close\",\"code\":4409,\"reason\":\"superseded\"}\n\n";
    assert_eq!(String::from_utf8_lossy(&output.borrow()), want);
}
