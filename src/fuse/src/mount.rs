//! One mount, from its beginning to its end.
//!
//! `ministryctl mount` starts it and waits until it ends: because somebody unmounted it from
//! outside, or because [`Mount::unmount`] was called.
//!
//! The super-user mounts by `mount(2)` right here; other users need the program `fusermount3`
//! ([`crate::fusermount`]). (fuser could do both, but its handle for an ended mount may unmount
//! whatever was mounted later at the same place; ours asks the table of mounts first.)
//!
//! What must always hold: the process that serves a mount never touches it. Nothing here asks for
//! anything below the mount point after mounting; what is needed comes from the table of mounts.
//! Unmounting waits for pages to be written back, which the runtime must serve meanwhile, so it
//! runs on a thread for blocking work.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{Config, Session, SessionACL};
use ministry_client::Client;
use rustix::mount::UnmountFlags;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::adapter::Adapter;
use crate::capabilities::Tuning;
use crate::fusermount;
use crate::mount_table::{self, FILE_SYSTEM_TYPE};
use crate::options::MountOptions;
use crate::service::MinistryFilesystem;

const FUSE_DEVICE: &str = "/dev/fuse";

/// Threads that read requests. They only hand them on, so two keep up with the runtime; more cost
/// a lone caller time.
const THREADS: usize = 2;

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or the container does not show it.
    #[error(
        "{FUSE_DEVICE} is not there: load the kernel's module ('modprobe fuse'), or give the \
             container the device"
    )]
    NoDevice,
    /// The program is not installed.
    #[error(
        "there is no fusermount3, by which other users than the super-user mount: install the \
         package fuse3, or mount as root"
    )]
    NoProgram,
    /// `fusermount3` opens the device as the user who runs it.
    #[error(
        "this user may not open {FUSE_DEVICE}: everybody may where the package fuse3 has set the \
         machine up; the super-user can permit it with 'chmod 666 {FUSE_DEVICE}'"
    )]
    DeviceClosed,
    /// Others may not enter what this user mounts.
    #[error(
        "allow_other is not permitted here: the super-user can permit it with the line \
         'user_allow_other' in /etc/fuse.conf; without the option only you see the mount"
    )]
    AllowOther,
    /// An option that would give rights to whoever mounts.
    #[error("only the super-user may mount with '{option}': leave it away, or mount as root")]
    SuperUserOnly {
        /// The option.
        option: &'static str,
    },
    /// The device cannot be opened.
    #[error("cannot open {FUSE_DEVICE}: {0}")]
    Device(io::Error),
    /// The place does not exist, or is no directory, or cannot be looked at.
    #[error("cannot mount on {}: {source}", path.display())]
    MountPoint {
        /// The place.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The kernel refuses.
    #[error("the kernel refuses to mount on {}: {source}", path.display())]
    Refused {
        /// The place.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A thread or the table of mounts is not to be had.
    #[error("cannot serve the mount: {0}")]
    Serve(io::Error),
}

/// How to end a mount that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Not at all: `EBUSY`.
    IfIdle,
    /// It vanishes from sight at once, and ends when its last file is closed.
    Lazily,
    /// The connection to the process that serves it is cut: every request that waits and every
    /// later one fails. What was not written is lost.
    ByForce,
}

/// A mount that is being served. Dropping it takes it out of sight.
#[derive(Debug)]
pub struct Mount {
    place: Place,
    adapter: Arc<Adapter>,
    ended: watch::Receiver<Option<Result<(), String>>>,
}

/// Where a mount is, so that no other is taken for it.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    device: String,
}

impl Mount {
    /// Mounts, and serves from now on; `runtime` carries the requests out. Blocks for a moment:
    /// not for a thread of the runtime.
    pub fn start(
        client: Client,
        options: &MountOptions,
        runtime: &Handle,
    ) -> Result<Mount, MountError> {
        let path = check_mount_point(&options.mount_point)?;
        let tuning =
            Tuning { max_background: options.max_background, readdirplus: options.readdirplus };
        let adapter = Arc::new(Adapter::new(client, options.view()));
        let filesystem = MinistryFilesystem::new(Arc::clone(&adapter), runtime.clone(), tuning);
        let device = if rustix::process::geteuid().is_root() {
            mount_directly(&path, options)?
        } else {
            mount_by_program(&path, options)?
        };
        let session = begin_session(filesystem, device, &path, options)?;
        let entry = mount_table::find(&path).map_err(MountError::Serve)?;
        let device = entry.map(|entry| entry.device()).unwrap_or_default();
        set_read_ahead(&device, options.read_ahead_kib);
        let (end, ended) = watch::channel(None);
        let serve = move || {
            let result = session.run().map_err(|error| error.to_string());
            if let Err(error) = &result {
                tracing::error!(error, "the mount ended by a failure");
            }
            end.send_replace(Some(result));
        };
        let spawned = std::thread::Builder::new().name("mount".to_owned()).spawn(serve);
        let place = Place { path, device };
        if let Err(error) = spawned {
            place.take_out_of_sight();
            return Err(MountError::Serve(error));
        }
        Ok(Mount { place, adapter, ended })
    }

    /// Where it is mounted, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// `major:minor` of the mount.
    pub fn device(&self) -> &str {
        &self.place.device
    }

    /// Waits until the mount has ended, and closes what the kernel left open. The error is what
    /// made it end, where nobody unmounted it.
    ///
    /// Cancel safety: safe.
    pub async fn ended(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        let result = match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err("the thread that serves the mount has died".to_owned()),
        };
        self.adapter.close_all().await;
        result
    }

    /// Ends the mount. Pages that wait are written first, which may take as long as an operation
    /// may.
    pub async fn unmount(&self, how: Unmount) -> io::Result<()> {
        let place = self.place.clone();
        let unmount = tokio::task::spawn_blocking(move || place.unmount(how));
        unmount.await.map_err(io::Error::other)?
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.ended.borrow().is_none() {
            self.place.take_out_of_sight();
        }
    }
}

impl Place {
    fn is_mounted(&self) -> io::Result<bool> {
        let here = |entry: &mount_table::MountEntry| {
            entry.mount_point == self.path && entry.device() == self.device
        };
        Ok(mount_table::read()?.iter().any(here))
    }

    fn unmount(&self, how: Unmount) -> io::Result<()> {
        if !self.is_mounted()? {
            return Ok(());
        }
        unmount_path(&self.path, how)
    }

    fn take_out_of_sight(&self) {
        if let Err(error) = self.unmount(Unmount::Lazily) {
            tracing::warn!(%error, path = %self.path.display(), "cannot unmount");
        }
    }
}

/// Unmounts whatever is mounted at a path. Does not follow a symbolic link, and does not ask the
/// mount itself.
pub fn unmount_path(path: &Path, how: Unmount) -> io::Result<()> {
    let flags = match how {
        Unmount::IfIdle => UnmountFlags::empty(),
        Unmount::Lazily => UnmountFlags::DETACH,
        Unmount::ByForce => UnmountFlags::DETACH | UnmountFlags::FORCE,
    };
    match rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::PERM) => fusermount::unmount(path, how != Unmount::IfIdle),
        result => Ok(result?),
    }
}

fn check_mount_point(path: &Path) -> Result<PathBuf, MountError> {
    let error = |source| MountError::MountPoint { path: path.to_owned(), source };
    let real = path.canonicalize().map_err(error)?;
    if !real.metadata().map_err(error)?.is_dir() {
        return Err(error(io::ErrorKind::NotADirectory.into()));
    }
    Ok(real)
}

fn open_device() -> Result<File, MountError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_CLOEXEC);
    options.open(FUSE_DEVICE).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::NoDevice,
        _ => MountError::Device(error),
    })
}

fn session_config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    // A queue for each thread instead of one that they share, where the device can be opened once
    // more: `fusermount3` may open it also where its user may not.
    config.clone_fd = open_device().is_ok();
    config
}

/// Agrees with the kernel on the capabilities. What was mounted is taken away if that fails.
fn begin_session(
    filesystem: MinistryFilesystem,
    device: OwnedFd,
    path: &Path,
    options: &MountOptions,
) -> Result<Session<MinistryFilesystem>, MountError> {
    let config = session_config(options);
    Session::from_fd(filesystem, device, config.acl, config).map_err(|source| {
        // Nobody serves it: whoever touched it would get an error.
        let _ = unmount_path(path, Unmount::Lazily);
        MountError::Refused { path: path.to_owned(), source }
    })
}

/// By `mount(2)`.
fn mount_directly(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let refused = |source| MountError::Refused { path: path.to_owned(), source };
    let device = open_device()?;
    let mode = path.metadata().map_err(refused)?.mode();
    let data = mount_data(device.as_raw_fd(), mode, options.allow_other);
    let data = CString::new(data).map_err(|error| refused(error.into()))?;
    let name = options.name.as_str();
    rustix::mount::mount(name, path, FILE_SYSTEM_TYPE, options.flags(), data.as_c_str())
        .map_err(|error| refused(error.into()))?;
    Ok(OwnedFd::from(device))
}

/// By `fusermount3`.
fn mount_by_program(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    // For the clear message where there is no device. That this user may not open it says nothing.
    if !Path::new(FUSE_DEVICE).exists() {
        return Err(MountError::NoDevice);
    }
    fusermount::mount(path, options)
}

/// Changes flags of what is mounted at a path: those of `options`, and nothing else of them. For
/// the super-user.
pub fn remount(options: &MountOptions) -> Result<(), MountError> {
    let path = &options.mount_point;
    rustix::mount::mount_remount(path, options.flags(), c"")
        .map_err(|error| MountError::Refused { path: path.clone(), source: error.into() })
}

fn mount_data(device: i32, mode: u32, allow_other: bool) -> String {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let (user, group) = (user.as_raw(), group.as_raw());
    let other = if allow_other { ",allow_other" } else { "" };
    format!("fd={device},rootmode={mode:o},user_id={user},group_id={group}{other}")
}

/// The file below `/sys` speaks of the device, not of the mount: nothing is asked of us.
fn set_read_ahead(device: &str, kib: u32) {
    let file = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&file, kib.to_string()) {
        tracing::debug!(%error, file, "the kernel reads ahead less than wanted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_never_to_judge_permissions_itself() {
        let data = mount_data(7, 0o40755, true);
        assert!(data.starts_with("fd=7,rootmode=40755,user_id="), "{data}");
        assert!(data.ends_with(",allow_other"), "{data}");
        assert!(!mount_data(7, 0o40755, false).contains("allow_other"));
        assert!(!data.contains("default_permissions"));
    }

    #[test]
    fn a_place_that_is_no_directory_is_refused_by_name() {
        let file = std::env::temp_dir().join(format!("ministry-mount-{}", std::process::id()));
        std::fs::write(&file, b"").unwrap();
        let error = check_mount_point(&file).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(error.contains(&file.display().to_string()), "{error}");
        let missing = check_mount_point(&file).unwrap_err();
        assert!(matches!(missing, MountError::MountPoint { .. }));
    }
}
