//! The embedded commit cycle: log, router and storage in one durable write.
//!
//! One thread takes everything that has arrived ([`queue`]: so batches grow with the load and a single message waits for nothing), gives each
//! attempt its position and its places in the mailboxes, writes all of it in one batch with one fsync ([`batch`]), and only then tells
//! senders and sessions. There is nothing to replay: what is not in the batch never happened, what is has happened everywhere.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::ErrorCode;
use protocol::record::Record;
use router::registry::Registry;
use router::submit::{Outcome, Report, Submit};
use tokio::runtime::Handle;

use crate::push::Deliver;
use crate::receipt::{Mark, TakeMarks};
use crate::store::StoreError;
use crate::store::embedded::EmbeddedStore;

mod batch;
mod meters;
mod queue;

use batch::{SHARD, Stopped, Worker};
use meters::Meters;
use queue::Queue;

/// Marks that the store could not work in are tried again after this, or with the next messages.
const MARKS_REST: Duration = Duration::from_millis(100);

/// Bounds of the queue and of a batch. A batch always takes at least one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records that may wait; more are refused (`unavailable`).
    pub queue_records: usize,
    /// Bytes that may wait.
    pub queue_bytes: usize,
    /// When the queue has not been empty for so long, it stands.
    pub queue_burst: Duration,
    /// Then records may wait for so long; more are refused (`unavailable`).
    pub queue_wait: Duration,
    /// Records in a batch.
    pub batch_records: usize,
    /// Bytes in a batch.
    pub batch_bytes: usize,
    /// Marks of receipts that may wait; more are given back.
    pub queue_marks: usize,
    /// Marks in a batch.
    pub batch_marks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_records: 16_384,
            queue_bytes: 64 << 20,
            queue_wait: Duration::from_millis(100),
            queue_burst: Duration::from_millis(500),
            batch_records: 1024,
            batch_bytes: 4 << 20,
            queue_marks: 65_536,
            batch_marks: 256,
        }
    }
}

/// What the cycle works with.
pub struct Parts {
    /// Where mailboxes are.
    pub store: Arc<EmbeddedStore>,
    /// Where owners are.
    pub registry: Arc<dyn Registry>,
    /// How events get there.
    pub deliver: Arc<dyn Deliver>,
    /// On which registry calls run.
    pub runtime: Handle,
    /// Bounds.
    pub limits: Limits,
}

/// The running cycle. Dropped without [`Self::close`], it leaves what waits: those reports say that the outcome is unknown.
pub struct Cycle {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Cycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cycle").finish_non_exhaustive()
    }
}

/// However the thread ends, nobody may wait for it.
struct Leave(Arc<Queue>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Cycle {
    /// Takes the shard and starts the thread. Call it where blocking for one fsync is allowed.
    ///
    /// # Errors
    /// When the store cannot be written or the thread cannot be started.
    pub fn start(parts: Parts) -> Result<Arc<Self>, StoreError> {
        let checkpoint = parts.store.acquire_blocking(SHARD)?;
        let stream_epoch = parts.store.instance().stream_epoch;
        let log_epoch = u16::try_from(stream_epoch);
        let queue = Arc::new(Queue::new(parts.limits));
        let mut worker = Worker {
            store: parts.store,
            registry: parts.registry,
            deliver: parts.deliver,
            runtime: parts.runtime,
            checkpoint,
            stream_epoch,
            log_epoch: log_epoch.map_err(|_| StoreError::Damaged("the stream epoch is over 65535".to_owned()))?,
            meters: Meters::new(),
        };
        let leave = Leave(Arc::clone(&queue));
        let run = move || {
            let queue = &leave.0;
            let (mut batch, mut marks) = (Vec::new(), Vec::new());
            while let Some(behind) = queue.take(&mut batch, &mut marks) {
                worker.meters.depth.set(behind as f64);
                let only_marks = batch.is_empty();
                if let Err(Stopped) = worker.turn(&mut batch, &mut marks) {
                    return;
                }
                // marks that cannot be worked in: the store is not asked without a pause, nor waited for at the end
                if only_marks && !marks.is_empty() {
                    if queue.is_closed() {
                        worker.meters.marks_lost.increment(marks.len() as u64);
                        return;
                    }
                    std::thread::sleep(MARKS_REST);
                }
            }
        };
        let thread = std::thread::Builder::new().name("cycle".to_owned()).spawn(run);
        let thread = thread.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Arc::new(Self { queue, thread: Mutex::new(Some(thread)) }))
    }

    /// Refuses new sends, finishes those that wait, and ends the thread. Blocks until then; a second call returns at once.
    pub fn close(&self) {
        self.queue.close();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the commit cycle ended by a panic");
        }
    }
}

impl Drop for Cycle {
    fn drop(&mut self) {
        self.queue.abandon();
        self.close();
    }
}

impl TakeMarks for Cycle {
    fn take_marks(&self, marks: Vec<Mark>) -> Vec<Mark> {
        self.queue.put_marks(marks)
    }
}

impl Submit for Cycle {
    fn submit(&self, record: Record, report: Report) {
        if let Err((report, why)) = self.queue.put(record, report) {
            metrics::counter!("switchboard_sends_not_queued_total", "queue" => "cycle", "why" => why.name()).increment(1);
            report.settle(Outcome::Refused(ErrorCode::Unavailable));
        }
    }
}
