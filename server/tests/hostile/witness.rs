//! Two who chat, on a thread of their own: they go on while a row takes its time, and say so when asked.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::raw::Server;

/// A pause between two exchanges nobody asked for: short enough to answer the pings of a server that beats each second.
const PAUSE: Duration = Duration::from_millis(250);

/// Two who chat beside the rows.
pub(crate) struct Witnesses {
    ask: SyncSender<SyncSender<()>>,
    thread: JoinHandle<()>,
}

impl Witnesses {
    pub(crate) fn attach(server: &Server) -> Self {
        let mut pair = server.witness();
        let (ask, asked) = sync_channel::<SyncSender<()>>(1);
        let thread = std::thread::spawn(move || {
            loop {
                let answer = match asked.recv_timeout(PAUSE) {
                    Ok(answer) => Some(answer),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                pair.chat();
                if let Some(answer) = answer {
                    answer.send(()).expect("whoever asked waits");
                }
            }
        });
        Self { ask, thread }
    }

    /// Waits for an exchange that begins now: sent, accepted, received and acknowledged on both sides.
    pub(crate) fn chat(&self) {
        let (answer, answered) = sync_channel(1);
        let asked = self.ask.send(answer);
        assert!(asked.is_ok() && answered.recv().is_ok(), "the witnesses were disturbed");
    }

    /// They go. Panics if they were disturbed.
    pub(crate) fn part(self) {
        drop(self.ask);
        self.thread.join().expect("the witnesses were disturbed");
    }
}
