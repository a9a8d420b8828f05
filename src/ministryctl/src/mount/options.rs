//! The options of a mount, as `-o` and `/etc/fstab` carry them.
//!
//! `ministryctl mount` and the mount helper read them here into [`Options`]. Of two that contradict
//! each other the later one holds, as everywhere in mount(8).
//!
//! What must always hold: an option that is not known is refused by name, together with those that
//! are; nothing is quietly left out but what belongs to mount(8) and systemd themselves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ministry_fuse::{AccessTimes, MountOptions};

use crate::cli::{address, time};
use crate::failure::Failure;
use crate::mount::usage;

/// Every option that does something, for the message about one that is not known.
const KNOWN: &str = "ro rw allow_other noallow_other exec noexec suid nosuid dev nodev relatime \
    noatime strictatime diratime nodiratime sync async dirsync uid= gid= subdir= name= credentials= \
    timeout= log= metrics= max_background= read_ahead= readdirplus noreaddirplus nonempty remount";

/// For mount(8), systemd and the kernel's table; nothing for us.
const IGNORED: [&str; 22] = [
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "comment",
    "silent",
    "loud",
    "lazytime",
    "nolazytime",
    "nomand",
    "noiversion",
    "norelatime",
    "nostrictatime",
];

/// What the kernel shows of a mount, and mount(8) hands back when it is mounted anew.
const SHOWN_BY_THE_KERNEL: [&str; 6] =
    ["user_id", "group_id", "rootmode", "fd", "max_read", "blksize"];

/// What the options say; nothing of what they do not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `ro`.
    pub read_only: bool,
    /// `allow_other`, `noallow_other`.
    pub allow_other: Option<bool>,
    /// `suid`.
    pub suid: bool,
    /// `dev`.
    pub dev: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// `relatime`, `noatime`, `strictatime`.
    pub atime: AccessTimes,
    /// `nodiratime`.
    pub no_directory_atime: bool,
    /// `sync`.
    pub sync: bool,
    /// `dirsync`.
    pub sync_directories: bool,
    /// `uid=`.
    pub uid: Option<u32>,
    /// `gid=`.
    pub gid: Option<u32>,
    /// `subdir=`.
    pub subdir: Option<String>,
    /// `name=`.
    pub name: Option<String>,
    /// `credentials=`.
    pub credentials: Option<PathBuf>,
    /// `timeout=`.
    pub timeout: Option<Duration>,
    /// `log=`.
    pub log: Option<PathBuf>,
    /// `metrics=`.
    pub metrics: Option<SocketAddr>,
    /// `max_background=`.
    pub max_background: Option<u16>,
    /// `read_ahead=`.
    pub read_ahead_kib: Option<u32>,
    /// `readdirplus`.
    pub readdirplus: bool,
    /// `nonempty`.
    pub non_empty: bool,
    /// `remount`.
    pub remount: bool,
    shown_by_the_kernel: Option<String>,
}

impl Options {
    /// Reads a list of options. `sloppy`: those that are not known are left out (`mount -s`).
    pub fn parse(text: &str, sloppy: bool) -> Result<Options, Failure> {
        let mut options = Options::default();
        for word in split(text) {
            let known = options.take(&word)?;
            if !known && !sloppy {
                return Err(usage(format!("unknown option '{word}'; known are: {KNOWN}")));
            }
        }
        match &options.shown_by_the_kernel {
            Some(word) if !options.remount && !sloppy => {
                Err(usage(format!("'{word}' is not for people: known options are: {KNOWN}")))
            }
            _ => Ok(options),
        }
    }

    /// Takes one option. Returns whether it is known.
    fn take(&mut self, word: &str) -> Result<bool, Failure> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if name.starts_with("x-") || name.starts_with("X-") || IGNORED.contains(&name) {
            return Ok(true);
        }
        if SHOWN_BY_THE_KERNEL.contains(&name) {
            self.shown_by_the_kernel = Some(name.to_owned());
            return Ok(true);
        }
        if name == "default_permissions" {
            return Err(usage(
                "default_permissions is not offered: the minister judges permissions, and knows \
                 groups and ACLs that the kernel does not; leave it away",
            ));
        }
        match value {
            None => self.take_flag(name),
            Some(value) => self.take_value(name, value),
        }
    }

    fn take_flag(&mut self, name: &str) -> Result<bool, Failure> {
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" => self.allow_other = Some(false),
            "exec" => self.no_exec = false,
            "noexec" => self.no_exec = true,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "relatime" | "atime" => self.atime = AccessTimes::Relative,
            "noatime" => self.atime = AccessTimes::Never,
            "strictatime" => self.atime = AccessTimes::Always,
            "diratime" => self.no_directory_atime = false,
            "nodiratime" => self.no_directory_atime = true,
            "sync" => self.sync = true,
            "async" => self.sync = false,
            "dirsync" => self.sync_directories = true,
            "readdirplus" => self.readdirplus = true,
            "noreaddirplus" => self.readdirplus = false,
            "nonempty" => self.non_empty = true,
            "remount" => self.remount = true,
            "uid" | "gid" | "subdir" | "name" | "credentials" | "timeout" | "log" | "metrics"
            | "max_background" | "read_ahead" => {
                return Err(usage(format!("the option '{name}' needs a value: {name}=…")));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_value(&mut self, name: &str, value: &str) -> Result<bool, Failure> {
        match name {
            "uid" => self.uid = Some(number(name, value, "a user's number")?),
            "gid" => self.gid = Some(number(name, value, "a group's number")?),
            "subdir" => self.subdir = Some(inner_path(value)?),
            "name" => self.name = Some(filled(name, value)?),
            "credentials" => self.credentials = Some(filled(name, value)?.into()),
            "timeout" => self.timeout = Some(time(value).map_err(|why| wrong(name, value, &why))?),
            "log" => self.log = Some(filled(name, value)?.into()),
            "metrics" => {
                self.metrics = Some(address(value).map_err(|why| wrong(name, value, &why))?);
            }
            "max_background" => {
                let most = number(name, value, "a number from 1 to 65535")?;
                if most == 0 {
                    return Err(wrong(name, value, "a number from 1 to 65535"));
                }
                self.max_background = Some(most);
            }
            "read_ahead" => self.read_ahead_kib = Some(number(name, value, "a number of KiB")?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What the mount is told. The root is filled in when the cluster has been asked for it.
    pub fn for_mount(&self, place: PathBuf, name: String) -> MountOptions {
        let plain = MountOptions::new(place);
        MountOptions {
            read_only: self.read_only,
            allow_other: self.allow_other.unwrap_or(plain.allow_other),
            allow_suid: self.suid,
            allow_devices: self.dev,
            no_exec: self.no_exec,
            atime: self.atime,
            no_directory_atime: self.no_directory_atime,
            sync: self.sync,
            sync_directories: self.sync_directories,
            uid: self.uid,
            gid: self.gid,
            name,
            max_background: self.max_background.unwrap_or(plain.max_background),
            read_ahead_kib: self.read_ahead_kib.unwrap_or(plain.read_ahead_kib),
            readdirplus: self.readdirplus,
            ..plain
        }
    }
}

/// At commas, but for those between double quotes, as mount(8) does. The quotes go.
fn split(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => words.push(String::new()),
            other => {
                if let Some(word) = words.last_mut() {
                    word.push(other);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn wrong(name: &str, value: &str, wanted: &str) -> Failure {
    usage(format!("'{value}' is no value for the option '{name}': {wanted}"))
}

fn number<T: FromStr>(name: &str, value: &str, wanted: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| wrong(name, value, wanted))
}

fn filled(name: &str, value: &str) -> Result<String, Failure> {
    match value {
        "" => Err(wrong(name, value, "it must not be empty")),
        value => Ok(value.to_owned()),
    }
}

/// A path inside the file system from its root on, without anything that would lead elsewhere.
pub fn inner_path(text: &str) -> Result<String, Failure> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if !text.starts_with('/') || parts.iter().any(|part| *part == "." || *part == "..") {
        return Err(usage(format!(
            "'{text}' is no path inside the file system: write it from the root '/' on, without \
             '.' and '..'"
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(text, false).unwrap()
    }

    fn refused(text: &str) -> String {
        Options::parse(text, false).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_option_is_refused_by_name_with_the_known_ones() {
        for text in ["ro,nonsense", "nonsense=1", "ro=1", "norw"] {
            let said = refused(text);
            assert!(said.contains("unknown option"), "{text}: {said}");
            assert!(said.contains("subdir=") && said.contains("allow_other"), "{said}");
        }
        assert!(refused("ro,nonsense").contains("'nonsense'"));
        assert!(Options::parse("ro,nonsense", true).unwrap().read_only, "sloppy");
    }

    #[test]
    fn every_option_that_is_named_as_known_is() {
        for name in KNOWN.split_whitespace() {
            let text = match name.strip_suffix('=') {
                Some("subdir") => "subdir=/x".to_owned(),
                Some("timeout") => "timeout=3s".to_owned(),
                Some("metrics") => "metrics=127.0.0.1:1".to_owned(),
                Some(name) => format!("{name}=7"),
                None => name.to_owned(),
            };
            parse(&text);
        }
    }

    #[test]
    fn what_belongs_to_mount_and_systemd_changes_nothing() {
        let line = "defaults,noauto,_netdev,nofail,user=tom,users,x-systemd.automount,\
                    x-systemd.requires=a.service,comment=mine,X-mount.mkdir";
        assert_eq!(parse(line), Options::default());
    }

    #[test]
    fn of_two_that_contradict_the_later_holds() {
        assert!(!parse("ro,rw").read_only);
        assert!(parse("exec,suid,noexec,nosuid").no_exec);
        assert!(!parse("suid,nosuid").suid);
        assert_eq!(parse("noatime,relatime").atime, AccessTimes::Relative);
        assert_eq!(parse("allow_other,noallow_other").allow_other, Some(false));
    }

    #[test]
    fn values_are_read_and_wrong_ones_refused_with_what_was_wanted() {
        let options = parse("uid=1000,gid=100,subdir=//a//b/,read_ahead=4096,timeout=2m");
        assert_eq!((options.uid, options.gid), (Some(1000), Some(100)));
        assert_eq!(options.subdir.as_deref(), Some("/a/b"));
        assert_eq!(options.read_ahead_kib, Some(4096));
        assert_eq!(options.timeout, Some(Duration::from_secs(120)));
        assert_eq!(parse("subdir=\"/a,b\",ro").subdir.as_deref(), Some("/a,b"));
        for text in [
            "uid=tom",
            "uid=-1",
            "uid=4294967296",
            "gid=",
            "uid",
            "subdir=a",
            "subdir=/a/../b",
            "max_background=0",
            "max_background=65536",
            "read_ahead=1M",
            "timeout=5",
            "metrics=here",
            "name=",
            "credentials=",
        ] {
            let said = refused(text);
            let name = text.split('=').next().unwrap();
            assert!(said.contains(name) || said.contains("path"), "{text}: {said}");
        }
    }

    #[test]
    fn what_the_kernel_shows_is_taken_back_when_flags_are_changed_and_only_then() {
        let shown = "rw,nosuid,nodev,relatime,user_id=0,group_id=0,allow_other";
        assert!(refused(shown).contains("not for people"));
        let options = parse(&format!("{shown},remount,ro"));
        assert!(options.remount && options.read_only);
    }

    #[test]
    fn the_judge_of_permissions_cannot_be_changed() {
        assert!(refused("default_permissions").contains("minister"));
    }

    #[test]
    fn the_mount_is_told_what_was_asked_for() {
        let options = parse("ro,noexec,uid=5,max_background=9,sync,nodiratime");
        let mount = options.for_mount("/m".into(), "home:/x".to_owned());
        assert!(mount.read_only && mount.no_exec && mount.sync && mount.no_directory_atime);
        assert_eq!((mount.uid, mount.gid, mount.max_background), (Some(5), None, 9));
        assert_eq!(mount.name, "home:/x");
        assert!(!mount.allow_suid && !mount.allow_devices);
    }
}
