//! `ministryctl mount` and `ministryctl umount`.
//!
//! `mount` starts itself once more in the background ([`background`]); that process serves the
//! mount ([`serve`]) and tells the first one when it is there, or in one line why not.
//! `umount` takes a mount away and waits until the last write is safe ([`unmount`]). Under another
//! name the program is the helper of mount(8) and umount(8) ([`helper`]).
//!
//! What must always hold: no command here touches a mount that may not answer. Whether something
//! is mounted is asked of the kernel's table, and paths are resolved up to the mount point only.

mod background;
mod helper;
mod options;
mod place;
mod plan;
mod presence;
mod serve;
mod source;
mod unmount;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::{Global, address};
use crate::failure::{Failure, Kind};
use crate::mount::plan::Plan;

pub use helper::Helper;
pub use unmount::run as umount;

const OPTIONS: &str = "\
Options of -o (docs/operations/mount.md says more):
  ro, rw                  the kernel refuses every change, or not
  allow_other             other users may enter; the default for root (noallow_other: not)
  noexec, suid, dev       run no programs; honour setuid bits; open device nodes
  uid=N, gid=N            show every file as owned by this user, of this group
  subdir=/PATH            the root of the mount; the same as CLUSTER:/PATH
  noatime, relatime, strictatime, nodiratime, sync, dirsync
  credentials=DIR         the client's credentials
  timeout=30s             how long the cluster is waited for
  log=FILE, metrics=IP:PORT, name=NAME, nonempty
  max_background=N, read_ahead=KIB, readdirplus
Those of mount(8) and systemd (defaults, noauto, nofail, _netdev, user, x-…) change nothing.

Examples:
  ministryctl client join TOKEN --identity /etc/ministry/home
  ministryctl mount home:/ /mnt/ministry
  ministryctl mount home:/projects /srv/projects -o ro,noexec
  ministryctl mount /mnt/ministry --identity /etc/ministry/client
  ministryctl mount home:/ /mnt/ministry --foreground        for a service manager

Users other than root mount by fusermount3 (package fuse3). --timeout bounds how long the cluster
is waited for. For mount(8) and /etc/fstab: ln -s \"$(command -v ministryctl)\"
/sbin/mount.fuse.ministry";

/// `ministryctl mount`.
#[derive(Debug, Clone, Args)]
#[command(allow_missing_positional = true, after_help = OPTIONS)]
pub struct MountArgs {
    /// What to mount, as CLUSTER:/PATH: CLUSTER is a folder with a client's credentials below
    /// /etc/ministry or ~/.config/ministry, or nodes as IP:PORT,IP:PORT [default: client:/].
    #[arg(value_name = "SOURCE")]
    pub source: Option<String>,
    /// The directory to mount on; must be there and empty.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Options as in /etc/fstab, separated by commas; can be repeated.
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Folder with the client's credentials, made by `ministryctl client join` [default: by SOURCE].
    #[arg(long, alias = "config", value_name = "DIR", env = "MINISTRY_IDENTITY")]
    pub identity: Option<PathBuf>,
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
When it returns, every write is on the servers. When the mount is in use, it stays, and the
processes that use it are listed with what they use. --timeout bounds how long the last writes are
waited for.")]
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
    let plan = Plan::of_arguments(&args, global)?;
    if plan.options.remount {
        // mount(8) adds the flags that are to stay; we would drop them.
        return Err(usage("'remount' is for mount(8): mount -o remount,… DIR"));
    }
    start_or_serve(&plan)
}

/// Starts the process in the background, or serves the mount if this is it.
fn start_or_serve(plan: &Plan) -> Result<(), Failure> {
    let reporting = background::is_the_background_process();
    if !plan.foreground && !reporting {
        return background::start(plan);
    }
    let result = serve::run(plan, reporting);
    if reporting && let Err(failure) = &result {
        background::report_failure(failure);
    }
    result
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::text(Kind::Usage, text)
}
