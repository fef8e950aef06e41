//! Signing in: with the session that was kept, with the code of the command line, with that of a server in development mode on this
//! machine, or with one that is typed.

use serde_json::Value;

use crate::account::{self, Who};
use crate::args::Args;
use crate::error::Error;
use crate::keyboard::{Keyboard, Typed};
use crate::state::{Folder, Session};
use crate::wire::Place;

/// How often a person may mistype the code.
const TRIES: usize = 3;

/// The session of this device.
pub(crate) async fn sign_in(args: &Args, place: &Place, folder: &Folder, keyboard: &mut Keyboard) -> Result<Session, Error> {
    if let Some(session) = folder.session() {
        return Ok(session);
    }
    let who = Who { phone: &args.phone, name: args.name.as_deref() };
    if let Some(code) = &args.code {
        return account::verify(place, folder, who, code).await;
    }
    if let Some(code) = account::request_code(place, &args.phone).await? {
        return account::verify(place, folder, who, &code).await;
    }
    eprintln!("switchboard: a code was sent to {}", args.phone);
    let mut tries = 1;
    loop {
        let code = typed(keyboard).await?;
        match account::verify(place, folder, who, &code).await {
            Err(Error::Refused { code, .. }) if code == "bad_code" && keyboard.is_terminal() && tries < TRIES => {
                tries += 1;
                eprintln!("switchboard: that is not the code, or it has expired");
            }
            other => return other,
        }
    }
}

/// The code from the input: the digits, or `{"code":"123456"}`.
async fn typed(keyboard: &mut Keyboard) -> Result<String, Error> {
    keyboard.ask("code: ");
    let Typed::Line(line) = keyboard.line().await else { return Err(Error::NoCode) };
    let line = line.trim();
    let json = serde_json::from_str::<Value>(line).ok();
    let code = json.as_ref().and_then(|value| value["code"].as_str()).unwrap_or(line);
    if code.is_empty() { Err(Error::NoCode) } else { Ok(code.to_owned()) }
}
