//! Who keeps a mount from being unmounted: processes with what they use of it, file systems
//! mounted inside it, swap files and loop devices.
//!
//! `ministryctl umount` and the process that serves a mount ask this, after the kernel has said
//! `EBUSY`. An open file counts when it was opened by way of this very mount, whose number the
//! kernel tells with each descriptor; a working directory, root, program or mapping counts by its
//! path, where the process sees the same mounts as the one who asks.
//!
//! What must always hold: nothing here touches the mount, which may not answer: links below `/proc`
//! are read, not followed, and no command lines, since those are read out of the memory of a
//! process. What cannot be seen (processes of others, where the super-user does not ask) is left
//! out.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::mount_table::{self, MountEntry};

/// Most processes that are listed: the answer is for a person.
const PROCESSES_MAX: usize = 20;
/// Most uses that are listed of one process.
const USES_MAX: usize = 3;

/// One use of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// How: `works in`, `has as its root`, `runs`, `has open` or `maps`.
    pub how: &'static str,
    /// The file or directory.
    pub what: PathBuf,
}

/// A process that keeps a mount from being unmounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusyProcess {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What of the mount it uses, some of it where it is much.
    pub uses: Vec<Use>,
    /// Further uses.
    pub more: usize,
}

/// All that keeps a mount busy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// Processes, at most twenty.
    pub processes: Vec<BusyProcess>,
    /// Further processes.
    pub more: usize,
    /// What the kernel itself uses: mounts, swap files, loop devices.
    pub kernel: Vec<String>,
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.processes.iter().map(ToString::to_string).collect();
        if self.more > 0 {
            parts.push(format!("and {} more processes", self.more));
        }
        parts.extend(self.kernel.iter().cloned());
        match parts.is_empty() {
            true if rustix::process::geteuid().is_root() => {
                f.write_str("in use by something that cannot be seen from here")
            }
            true => f.write_str("in use by a process of another user: only root sees which"),
            false => write!(f, "in use: {}", parts.join("; ")),
        }
    }
}

impl fmt::Display for BusyProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {}) ", self.name, self.pid)?;
        for (number, one) in self.uses.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", one.how, one.what.display())?;
        }
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        Ok(())
    }
}

/// Who uses what is mounted at this path. Blocks for as long as reading `/proc` takes.
pub fn users(mount_point: &Path) -> Users {
    let table = mount_table::read().unwrap_or_default();
    let mount = table.iter().rfind(|entry| entry.mount_point == mount_point);
    let search = Search { mount_point, number: mount.map(|entry| entry.id) };
    let mut users = Users { kernel: kernel_uses(&search, &table), ..Users::default() };
    for pid in process_numbers() {
        let Some(process) = search.process(pid) else { continue };
        if users.processes.len() < PROCESSES_MAX {
            users.processes.push(process);
        } else {
            users.more += 1;
        }
    }
    users
}

fn process_numbers() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").ok().into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// What is looked for.
#[derive(Debug)]
struct Search<'a> {
    mount_point: &'a Path,
    /// The kernel's number of the mount.
    number: Option<u64>,
}

impl Search<'_> {
    fn process(&self, pid: u32) -> Option<BusyProcess> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let mut uses = Vec::new();
        if sees_the_same_mounts(&folder) {
            let links = [("works in", "cwd"), ("has as its root", "root"), ("runs", "exe")];
            for (how, link) in links {
                uses.extend(self.below(&folder.join(link)).map(|what| Use { how, what }));
            }
            let maps = std::fs::read(folder.join("maps")).unwrap_or_default();
            for what in mapped_below(&maps, self.mount_point) {
                if uses.iter().all(|known| known.what != what) {
                    uses.push(Use { how: "maps", what });
                }
            }
        }
        uses.extend(self.open_files(&folder));
        if uses.is_empty() {
            return None;
        }
        let more = uses.len().saturating_sub(USES_MAX);
        uses.truncate(USES_MAX);
        let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        Some(BusyProcess { pid, name: name.trim_end().to_owned(), uses, more })
    }

    /// Where a link of `/proc` points, if that is below the mount point. Reading it asks the kernel
    /// for a path it knows; it does not follow it.
    fn below(&self, link: &Path) -> Option<PathBuf> {
        std::fs::read_link(link).ok().filter(|target| target.starts_with(self.mount_point))
    }

    fn open_files(&self, folder: &Path) -> Vec<Use> {
        let entries = std::fs::read_dir(folder.join("fd")).ok().into_iter().flatten().flatten();
        let open = entries.filter_map(|entry| {
            let details = folder.join("fdinfo").join(entry.file_name());
            let here = match (self.number, mount_number(&details)) {
                (Some(wanted), Some(number)) => wanted == number,
                _ => return self.below(&entry.path()),
            };
            here.then(|| std::fs::read_link(entry.path()).unwrap_or_default())
        });
        let mut uses: Vec<Use> = Vec::new();
        for what in open {
            if uses.iter().all(|known| known.what != what) {
                uses.push(Use { how: "has open", what });
            }
        }
        uses
    }
}

/// By way of which mount a descriptor was opened.
fn mount_number(details: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(details).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// Whether paths of the process mean what they mean here. Another mount namespace has mounts of its
/// own, which do not keep ours busy.
fn sees_the_same_mounts(folder: &Path) -> bool {
    let theirs = std::fs::read_link(folder.join("ns/mnt"));
    let ours = std::fs::read_link("/proc/self/ns/mnt");
    match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => true,
    }
}

/// The path is the sixth field of a line of `maps` and may hold blanks. Each file once.
fn mapped_below(maps: &[u8], mount_point: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in maps.split(|byte| *byte == b'\n') {
        let start = line.iter().position(|byte| *byte == b'/');
        let Some(path) = start.and_then(|start| line.get(start..)) else { continue };
        let path = Path::new(OsStr::from_bytes(path));
        if path.starts_with(mount_point) && found.last().is_none_or(|last| last != path) {
            found.push(path.to_owned());
        }
    }
    found
}

/// Mounts inside, swap files, loop devices.
fn kernel_uses(search: &Search<'_>, table: &[MountEntry]) -> Vec<String> {
    let mut uses = mounted_inside(search, table);
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let files = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let files = files.map(Path::new).filter(|path| path.starts_with(search.mount_point));
    uses.extend(files.map(|path| format!("{} is in use for swapping", path.display())));
    for device in std::fs::read_dir("/sys/block").ok().into_iter().flatten().flatten() {
        let file = device.path().join("loop/backing_file");
        let Ok(file) = std::fs::read_to_string(file) else { continue };
        if Path::new(file.trim_end()).starts_with(search.mount_point) {
            let device = device.file_name();
            uses.push(format!("{} backs {}", file.trim_end(), device.to_string_lossy()));
        }
    }
    uses
}

fn mounted_inside(search: &Search<'_>, table: &[MountEntry]) -> Vec<String> {
    let inside = table.iter().filter(|entry| match search.number {
        Some(number) => entry.parent == number && entry.id != number,
        None => {
            entry.mount_point != search.mount_point
                && entry.mount_point.starts_with(search.mount_point)
        }
    });
    inside.map(|entry| format!("{} is mounted inside it", entry.mount_point.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_file_open_below_a_folder_is_named() {
        let folder = std::env::temp_dir().join(format!("ministry-busy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        let file = std::fs::File::create(folder.join("open file")).unwrap();
        let found = users(&folder);
        drop(file);
        std::fs::remove_dir_all(&folder).unwrap();
        let own = found.processes.iter().find(|process| process.pid == std::process::id());
        let own = own.expect("we have it open");
        let wanted = Use { how: "has open", what: folder.join("open file") };
        assert_eq!(own.uses, [wanted]);
        assert_eq!(users(&folder), Users::default());
    }

    #[test]
    fn a_mapped_file_counts_once_also_when_its_path_holds_blanks() {
        let maps = b"7f00-7f01 r-xp 00000000 00:35 12    /mnt/a b/lib.so\n\
            7f01-7f02 rw-p 00000000 00:35 12    /mnt/a b/lib.so\n7f02-7f03 rw-p 0 0:0 0\n";
        let found = mapped_below(maps, Path::new("/mnt/a b"));
        assert_eq!(found, [PathBuf::from("/mnt/a b/lib.so")]);
        assert!(mapped_below(maps, Path::new("/mnt/a")).is_empty());
    }

    #[test]
    fn what_is_mounted_inside_is_found_by_the_kernels_numbers() {
        let entry = |id, parent, point: &str| MountEntry {
            id,
            parent,
            major: 0,
            minor: 5,
            mount_point: point.into(),
            file_system_type: "tmpfs".to_owned(),
            source: "none".to_owned(),
        };
        let table = [entry(40, 22, "/mnt/m"), entry(41, 40, "/mnt/m/in"), entry(42, 22, "/mnt/mm")];
        let search = Search { mount_point: Path::new("/mnt/m"), number: Some(40) };
        assert_eq!(mounted_inside(&search, &table), ["/mnt/m/in is mounted inside it"]);
        let by_path = Search { number: None, ..search };
        assert_eq!(mounted_inside(&by_path, &table), ["/mnt/m/in is mounted inside it"]);
    }

    #[test]
    fn everybody_is_named_on_one_line() {
        let process = |pid, uses: &[(&'static str, &str)], more| BusyProcess {
            pid,
            name: "bash".to_owned(),
            uses: uses.iter().map(|(how, what)| Use { how, what: (*what).into() }).collect(),
            more,
        };
        let users = Users {
            processes: vec![
                process(42, &[("works in", "/mnt/m/work"), ("has open", "/mnt/m/log")], 0),
                process(43, &[("maps", "/mnt/m/lib")], 7),
            ],
            more: 2,
            kernel: vec!["/mnt/m/in is mounted inside it".to_owned()],
        };
        assert_eq!(
            users.to_string(),
            "in use: bash (process 42) works in /mnt/m/work, has open /mnt/m/log; \
             bash (process 43) maps /mnt/m/lib and 7 more; and 2 more processes; \
             /mnt/m/in is mounted inside it"
        );
    }
}
