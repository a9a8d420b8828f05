//! Looking at the place of a mount without touching a mount that may not answer.

use std::io;
use std::path::{Path, PathBuf};

use ministry_fuse::mount_table::{self, MountEntry};

use crate::failure::Failure;
use crate::mount::usage;

/// Symbolic links that are followed before it is taken for a circle; as the kernel.
const LINKS_MAX: usize = 40;

/// The path without symbolic links, as the table of mounts has it. Stops at a mount point: what is
/// mounted there is not asked. Directories above are.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..LINKS_MAX {
        if mount_table::find(&path)?.is_some() {
            return Ok(path);
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return path.canonicalize();
        };
        let real = parent.canonicalize()?.join(name);
        if mount_table::find(&real)?.is_some() {
            return Ok(real);
        }
        match std::fs::read_link(&real) {
            Ok(target) => path = std::path::absolute(real.with_file_name("").join(target))?,
            Err(_) => return Ok(real),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Refuses places where nothing should be mounted, and says what to do. `non_empty`: it may hold
/// something, which the mount hides.
pub fn check(directory: &Path, non_empty: bool) -> Result<PathBuf, Failure> {
    let shown = directory.display();
    let place = resolve(directory).map_err(|error| missing(directory, &error))?;
    if let Some(entry) = mounted_at(&place)? {
        return Err(already_mounted(&place, &entry));
    }
    let entries = std::fs::read_dir(&place).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => usage(format!("{shown} is not a directory")),
        _ => missing(directory, &error),
    });
    match entries?.next() {
        Some(_) if !non_empty => Err(usage(format!(
            "{shown} is not empty: its files would be hidden; choose an empty directory, or mount \
             with the option nonempty"
        ))),
        _ => Ok(place),
    }
}

fn missing(directory: &Path, error: &io::Error) -> Failure {
    let shown = directory.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            usage(format!("{shown} is not there: make it with 'mkdir -p {shown}'"))
        }
        _ => usage(format!("cannot use {shown}: {error}")),
    }
}

/// What is mounted at exactly this place.
pub fn mounted_at(place: &Path) -> Result<Option<MountEntry>, Failure> {
    mount_table::find(place)
        .map_err(|error| Failure::from(anyhow::anyhow!("cannot read the table of mounts: {error}")))
}

fn already_mounted(place: &Path, entry: &MountEntry) -> Failure {
    let place = place.display();
    if entry.is_ministry() {
        return usage(format!(
            "Ministry is mounted on {place} already; if it does not answer, take it away first with \
             'ministryctl umount {place}'"
        ));
    }
    usage(format!("a file system of type {} is mounted on {place} already", entry.file_system_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_cannot_be_used_are_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let missing = check(&folder.path().join("none"), false).unwrap_err().to_string();
        assert!(missing.contains("mkdir -p"), "{missing}");
        std::fs::write(folder.path().join("file"), b"").unwrap();
        let file = check(&folder.path().join("file"), false).unwrap_err().to_string();
        assert!(file.contains("not a directory"), "{file}");
        let full = check(folder.path(), false).unwrap_err().to_string();
        assert!(full.contains("not empty"), "{full}");
        assert!(check(folder.path(), true).is_ok(), "it was asked for");
        let proc = check(Path::new("/proc"), false).unwrap_err().to_string();
        assert!(proc.contains("is mounted on /proc already"), "{proc}");
    }

    #[test]
    fn symbolic_links_to_a_place_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        assert_eq!(check(&folder.path().join("link/"), false).unwrap(), real);
        std::os::unix::fs::symlink("circle", folder.path().join("circle")).unwrap();
        assert!(check(&folder.path().join("circle"), false).is_err());
        std::os::unix::fs::symlink("/proc", folder.path().join("proc")).unwrap();
        assert_eq!(resolve(&folder.path().join("proc")).unwrap(), Path::new("/proc"));
    }
}
