//! Lines of the person or the program before us, one at a time, and the way to print beside them.
//!
//! Reading blocks, so it has its own thread. It reads the next line only when it is asked to: what is not taken yet waits in the pipe or
//! in the terminal, and a full outbox slows the writer down. In a terminal, printing goes through the line editor, above the line that is
//! being typed.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::history::MemHistory;
use rustyline::{Config, Editor, ExternalPrinter};
use tokio::sync::mpsc;

use crate::error::Error;

/// Longest line that is read, bytes; the rest of a longer one is skipped.
const LINE_BYTES_MAX: usize = 512 * 1024;
/// Lines the arrow keys bring back.
const REMEMBERED: usize = 200;

/// What was read.
#[derive(Debug)]
pub(crate) enum Typed {
    Line(String),
    TooLong,
    NotText,
    End,
}

type Printer = Box<dyn ExternalPrinter + Send>;

/// The reader's thread, and the screen.
pub(crate) struct Keyboard {
    ask: SyncSender<String>,
    lines: mpsc::Receiver<Typed>,
    printer: Option<Printer>,
    before: Option<Termios>,
    asked: bool,
}

impl Keyboard {
    /// Begins to listen. `edits`: a line editor, if there is a terminal.
    pub(crate) fn start(edits: bool) -> Result<Self, Error> {
        let (ask, asked) = sync_channel(1);
        let (typed, lines) = mpsc::channel(1);
        let terminal = edits && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let before = if terminal { tcgetattr(std::io::stdin()).ok() } else { None };
        let editor = if terminal { editor() } else { None };
        let (printer, read): (_, Box<dyn FnOnce() + Send>) = match editor {
            Some((editor, printer)) => (printer, Box::new(move || edit(editor, &asked, &typed))),
            None => (None, Box::new(move || pipe(&asked, &typed))),
        };
        std::thread::Builder::new().name("keyboard".into()).spawn(read).map_err(Error::System)?;
        Ok(Self { ask, lines, printer, before, asked: false })
    }

    /// Whether a person types.
    pub(crate) fn is_terminal(&self) -> bool {
        self.before.is_some()
    }

    /// Asks for a line, unless one is being typed.
    pub(crate) fn ask(&mut self, prompt: &str) {
        if !self.asked {
            // a reader that is gone has said that the input is at its end
            self.asked = self.ask.try_send(prompt.to_owned()).is_ok();
        }
    }

    /// The line that was asked for; waits for ever if none was. Safe to cancel.
    pub(crate) async fn line(&mut self) -> Typed {
        if !self.asked {
            std::future::pending::<()>().await;
        }
        let typed = self.lines.recv().await.unwrap_or(Typed::End);
        self.asked = false;
        typed
    }

    /// Prints whole lines, and has them out when it returns. It blocks where nobody reads them: then nothing is taken from the server either.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Error> {
        if let Some(printer) = &mut self.printer {
            return printer.print(format!("{text}\n")).map_err(|why| Error::Output(std::io::Error::other(why.to_string())));
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Error::Output)
    }
}

impl Drop for Keyboard {
    /// The terminal is left as it was found, also in the middle of a line.
    fn drop(&mut self) {
        if let Some(before) = self.before.take().filter(|_| self.asked) {
            // nobody is left to be told if that fails
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
            if self.printer.is_some() {
                print!("\u{1b}[?2004l\r\n");
            }
        }
    }
}

type Editing = Editor<(), MemHistory>;

fn editor() -> Option<(Editing, Option<Printer>)> {
    let config = Config::builder().auto_add_history(true).max_history_size(REMEMBERED).ok()?.build();
    let history = MemHistory::with_config(&config);
    let mut editor = Editor::with_history(config, history).ok()?;
    // a dumb terminal has none: then lines are printed as they are
    let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    let printer = if dumb { None } else { editor.create_external_printer().ok() };
    Some((editor, printer.map(|printer| Box::new(printer) as Printer)))
}

fn edit(mut editor: Editing, asked: &Receiver<String>, typed: &mpsc::Sender<Typed>) {
    while let Ok(prompt) = asked.recv() {
        let line = match editor.readline(&prompt) {
            Ok(line) => Typed::Line(line),
            // Ctrl-C, Ctrl-D, or a terminal that is gone
            Err(_) => Typed::End,
        };
        if typed.blocking_send(line).is_err() {
            return;
        }
    }
}

fn pipe(asked: &Receiver<String>, typed: &mpsc::Sender<Typed>) {
    let mut input = std::io::stdin().lock();
    while asked.recv().is_ok() {
        if typed.blocking_send(read(&mut input)).is_err() {
            return;
        }
    }
}

fn read(input: &mut std::io::StdinLock<'_>) -> Typed {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    match input.by_ref().take(limit).read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => Typed::End,
        Ok(read) if read as u64 == limit && line.last() != Some(&b'\n') => {
            skip(input);
            Typed::TooLong
        }
        Ok(_) => String::from_utf8(line).map_or(Typed::NotText, Typed::Line),
    }
}

/// Drops what is left of a line.
fn skip(input: &mut std::io::StdinLock<'_>) {
    while let Ok(bytes) = input.fill_buf() {
        if bytes.is_empty() {
            return;
        }
        let (length, ends) = bytes.iter().position(|byte| *byte == b'\n').map_or((bytes.len(), false), |at| (at + 1, true));
        input.consume(length);
        if ends {
            return;
        }
    }
}
