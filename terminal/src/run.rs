//! The rim: a socket, a keyboard, a folder and a clock around [`Core`], whose outputs are carried out in their order.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::UserId;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::account;
use crate::core::{Command, Core, Ending, Loss, Options, Output, Shown};
use crate::desk::{Current, Desk, Served};
use crate::dial::{self, Attempt};
use crate::error::Error;
use crate::frame::ServerFrame;
use crate::input::{self, Line, Recipient, Wanted};
use crate::keyboard::{Keyboard, Typed};
use crate::show::people::Names;
use crate::show::{json as program, people};
use crate::state::{Folder, Session};
use crate::wire::Place;
use crate::wire::socket::Socket;

/// A name is waited for this long before a message is shown with a number instead.
const NAME_DEADLINE: Duration = Duration::from_secs(2);
/// Who is told to end waits for answers this long, milliseconds.
const HURRY_MS: u64 = 3_000;
/// Without anything to do the core is asked this often all the same.
const IDLE: Duration = Duration::from_secs(3600);

type Later<T> = Option<Pin<Box<dyn Future<Output = T>>>>;

/// One run.
pub(crate) struct Run {
    pub(crate) place: Arc<Place>,
    pub(crate) folder: Arc<Folder>,
    pub(crate) session: Session,
    pub(crate) keyboard: Keyboard,
    pub(crate) json: bool,
    core: Core,
    names: Names,
    contacts: BTreeMap<String, UserId>,
    current: Option<Current>,
    line: u64,
    socket: Option<Socket>,
    connecting: Later<Attempt>,
    serving: Later<Served>,
    ending: Option<Ending>,
    started: Instant,
}

/// What happened.
enum Happened {
    Frame(Result<Option<ServerFrame>, Loss>),
    Connected(Attempt),
    Served(Served),
    Typed(Typed),
    Time,
    Told,
}

/// What a run is made of.
pub(crate) struct Parts {
    pub(crate) place: Arc<Place>,
    pub(crate) folder: Folder,
    pub(crate) session: Session,
    pub(crate) keyboard: Keyboard,
    pub(crate) json: bool,
}

impl Run {
    /// Takes up what was kept. `from_start`: a device that has no cursor begins with the oldest event.
    pub(crate) fn new(parts: Parts, options: Options, from_start: bool) -> Result<Self, Error> {
        let Parts { place, folder, session, keyboard, json } = parts;
        let mut mailbox = folder.mailbox().unwrap_or_default();
        if from_start && mailbox.cursor.is_none() {
            mailbox.cursor = Some(0);
        }
        let core = Core::new(options, folder.outbox()?, mailbox, rand::random());
        let (names, contacts) = (Names::new(session.user), folder.contacts());
        let folder = Arc::new(folder);
        let (socket, connecting, serving, ending, current) = (None, None, None, None, None);
        let (line, started) = (0, Instant::now());
        Ok(Self {
            place,
            folder,
            session,
            keyboard,
            json,
            core,
            names,
            contacts,
            current,
            line,
            socket,
            connecting,
            serving,
            ending,
            started,
        })
    }

    /// Until it is over.
    pub(crate) async fn run(&mut self) -> Result<Ending, Error> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::System)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::System)?;
        if self.json {
            let state = json!({"type": "state", "state": "signed_in", "user": self.session.user, "device": self.session.device});
            self.keyboard.print(&program::written(state))?;
        } else {
            self.keyboard.print(&format!("* you are user {}; /help lists the commands", self.session.user))?;
        }
        self.core.time(0);
        let mut told = false;
        loop {
            self.carry_out().await?;
            if let Some(ending) = self.ending.take() {
                return Ok(ending);
            }
            if self.core.takes_input() && self.serving.is_none() {
                let prompt = self.current.map_or_else(|| "> ".into(), |current| format!("{}> ", self.names.of(current.other)));
                self.keyboard.ask(&prompt);
            }
            let happened = self.wait((&mut interrupt, &mut terminate)).await;
            if matches!(happened, Happened::Told) && std::mem::replace(&mut told, true) {
                return Ok(if self.core.waiting() == 0 { Ending::Done } else { Ending::NotAccepted(self.core.waiting()) });
            }
            self.take(happened)?;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn wait(&mut self, (interrupt, terminate): (&mut Signal, &mut Signal)) -> Happened {
        let now = self.now();
        let idle = self.core.deadline(now).map_or(IDLE, |at| Duration::from_millis(at.saturating_sub(now)));
        let Self { socket, connecting, serving, keyboard, .. } = self;
        tokio::select! {
            frame = async { match socket { Some(socket) => socket.next().await, None => std::future::pending().await } } => Happened::Frame(frame),
            attempt = done(connecting) => Happened::Connected(attempt),
            served = done(serving) => Happened::Served(served),
            typed = keyboard.line() => Happened::Typed(typed),
            () = tokio::time::sleep(idle.min(IDLE)) => Happened::Time,
            _ = interrupt.recv() => Happened::Told,
            _ = terminate.recv() => Happened::Told,
        }
    }

    fn take(&mut self, happened: Happened) -> Result<(), Error> {
        let now = self.now();
        match happened {
            Happened::Frame(Ok(Some(frame))) => self.core.frame(frame, now),
            Happened::Frame(Ok(None)) => self.core.heard(now),
            Happened::Frame(Err(loss)) => {
                self.socket = None;
                self.core.lost(&loss, now);
            }
            Happened::Connected(Attempt { session, opened }) => {
                self.connecting = None;
                // also if nothing was opened: its refresh token may be another
                self.session = session;
                match opened {
                    Ok(socket) => {
                        self.socket = Some(socket);
                        self.core.opened(now);
                    }
                    Err(loss) => self.core.lost(&loss, now),
                }
            }
            Happened::Served(served) => {
                self.serving = None;
                self.served(served, now)?;
            }
            Happened::Typed(typed) => self.typed(typed, now)?,
            Happened::Time => self.core.time(now),
            Happened::Told => self.core.command(Command::End { hurry: Some(HURRY_MS) }, now),
        }
        Ok(())
    }

    /// A line is taken to the desk. The next is not read before it is served.
    fn typed(&mut self, typed: Typed, now: u64) -> Result<(), Error> {
        self.line += 1;
        let text = match typed {
            Typed::Line(text) => text,
            Typed::TooLong => return self.served(self.bad("the line is too long"), now),
            Typed::NotText => return self.served(self.bad("the line is not UTF-8"), now),
            Typed::End => {
                let hurry = self.keyboard.is_terminal().then_some(HURRY_MS);
                self.core.command(Command::End { hurry }, now);
                return Ok(());
            }
        };
        let desk = Desk { place: Arc::clone(&self.place), token: self.session.access_token.clone(), me: self.session.user };
        if self.json {
            if text.trim().is_empty() {
                return Ok(());
            }
            match input::program(&text) {
                Ok(wanted) => self.serving = Some(Box::pin(desk.program(self.known_wanted(wanted)))),
                Err(why) => return self.served(self.bad(&why), now),
            }
        } else {
            let line = match input::person(&text) {
                Line::To(Some(recipient)) => Line::To(Some(self.known(recipient))),
                other => other,
            };
            self.serving = Some(Box::pin(desk.person(line, self.current)));
        }
        Ok(())
    }

    fn bad(&self, why: &str) -> Served {
        Served::bad("bad_input", format!("line {}: {why}", self.line))
    }

    /// A number that was looked up before is a user.
    fn known(&self, recipient: Recipient) -> Recipient {
        match recipient {
            Recipient::Phone(phone) => self.contacts.get(&phone).copied().map_or(Recipient::Phone(phone), Recipient::User),
            other => other,
        }
    }

    fn known_wanted(&self, wanted: Wanted) -> Wanted {
        match wanted {
            Wanted::Send { to, text, id, reply_to } => Wanted::Send { to: self.known(to), text, id, reply_to },
            Wanted::Typing { to } => Wanted::Typing { to: self.known(to) },
            other => other,
        }
    }

    fn served(&mut self, served: Served, now: u64) -> Result<(), Error> {
        if let Some((phone, user)) = served.learned {
            self.contacts.insert(phone, user);
            self.folder.keep_contacts(&mut self.contacts)?;
        }
        if let Some(current) = served.current {
            self.current = Some(current);
            if served.named.is_some() {
                self.names.learn(current.other, served.named);
            }
            if !self.json {
                self.keyboard.print(&format!("* you write to {} ({})", self.names.of(current.other), current.conversation))?;
            }
        }
        if let Some(complaint) = &served.complain {
            self.print(complaint)?;
        }
        if let Some(text) = &served.say {
            self.keyboard.print(text)?;
        }
        for command in served.commands {
            self.core.command(command, now);
        }
        Ok(())
    }

    async fn carry_out(&mut self) -> Result<(), Error> {
        loop {
            let outputs = self.core.outputs();
            if outputs.is_empty() {
                return Ok(());
            }
            for output in outputs {
                self.perform(output).await?;
            }
        }
    }

    async fn perform(&mut self, output: Output) -> Result<(), Error> {
        match output {
            Output::Connect { refresh } => {
                let refresh = dial::prepare(&self.folder, &mut self.session, refresh)?;
                let (place, folder, session) = (Arc::clone(&self.place), Arc::clone(&self.folder), self.session.clone());
                self.connecting = Some(Box::pin(async move { dial::attempt(&place, &folder, session, refresh).await }));
            }
            Output::Write(frame) => {
                // after a loss the rest of a batch has nowhere to go: the core says it again on the next connection
                if let Some(socket) = &mut self.socket
                    && let Err(loss) = socket.write(&frame).await
                {
                    self.socket = None;
                    self.core.lost(&loss, self.now());
                }
            }
            Output::Close => {
                if let Some(socket) = self.socket.take() {
                    socket.close().await;
                }
            }
            Output::KeepMessage(entry) => self.folder.keep_message(&entry)?,
            Output::DropMessage(entry) => self.folder.drop_message(&entry)?,
            Output::KeepMailbox(mailbox) => self.folder.keep_mailbox(&mailbox)?,
            Output::Show(shown) => self.show(&shown).await?,
            Output::Finish(ending) => self.ending = Some(ending),
        }
        Ok(())
    }

    async fn show(&mut self, shown: &Shown) -> Result<(), Error> {
        if !self.json {
            for user in self.names.unknown(shown).into_iter().take(20) {
                let asked = account::name_of(&self.place, &self.session.access_token, user);
                let name = tokio::time::timeout(NAME_DEADLINE, asked).await.unwrap_or_default();
                self.names.learn(user, name);
            }
        }
        self.print(shown)
    }

    fn print(&mut self, shown: &Shown) -> Result<(), Error> {
        let waits = self.socket.is_none();
        let text = match shown {
            _ if self.json => program::line(shown),
            // where it goes out at once the next line says so
            Shown::Queued { .. } if !waits => None,
            _ => people::text(shown, &self.names),
        };
        text.map_or(Ok(()), |text| self.keyboard.print(&text))
    }
}

/// What a future that may not be there has come to; it stays until it is taken away.
async fn done<T>(later: &mut Later<T>) -> T {
    match later {
        Some(later) => later.as_mut().await,
        None => std::future::pending().await,
    }
}
