//! What is mounted where, from `/proc/self/mountinfo`.
//!
//! Mounting, unmounting and the operator program ask this. What must always hold: nothing here
//! touches a mount itself (no `stat`, no `open` below it), so none of it hangs on a mount that
//! does not answer, and the process that serves a mount may use it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which mounts of Ministry appear.
pub const FILE_SYSTEM_TYPE: &str = "fuse.ministry";

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The kernel's number of this mount.
    pub id: u64,
    /// The number of the mount that it is mounted in.
    pub parent: u64,
    /// Major device number.
    pub major: u32,
    /// Minor device number; of a FUSE mount also the number of its connection.
    pub minor: u32,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type of the file system.
    pub file_system_type: String,
    /// What is mounted, as the file system calls itself: `CLUSTER:/PATH` for Ministry.
    pub source: String,
}

impl MountEntry {
    /// Whether it is a mount of Ministry.
    pub fn is_ministry(&self) -> bool {
        self.file_system_type == FILE_SYSTEM_TYPE
    }

    /// The directory of the file system that is the root of this mount of Ministry.
    pub fn subdirectory(&self) -> &Path {
        let path = self.source.find(":/").and_then(|colon| self.source.get(colon + 1..));
        Path::new(path.unwrap_or("/"))
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
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let device = std::str::from_utf8(fields.next()?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mount_point = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let file_system_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = unescape(fields.next().unwrap_or_default());
    Some(MountEntry {
        id,
        parent,
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        mount_point: PathBuf::from(OsString::from_vec(mount_point)),
        file_system_type,
        source: String::from_utf8_lossy(&source).into_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        40 22 0:53 / /mnt/a\\040b rw,nosuid shared:7 master:1 - fuse.ministry home:/a\\040b rw\n\
        41 22 0:54 / /mnt/over rw - tmpfs none rw\n\
        42 22 0:55 / /mnt/over rw - fuse.ministry ministry rw\n\
        broken\n";

    #[test]
    fn mount_points_are_found_with_blanks_and_optional_fields() {
        let entries = parse(TABLE);
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[1].mount_point, Path::new("/mnt/a b"));
        assert_eq!((entries[1].device().as_str(), entries[1].is_ministry()), ("0:53", true));
        assert_eq!((entries[1].id, entries[1].parent), (40, 22));
        assert_eq!(entries[1].subdirectory(), Path::new("/a b"));
        assert_eq!(entries[3].subdirectory(), Path::new("/"), "no path in its name");
        let visible = entries.iter().rfind(|entry| entry.mount_point == Path::new("/mnt/over"));
        assert_eq!(visible.map(|entry| entry.minor), Some(55));
    }

    #[test]
    fn escapes_that_are_none_stay_as_they_are() {
        assert_eq!(unescape(b"a\\134b"), b"a\\b");
        assert_eq!(unescape(b"a\\9"), b"a\\9");
        assert_eq!(unescape(b"\\"), b"\\");
    }
}
