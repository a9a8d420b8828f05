//! Trees of files: making them from a seed, and everything about them in a form that compares.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

/// Everything about one object that a copy must keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Links; of folders, it tells how many folders are in it.
    pub links: u64,
    /// Size; not of folders, where it is the file system's own matter.
    pub size: u64,
    /// Last change of the content: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// A sum of the content, or where a symbolic link points.
    pub content: Vec<u8>,
    /// The attributes in the user's name space.
    pub attributes: BTreeMap<OsString, Vec<u8>>,
}

/// Bytes that depend on the seed alone.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Makes `files` files in folders of about fifty, of sizes as source trees have them: most are
/// small, some empty, few large.
pub fn make(top: &Path, files: usize, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut folder = top.to_owned();
    for number in 0..files {
        if number % 50 == 0 {
            folder = top.join(format!("d{}", number / 500)).join(format!("e{}", number / 50));
            std::fs::create_dir_all(&folder).expect("a folder");
        }
        let path = folder.join(format!("file-{number}.txt"));
        let length = match random.random_range(0..100) {
            0..5 => 0,
            5..80 => random.random_range(1..4_096),
            80..98 => random.random_range(4_096..32_768),
            _ => random.random_range(32_768..262_144),
        };
        std::fs::write(&path, bytes(seed ^ number as u64, length)).expect("a file");
        let mode = [0o644, 0o600, 0o755, 0o444][number % 4];
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        if number % 40 == 7 {
            symlink(format!("file-{number}.txt"), folder.join(format!("link-{number}")))
                .expect("a link");
        }
    }
}

/// Everything below `top`, by its path from there.
pub fn read(top: &Path) -> BTreeMap<PathBuf, Object> {
    let mut found = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(folder) = todo.pop() {
        let entries = std::fs::read_dir(top.join(&folder)).expect("a folder reads");
        for entry in entries {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            let object = object(&entry.path());
            if object.mode & libc::S_IFMT == libc::S_IFDIR {
                todo.push(path.clone());
            }
            assert!(found.insert(path.clone(), object).is_none(), "{path:?} is listed twice");
        }
    }
    found
}

/// One object.
pub fn object(path: &Path) -> Object {
    let is = std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let kind = is.mode() & libc::S_IFMT;
    let content = match kind {
        libc::S_IFLNK => {
            std::fs::read_link(path).expect("a link reads").into_os_string().into_vec()
        }
        libc::S_IFREG => {
            let content = std::fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert_eq!(content.len() as u64, is.len(), "{path:?}: length read and length told");
            sum(&content).to_be_bytes().to_vec()
        }
        _ => Vec::new(),
    };
    Object {
        mode: is.mode(),
        owner: (is.uid(), is.gid()),
        links: is.nlink(),
        size: if kind == libc::S_IFDIR { 0 } else { is.len() },
        modified: (is.mtime(), is.mtime_nsec()),
        content,
        attributes: attributes(path),
    }
}

/// Panics with the first differences between two trees.
pub fn same(one: &Path, other: &Path) {
    compare(&read(one), &read(other));
}

/// As [`same`], for what was read already.
pub fn compare(one: &BTreeMap<PathBuf, Object>, other: &BTreeMap<PathBuf, Object>) {
    let mut differences = Vec::new();
    for (path, object) in one {
        match other.get(path) {
            None => differences.push(format!("{path:?} is only in the first")),
            Some(twin) if twin != object => {
                differences.push(format!("{path:?} differs:\n  {object:?}\n  {twin:?}"));
            }
            Some(_) => {}
        }
    }
    for path in other.keys().filter(|path| !one.contains_key(*path)) {
        differences.push(format!("{path:?} is only in the second"));
    }
    let count = differences.len();
    differences.truncate(8);
    assert!(count == 0, "{count} differences:\n{}", differences.join("\n"));
}

/// The same objects without the owners' times, for copies that do not keep them.
pub fn without_times(mut tree: BTreeMap<PathBuf, Object>) -> BTreeMap<PathBuf, Object> {
    for object in tree.values_mut() {
        object.modified = (0, 0);
    }
    tree
}

/// FNV-1a over eight bytes at a time: quick, and two different contents hardly ever agree.
pub fn sum(content: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ content.len() as u64;
    for part in content.chunks(8) {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^= sum >> 29;
    }
    sum
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0_u8; 65_536];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let name = OsString::from_vec(name.to_vec());
        let mut value = vec![0_u8; 65_536];
        let length = rustix::fs::lgetxattr(path, name.as_bytes(), &mut value[..])
            .unwrap_or_else(|error| panic!("{path:?} {name:?}: {error}"));
        value.truncate(length);
        found.insert(name, value);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_the_same_for_the_same_seed_and_differs_for_another() {
        let (one, two, three) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        make(one.path(), 120, 1);
        make(two.path(), 120, 1);
        make(three.path(), 120, 2);
        let read = |folder: &Path| without_times(read(folder));
        compare(&read(one.path()), &read(two.path()));
        assert_ne!(read(one.path()), read(three.path()));
    }

    #[test]
    #[should_panic(expected = "1 differences")]
    fn one_changed_byte_shows() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(one.path().join("a"), "abcdefghij").unwrap();
        std::fs::write(two.path().join("a"), "abcdefghiJ").unwrap();
        compare(&without_times(read(one.path())), &without_times(read(two.path())));
    }
}
