//! One socket of the `direct` scenario: sends its own stream, receives its partner's, and judges both as they pass.
//!
//! Memory is bounded: a bit for each message, the sends in flight, and no history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use super::Attached;
use crate::actor::{Item, Outbox};
use crate::client::{Client, ClientError};
use crate::frame::{ErrorFrame, Event, EventKind, Refused, ServerFrame};
use crate::pace::{Latencies, Schedule};

/// Acknowledge every so many events.
const ACKNOWLEDGE_EVERY: u64 = 32;
/// The variant of a UUID lies over the two highest bits of the stream's number.
const STREAM_BITS: u32 = 0x3fff_ffff;

/// What all lanes share.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) run: u32,
    pub(super) schedule: Schedule,
    pub(super) sockets: u64,
    pub(super) body: usize,
    /// Sends with a lower number warm up and are not measured.
    pub(super) measured_from: u64,
    pub(super) signals: Vec<Signal>,
    pub(super) accepted: Arc<Latencies>,
    pub(super) delivered: Arc<Latencies>,
    /// Sends with a final answer, of all lanes.
    pub(super) settled: AtomicU64,
    /// Messages that reached their receiver, of all lanes.
    pub(super) arrived: AtomicU64,
    pub(super) leave: watch::Sender<bool>,
}

/// How the pacer tells a lane how many of its sends are due: one number, however many are late.
#[derive(Debug, Default)]
pub(super) struct Signal {
    due: AtomicU64,
    changed: Notify,
}

impl Signal {
    pub(super) fn one_more(&self) {
        self.due.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// What one lane saw.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Which of its sends were accepted.
    pub(super) accepted: Bitmap,
    /// Which of its partner's sends arrived.
    pub(super) arrived: Bitmap,
    pub(super) last_accepted: Option<Instant>,
    pub(super) refused_finally: u64,
    pub(super) put_back: u64,
    pub(super) unanswered: u64,
    pub(super) duplicates: u64,
    pub(super) inversions: u64,
    pub(super) holes: u64,
    pub(super) phantoms: u64,
    pub(super) broken: Option<String>,
}

/// One bit for each message of a stream.
#[derive(Debug, Default)]
pub(super) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Sets a bit. Returns whether it was clear.
    pub(super) fn insert(&mut self, bit: u32) -> bool {
        let (word, mask) = (bit as usize / 64, 1u64 << (bit % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let Some(word) = self.words.get_mut(word) else { return false };
        let clear = *word & mask == 0;
        *word |= mask;
        clear
    }

    /// How many bits are set.
    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many bits are set here and clear there.
    pub(super) fn missing_in(&self, other: &Self) -> u64 {
        let there = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words.iter().zip(there).map(|(here, there)| u64::from((here & !there).count_ones())).sum()
    }
}

/// One socket: the state it needs to send and to judge.
#[derive(Debug)]
pub(super) struct Lane {
    course: Arc<Course>,
    client: Client,
    stream: u32,
    partner: u64,
    to: String,
    window: usize,
    outbox: Outbox,
    next: u32,
    last_seq: u64,
    acknowledged: u64,
    newest_arrived: Option<u32>,
    report: Report,
}

impl Lane {
    /// The lane of socket number `stream`, whose messages go to `partner`.
    pub(super) fn new(course: Arc<Course>, attached: Attached, stream: u32, partner: u64) -> Self {
        Self {
            course,
            client: attached.client,
            stream,
            partner,
            to: format!("u:{partner}"),
            window: attached.welcome.limits.in_flight,
            outbox: Outbox::default(),
            next: 0,
            last_seq: attached.head,
            acknowledged: attached.head,
            newest_arrived: None,
            report: Report::default(),
        }
    }

    /// Runs until it is told to leave or the connection breaks.
    pub(super) async fn run(mut self) -> Report {
        let ended = self.serve().await;
        self.report.unanswered = self.outbox.len() as u64;
        match ended {
            Ok(()) => self.client.close().await,
            Err(error) => self.report.broken = Some(error.to_string()),
        }
        self.report
    }

    async fn serve(&mut self) -> Result<(), ClientError> {
        let course = Arc::clone(&self.course);
        let mut leave = course.leave.subscribe();
        let Some(signal) = course.signals.get(self.stream as usize) else { return Ok(()) };
        loop {
            self.send_due(signal.due.load(Ordering::Relaxed)).await?;
            let hold_until = self.outbox.hold_until().filter(|until| *until > Instant::now());
            let again = async {
                match hold_until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                frame = self.client.next() => self.on_frame(frame?).await?,
                () = signal.changed.notified() => {}
                () = again => {}
                () = async { drop(leave.wait_for(|leave| *leave).await) } => return Ok(()),
            }
        }
    }

    async fn send_due(&mut self, due: u64) -> Result<(), ClientError> {
        while self.outbox.len() < self.window && u64::from(self.next) < due {
            let text = self.text_of(self.stream, self.next);
            self.outbox.push(Item { id: id_of(self.stream, self.next), to: self.to.clone(), text });
            self.next += 1;
        }
        let mut fed = false;
        while let Some(item) = self.outbox.take_next(self.window, Instant::now()) {
            self.client.feed_text(item.id, &item.to, &item.text).await?;
            fed = true;
        }
        if fed { self.client.flush().await } else { Ok(()) }
    }

    async fn on_frame(&mut self, frame: ServerFrame) -> Result<(), ClientError> {
        match frame {
            ServerFrame::Event(event) => self.on_event(&event).await?,
            ServerFrame::Accepted { id, .. } => {
                let (_, number) = numbers_of(id);
                if self.report.accepted.insert(number) {
                    self.report.last_accepted = Some(Instant::now());
                    self.measure(self.stream, number, &self.course.accepted);
                }
                self.settle(id);
            }
            ServerFrame::Refused(Refused { id, is_final: true, .. }) => {
                self.report.refused_finally += 1;
                self.settle(id);
            }
            ServerFrame::Refused(Refused { id, retry_after_ms, .. }) => self.put_back(id, retry_after_ms),
            ServerFrame::Error(ErrorFrame { id: Some(id), retry_after_ms, .. }) => self.put_back(id, retry_after_ms),
            ServerFrame::Error(error) => return Err(ClientError::Refused(error)),
            ServerFrame::Move { .. } => return Err(ClientError::Contract("the server is about to stop".to_owned())),
            _ => {}
        }
        Ok(())
    }

    fn settle(&mut self, id: Uuid) {
        if self.outbox.settle(id) {
            self.course.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put_back(&mut self, id: Uuid, retry_after_ms: u64) {
        self.report.put_back += 1;
        let pause = std::time::Duration::from_millis(retry_after_ms.max(1));
        self.outbox.put_back(id, Instant::now() + pause);
    }

    async fn on_event(&mut self, event: &Event) -> Result<(), ClientError> {
        match event.seq.cmp(&(self.last_seq + 1)) {
            std::cmp::Ordering::Less => self.report.duplicates += 1,
            std::cmp::Ordering::Greater => self.report.holes += 1,
            std::cmp::Ordering::Equal => {}
        }
        self.last_seq = self.last_seq.max(event.seq);
        if event.event == EventKind::Message {
            self.on_message(event);
        } else {
            self.report.refused_finally += 1;
        }
        if self.last_seq >= self.acknowledged + ACKNOWLEDGE_EVERY {
            self.acknowledged = self.last_seq;
            self.client.received(self.last_seq).await?;
        }
        Ok(())
    }

    /// The partner's messages are judged and measured; one's own copies must only be one's own.
    fn on_message(&mut self, event: &Event) {
        let (stream, number) = numbers_of(event.id);
        let partners = stream == self.stream ^ 1 && event.from == Some(self.partner);
        let own = stream == self.stream && event.from != Some(self.partner);
        if !(partners || own) || !self.is_text_of(event.text(), stream, number) {
            self.report.phantoms += 1;
            return;
        }
        if !partners {
            return;
        }
        if !self.report.arrived.insert(number) {
            self.report.duplicates += 1;
            return;
        }
        self.course.arrived.fetch_add(1, Ordering::Relaxed);
        if self.newest_arrived.is_some_and(|newest| newest > number) {
            self.report.inversions += 1;
        }
        self.newest_arrived = self.newest_arrived.max(Some(number));
        self.measure(stream, number, &self.course.delivered);
    }

    fn measure(&self, stream: u32, number: u32, latencies: &Latencies) {
        let n = u64::from(number) * self.course.sockets + u64::from(stream);
        if n >= self.course.measured_from {
            latencies.since(self.course.schedule.due(n));
        }
    }

    fn head_of(&self, stream: u32, number: u32) -> String {
        format!("{:08x} {stream} {number} ", self.course.run)
    }

    fn text_of(&self, stream: u32, number: u32) -> String {
        let mut text = self.head_of(stream, number);
        let padding = self.course.body.saturating_sub(text.len());
        text.extend(std::iter::repeat_n('x', padding));
        text
    }

    fn is_text_of(&self, text: &str, stream: u32, number: u32) -> bool {
        let head = self.head_of(stream, number);
        text.starts_with(&head) && text.len() == self.course.body.max(head.len())
    }
}

/// A UUID of version 7 that carries the stream and the number, so that an answer needs no look-up.
fn id_of(stream: u32, number: u32) -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut tail = [0; 10];
    let (random, rest) = tail.split_at_mut(2);
    random.copy_from_slice(&rand::random::<[u8; 2]>());
    let (first, second) = rest.split_at_mut(4);
    first.copy_from_slice(&stream.to_be_bytes());
    second.copy_from_slice(&number.to_be_bytes());
    Builder::from_unix_timestamp_millis(u64::try_from(now.as_millis()).unwrap_or_default(), &tail).into_uuid()
}

fn numbers_of(id: Uuid) -> (u32, u32) {
    let (_, low) = id.as_u64_pair();
    let [a, b, c, d, e, f, g, h] = low.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]) & STREAM_BITS, u32::from_be_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_carries_its_numbers_and_is_version_7() {
        let id = id_of(123_456, u32::MAX);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(numbers_of(id), (123_456, u32::MAX));
        assert_ne!(numbers_of(id_of(0, 1)), numbers_of(id_of(1, 1)));
    }

    #[test]
    fn bits_are_set_once_and_missed_where_clear() {
        let (mut sent, mut shown) = (Bitmap::default(), Bitmap::default());
        assert!(sent.insert(3) && sent.insert(200) && !sent.insert(3));
        assert!(shown.insert(3));
        assert_eq!((sent.count(), sent.missing_in(&shown), shown.missing_in(&sent)), (2, 1, 0));
    }
}
