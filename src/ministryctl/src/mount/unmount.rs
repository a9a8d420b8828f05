//! `ministryctl umount`.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use ministry_fuse::{Unmount, busy, unmount_path};

use crate::cli::Global;
use crate::failure::{Failure, Kind};
use crate::mount::presence::Watch;
use crate::mount::{UmountArgs, place, usage};

/// `ministryctl umount`.
pub fn run(args: UmountArgs, global: &Global) -> Result<(), Failure> {
    take_away(&args.directory, args.lazy, args.force, global.timeout)
}

/// Takes the mount away and waits until the process that served it has ended, so that everything
/// written is on the servers. Blocks.
pub fn take_away(
    directory: &Path,
    lazy: bool,
    force: bool,
    timeout: Duration,
) -> Result<(), Failure> {
    let shown = directory.display();
    let place =
        place::resolve(directory).map_err(|error| usage(format!("cannot use {shown}: {error}")))?;
    let Some(entry) = place::mounted_at(&place)? else {
        return Err(usage(format!("nothing is mounted on {}", place.display())));
    };
    if !entry.is_ministry() {
        return Err(usage(format!(
            "{} is not a mount of Ministry but of type {}: use 'umount'",
            place.display(),
            entry.file_system_type
        )));
    }
    // Whoever types this inside the mount would keep it busy twice over.
    std::env::set_current_dir("/")?;
    let watch = Watch::begin(&entry.device());
    let how = match (force, lazy) {
        (true, _) => Unmount::ByForce,
        (false, true) => Unmount::Lazily,
        (false, false) => Unmount::IfIdle,
    };
    unmount_path(&place, how).map_err(|error| explain(&place, error))?;
    if how != Unmount::IfIdle {
        // The process may have to wait for programs, or may be the one that does not answer.
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    if runtime.block_on(watch.ended(timeout)) {
        return Ok(());
    }
    Err(Failure::text(
        Kind::Unknown,
        format!(
            "{} is unmounted, but the process that served it still ends its sessions with the \
             cluster; wait longer with --timeout",
            place.display()
        ),
    ))
}

fn explain(place: &Path, error: std::io::Error) -> Failure {
    let shown = place.display();
    if error.kind() != std::io::ErrorKind::ResourceBusy {
        return Failure::from(anyhow!("cannot unmount {shown}: {error}"));
    }
    Failure::from(anyhow!("cannot unmount {shown}: {}", busy::users(place)))
}
