//! When this run is over, and how it went.

use crate::core::{Core, Output};

/// How a run ended. [`crate::exit`] makes a number of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything that was given was accepted.
    Done,
    /// So many lines or messages were refused for good.
    Refused(usize),
    /// So many messages wait for the next run; 0: the server was not reached.
    NotAccepted(usize),
    /// No message came in the time of `--wait`.
    NothingCame,
    /// The session is over.
    SignedOut,
    /// The same device connected elsewhere.
    Elsewhere,
    /// The server does not speak with this client.
    Unable(String),
}

#[derive(Debug, Default)]
pub(crate) struct End {
    ended: Option<u64>,
    hurry: Option<u64>,
    settled: Option<u64>,
    failures: usize,
    got_message: bool,
    finished: bool,
}

impl End {
    pub(crate) fn failed(&mut self) {
        self.failures += 1;
    }

    pub(crate) fn input_ended(&mut self, now: u64, hurry: Option<u64>) {
        self.ended.get_or_insert(now);
        self.hurry = self.hurry.or(hurry);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub(crate) fn got_message(&mut self) {
        self.got_message = true;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Core {
    /// Whether everything that was given is done with.
    fn is_settled(&self) -> bool {
        self.is_answered() && !self.reads.has_new()
    }

    /// The same but for read marks: those are kept, and may be left for the next run.
    fn is_answered(&self) -> bool {
        self.outbox.len() == 0 && self.queries.is_empty() && self.was_live
    }

    fn outcome(&self) -> Ending {
        match (self.outbox.len(), self.end.failures) {
            (0, 0) => Ending::Done,
            (0, failures) => Ending::Refused(failures),
            (waiting, _) => Ending::NotAccepted(waiting),
        }
    }

    pub(super) fn finish(&mut self, ending: Ending) {
        if !self.end.finished {
            self.end.finished = true;
            self.out.push(Output::Finish(ending));
        }
    }

    /// How long the end of the input may stay unsettled, milliseconds.
    fn patience(&self) -> u64 {
        self.end.hurry.unwrap_or(self.options.timeout_ms)
    }

    pub(super) fn look_for_the_end(&mut self, now: u64) {
        let got_it = self.options.once && self.end.got_message;
        if got_it && self.end.is_ended() && self.outbox.len() == 0 && self.queries.is_empty() {
            return self.finish(self.outcome());
        }
        let Some(ended) = self.end.ended else { return };
        if !self.is_settled() {
            if now >= ended.saturating_add(self.patience()) {
                let late = if self.is_answered() { self.outcome() } else { Ending::NotAccepted(self.outbox.len()) };
                self.finish(late);
            }
            return;
        }
        let settled = *self.end.settled.get_or_insert(now);
        if self.end.hurry.is_some() {
            return self.finish(self.outcome());
        }
        let over = self.options.wait_ms.is_some_and(|wait| now >= settled.saturating_add(wait));
        match (self.options.once, self.options.wait_ms) {
            _ if self.options.follow => {}
            (true, _) if over => self.finish(Ending::NothingCame),
            (true, _) => {}
            (false, None) => self.finish(self.outcome()),
            (false, Some(_)) if over => self.finish(self.outcome()),
            (false, Some(_)) => {}
        }
    }

    pub(super) fn end_deadline(&self) -> Option<u64> {
        let ended = self.end.ended?;
        match self.end.settled {
            Some(settled) => self.options.wait_ms.map(|wait| settled.saturating_add(wait)),
            None => Some(ended.saturating_add(self.patience())),
        }
    }
}
