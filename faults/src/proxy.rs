//! A TCP proxy between two parts of the cluster, and what it does to the bytes: silence without a reset (a partition as both sides see it), latency
//! with losses, single bytes, connections reset.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Pieces on their way in one direction of a connection: then its sender waits.
const UNDER_WAY: usize = 64;
const PIECE_BYTES: usize = 16 * 1024;
/// Where pieces go that are on their way for longer: what TCP takes for a lost segment is sent again after 200 ms (RFC 6298 with Linux's least).
const RESENT: Duration = Duration::from_millis(200);
const LOST_OF_100: u32 = 3;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    None,
    /// None gets through; they come when it is over.
    Cut,
    /// 50 to 150 ms, and 3 % of the pieces as if they had been lost once.
    Slow,
    /// Each byte by itself.
    Sliced,
}

/// A proxy in front of one address. Dropped, it resets its connections and takes no more.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
    trouble: watch::Sender<Trouble>,
    resets: watch::Sender<()>,
    touched: Arc<AtomicU64>,
}

/// What one connection listens to.
#[derive(Clone)]
struct Orders {
    trouble: watch::Receiver<Trouble>,
    resets: watch::Receiver<()>,
    /// Pieces to which something happened, and connections that were reset.
    touched: Arc<AtomicU64>,
}

impl Orders {
    fn touch(&self) {
        self.touched.fetch_add(1, Ordering::Relaxed);
    }
}

impl Proxy {
    /// In front of this address, at any free port.
    pub(crate) async fn before(target: SocketAddr) -> io::Result<Self> {
        Self::at(([127, 0, 0, 1], 0).into(), target).await
    }

    /// In front of this address, at this one.
    pub(crate) async fn at(own: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(own).await?;
        let address = listener.local_addr()?;
        let (trouble, orders) = watch::channel(Trouble::None);
        let (resets, reset) = watch::channel(());
        let touched = Arc::<AtomicU64>::default();
        let orders = Orders { trouble: orders, resets: reset, touched: Arc::clone(&touched) };
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let mut orders = orders.clone();
                orders.resets.mark_unchanged();
                tokio::spawn(async move {
                    // who cannot connect closes the other side too: what a refused connection looks like from behind a proxy
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    both_ways(client, server, orders).await;
                });
            }
        });
        Ok(Self { address, accepting, trouble, resets, touched })
    }

    /// What happens to bytes from now on.
    pub(crate) fn make(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }

    /// Pieces to which something has happened so far, and connections that were reset: whether a fault has bitten.
    pub(crate) fn touched(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }

    /// Resets every connection there is.
    pub(crate) fn reset(&self) {
        self.resets.send_replace(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn both_ways(client: TcpStream, server: TcpStream, orders: Orders) {
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (mut resets, counter) = (orders.resets.clone(), orders.clone());
    let handles = [&client, &server].map(|stream| SockRef::from(stream).try_clone());
    let ((from, to), (back_from, back_to)) = (client.into_split(), server.into_split());
    let there = tokio::spawn(forward(from, back_to, orders.clone()));
    let back = tokio::spawn(forward(back_from, to, orders));
    let both = async { tokio::join!(there, back) };
    tokio::pin!(both);
    tokio::select! {
        // first: a reset may have ended both directions already
        biased;
        _ = resets.changed() => {
            counter.touch();
            for handle in handles.iter().flatten() {
                // closed then, it sends a reset instead of an end (SO_LINGER 0)
                let _ = handle.set_linger(Some(Duration::ZERO));
            }
            // both directions notice it too
            let _ = both.await;
        }
        _ = &mut both => {}
    }
}

/// One direction, until it ends or is reset. Its end is passed on; a reset is one for both sides.
async fn forward(from: OwnedReadHalf, mut to: OwnedWriteHalf, mut orders: Orders) {
    let (pieces, due) = mpsc::channel(UNDER_WAY);
    let (reading, writing) = (orders.clone(), orders.clone());
    tokio::select! {
        biased;
        // dropped as it is, it would say an orderly end first
        _ = orders.resets.changed() => to.forget(),
        _ = async { tokio::join!(read(from, pieces, reading), write(&mut to, due, writing)) } => {}
    }
}

async fn read(mut from: OwnedReadHalf, pieces: mpsc::Sender<(Instant, Vec<u8>)>, orders: Orders) {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut last = Instant::now();
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // none overtakes another
        let trouble = *orders.trouble.borrow();
        if trouble != Trouble::None {
            orders.touch();
        }
        last = last.max(Instant::now() + delay(trouble));
        if pieces.send((last, buffer[..count].to_vec())).await.is_err() {
            break;
        }
    }
}

fn delay(trouble: Trouble) -> Duration {
    if trouble != Trouble::Slow {
        return Duration::ZERO;
    }
    let mut rng = rand::rng();
    let lost = if rng.random_range(0..100) < LOST_OF_100 { RESENT } else { Duration::ZERO };
    lost + Duration::from_millis(rng.random_range(50..150))
}

async fn write(to: &mut OwnedWriteHalf, mut due: mpsc::Receiver<(Instant, Vec<u8>)>, mut orders: Orders) {
    while let Some((at, piece)) = due.recv().await {
        sleep_until(at).await;
        let Ok(now) = orders.trouble.wait_for(|trouble| *trouble != Trouble::Cut).await.map(|now| *now) else { return };
        let step = if now == Trouble::Sliced { 1 } else { PIECE_BYTES };
        for part in piece.chunks(step) {
            if to.write_all(part).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn comes_back(stream: &mut TcpStream, word: &[u8]) -> io::Result<()> {
        stream.write_all(word).await?;
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, word);
        Ok(())
    }

    #[tokio::test]
    async fn bytes_come_whole_and_in_order_whatever_happens_to_them() {
        let proxy = Proxy::before(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let word: Vec<u8> = (0..=255).collect();
        for trouble in [Trouble::None, Trouble::Sliced, Trouble::Slow, Trouble::None] {
            proxy.make(trouble);
            comes_back(&mut stream, &word).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_cut_is_silence_and_what_was_sent_meanwhile_comes_after_it() {
        let proxy = Proxy::before(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        comes_back(&mut stream, b"before").await.unwrap();
        proxy.make(Trouble::Cut);
        stream.write_all(b"while").await.unwrap();
        let mut back = [0; 5];
        let heard = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut back)).await;
        assert!(heard.is_err(), "nothing gets through, and nothing is closed");
        assert!(proxy.touched() > 0);
        proxy.make(Trouble::None);
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"while");
    }

    #[tokio::test]
    async fn a_reset_ends_what_is_there_and_not_what_comes() {
        let proxy = Proxy::before(echo().await).await.unwrap();
        let mut old = TcpStream::connect(proxy.address).await.unwrap();
        comes_back(&mut old, b"before").await.unwrap();
        proxy.reset();
        assert_eq!(old.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(proxy.touched(), 1);
        let mut new = TcpStream::connect(proxy.address).await.unwrap();
        comes_back(&mut new, b"after").await.unwrap();
    }
}
