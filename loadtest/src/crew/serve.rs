//! A lane on its connection: send what is due, judge what comes, acknowledge it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::control::{Control, Want};
use super::lane::Lane;
use super::ledger::{Place, Shown};
use super::offence::Fault;
use crate::actor::Item;
use crate::body::numbers_of;
use crate::client::{Client, ClientError};
use crate::frame::{ErrorFrame, Event, EventKind, Refused, ServerFrame, members};
use crate::series::Kind;

/// Acknowledge every so many events.
const ACKNOWLEDGE_EVERY: u64 = 32;
/// Acknowledge after so many bytes of text: the server stops at four times this.
const ACKNOWLEDGE_BYTES: usize = 64 * 1024;
/// A connection that owes an answer for longer is given up.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// A refusal without a time is repeated after this.
const RETRY_LEAST: Duration = Duration::from_millis(5);

impl Lane {
    /// Serves until the director wishes something else, or the connection breaks.
    pub(super) async fn serve(&mut self, client: &mut Client, (control, departures): (&Control, u32)) -> Result<(), ClientError> {
        loop {
            match control.want() {
                Want::Gone | Want::Left => return self.acknowledge(client).await,
                _ if control.departures() != departures => return Ok(()),
                Want::Cut => return Ok(()),
                Want::Here => {}
                Want::Frozen => {
                    self.absent = true;
                    control.changed.notified().await;
                    continue;
                }
            }
            if self.live && std::mem::take(&mut self.absent) {
                self.absent_until_us = self.crew.now_us();
            }
            self.send_due(client, control).await?;
            self.read_due(client).await?;
            let wake_at = self.wake_at()?;
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                frame = client.next() => self.on_frame(client, control, frame?).await?,
                () = control.changed.notified() => {}
                () = wake => {}
            }
        }
    }

    async fn send_due(&mut self, client: &mut Client, control: &Control) -> Result<(), ClientError> {
        let mut fed = false;
        // Who may give up decides only on what can go out at once.
        let held = self.crew.gives_up() && self.outbox.is_held(Instant::now());
        while !held && self.outbox.len() < self.window {
            let Some(due_us) = control.pop_due() else { break };
            self.crew.meters.late.fetch_sub(1, Ordering::Relaxed);
            if self.crew.is_given_up(due_us) {
                self.crew.meters.given_up.fetch_add(1, Ordering::Relaxed);
                // who gives up behind the surge has waited for nothing: that is no recovery
                if self.crew.is_recovered(due_us) {
                    self.crew.meters.add(Kind::Recovered, Duration::from_micros(self.crew.now_us().saturating_sub(due_us)));
                }
            } else {
                self.decide(due_us);
            }
        }
        let now = Instant::now();
        while let Some(item) = self.echoes.take(now) {
            client.feed_text(item.id, &item.to, &item.text).await?;
            fed = true;
        }
        if self.outbox.in_flight() == 0 {
            self.answered = now;
        }
        while let Some(item) = self.outbox.take_next(self.window, now) {
            let copies = self.crew.copies_of(item.id);
            for _ in 0..copies {
                client.feed_text(item.id, &item.to, &item.text).await?;
            }
            if copies > 1 {
                self.echoes.remember(item);
            }
            fed = true;
        }
        if fed { client.flush().await } else { Ok(()) }
    }

    /// A send that is due gets its receiver, its number and its text.
    fn decide(&mut self, due_us: u64) {
        let crew = Arc::clone(&self.crew);
        let to = crew.book.pick(self.user(), &mut self.rng);
        let number = crew.ledger.sent(self.index, to, due_us);
        let (id, text) = (crew.bodies.id(self.stream(), number, due_us), crew.bodies.text(self.stream(), number));
        self.outbox.push(Item { id, to: format!("u:{}", crew.user_number(to)), text });
    }

    /// The next moment at which something is due without a frame.
    fn wake_at(&self) -> Result<Option<Instant>, ClientError> {
        let now = Instant::now();
        let hold = self.outbox.hold_until().filter(|until| *until > now);
        let give_up = (self.outbox.in_flight() > 0).then(|| self.answered + ANSWER_DEADLINE);
        if give_up.is_some_and(|at| now >= at) {
            return Err(ClientError::Socket(format!("no answer for {ANSWER_DEADLINE:?}")));
        }
        Ok([hold, give_up, self.echoes.next_at(), self.reading.due_at].into_iter().flatten().min())
    }

    async fn on_frame(&mut self, client: &mut Client, control: &Control, frame: ServerFrame) -> Result<(), ClientError> {
        match frame {
            ServerFrame::Event(event) => {
                self.on_event(&event);
                let enough = self.cursor.is_some_and(|cursor| cursor >= self.acknowledged + ACKNOWLEDGE_EVERY);
                if enough || self.unacknowledged_bytes >= ACKNOWLEDGE_BYTES {
                    self.acknowledge(client).await?;
                }
            }
            ServerFrame::Accepted { id, .. } => self.on_accepted(id),
            ServerFrame::Refused(refused) => self.on_refused(&refused),
            ServerFrame::Error(ErrorFrame { id: Some(id), retry_after_ms, .. }) => self.put_back(id, retry_after_ms),
            ServerFrame::Error(error) => return Err(ClientError::Refused(error)),
            ServerFrame::Receipt(receipt) => self.on_receipt(&receipt),
            ServerFrame::Live { head } => self.went_live(control, head),
            ServerFrame::Resync(resync) => {
                let (reason, head, cursor, stream) = (resync.reason, resync.head, self.cursor, self.stream());
                self.crew
                    .ledger
                    .offences
                    .note(Fault::Gap, || format!("stream {stream}: resync ({reason}) at {head}, cursor {cursor:?}"));
                return Err(ClientError::Socket(format!("resync: {reason}")));
            }
            ServerFrame::Move { after_ms } => {
                self.crew.meters.trouble(|| format!("the server asked to move within {after_ms} ms"));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_accepted(&mut self, id: Uuid) {
        let (_, number) = numbers_of(id);
        self.answered = Instant::now();
        let written_at = self.outbox.written_at(id);
        if !self.outbox.settle(id) {
            return;
        }
        let Some(due_us) = self.crew.ledger.accepted(self.index, number) else { return };
        let (crew, now_us) = (&self.crew, self.crew.now_us());
        crew.meters.accepted.fetch_add(1, Ordering::Relaxed);
        if !crew.is_measured(due_us) {
            return;
        }
        crew.meters.measured.fetch_add(1, Ordering::Relaxed);
        crew.meters.last_measured_us.fetch_max(now_us.saturating_sub(crew.load_began_us()), Ordering::Relaxed);
        // A sender that was away on purpose says nothing about the server.
        if due_us >= self.absent_until_us {
            let took = Duration::from_micros(now_us.saturating_sub(due_us));
            crew.meters.add(Kind::Accepted, took);
            if let Some(written_at) = written_at.filter(|_| crew.gives_up()) {
                crew.meters.add(Kind::Attempt, written_at.elapsed());
            }
            if crew.is_recovered(due_us) {
                crew.meters.add(Kind::Recovered, took);
            }
        }
    }

    fn on_refused(&mut self, refused: &Refused) {
        self.answered = Instant::now();
        if !refused.is_final {
            self.outbox.refused(refused.id);
            return self.put_back(refused.id, refused.retry_after_ms);
        }
        if self.outbox.settle(refused.id) {
            self.crew.ledger.refused(self.index, numbers_of(refused.id).1, &refused.code);
        }
    }

    fn put_back(&mut self, id: Uuid, retry_after_ms: u64) {
        self.crew.meters.put_back.fetch_add(1, Ordering::Relaxed);
        self.answered = Instant::now();
        let at = Instant::now() + Duration::from_millis(retry_after_ms).max(RETRY_LEAST);
        if !self.outbox.put_back(id, at) {
            self.echoes.put_back(id, at);
        }
    }

    fn on_event(&mut self, event: &Event) {
        let expected = self.cursor.map(|cursor| cursor + 1);
        if let Some(expected) = expected.filter(|expected| *expected != event.seq) {
            let fault = if event.seq < expected { Fault::Duplicate } else { Fault::Gap };
            let name = (self.crew.user_number(self.user()), self.device());
            let what = || format!("seq {} at {}/{} where {expected} was due ({})", event.seq, name.0, name.1, event.id);
            self.crew.ledger.offences.note(fault, what);
        }
        self.cursor = self.cursor.max(Some(event.seq));
        self.unacknowledged_bytes += event.text().len() + 256;
        match event.event {
            EventKind::Message => self.on_message(event),
            EventKind::Refused => {
                self.crew.ledger.refused(self.index, numbers_of(event.id).1, event.code.as_deref().unwrap_or("refused"));
            }
            EventKind::Other => {}
        }
    }

    fn on_message(&mut self, event: &Event) {
        let crew = Arc::clone(&self.crew);
        let (stream, number) = numbers_of(event.id);
        let own = crew.user_number(self.user());
        if !crew.bodies.is_text(event.text(), stream, number) {
            let mine = members(&event.conversation).is_some_and(|users| users.contains(&own));
            if mine && crew.bodies.is_foreign(event.text()) {
                crew.meters.foreign.fetch_add(1, Ordering::Relaxed);
            } else {
                crew.ledger.offences.note(Fault::Phantom, || format!("{} at {own}: nobody wrote this text", event.id));
            }
            return;
        }
        let place = Place {
            user: self.user(),
            device: self.device(),
            seq: event.seq,
            position: event.position,
            conversation: &event.conversation,
            from: event.from,
        };
        let shown = crew.ledger.shown(stream, number, place);
        if shown != Shown::Wrong {
            self.check_order(event, (stream, number));
        }
        self.measure(shown, stream);
        self.shown(event.from, &event.conversation, event.position);
    }

    /// Within a conversation positions rise, and so do the numbers of each stream.
    fn check_order(&mut self, event: &Event, (stream, number): (u32, u32)) {
        let own = self.crew.user_number(self.user());
        let Some([low, high]) = members(&event.conversation) else { return };
        let other = if low == own { high } else { low };
        let before = self.positions.insert(other, event.position);
        let earlier = self.numbers.insert((stream, other), number);
        if before.is_some_and(|before| before >= event.position) || earlier.is_some_and(|earlier| earlier >= number) {
            self.crew.ledger.offences.note(Fault::Order, || {
                let Event { id, conversation, position, seq, .. } = event;
                format!("{id} at {own}: seq {seq} of {conversation} has position {position} after {before:?}, number {number} after {earlier:?}")
            });
        }
    }

    fn measure(&self, shown: Shown, stream: u32) {
        let crew = &self.crew;
        let (due_us, kind) = match shown {
            Shown::Received(due_us) => {
                crew.meters.delivered.fetch_add(1, Ordering::Relaxed);
                (due_us, if due_us < self.absent_until_us || self.absent { Kind::Backlog } else { Kind::Delivered })
            }
            Shown::Copied(due_us) if stream != self.stream() && due_us >= self.absent_until_us => (due_us, Kind::Synced),
            Shown::Copied(_) | Shown::Wrong => return,
        };
        if crew.is_measured(due_us) {
            crew.meters.add(kind, Duration::from_micros(crew.now_us().saturating_sub(due_us)));
        }
    }

    pub(super) async fn acknowledge(&mut self, client: &mut Client) -> Result<(), ClientError> {
        self.unacknowledged_bytes = 0;
        match self.cursor {
            Some(cursor) if cursor > self.acknowledged => {
                self.acknowledged = cursor;
                client.received(cursor).await
            }
            _ => Ok(()),
        }
    }
}
