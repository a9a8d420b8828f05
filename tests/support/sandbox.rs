//! The place a test lives in: a mount namespace and a folder of its own.
//!
//! Mounts made inside the namespace end with the last process in it, so that a test that is killed
//! leaves no dead mount behind. Folders of tests that were killed are removed by the next one.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// How folders of tests begin; the number of the process follows.
const PREFIX: &str = "ministry-test-";

thread_local! {
    static ENTERED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Gives this thread, and what it starts, a mount namespace of its own. Needs root.
pub fn enter_mount_namespace() {
    if ENTERED.replace(true) {
        return;
    }
    // SAFETY: no memory is involved; threads may have different mount namespaces.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(unshared, 0, "tests that mount run as root: {}", io::Error::last_os_error());
    let none = CString::new("none").expect("no zero byte");
    let root = CString::new("/").expect("no zero byte");
    // Unmounts outside are seen here; nothing of ours is seen outside.
    // SAFETY: all pointers are to C strings that live through the call, or null where allowed.
    let private = unsafe {
        libc::mount(
            none.as_ptr(),
            root.as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_SLAVE,
            std::ptr::null(),
        )
    };
    assert_eq!(private, 0, "mount propagation: {}", io::Error::last_os_error());
    // Copies of others' mounts would keep those alive.
    for (path, kind) in mounts() {
        if kind == "fuse.ministry" {
            detach(&path);
        }
    }
}

/// What is mounted where: path and kind.
pub fn mounts() -> Vec<(PathBuf, String)> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is there");
    table.lines().filter_map(mount_of).collect()
}

fn mount_of(line: &str) -> Option<(PathBuf, String)> {
    let (place, kind) = line.split_once(" - ")?;
    let path = place.split(' ').nth(4)?.replace("\\040", " ");
    Some((PathBuf::from(path), kind.split(' ').next()?.to_owned()))
}

/// The kind of what is mounted at `path`, if anything is.
pub fn mounted_kind(path: &Path) -> Option<String> {
    mounts().into_iter().rev().find(|(at, _)| at == path).map(|(_, kind)| kind)
}

/// Makes a folder that is a file system of its own, in memory, of so many bytes.
pub fn small_disk(path: &Path, bytes: u64) {
    std::fs::create_dir_all(path).expect("a folder");
    let place = CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero byte in a path");
    let kind = CString::new("tmpfs").expect("no zero byte");
    let size = CString::new(format!("size={bytes}")).expect("no zero byte");
    // SAFETY: all pointers are to C strings that live through the call.
    let mounted = unsafe {
        libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, size.as_ptr().cast())
    };
    assert_eq!(mounted, 0, "tmpfs at {path:?}: {}", io::Error::last_os_error());
}

/// Takes a mount out of sight, whatever state it is in.
pub fn detach(path: &Path) {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero byte in a path");
    // SAFETY: a C string that lives through the call.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

/// A folder for one test. Removed with all in it when dropped.
pub fn folder() -> TempDir {
    sweep();
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()
        .expect("a temporary folder can be made")
}

/// Removes folders whose test process is gone.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|number| number.parse::<u32>().ok());
        if let Some(process) = process
            && !Path::new("/proc").join(process.to_string()).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let line = "45 27 0:42 / /mnt/a\\040b rw,nosuid - fuse.ministry ministry rw,user_id=0";
        let (path, kind) = mount_of(line).unwrap();
        assert_eq!(path, Path::new("/mnt/a b"));
        assert_eq!(kind, "fuse.ministry");
    }

    #[test]
    fn the_folder_of_a_dead_test_is_swept() {
        // No process has this number: the kernel's largest is 4,194,304.
        let left = std::env::temp_dir().join(format!("{PREFIX}99999999-x"));
        std::fs::create_dir_all(left.join("sub")).unwrap();
        let mine = folder();
        assert!(!left.exists());
        assert!(mine.path().exists());
    }
}
