//! `ministryctl`: what operators type.
//!
//! Reads are asked of any node, changes of the president ([`access`]); what is shown is made by
//! pure functions ([`view`], [`show`]) from what was answered, as tables or as JSON of a stable
//! form ([`output`]). Mounting lives in [`mount`]; called by another name the program is the helper
//! of mount(8).
//!
//! What must always hold: one clear line on standard error says what failed, at what, and what to
//! do; the exit code tells its kind; standard output carries the answer and nothing else.

mod access;
mod cli;
mod commands;
mod credentials;
mod failure;
mod mount;
mod output;
mod show;
mod table;
mod view;

use std::process::ExitCode;

use clap::Parser;
use ministry_telemetry::logging::{self, LogTarget};

use crate::cli::{Cli, Command};
use crate::failure::{Failure, Kind};

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    if let Some(helper) = words.next().as_deref().and_then(mount::Helper::called) {
        return helper.run(words.collect());
    }
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ministryctl: {failure}");
            ExitCode::from(failure.kind as u8)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        // Before any thread is started: the mount goes into the background by itself.
        Command::Mount(args) => return mount::run(args, &cli.global),
        Command::Umount(args) => return mount::umount(args, &cli.global),
        _ => {}
    }
    // Failures are told by the command itself: what the library notes on the way is for debugging.
    logging::init(&LogTarget::Stderr, "off").map_err(|error| Failure::new(Kind::Usage, error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(commands::run(cli))
}
