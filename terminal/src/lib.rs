//! The client for terminals and scripts: `switchboard chat`. `docs/terminal.md` says how it is used.
//!
//! A crate of its own, not a module of `server`: it stands on the other side of the wire. Here it cannot reach into the gateway, so it is
//! written from `docs/protocol.md` as anybody's client would be, and it builds and tests without the server.
//!
//! **Path of a message.** A line ([`input`]) → the account API where a number must become a user ([`desk`]) → [`core`], which decides
//! everything without touching anything → outbox on disk ([`state`]) → socket ([`wire`]). And back: a frame → [`core`] → escaped and shown
//! ([`show`], [`escape`]) → the cursor on disk → `received`. [`run`] carries it out.
//!
//! **Loss policy.** A message is on disk before it is sent, and leaves it when it is accepted or refused for good. A message of others is
//! shown before the cursor passes it: a kill between the two shows it once more.

mod args;
mod error;
mod input;
mod frame;
mod core;
mod escape;
mod show;
mod state;
mod wire;
mod account;
mod keyboard;
mod sign_in;
mod desk;
mod dial;
mod run;

use std::process::ExitCode;
use std::sync::Arc;

pub use crate::args::Args;
use crate::core::{Ending, Options};
use crate::error::Error;
use crate::keyboard::Keyboard;
use crate::run::{Parts, Run};
use crate::state::Folder;
use crate::wire::Place;

/// Runs the client until it ends; says on standard error why, if not all went well.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return failed(&Error::System(why)),
    };
    match runtime.block_on(chat(args)) {
        Ok(ending) => {
            let (code, why) = error::exit(&ending);
            if let Some(why) = why {
                eprintln!("switchboard: {}", escape::line(&why));
            }
            ExitCode::from(code)
        }
        Err(why) => failed(&why),
    }
}

fn failed(why: &Error) -> ExitCode {
    eprintln!("switchboard: {}", escape::line(&why.to_string()));
    why.exit()
}

async fn chat(args: &Args) -> Result<Ending, Error> {
    let place = Arc::new(Place::new(&args.url, args.ca.as_deref())?);
    if args.request_code {
        account::request_code(&place, &args.phone).await?;
        eprintln!("switchboard: a code was sent to {}; sign in with --code", args.phone);
        return Ok(Ending::Done);
    }
    let folder = Folder::open(args.state.as_deref(), &place.authority(), &args.phone)?;
    if args.log_out {
        let session = folder.session().ok_or(Error::NotSignedIn)?;
        account::log_out(&place, &session).await?;
        folder.forget()?;
        eprintln!("switchboard: logged out");
        return Ok(Ending::Done);
    }
    if place.is_plain() && !is_local(&place).await {
        eprintln!("switchboard: without TLS everybody on the way can read along; use https://");
    }
    let mut keyboard = Keyboard::start(!args.json)?;
    let session = sign_in::sign_in(args, &place, &folder, &mut keyboard).await?;
    let options = Options {
        device: session.device.clone(),
        user: session.user,
        mark_read: args.mark_read,
        once: args.once,
        wait_ms: args.wait.map(|seconds| seconds.saturating_mul(1000)),
        follow: args.follow,
        timeout_ms: args.timeout.saturating_mul(1000),
    };
    let parts = Parts { place, folder, session, keyboard, json: args.json };
    let mut run = Run::new(parts, options, args.from_start)?;
    let ending = run.run().await?;
    if ending == Ending::SignedOut {
        // the cursor stays: it is the mailbox's, and good for the device that signs in next
        run.folder.forget_session()?;
    }
    Ok(ending)
}

/// Whether the server is on this machine. One that does not answer is no reason for a warning.
async fn is_local(place: &Place) -> bool {
    place.dial().await.map_or(true, |(_, loopback)| loopback)
}
