//! A folder on a local ext4: the temporary folder if it lies on one, else an image in a file.

use std::path::{Path, PathBuf};

use ministry_tests::{Program, sandbox};
use tempfile::TempDir;

const EXT4: i64 = 0xef53;
/// Bytes of the image; it is sparse.
const IMAGE: u64 = 1 << 30;

/// The folder. Removed when dropped.
pub struct Local {
    path: PathBuf,
    image: Option<PathBuf>,
    _folder: TempDir,
}

impl Local {
    /// Finds or makes one. Needs root.
    pub fn new() -> Local {
        sandbox::enter_mount_namespace();
        let folder = sandbox::folder();
        let top = folder.path().to_owned();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(&top, open).expect("our folder");
        let path = top.join("local");
        std::fs::create_dir(&path).expect("our folder");
        let mut image = None;
        if !plain_ext4(&path) {
            let file = top.join("image");
            std::fs::File::create(&file).and_then(|file| file.set_len(IMAGE)).expect("an image");
            Program::new("mkfs.ext4").args(["-q", "-F", "-b", "4096", "-I", "256"]).arg(&file).ok();
            Program::new("mount").args(["-o", "loop"]).arg(&file).arg(&path).ok();
            image = Some(path.clone());
        }
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, all).expect("our folder");
        Local { path, image, _folder: folder }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(mount) = &self.image {
            sandbox::detach(mount);
        }
    }
}

/// Whether a folder lies on an ext4 that is mounted without options that change what it does.
fn plain_ext4(path: &Path) -> bool {
    let found = rustix::fs::statfs(path).expect("our folder");
    let flags = rustix::fs::statvfs(path).expect("our folder").f_flag;
    let odd = rustix::fs::StatVfsMountFlags::NOSUID
        | rustix::fs::StatVfsMountFlags::NODEV
        | rustix::fs::StatVfsMountFlags::NOEXEC
        | rustix::fs::StatVfsMountFlags::NOATIME
        | rustix::fs::StatVfsMountFlags::SYNCHRONOUS;
    found.f_type == EXT4
        && !flags.intersects(odd)
        && flags.contains(rustix::fs::StatVfsMountFlags::RELATIME)
}
