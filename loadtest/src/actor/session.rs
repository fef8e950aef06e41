//! One connection of an actor: attach, then send what is due, record what comes, acknowledge it, leave in time.

use std::time::Duration;

use tokio::time::Instant;

use super::Device;
use crate::client::{Client, ClientError};
use crate::frame::{ClientFrame, ErrorFrame, Event, Hello, Refused, Resync, ServerFrame, Welcome};
use crate::record::What;

/// With nothing to wait for, look again after this time.
const IDLE: Duration = Duration::from_secs(3600);
/// A refusal without a time is repeated after this.
const RETRY_LEAST: Duration = Duration::from_millis(5);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The actor was told to stop.
    Stopped,
    /// The server asked to go, and it went.
    Moved,
    /// It broke, or was closed by the server.
    Broken(ClientError),
}

impl End {
    pub(super) fn error(&self) -> Option<&ClientError> {
        match self {
            Self::Broken(error) => Some(error),
            Self::Stopped | Self::Moved => None,
        }
    }
}

/// What belongs to one connection only.
#[derive(Debug)]
struct Connection {
    client: Client,
    window: usize,
    acknowledged: u64,
    acknowledge_at: Option<Instant>,
    /// The last time an answer came or none was owed.
    answered: Instant,
    leave_at: Option<Instant>,
}

impl Device {
    /// Connects, attaches and serves until the connection ends.
    pub(super) async fn session(&mut self) -> End {
        let mut connection = match self.attach().await {
            Ok(connection) => connection,
            Err(error) => return End::Broken(error),
        };
        match self.serve(&mut connection).await {
            Ok(end) => {
                connection.client.close().await;
                end
            }
            Err(error) => End::Broken(error),
        }
    }

    async fn attach(&mut self) -> Result<Connection, ClientError> {
        let mut client = Client::connect(&self.targets[self.at]).await?;
        let welcome = client.hello(self.hello()).await?;
        let connection = Connection {
            client,
            window: welcome.limits.in_flight,
            acknowledged: self.cursor,
            acknowledge_at: None,
            answered: Instant::now(),
            leave_at: None,
        };
        self.attached(welcome);
        Ok(connection)
    }

    fn hello(&self) -> Hello<'_> {
        Hello { device: &self.shared.client.device, cursor: Some(self.cursor), epoch: self.epoch.as_deref() }
    }

    fn attached(&mut self, welcome: Welcome) {
        self.note(What::Attach { cursor: Some(self.cursor), epoch: welcome.epoch.clone() });
        self.epoch.get_or_insert(welcome.epoch);
        self.shared.status.send_modify(|status| {
            status.attached = true;
            status.attaches += 1;
        });
    }

    async fn serve(&mut self, connection: &mut Connection) -> Result<End, ClientError> {
        loop {
            if *self.shared.stop.borrow() {
                connection.acknowledge(self.cursor).await?;
                return Ok(End::Stopped);
            }
            if self.may_leave(connection) {
                return Ok(End::Moved);
            }
            self.send_due(connection).await?;
            let wake_at = self.wake_at(connection)?;
            tokio::select! {
                biased;
                frame = connection.client.next() => self.on_frame(connection, frame?).await?,
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
            self.acknowledge_due(connection).await?;
        }
    }

    /// After `move`: when the time has come and no answer is owed.
    fn may_leave(&self, connection: &Connection) -> bool {
        connection.leave_at.is_some_and(|at| Instant::now() >= at) && self.shared.outbox().in_flight() == 0
    }

    async fn send_due(&self, connection: &mut Connection) -> Result<(), ClientError> {
        // told to go: until then it goes on, and then it only waits for answers
        if connection.leave_at.is_some_and(|at| Instant::now() >= at) {
            return Ok(());
        }
        let mut fed = false;
        loop {
            let item = {
                let mut outbox = self.shared.outbox();
                if outbox.in_flight() == 0 {
                    connection.answered = Instant::now();
                }
                outbox.take_next(connection.window, Instant::now())
            };
            let Some(item) = item else { break };
            connection.client.feed_text(item.id, &item.to, &item.text).await?;
            fed = true;
        }
        if fed { connection.client.flush().await } else { Ok(()) }
    }

    /// The next moment at which something is due without a frame.
    fn wake_at(&self, connection: &Connection) -> Result<Instant, ClientError> {
        let now = Instant::now();
        let outbox = self.shared.outbox();
        let mut at = now + IDLE;
        if outbox.in_flight() > 0 {
            let give_up_at = connection.answered + self.habits.answer_deadline;
            if now >= give_up_at {
                return Err(ClientError::Socket("no answer in time".to_owned()));
            }
            at = at.min(give_up_at);
        }
        if let Some(leave_at) = connection.leave_at.filter(|leave_at| now < *leave_at) {
            at = at.min(leave_at);
        }
        if let Some(hold_until) = outbox.hold_until().filter(|until| *until > now) {
            at = at.min(hold_until);
        }
        Ok(connection.acknowledge_at.map_or(at, |acknowledge_at| at.min(acknowledge_at)))
    }

    async fn on_frame(&mut self, connection: &mut Connection, frame: ServerFrame) -> Result<(), ClientError> {
        match frame {
            ServerFrame::Event(event) => self.on_event(connection, event),
            ServerFrame::Accepted { id, conversation } => {
                self.note(What::Accepted { id, conversation });
                self.settle(connection, id);
            }
            ServerFrame::Refused(refused) => self.on_refused(connection, refused),
            ServerFrame::Error(error) => self.on_error(connection, error),
            ServerFrame::Live { head } => self.note(What::Live { head }),
            ServerFrame::Move { after_ms } => {
                self.note(What::Move { after_ms });
                connection.leave_at = Some(Instant::now() + Duration::from_millis(after_ms));
                self.shared.status.send_modify(|status| status.moves += 1);
            }
            ServerFrame::Resync(resync) => self.on_resync(connection, resync).await?,
            ServerFrame::Welcome(welcome) => self.attached(welcome),
            ServerFrame::Reauth
            | ServerFrame::Pong
            | ServerFrame::Receipt(_)
            | ServerFrame::Page(_)
            | ServerFrame::Conversations(_)
            | ServerFrame::Other => {}
        }
        Ok(())
    }

    fn on_event(&mut self, connection: &mut Connection, event: Event) {
        let seq = event.seq;
        self.note(What::Deliver { seq, seen: event.into() });
        // A repeated one is recorded for the judge and dropped here. A hole is recorded too: the cursor follows.
        self.cursor = self.cursor.max(seq);
        self.shared.status.send_modify(|status| status.cursor = self.cursor);
        connection.acknowledge_at.get_or_insert_with(|| Instant::now() + self.habits.ack_after);
    }

    fn on_refused(&self, connection: &mut Connection, refused: Refused) {
        let Refused { id, code, retry_after_ms, is_final } = refused;
        self.note(What::Refused { id, code, is_final });
        if is_final {
            self.settle(connection, id);
        } else {
            self.put_back(connection, id, retry_after_ms);
        }
    }

    fn on_error(&self, connection: &mut Connection, error: ErrorFrame) {
        let Some(id) = error.id else { return };
        if error.code == "outcome_unknown" {
            self.note(What::Unknown { id });
            self.put_back(connection, id, error.retry_after_ms);
        } else {
            self.note(What::Refused { id, code: error.code, is_final: true });
            self.settle(connection, id);
        }
    }

    fn settle(&self, connection: &mut Connection, id: uuid::Uuid) {
        connection.answered = Instant::now();
        let mut outbox = self.shared.outbox();
        outbox.settle(id);
        let unsettled = outbox.len();
        self.shared.status.send_modify(|status| status.unsettled = unsettled);
    }

    fn put_back(&self, connection: &mut Connection, id: uuid::Uuid, retry_after_ms: u64) {
        connection.answered = Instant::now();
        let pause = Duration::from_millis(retry_after_ms).max(RETRY_LEAST);
        self.shared.outbox().put_back(id, Instant::now() + pause);
    }

    /// The cursor cannot be continued: go on from the floor, which the judge will see.
    async fn on_resync(&mut self, connection: &mut Connection, resync: Resync) -> Result<(), ClientError> {
        let Resync { epoch, head, floor, reason } = resync;
        self.note(What::Resync { reason, head, floor });
        (self.cursor, connection.acknowledged) = (floor, floor);
        self.epoch = Some(epoch.clone());
        connection.client.write(&ClientFrame::Hello(self.hello())).await?;
        self.note(What::Attach { cursor: Some(floor), epoch });
        Ok(())
    }

    async fn acknowledge_due(&self, connection: &mut Connection) -> Result<(), ClientError> {
        let enough = self.cursor >= connection.acknowledged + self.habits.ack_every;
        let late = connection.acknowledge_at.is_some_and(|at| Instant::now() >= at);
        if enough || late { connection.acknowledge(self.cursor).await } else { Ok(()) }
    }
}

impl Connection {
    async fn acknowledge(&mut self, cursor: u64) -> Result<(), ClientError> {
        self.acknowledge_at = None;
        if cursor <= self.acknowledged {
            return Ok(());
        }
        self.acknowledged = cursor;
        self.client.received(cursor).await
    }
}
