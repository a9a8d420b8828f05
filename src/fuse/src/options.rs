//! How a mount is mounted: the options, and what the kernel and `fusermount3` are told of them.
//!
//! `ministryctl mount` and the mount helper fill [`MountOptions`] in; [`crate::mount`] and
//! [`crate::fusermount`] use it.
//!
//! What must always hold: `default_permissions` is never among them, since the minister judges; and
//! setuid programs and device nodes of the cluster get no rights here unless it was asked for.

use std::path::PathBuf;

use ministry_types::InodeId;
use rustix::mount::MountFlags;

use crate::view::View;

/// When the kernel thinks of telling that something was read. For now these are flags of the
/// kernel's table and nothing else: FUSE leaves access times to the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessTimes {
    /// `relatime`: when the time is older than the last change, or than a day.
    #[default]
    Relative,
    /// `noatime`: never.
    Never,
    /// `strictatime`: always.
    Always,
}

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// The directory that is covered.
    pub mount_point: PathBuf,
    /// The directory of the file system that becomes the root of the mount; must be one.
    pub root: InodeId,
    /// The kernel refuses every change.
    pub read_only: bool,
    /// Users other than the one who mounts may enter; the default for the super-user.
    pub allow_other: bool,
    /// Setuid programs run with the rights of their owner. Off: whoever can write somewhere in the
    /// cluster cannot become super-user here.
    pub allow_suid: bool,
    /// Device nodes can be opened. Off for the same reason.
    pub allow_devices: bool,
    /// The kernel refuses to run programs.
    pub no_exec: bool,
    /// Access times.
    pub atime: AccessTimes,
    /// Access times of directories are left alone.
    pub no_directory_atime: bool,
    /// Every write is synced before it returns.
    pub sync: bool,
    /// Every change of a directory is. It is in any case: a flag for programs that look.
    pub sync_directories: bool,
    /// Every object is shown as owned by this user.
    pub uid: Option<u32>,
    /// Every object is shown as of this group.
    pub gid: Option<u32>,
    /// The name in the first column of `df` and `mount`, as `CLUSTER:/PATH`.
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
            root: InodeId::ROOT,
            read_only: false,
            allow_other: rustix::process::geteuid().is_root(),
            allow_suid: false,
            allow_devices: false,
            no_exec: false,
            atime: AccessTimes::default(),
            no_directory_atime: false,
            sync: false,
            sync_directories: false,
            uid: None,
            gid: None,
            name: "ministry:/".to_owned(),
            max_background: 128,
            read_ahead_kib: 1024,
            readdirplus: false,
        }
    }

    pub(crate) fn view(&self) -> View {
        View { root: self.root, uid: self.uid, gid: self.gid }
    }

    /// For `mount(2)`.
    pub fn flags(&self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NOSUID, !self.allow_suid);
        flags.set(MountFlags::NODEV, !self.allow_devices);
        flags.set(MountFlags::NOEXEC, self.no_exec);
        flags.set(MountFlags::NODIRATIME, self.no_directory_atime);
        flags.set(MountFlags::SYNCHRONOUS, self.sync);
        flags.set(MountFlags::DIRSYNC, self.sync_directories);
        flags.set(MountFlags::RELATIME, self.atime == AccessTimes::Relative);
        flags.set(MountFlags::NOATIME, self.atime == AccessTimes::Never);
        flags.set(MountFlags::STRICTATIME, self.atime == AccessTimes::Always);
        flags
    }

    /// For `fusermount3 -o`. It takes its own list of flags, always mounts with `nosuid,nodev` and
    /// wants commas in values behind a backslash.
    pub(crate) fn for_fusermount(&self) -> String {
        let name = self.name.replace('\\', "\\\\").replace(',', "\\,");
        let mut words = vec![format!("fsname={name}"), "subtype=ministry".to_owned()];
        let flags = [
            (self.read_only, "ro"),
            (self.allow_other, "allow_other"),
            (self.no_exec, "noexec"),
            (self.atime == AccessTimes::Never, "noatime"),
            (self.no_directory_atime, "nodiratime"),
            (self.sync, "sync"),
            (self.sync_directories, "dirsync"),
        ];
        words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()));
        words.join(",")
    }

    /// The first option that only the super-user may ask for.
    pub(crate) fn for_the_super_user_alone(&self) -> Option<&'static str> {
        let options = [
            (self.allow_suid, "suid"),
            (self.allow_devices, "dev"),
            (self.atime == AccessTimes::Always, "strictatime"),
        ];
        options.iter().find(|(set, _)| *set).map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_devices_of_the_cluster_get_no_rights_here_unless_asked_for() {
        let mut options = MountOptions::new("/nowhere");
        let flags = options.flags();
        assert!(flags.contains(MountFlags::NOSUID | MountFlags::NODEV));
        assert!(!flags.contains(MountFlags::RDONLY));
        assert_eq!(options.for_the_super_user_alone(), None);
        options.allow_suid = true;
        options.allow_devices = true;
        options.read_only = true;
        assert_eq!(options.flags(), MountFlags::RDONLY | MountFlags::RELATIME);
        assert_eq!(options.for_the_super_user_alone(), Some("suid"));
    }

    #[test]
    fn the_kernel_gets_one_rule_for_access_times() {
        let mut options = MountOptions::new("/nowhere");
        let rules = MountFlags::RELATIME | MountFlags::NOATIME | MountFlags::STRICTATIME;
        for (atime, flag) in [
            (AccessTimes::Relative, MountFlags::RELATIME),
            (AccessTimes::Never, MountFlags::NOATIME),
            (AccessTimes::Always, MountFlags::STRICTATIME),
        ] {
            options.atime = atime;
            assert_eq!(options.flags() & rules, flag);
        }
    }

    #[test]
    fn fusermount_reads_a_name_with_commas_as_one_word() {
        let options = MountOptions {
            name: "10.0.0.1:7400,10.0.0.2:7400:/a\\b".to_owned(),
            allow_other: false,
            no_exec: true,
            ..MountOptions::new("/nowhere")
        };
        assert_eq!(
            options.for_fusermount(),
            "fsname=10.0.0.1:7400\\,10.0.0.2:7400:/a\\\\b,subtype=ministry,noexec"
        );
    }
}
