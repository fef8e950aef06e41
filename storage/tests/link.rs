//! Links over loopback TCP: what arrives, what is known to be lost, who is refused.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

mod link_harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use link_harness::{Book, CLUSTER, KEY, Node, Proxy, counted, events, node, quick, rewind, until};
use prost::Message as _;
use router::registry::NodeId;
use storage::link::{Credentials, Inbox, Limits, LinkDeliver, RewindSender, listen};
use storage::push::Deliver as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const A: NodeId = node(1, 11);
const B: NodeId = node(2, 22);
const C: NodeId = node(3, 33);

/// A links with B, directly.
async fn pair(limits: Limits) -> (LinkDeliver, Node) {
    let (book, b) = (Book::default(), Node::start(B, limits).await);
    book.enter(B, b.address());
    let a = book.sender(A, limits);
    b.linked_by(&a).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_in_order_and_equal() {
    let (a, b) = pair(Limits::default()).await;
    let all = events(1, 3000, 300);
    let (mut sent, mut frames) = (all.as_slice(), 0);
    for size in (0..).map(|turn| turn % 7 * 13 + 1) {
        let (batch, rest) = sent.split_at(usize::min(size, sent.len()));
        // far below the queue's bound even when nothing is read
        drop(a.push(B, batch.to_vec()));
        (sent, frames) = (rest, frames + 1);
        if sent.is_empty() {
            break;
        }
    }
    until("all events", || b.events().len() == 3000).await;
    assert_eq!(b.events(), all.iter().map(|push| (push.owner, push.epoch, push.event.clone())).collect::<Vec<_>>());
    assert_eq!(b.wakes(), frames, "sessions wake once a frame");
    assert_eq!(b.gaps(), 1, "the link's beginning and nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_never_blocks_push_and_hears_of_what_was_dropped() {
    let limits = Limits { queue_pushes: 1000, silence: Duration::from_secs(60), ..Limits::default() };
    let (book, b) = (Book::default(), Node::start(B, limits).await);
    let proxy = Proxy::start(b.address()).await;
    book.enter(B, proxy.address());
    let a = book.sender(A, limits);
    b.linked_by(&a).await;
    let gaps = b.gaps();
    proxy.pause(true);
    let (before, mut slowest, mut seq) = (counted("switchboard_drops_total", "link_full"), Duration::ZERO, 1);
    while counted("switchboard_drops_total", "link_full") < before + 500 {
        let batch = events(seq, 100, 1000);
        let begun = Instant::now();
        drop(a.push(B, batch));
        slowest = slowest.max(begun.elapsed());
        seq += 100;
        assert!(seq < 1_000_000, "the queue has no end");
    }
    println!("the slowest push took {slowest:?}");
    proxy.pause(false);
    until("the gap", || b.gaps() > gaps).await;
    drop(a.push(B, events(seq, 1, 10)));
    until("the last event", || b.events().last().is_some_and(|(.., event)| event.seq == seq)).await;
    let seqs: Vec<_> = b.events().iter().map(|(.., event)| event.seq).collect();
    assert!(seqs.is_sorted_by(|one, next| one < next), "dropped ones are missing, none is twice or late");
    assert!((seqs.len() as u64) < seq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_a_gap_at_once_and_the_link_comes_back() {
    let (book, b) = (Book::default(), Node::start(B, Limits::default()).await);
    let proxy = Proxy::start(b.address()).await;
    book.enter(B, proxy.address());
    let a = book.sender(A, Limits::default());
    b.linked_by(&a).await;
    let gaps = b.gaps();
    proxy.cut();
    let cut = Instant::now();
    until("the gap", || b.gaps() > gaps).await;
    println!("the gap was known after {:?}", cut.elapsed());
    until("the next link", || proxy.accepted() == 2).await;
    arrives(&a, &b, B, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_bytes_end_the_link_and_another_comes() {
    let (book, b) = (Book::default(), Node::start(B, quick()).await);
    let proxy = Proxy::start(b.address()).await;
    book.enter(B, proxy.address());
    let a = book.sender(A, quick());
    b.linked_by(&a).await;
    let (gaps, garbage) = (b.gaps(), counted("switchboard_link_refused_total", "garbage"));
    proxy.damage();
    until("the refusal", || counted("switchboard_link_refused_total", "garbage") > garbage).await;
    until("the gap", || b.gaps() > gaps).await;
    arrives(&a, &b, B, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_outside_the_runtime_can_push() {
    let (book, b) = (Book::default(), Node::start(B, quick()).await);
    book.enter(B, b.address());
    let a = Arc::new(book.sender(A, quick()));
    let pushing = Arc::clone(&a);
    std::thread::spawn(move || drop(pushing.push(B, events(1, 1, 10)))).join().unwrap();
    until("the link", || b.gaps() == 1).await;
    let pushing = Arc::clone(&a);
    std::thread::spawn(move || drop(pushing.push(B, events(2, 1, 10)))).join().unwrap();
    until("the event", || b.events().iter().any(|(.., event)| event.seq == 2)).await;
}

/// Pushes until one arrives: the link may be made just now.
async fn arrives(a: &LinkDeliver, b: &Node, to: NodeId, from_seq: u64) {
    let mut seq = from_seq;
    until("an event", || {
        drop(a.push(to, events(seq, 1, 10)));
        seq += 1;
        b.events().iter().any(|(.., event)| event.seq >= from_seq)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_a_broken_link_in_five_seconds() {
    let (book, b) = (Book::default(), Node::start(B, Limits::default()).await);
    let proxy = Proxy::start(b.address()).await;
    book.enter(B, proxy.address());
    let a = book.sender(A, Limits::default());
    b.linked_by(&a).await;
    let (gaps, dialed) = (b.gaps(), proxy.accepted());
    proxy.pause(true);
    let begun = Instant::now();
    until("the receiver notices", || b.gaps() > gaps).await;
    until("the sender dials again", || proxy.accepted() > dialed).await;
    // and at most a second of rest before it dials again
    println!("known after {:?}", begun.elapsed());
    proxy.pause(false);
    proxy.cut();
    arrives(&a, &b, B, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_idle_stays() {
    let limits = Limits { beat: Duration::from_millis(50), silence: Duration::from_millis(600), ..Limits::default() };
    let (a, b) = pair(limits).await;
    tokio::time::sleep(limits.silence * 3).await;
    assert_eq!(b.gaps(), 1);
    drop(a.push(B, events(1, 1, 10)));
    until("the event", || b.events().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_boot_of_the_receiver_gets_nothing_that_was_meant_for_the_old_one() {
    let (book, b) = (Book::default(), Node::start(B, quick()).await);
    book.enter(B, b.address());
    let a = book.sender(A, quick());
    b.linked_by(&a).await;
    let address = b.address();
    drop(b);
    let again = NodeId { boot: 23, ..B };
    let b = Node::start_at(again, address, quick()).await;
    let refused = counted("switchboard_link_refused_total", "node");
    until("the old boot is refused", || {
        drop(a.push(B, events(1, 1, 10)));
        counted("switchboard_link_refused_total", "node") > refused + 1
    })
    .await;
    assert!(b.events().is_empty() && b.gaps() == 0);
    book.enter(again, address);
    b.linked_by(&a).await;
    arrives(&a, &b, again, 10).await;
    assert!(b.events().iter().all(|(.., event)| event.seq >= 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_boot_of_the_sender_is_a_gap() {
    let (book, b) = (Book::default(), Node::start(B, quick()).await);
    book.enter(B, b.address());
    let a = book.sender(A, quick());
    b.linked_by(&a).await;
    let gaps = b.gaps();
    drop(a);
    until("the end of the old link", || b.gaps() > gaps).await;
    let gaps = b.gaps();
    let a = book.sender(NodeId { boot: 12, ..A }, quick());
    assert!(a.connect(B));
    until("the new link", || b.gaps() > gaps).await;
    arrives(&a, &b, B, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_secret_cluster_or_none_is_refused_by_name() {
    let b = Node::start(B, quick()).await;
    let address = b.address();
    let with = |cluster: &str, key: Option<&[u8]>| {
        let credentials = Arc::new(Credentials::new(A, cluster, key).unwrap());
        LinkDeliver::new(credentials, Arc::new(move |_| Some(address)), None, quick())
    };
    for (why, a) in
        [("secret", with(CLUSTER, Some(&[9; 32]))), ("cluster", with("other", Some(KEY))), ("secret", with(CLUSTER, None))]
    {
        let before = counted("switchboard_link_refused_total", why);
        assert!(a.connect(B));
        // by the listener and, told, by the dialer
        until(why, || counted("switchboard_link_refused_total", why) >= before + 2).await;
        drop(a.push(B, events(1, 1, 10)));
    }
    assert!(b.gaps() == 0 && b.events().is_empty());
    let good = with(CLUSTER, Some(KEY));
    b.linked_by(&good).await;
}

#[tokio::test]
async fn without_a_secret_only_loopback() {
    let credentials = Arc::new(Credentials::new(B, CLUSTER, None).unwrap());
    let inbox = Inbox { deliver: None, rewinds: None, superseded: None, on_gap: Arc::new(|| ()) };
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let error = listen(everywhere, credentials, inbox, quick()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let a = LinkDeliver::new(
        Arc::new(Credentials::new(A, CLUSTER, None).unwrap()),
        Arc::new(|_| Some("192.0.2.1:9".parse().unwrap())),
        None,
        quick(),
    );
    let before = counted("switchboard_link_refused_total", "not_loopback");
    assert!(a.connect(B));
    until("not dialed", || counted("switchboard_link_refused_total", "not_loopback") > before).await;
}

/// The first frame as another build may write it: pins the tags.
#[derive(Clone, PartialEq, prost::Message)]
struct OtherHello {
    #[prost(message, optional, tag = "2")]
    hello: Option<OtherWords>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OtherWords {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    cluster: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_is_refused_by_name() {
    let b = Node::start(B, quick()).await;
    let mut socket = TcpStream::connect(b.address()).await.unwrap();
    let words = OtherHello { hello: Some(OtherWords { version: 99, cluster: CLUSTER.to_owned() }) }.encode_to_vec();
    socket.write_all(&u32::try_from(words.len()).unwrap().to_be_bytes()).await.unwrap();
    socket.write_all(&words).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.windows(7).any(|part| part == b"version"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_half_open_peers_cost_nothing() {
    let limits = Limits { handshakes: 8, handshake: Duration::from_secs(2), ..Limits::default() };
    let b = Node::start(B, limits).await;
    let garbage = counted("switchboard_link_refused_total", "garbage");
    for round in 0..50_u32 {
        let bytes: Vec<u8> = (0..round * 20 + 4).map(|_| rand::random()).collect();
        let mut socket = TcpStream::connect(b.address()).await.unwrap();
        let _ = socket.write_all(&bytes).await;
        let closed = timeout(Duration::from_secs(5), socket.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "garbage is closed");
    }
    assert!(counted("switchboard_link_refused_total", "garbage") >= garbage + 40);
    let full = counted("switchboard_link_refused_total", "full");
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(b.address()).await.unwrap());
    }
    until("the surplus is closed", || counted("switchboard_link_refused_total", "full") >= full + 42).await;
    for mut socket in idle {
        let _ = timeout(Duration::from_secs(5), socket.read_to_end(&mut Vec::new())).await.expect("closed");
    }
    assert_eq!(b.gaps(), 0, "none of them was a link");
    let book = Book::default();
    book.enter(B, b.address());
    b.linked_by(&book.sender(A, limits)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_s_own_gateway_needs_no_link() {
    let (b, book) = (Node::start(A, quick()).await, Book::default());
    let a = book.sender_with(A, Some(b.deliver()), quick());
    drop(a.push(A, events(1, 5, 10)));
    assert_eq!((b.events().len(), b.wakes()), (5, 1), "at once, in this call");
    let nowhere = counted("switchboard_drops_total", "not_here");
    drop(book.sender(A, quick()).push(A, events(1, 5, 10)));
    assert_eq!(counted("switchboard_drops_total", "not_here"), nowhere + 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_bounded_and_those_long_gone_forgotten() {
    let limits = Limits { peers: 1, gone: Duration::from_millis(300), ..quick() };
    let (book, b, c) = (Book::default(), Node::start(B, limits).await, Node::start(C, limits).await);
    book.enter(B, b.address());
    book.enter(C, c.address());
    let a = book.sender(A, limits);
    b.linked_by(&a).await;
    let before = counted("switchboard_drops_total", "link_peers");
    drop(a.push(C, events(1, 3, 10)));
    assert!(counted("switchboard_drops_total", "link_peers") >= before + 3 && !a.connect(C));
    book.leave(B);
    drop(b);
    until("B is forgotten", || a.connect(C)).await;
    until("a link with C", || c.gaps() > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_router_is_asked_once_even_one_that_comes_later() {
    let (book, b) = (Book::default(), Node::start(B, quick()).await);
    book.enter(B, b.address());
    let reserved = Node::start(C, quick()).await;
    let late = reserved.address();
    drop(reserved);
    book.enter(C, late);
    let (asks, rewinds) = mpsc::channel(64);
    let (local, mut mine) = mpsc::channel(64);
    let links = Arc::new(book.sender(A, quick()));
    let routers = Arc::new(|| vec![A, B, C]);
    let sender = tokio::spawn(RewindSender { links, routers, local: Some(local) }.run(rewinds));
    for hole in [1, 1, 2, 1, 3, 2] {
        asks.send(rewind(hole)).await.unwrap();
    }
    let c = Node::start_at(C, late, quick()).await;
    for heard in [b.rewinds(3).await, c.rewinds(3).await] {
        assert_eq!(heard, [rewind(1), rewind(2), rewind(3)]);
    }
    for hole in 1..=3 {
        assert_eq!(mine.recv().await, Some(rewind(hole)));
    }
    drop(asks);
    sender.await.unwrap();
    assert_eq!(mine.recv().await, None, "none twice");
}

/// Processor time of this process, microseconds; the kernel counts in hundredths of a second.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    let ticks = behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    ticks.sum::<u64>() * 10_000
}

/// Run by hand: `TEST_FIGURES=1 cargo test -p storage --test link -- --nocapture measure`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measure() {
    if std::env::var_os("TEST_FIGURES").is_none() {
        return;
    }
    for size in [1, 64] {
        let (a, b) = pair(Limits::default()).await;
        b.only_count();
        let batch = events(1, size, 300);
        let sent = AtomicU64::new(0);
        let (begun, cpu) = (Instant::now(), cpu_us());
        while begun.elapsed() < Duration::from_secs(5) {
            // at most 4,000 on their way: nothing is dropped
            while sent.load(Ordering::Relaxed) - b.count() > 4000 {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            drop(a.push(B, batch.clone()));
            sent.fetch_add(size, Ordering::Relaxed);
        }
        until("all arrived", || b.count() == sent.load(Ordering::Relaxed)).await;
        let (took, cpu) = (begun.elapsed(), cpu_us() - cpu);
        let all = b.count();
        println!(
            "batches of {size}: {:.0} pushes/s, {:.2} us of processor a push (both ends)",
            all as f64 / took.as_secs_f64(),
            cpu as f64 / all as f64
        );
    }
}
