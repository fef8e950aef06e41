//! The `switchboard` binary: command line, configuration, telemetry, start and drain. It only wires; the product's rules are in the crates
//! it starts.

mod args;
mod config;
mod secret;
mod telemetry;
mod token;
mod accounts;
mod serve;
mod embedded;
mod cluster;
mod signal;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command, ConfigCommand};
use crate::cluster::admin;
use crate::config::Settings;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code for a wrong command line or configuration (`EX_CONFIG` of sysexits.h).
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    tls::choose_cryptography();
    let args = Args::parse();
    if let Command::Chat(chat) = &args.command {
        return terminal::run(chat);
    }
    let settings = match Settings::load(&args) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("switchboard: {why:#}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    let done = match args.command {
        Command::Serve(_) => serve::serve(settings),
        Command::Topics(command) => admin::topics(&settings, command),
        Command::Shard(command) => admin::shard(&settings, command),
        Command::Partition(command) => admin::partition(&settings, &command),
        Command::StreamEpoch(command) => admin::stream_epoch(&settings, &command),
        Command::Log(command) => admin::log(&settings, &command),
        Command::User(command) => accounts::user(&settings, &command),
        Command::Token(token) => token::print(&settings, &token),
        Command::Chat(_) => Ok(()), // it has run: it is no part of a server and reads no settings
        Command::Config(ConfigCommand::Check(_)) => {
            println!("{}", settings.summary());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("switchboard: {why:#}");
            ExitCode::FAILURE
        }
    }
}
