//! One mount, from its beginning to its end.
//!
//! `ministryctl mount` starts it and waits until it ends: because somebody unmounted it from
//! outside, or because [`Mount::unmount`] was called.
//!
//! The super-user mounts by `mount(2)` right here; other users need the program `fusermount3`,
//! which fuser calls. (fuser's own handle for an ended mount may unmount whatever was mounted
//! later at the same place; ours asks the table of mounts first.)
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

use fuser::{Config, MountOption, Session, SessionACL};
use ministry_client::Client;
use rustix::mount::{MountFlags, UnmountFlags};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::adapter::Adapter;
use crate::capabilities::Tuning;
use crate::mount_table::{self, FILE_SYSTEM_TYPE};
use crate::service::MinistryFilesystem;

const FUSE_DEVICE: &str = "/dev/fuse";

/// Threads that read requests. They only hand them on, so two keep up with the runtime; more cost
/// a lone caller time.
const THREADS: usize = 2;

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// The directory that is covered.
    pub mount_point: PathBuf,
    /// The kernel refuses every change.
    pub read_only: bool,
    /// Users other than the one who mounts may enter; the default for the super-user.
    pub allow_other: bool,
    /// Setuid programs run with the rights of their owner. Off: whoever can write somewhere in the
    /// cluster cannot become super-user here.
    pub allow_suid: bool,
    /// Device nodes can be opened. Off for the same reason.
    pub allow_devices: bool,
    /// The name in the first column of `df` and `mount`.
    pub name: String,
    /// Read-aheads and write-backs that the kernel keeps under way at once.
    pub max_background: u16,
    /// How far the kernel reads ahead, in KiB. Its own bound for FUSE is 128, too little for a
    /// network.
    pub read_ahead_kib: u32,
    /// Listings carry attributes. Of use only with leases: see the module `capabilities`.
    pub readdirplus: bool,
}

impl MountOptions {
    /// The defaults for a mount at this place.
    pub fn new(mount_point: impl Into<PathBuf>) -> MountOptions {
        MountOptions {
            mount_point: mount_point.into(),
            read_only: false,
            allow_other: rustix::process::geteuid().is_root(),
            allow_suid: false,
            allow_devices: false,
            name: "ministry".to_owned(),
            max_background: 128,
            read_ahead_kib: 1024,
            readdirplus: false,
        }
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or the container does not show it.
    #[error(
        "{FUSE_DEVICE} is not there: load the kernel's module ('modprobe fuse'), or give the \
             container the device"
    )]
    NoDevice,
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
        let adapter = Arc::new(Adapter::new(client));
        let filesystem = MinistryFilesystem::new(Arc::clone(&adapter), runtime.clone(), tuning);
        let session = if rustix::process::geteuid().is_root() {
            mount_directly(filesystem, &path, options)?
        } else {
            mount_by_program(filesystem, &path, options)?
        };
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
        Err(rustix::io::Errno::PERM) => unmount_by_program(path, how != Unmount::IfIdle),
        result => Ok(result?),
    }
}

/// Other users than the super-user may unmount only by the program that mounted for them.
fn unmount_by_program(path: &Path, lazily: bool) -> io::Result<()> {
    let mut program = std::process::Command::new("fusermount3");
    program.arg("-u").args(lazily.then_some("-z")).arg("--").arg(path);
    let output = program.output().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot run fusermount3: {error}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let busy = text.to_ascii_lowercase().contains("busy");
    let kind = if busy { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, text.trim().to_owned()))
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
    // A queue for each thread instead of one that they share.
    config.clone_fd = true;
    config
}

/// By `mount(2)`.
fn mount_directly(
    filesystem: MinistryFilesystem,
    path: &Path,
    options: &MountOptions,
) -> Result<Session<MinistryFilesystem>, MountError> {
    let refused = |source| MountError::Refused { path: path.to_owned(), source };
    let device = open_device()?;
    let mode = path.metadata().map_err(refused)?.mode();
    let data = mount_data(device.as_raw_fd(), mode, options.allow_other);
    let data = CString::new(data).map_err(|error| refused(error.into()))?;
    let name = options.name.as_str();
    rustix::mount::mount(name, path, FILE_SYSTEM_TYPE, mount_flags(options), data.as_c_str())
        .map_err(|error| refused(error.into()))?;
    let device = OwnedFd::from(device);
    let config = session_config(options);
    Session::from_fd(filesystem, device, config.acl, config).map_err(|error| {
        // Nobody serves it: whoever touched it would get an error.
        let _ = unmount_path(path, Unmount::Lazily);
        refused(error)
    })
}

fn mount_data(device: i32, mode: u32, allow_other: bool) -> String {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let (user, group) = (user.as_raw(), group.as_raw());
    let other = if allow_other { ",allow_other" } else { "" };
    format!("fd={device},rootmode={mode:o},user_id={user},group_id={group}{other}")
}

fn mount_flags(options: &MountOptions) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, !options.allow_suid);
    flags.set(MountFlags::NODEV, !options.allow_devices);
    flags
}

/// By `fusermount3`, which fuser calls.
fn mount_by_program(
    filesystem: MinistryFilesystem,
    path: &Path,
    options: &MountOptions,
) -> Result<Session<MinistryFilesystem>, MountError> {
    // For the clear message where there is no device.
    drop(open_device()?);
    let mut config = session_config(options);
    config.mount_options =
        vec![MountOption::FSName(options.name.clone()), MountOption::Subtype("ministry".into())];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    Session::new(filesystem, path, &config)
        .map_err(|source| MountError::Refused { path: path.to_owned(), source })
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
    fn programs_and_devices_of_the_cluster_get_no_rights_here_unless_asked_for() {
        let mut options = MountOptions::new("/nowhere");
        let flags = mount_flags(&options);
        assert!(flags.contains(MountFlags::NOSUID | MountFlags::NODEV));
        assert!(!flags.contains(MountFlags::RDONLY));
        options.allow_suid = true;
        options.allow_devices = true;
        options.read_only = true;
        assert_eq!(mount_flags(&options), MountFlags::RDONLY);
    }

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
