//! Sequences cannot leave their cluster's folder, whatever their links and paths say.
//!
//! They run as the super-user and follow symbolic links that they made at random: one that led to
//! the machine's own root would change the machine. So each thread that runs steps has the
//! cluster's folder for its root.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::process;

thread_local! {
    static CONFINED: Cell<bool> = const { Cell::new(false) };
}

/// A folder that becomes the root of threads.
#[derive(Debug)]
pub struct Confinement {
    top: PathBuf,
    /// The folder of this process's descriptors, which is out of reach by name.
    descriptors: File,
}

impl Confinement {
    /// Within `top`.
    pub fn new(top: &Path) -> Confinement {
        let descriptors = File::open("/proc/self/fd").expect("/proc is there");
        Confinement { top: top.to_owned(), descriptors }
    }

    /// A path as confined threads name it.
    pub fn inner(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.top).expect("it is inside");
        Path::new("/").join(below)
    }

    /// Shows a folder from elsewhere inside, as `name`.
    pub fn bind(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.top.join(name);
        std::fs::create_dir_all(&to).expect("a folder");
        let path = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).expect("plain");
        rustix::mount::mount_bind(path(from), path(&to)).expect("it can be mounted");
        to
    }

    /// The folder of this process's descriptors.
    pub fn descriptors(&self) -> &File {
        &self.descriptors
    }

    /// Runs `work` in a confined thread, and waits for its end.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn enter(&self) {
        // Root and working folder of this thread are its own from here on.
        // SAFETY: no memory is involved.
        let unshared = unsafe { libc::unshare(libc::CLONE_FS) };
        assert_eq!(unshared, 0, "{}", std::io::Error::last_os_error());
        process::chroot(&self.top).expect("sequences run as root");
        process::chdir("/").expect("there is a root");
        CONFINED.set(true);
    }
}

/// Ends the test if this thread is not confined.
pub fn assert_confined() {
    assert!(CONFINED.get(), "steps run in a confined thread only");
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_to_the_root_and_above_stay_inside() {
        let folder = ministry_tests::sandbox::folder();
        symlink("/", folder.path().join("top")).unwrap();
        symlink("../../../../../..", folder.path().join("above")).unwrap();
        std::fs::write(folder.path().join("mark"), "").unwrap();
        Confinement::new(folder.path()).run(|| {
            assert_confined();
            assert!(Path::new("/top/mark").exists());
            assert!(Path::new("/above/mark").exists());
        });
        assert!(Path::new("/proc").exists(), "only that thread is confined");
    }

    #[test]
    #[should_panic(expected = "confined thread only")]
    fn nothing_runs_outside() {
        assert_confined();
    }
}
