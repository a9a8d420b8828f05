//! File handles: a file is found again by its number, whatever its name is by now.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ministry_tests::Cluster;

use crate::{errno, healthy};

/// `struct file_handle` with room for what any file system puts there.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; 128],
}

fn handle(path: &Path) -> io::Result<Handle> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let mut mount = 0_i32;
    // SAFETY: the name ends in a zero, and the handle has the room that it says.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    };
    if done == 0 { Ok(handle) } else { Err(io::Error::last_os_error()) }
}

fn open(mount: &File, handle: &Handle, flags: i32) -> io::Result<File> {
    // SAFETY: the handle came from the kernel.
    let number = unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const *handle, flags)
    };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(number as i32) }))
}

/// The kernel forgets names and inodes that nobody uses.
fn forget() {
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

fn text(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_file_is_opened_by_its_handle_wherever_its_name_went() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0).to_owned(), cluster.mount(1).to_owned());
    let mount = File::open(&here).unwrap();
    std::fs::create_dir_all(here.join("a/b")).unwrap();
    std::fs::write(here.join("a/f"), "content").unwrap();
    std::os::unix::fs::symlink("target", here.join("a/l")).unwrap();
    let (file, folder) = (handle(&here.join("a/f")).unwrap(), handle(&here.join("a/b")).unwrap());
    let number = std::fs::metadata(here.join("a/f")).unwrap().ino();
    assert_eq!(text(open(&mount, &file, libc::O_RDONLY).unwrap()), "content");
    // Another mount moves and changes it; ours has forgotten it.
    std::fs::rename(there.join("a/f"), there.join("g")).unwrap();
    std::fs::write(there.join("g"), "changed").unwrap();
    forget();
    let opened = open(&mount, &file, libc::O_RDWR).unwrap();
    assert_eq!(opened.metadata().unwrap().ino(), number);
    assert_eq!(text(opened), "changed");
    // A directory leads on: into it, and up from it.
    std::fs::rename(there.join("a/b"), there.join("moved")).unwrap();
    std::fs::write(there.join("moved/in"), "inside").unwrap();
    forget();
    let opened = open(&mount, &folder, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
    let place = format!("/proc/self/fd/{}", opened.as_raw_fd());
    assert_eq!(std::fs::read(format!("{place}/in")).unwrap(), b"inside");
    let up = std::fs::metadata(format!("{place}/..")).unwrap().ino();
    assert_eq!(up, std::fs::metadata(&here).unwrap().ino());
    drop(opened);
    // Gone is gone, though a new file has its name.
    std::fs::remove_file(there.join("g")).unwrap();
    std::fs::write(there.join("g"), "another").unwrap();
    forget();
    assert_eq!(errno(open(&mount, &file, libc::O_RDONLY)), libc::ESTALE);
    std::fs::remove_dir_all(there.join("moved")).unwrap();
    forget();
    assert_eq!(errno(open(&mount, &folder, libc::O_RDONLY)), libc::ESTALE);
    // A number that never was.
    let mut invented = handle(&here.join("a")).unwrap();
    invented.data[..8].copy_from_slice(&u64::MAX.to_ne_bytes());
    assert_eq!(errno(open(&mount, &invented, libc::O_RDONLY)), libc::ESTALE);
    healthy(&mut cluster);
}
