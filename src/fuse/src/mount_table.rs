//! What is mounted where, from `/proc/self/mountinfo`, and who holds a mount busy.
//!
//! Mounting, unmounting and the operator program ask this. What must always hold: nothing here
//! touches a mount itself (no `stat`, no `open` below it), so none of it hangs on a mount that
//! does not answer, and the process that serves a mount may use it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The type under which mounts of Ministry appear.
pub const FILE_SYSTEM_TYPE: &str = "fuse.ministry";

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Major device number.
    pub major: u32,
    /// Minor device number; of a FUSE mount also the number of its connection.
    pub minor: u32,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type of the file system.
    pub file_system_type: String,
}

impl MountEntry {
    /// Whether it is a mount of Ministry.
    pub fn is_ministry(&self) -> bool {
        self.file_system_type == FILE_SYSTEM_TYPE
    }

    /// `major:minor`, as the kernel names the device below `/sys`.
    pub fn device(&self) -> String {
        format!("{}:{}", self.major, self.minor)
    }
}

/// Reads the table.
pub fn read() -> io::Result<Vec<MountEntry>> {
    std::fs::read("/proc/self/mountinfo").map(|table| parse(&table))
}

/// What is mounted at exactly this path, the last and so visible one if there are several.
pub fn find(mount_point: &Path) -> io::Result<Option<MountEntry>> {
    Ok(read()?.into_iter().rfind(|entry| entry.mount_point == mount_point))
}

fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mnt/point rw,noatime shared:1 - ext4 /dev/root rw`: the number of optional
/// fields before the dash varies.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mount_point = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let file_system_type = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(MountEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        mount_point: PathBuf::from(OsString::from_vec(mount_point)),
        file_system_type,
    })
}

/// The table writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// A process that keeps a mount from being unmounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusyProcess {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What of the mount it uses.
    pub uses: PathBuf,
    /// How: `works in`, `has open`, `runs` or `maps`.
    pub how: &'static str,
}

/// Most processes that are listed: the answer is for a person.
const BUSY_PROCESSES_MAX: usize = 20;

/// The processes with a working directory, root, program, open or mapped file below
/// `mount_point`, one use for each.
pub fn busy_processes(mount_point: &Path) -> Vec<BusyProcess> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| busy_process(pid, mount_point))
        .take(BUSY_PROCESSES_MAX)
        .collect()
}

fn busy_process(pid: u32, mount_point: &Path) -> Option<BusyProcess> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let (how, uses) = first_use(&folder, mount_point)?;
    let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
    Some(BusyProcess { pid, name: name.trim_end().to_owned(), uses, how })
}

fn first_use(folder: &Path, mount_point: &Path) -> Option<(&'static str, PathBuf)> {
    let below = |link: PathBuf| {
        // Reading the link asks the kernel for a path it knows; it does not follow it.
        std::fs::read_link(link).ok().filter(|target| target.starts_with(mount_point))
    };
    let fixed = [("works in", "cwd"), ("works in", "root"), ("runs", "exe")];
    for (how, link) in fixed {
        if let Some(target) = below(folder.join(link)) {
            return Some((how, target));
        }
    }
    let descriptors = std::fs::read_dir(folder.join("fd")).ok().into_iter().flatten().flatten();
    if let Some(target) = descriptors.map(|entry| entry.path()).find_map(below) {
        return Some(("has open", target));
    }
    let maps = std::fs::read(folder.join("maps")).unwrap_or_default();
    mapped_below(&maps, mount_point).map(|target| ("maps", target))
}

/// The path is the sixth field of a line of `maps` and may hold blanks.
fn mapped_below(maps: &[u8], mount_point: &Path) -> Option<PathBuf> {
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let start = line.iter().position(|byte| *byte == b'/')?;
        let path = Path::new(std::ffi::OsStr::from_bytes(line.get(start..)?));
        path.starts_with(mount_point).then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        40 22 0:53 / /mnt/a\\040b rw,nosuid shared:7 master:1 - fuse.ministry ministry rw\n\
        41 22 0:54 / /mnt/over rw - tmpfs none rw\n\
        42 22 0:55 / /mnt/over rw - fuse.ministry ministry rw\n\
        broken\n";

    #[test]
    fn mount_points_are_found_with_blanks_and_optional_fields() {
        let entries = parse(TABLE);
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[1].mount_point, Path::new("/mnt/a b"));
        assert_eq!((entries[1].device().as_str(), entries[1].is_ministry()), ("0:53", true));
        let visible = entries.iter().rfind(|entry| entry.mount_point == Path::new("/mnt/over"));
        assert_eq!(visible.map(|entry| entry.minor), Some(55));
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        assert_eq!(unescape(b"a\\134b"), b"a\\b");
        assert_eq!(unescape(b"a\\9"), b"a\\9");
        assert_eq!(unescape(b"\\"), b"\\");
    }

    #[test]
    fn a_process_with_a_file_open_below_a_folder_is_named() {
        let folder = std::env::temp_dir().join(format!("ministry-busy-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        let file = std::fs::File::create(folder.join("open file")).unwrap();
        let found = busy_processes(&folder);
        drop(file);
        std::fs::remove_dir_all(&folder).unwrap();
        let own = found.iter().find(|process| process.pid == std::process::id());
        assert_eq!(own.map(|process| process.how), Some("has open"));
        assert_eq!(busy_processes(&folder), []);
    }

    #[test]
    fn a_mapped_file_counts_also_when_its_path_holds_blanks() {
        let maps = b"7f00-7f01 r-xp 00000000 00:35 12    /mnt/a b/lib.so\n7f02-7f03 rw-p 0 0:0 0\n";
        assert_eq!(mapped_below(maps, Path::new("/mnt/a b")), Some("/mnt/a b/lib.so".into()));
        assert_eq!(mapped_below(maps, Path::new("/mnt/a")), None);
    }
}
