//! Attributes and whole trees in a form in which two file systems compare.
//!
//! Numbers of inodes, sizes of folders and clocks are each file system's own. What compares of
//! times is whether they were set by hand, and to what; and which of them a call changes.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

use crate::RELATIME_NEW;
use crate::subject;

/// Times before this were set by hand: the generator sets none later.
const SET_BY_HAND_MAX: i64 = 1_100_000_000;
/// Differences named at most.
const NAMED_MAX: usize = 6;

/// Seconds and nanoseconds.
pub type Moment = (i64, i64);

/// What `stat` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// The number of the inode, on this file system.
    pub inode: u64,
    /// Kind and permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Links.
    pub links: u64,
    /// Size; not of folders.
    pub size: Option<u64>,
    /// Access.
    pub atime: Moment,
    /// Change of the content.
    pub mtime: Moment,
    /// Any change.
    pub ctime: Moment,
}

impl Attributes {
    /// From the kernel's form.
    pub fn of(stat: &Stat) -> Attributes {
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Attributes {
            inode: stat.st_ino,
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            links: stat.st_nlink,
            size: (!is_folder).then_some(stat.st_size as u64),
            atime: (stat.st_atime, stat.st_atime_nsec as i64),
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// In what it differs from what is expected: the field, and the values.
    pub fn difference(&self, expected: &Attributes) -> Option<(&'static str, String)> {
        let by_hand = |time: Moment| (time.0 < SET_BY_HAND_MAX).then_some(time);
        let told = |found: String, expected: String| format!("{found}, expected {expected}");
        if self.mode != expected.mode {
            let found = format!("{:o}", self.mode);
            return Some(("mode", told(found, format!("{:o}", expected.mode))));
        }
        if self.owner != expected.owner {
            let found = format!("{:?}", self.owner);
            return Some(("owner", told(found, format!("{:?}", expected.owner))));
        }
        if self.links != expected.links {
            return Some(("links", told(self.links.to_string(), expected.links.to_string())));
        }
        if self.size != expected.size {
            let found = format!("{:?}", self.size);
            return Some(("size", told(found, format!("{:?}", expected.size))));
        }
        if by_hand(self.mtime) != by_hand(expected.mtime) {
            let found = format!("{:?}", self.mtime);
            return Some(("mtime", told(found, format!("{:?}", expected.mtime))));
        }
        if RELATIME_NEW && by_hand(self.atime) != by_hand(expected.atime) {
            let found = format!("{:?}", self.atime);
            return Some(("atime", told(found, format!("{:?}", expected.atime))));
        }
        None
    }
}

/// Which times a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// mtime is another.
    pub mtime: bool,
    /// ctime has grown.
    pub ctime: bool,
}

impl Changed {
    /// From before to after the call.
    pub fn between(before: &Attributes, after: &Attributes) -> Changed {
        Changed { mtime: before.mtime != after.mtime, ctime: before.ctime < after.ctime }
    }
}

/// One object of a tree.
#[derive(Debug, Clone)]
pub struct Object {
    /// What `stat` tells.
    pub attributes: Attributes,
    /// Content, or where a symbolic link points.
    pub content: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All objects below a folder by their path, the folder itself by the empty one.
pub type Tree = BTreeMap<String, Object>;

/// Everything below `top`.
pub fn tree(top: &Path) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let mut todo = vec![String::new()];
    while let Some(path) = todo.pop() {
        let object = object(top, &path, &mut todo)
            .map_err(|error| format!("{path:?} at the end: {error}"))?;
        tree.insert(path, object);
    }
    Ok(tree)
}

fn object(top: &Path, path: &str, todo: &mut Vec<String>) -> Result<Object, Errno> {
    let whole = if path.is_empty() { top.to_owned() } else { top.join(path) };
    let whole = CString::new(whole.into_os_string().into_encoded_bytes()).expect("no zero byte");
    let attributes = Attributes::of(&fs::lstat(&whole)?);
    let content = match FileType::from_raw_mode(attributes.mode) {
        FileType::RegularFile => subject::read_whole(&whole)?,
        FileType::Symlink => subject::target(&whole)?,
        FileType::Directory => {
            for (name, _) in subject::list(&whole)? {
                let name = String::from_utf8(name).expect("the names of tests are text");
                if name != "." && name != ".." {
                    let below = if path.is_empty() { name } else { format!("{path}/{name}") };
                    todo.push(below);
                }
            }
            Vec::new()
        }
        _ => Vec::new(),
    };
    let mut xattrs = BTreeMap::new();
    for name in subject::xattr_names(&whole)? {
        let text = String::from_utf8_lossy(&name).into_owned();
        xattrs.insert(name, subject::xattr(&whole, &text)?);
    }
    Ok(Object { attributes, content, xattrs })
}

/// In what a tree differs from what is expected, in words; the first is the kind of difference.
pub fn differences(found: &Tree, expected: &Tree) -> Option<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for path in expected.keys().filter(|path| !found.contains_key(*path)) {
        all.push(("missing".into(), format!("{path:?} is missing")));
    }
    for path in found.keys().filter(|path| !expected.contains_key(*path)) {
        all.push(("phantom".into(), format!("{path:?} should not be there")));
    }
    for (path, wanted) in expected {
        let Some(there) = found.get(path) else { continue };
        if let Some((field, text)) = there.attributes.difference(&wanted.attributes) {
            all.push((field.into(), format!("{path:?} has {field} {text}")));
        }
        if there.content != wanted.content {
            let at = there.content.iter().zip(&wanted.content).position(|(a, b)| a != b);
            let (is, was) = (subject::brief(&there.content), subject::brief(&wanted.content));
            let text = format!("{path:?} holds {is}, expected {was}, first other byte {at:?}");
            all.push(("content".into(), text));
        }
        if there.xattrs != wanted.xattrs {
            let (is, was) = (&there.xattrs, &wanted.xattrs);
            let text = format!("{path:?} has attributes {is:?}, expected {was:?}");
            all.push(("xattrs".into(), text));
        }
    }
    if names_by_inode(found) != names_by_inode(expected) && all.is_empty() {
        all.push(("identity".into(), "other names are links of each other".into()));
    }
    let kind = all.first()?.0.clone();
    let texts: Vec<String> = all.into_iter().take(NAMED_MAX).map(|(_, text)| text).collect();
    Some((kind, texts.join("; ")))
}

/// Which names are one object.
fn names_by_inode(tree: &Tree) -> Vec<Vec<&String>> {
    let mut names: BTreeMap<u64, Vec<&String>> = BTreeMap::new();
    for (path, object) in tree {
        names.entry(object.attributes.inode).or_default().push(path);
    }
    let mut groups: Vec<_> = names.into_values().collect();
    groups.sort();
    groups
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn make(top: &Path) {
        std::fs::create_dir_all(top.join("d")).unwrap();
        std::fs::write(top.join("d/f"), "content").unwrap();
        std::fs::hard_link(top.join("d/f"), top.join("g")).unwrap();
        std::fs::write(top.join("h"), "content").unwrap();
    }

    #[test]
    fn each_difference_of_two_trees_is_found() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 9] = [
            ("mode", |top| {
                std::fs::set_permissions(top.join("h"), PermissionsExt::from_mode(0o640)).unwrap();
            }),
            ("owner", |top| chown(top.join("h"), None, Some(7)).unwrap()),
            ("size", |top| std::fs::write(top.join("h"), "contents").unwrap()),
            ("content", |top| std::fs::write(top.join("h"), "CONTENT").unwrap()),
            ("missing", |top| std::fs::remove_file(top.join("h")).unwrap()),
            ("phantom", |top| std::fs::write(top.join("i"), "").unwrap()),
            ("links", |top| {
                std::fs::remove_file(top.join("g")).unwrap();
                std::fs::write(top.join("g"), "content").unwrap();
            }),
            ("identity", |top| {
                std::fs::rename(top.join("g"), top.join("x")).unwrap();
                std::fs::rename(top.join("h"), top.join("g")).unwrap();
                std::fs::rename(top.join("x"), top.join("h")).unwrap();
            }),
            ("xattrs", |top| {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(top.join("h"), "user.a", b"1", flags).unwrap();
            }),
        ];
        for (kind, change) in changes {
            let folder = ministry_tests::sandbox::folder();
            let (one, other) = (folder.path().join("one"), folder.path().join("other"));
            make(&one);
            make(&other);
            let expected = tree(&one).unwrap();
            assert_eq!(differences(&tree(&other).unwrap(), &expected), None);
            change(&other);
            let found = differences(&tree(&other).unwrap(), &expected);
            // Links of one name and of the other differ where the names are exchanged.
            let found = found.map(|(found, _)| found).unwrap_or_default();
            let alike = kind == "identity" && found == "links";
            assert!(found == kind || alike, "{kind}: {found:?}");
        }
    }
}
