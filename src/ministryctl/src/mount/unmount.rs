//! `ministryctl umount`.

use std::path::Path;

use anyhow::anyhow;
use ministry_fuse::mount_table::{self, BusyProcess};
use ministry_fuse::{Unmount, unmount_path};

use crate::cli::Global;
use crate::failure::{Failure, Kind};
use crate::mount::presence::Watch;
use crate::mount::{UmountArgs, place, usage};

/// Takes the mount away and waits until the process that served it has ended, so that everything
/// written is on the servers. Blocks.
pub fn run(args: UmountArgs, global: &Global) -> Result<(), Failure> {
    let shown = args.directory.display();
    let place = place::resolve(&args.directory)
        .map_err(|error| usage(format!("cannot use {shown}: {error}")))?;
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
    let how = match (args.force, args.lazy) {
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
    if runtime.block_on(watch.ended(global.timeout)) {
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
    let text = busy_text(place, &mount_table::busy_processes(place));
    Failure::from(anyhow!("cannot unmount {shown}: {text}"))
}

fn busy_text(place: &Path, processes: &[BusyProcess]) -> String {
    if processes.is_empty() {
        let inner = mount_table::read()
            .unwrap_or_default()
            .into_iter()
            .find(|entry| entry.mount_point != place && entry.mount_point.starts_with(place));
        return match inner {
            Some(entry) => format!("{} is mounted inside it", entry.mount_point.display()),
            None => "it is in use by a process that cannot be seen from here".to_owned(),
        };
    }
    let list: Vec<String> = processes
        .iter()
        .map(|BusyProcess { pid, name, uses, how }| {
            format!("{name} (process {pid}) {how} {}", uses.display())
        })
        .collect();
    format!("in use: {}", list.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_a_mount_busy_is_named() {
        let process = BusyProcess {
            pid: 42,
            name: "bash".to_owned(),
            uses: "/mnt/m/work".into(),
            how: "works in",
        };
        let text = busy_text(Path::new("/mnt/m"), &[process]);
        assert_eq!(text, "in use: bash (process 42) works in /mnt/m/work");
    }
}
