//! `ministryctl mount` and `ministryctl umount`.
//!
//! `mount` starts itself once more in the background ([`background`]); that process serves the
//! mount ([`serve`]) and tells the first one when it is there, or in one line why not.
//! `umount` takes a mount away and waits until the last write is safe ([`unmount`]).
//!
//! What must always hold: no command here touches a mount that may not answer. Whether something
//! is mounted is asked of the kernel's table, and paths are resolved up to the mount point only.

mod background;
mod place;
mod presence;
mod serve;
mod unmount;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::{Global, address};
use crate::failure::{Failure, Kind};

pub use unmount::run as umount;

/// `ministryctl mount`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  ministryctl client join TOKEN --identity /etc/ministry/client
  ministryctl mount /mnt/ministry --identity /etc/ministry/client
  ministryctl mount /mnt/ministry --foreground      for a service manager

The credentials of a client are needed; the nodes named in them are asked, or those of --address.
--timeout bounds how long the cluster is waited for.")]
pub struct MountArgs {
    /// The directory to mount on; must be there and empty.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Folder with the client's credentials, made by `ministryctl client join`.
    #[arg(
        long,
        alias = "config",
        value_name = "DIR",
        env = "MINISTRY_IDENTITY",
        default_value = "/etc/ministry/client"
    )]
    pub identity: PathBuf,
    /// Stay in the foreground and log to standard error.
    #[arg(long)]
    pub foreground: bool,
    /// Refuse every change.
    #[arg(long)]
    pub read_only: bool,
    /// Log file of the background process [default: below /var/log/ministry, or the user's state].
    #[arg(long, value_name = "FILE", conflicts_with = "foreground")]
    pub log: Option<PathBuf>,
    /// Where /metrics and /health of this mount are served, IP:PORT [default: nowhere].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    /// Let setuid programs of the file system run with their owner's rights.
    #[arg(long)]
    pub suid: bool,
    /// Let device nodes of the file system be opened.
    #[arg(long)]
    pub dev: bool,
}

/// `ministryctl umount`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
When the mount is in use, the processes that use it are listed. --timeout bounds how long the last
writes are waited for.")]
pub struct UmountArgs {
    /// Where it is mounted.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Take it out of sight now; it ends when its last file is closed.
    #[arg(long)]
    pub lazy: bool,
    /// Cut the connection first: for a mount that does not answer. Unwritten data is lost.
    #[arg(long)]
    pub force: bool,
}

/// Mounts. Brings its own runtime, so it is called from a thread that is not part of one.
pub fn run(args: MountArgs, global: &Global) -> Result<(), Failure> {
    let reporting = background::is_the_background_process();
    if !args.foreground && !reporting {
        return background::start(&args);
    }
    let result = serve::run(&args, global, reporting);
    if reporting && let Err(failure) = &result {
        background::report_failure(failure);
    }
    result
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::text(Kind::Usage, text)
}
