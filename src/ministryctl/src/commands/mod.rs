//! The commands, one file each; this one chooses.

mod events;
mod invite;
mod join;
mod ministry;
mod network;
mod overview;
mod place;

use std::io::Write;

use crate::cli::{
    Cli, ClientCommand, Command, Global, MinistryCommand, NetworkCommand, NodeCommand,
    OperatorCommand,
};
use crate::failure::{Failure, Kind};
use crate::output;

/// Carries out a command that needs the runtime.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match cli.command {
        Command::Network(NetworkCommand::Create(args)) => network::create(&global, &args),
        Command::Invite(args) => invite::run(&global, &args).await,
        Command::Client(ClientCommand::Join(args)) => join::client(&global, &args).await,
        Command::Operator(OperatorCommand::Join(args)) => join::operator(&global, &args).await,
        Command::Status(args) => overview::status(&global, &args).await,
        Command::Roles => overview::roles(&global).await,
        Command::Events(args) => events::run(&global, &args).await,
        Command::Ministries => overview::ministries(&global).await,
        Command::Ministry(MinistryCommand::Create(args)) => ministry::create(&global, &args).await,
        Command::Pgs => overview::pgs(&global).await,
        Command::Where(args) => place::run(&global, &args).await,
        Command::Node(NodeCommand::List) => overview::nodes(&global).await,
        Command::Mount(_) | Command::Umount(_) => {
            unreachable!("main runs these without a runtime")
        }
    }
}

/// Prints the answer: as JSON where that is asked for, else as `page` writes it.
fn print<T: serde::Serialize>(
    global: &Global,
    content: &T,
    page: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match global.json {
        true => output::json(content)? + "\n",
        false => page(content),
    };
    print_text(&text)
}

fn print_text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read it has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| {
            Failure::new(Kind::Failed, anyhow::anyhow!("cannot write the answer: {error}"))
        }),
    }
}
