//! `ministryd`: one node of a Ministry cluster.
//!
//! It reads settings and the data folder, opens the stores, and gives everything to
//! [`ministry_roles::Node`], which does the work.
//!
//! What must always hold: a mistake of a person ends in one clear line on standard error that says
//! what, to what, and what to do, and in an exit code that tells its kind; nothing is changed on
//! disk before all of it was checked.

mod check;
mod cli;
mod failure;
mod folder;
mod health;
mod join;
mod run;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use ministry_telemetry::process;

use crate::cli::{Cli, Command, RunArgs, SettingFlags};
use crate::failure::Failure;

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ministryd: {failure}");
            ExitCode::from(failure.kind as u8)
        }
    }
}

fn act(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(args) => check::check(&args),
        Command::Run(args) => run(args),
        Command::Join(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(join::join(&args))?;
            drop(runtime);
            if !args.run {
                return Ok(());
            }
            run(RunArgs { data: args.data, config: None, settings: SettingFlags::default() })
        }
    }
}

fn run(args: RunArgs) -> Result<(), Failure> {
    let runtime = process::runtime().thread_name("ministryd").build()?;
    let result = runtime.block_on(run::run(&args.data, args.config.as_deref(), &args.settings));
    // A blocking call that hangs on a dead disk must not keep the process alive.
    runtime.shutdown_background();
    result
}
