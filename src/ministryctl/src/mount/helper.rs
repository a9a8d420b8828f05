//! The helper of mount(8) and umount(8): this program under another name.
//!
//! `mount -t fuse.ministry SOURCE DIR -o …` runs `/sbin/mount.fuse.ministry SOURCE DIR [-sfnv]
//! [-o …]`, and `umount DIR` runs `/sbin/umount.fuse.ministry DIR [-flnrv]` where there is one.
//! Both are links to `ministryctl`, which looks at the name that it was called by.
//!
//! What must always hold: the exit codes are those of mount(8), and the mount can be used when the
//! helper ends with 0.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::failure::{Failure, Kind};
use crate::mount::options::Options;
use crate::mount::plan::Plan;
use crate::mount::source::Source;
use crate::mount::{place, start_or_serve, unmount, usage};

/// mount(8): wrong usage, or no permission.
const EXIT_USAGE: u8 = 1;
/// mount(8): the mount failed.
const EXIT_FAILED: u8 = 32;

/// How long the cluster is waited for at mounting, and the last writes at unmounting.
const TIMEOUT: Duration = Duration::from_secs(30);

const USAGE: &str = "\
Usage: mount -t fuse.ministry CLUSTER:/PATH DIRECTORY [-o OPTIONS]
       mount.fuse.ministry CLUSTER:/PATH DIRECTORY [-sfnv] [-o OPTIONS]
       umount.fuse.ministry DIRECTORY [-flnrv]

CLUSTER is the name of a folder with a client's credentials below /etc/ministry or
~/.config/ministry, or nodes as IP:PORT,IP:PORT. The options are those of
'ministryctl mount --help'.
";

/// What the program was called to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// `mount.fuse.ministry`
    Mount,
    /// `umount.fuse.ministry`
    Unmount,
}

impl Helper {
    /// By the name of the program; nothing for `ministryctl` itself.
    pub fn called(name: &OsStr) -> Option<Helper> {
        match Path::new(name).file_name()?.to_str()? {
            "mount.fuse.ministry" | "mount.ministry" => Some(Helper::Mount),
            "umount.fuse.ministry" | "umount.ministry" => Some(Helper::Unmount),
            _ => None,
        }
    }

    /// Does what was asked; `words` are the arguments behind the name.
    pub fn run(self, words: Vec<OsString>) -> ExitCode {
        if words.iter().any(|word| word == "-h" || word == "--help") {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        let request = match Request::parse(words, self) {
            Ok(request) => request,
            Err(failure) => return self.tell(&failure, EXIT_USAGE),
        };
        let result = match self {
            Helper::Mount => match request.plan() {
                Ok(plan) => mount(&plan, &request),
                Err(failure) => return self.tell(&failure, EXIT_USAGE),
            },
            Helper::Unmount => {
                unmount::take_away(&request.target, request.lazy, request.force, TIMEOUT)
            }
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => self.tell(&failure, EXIT_FAILED),
        }
    }

    fn tell(self, failure: &Failure, code: u8) -> ExitCode {
        let name = match self {
            Helper::Mount => "mount.fuse.ministry",
            Helper::Unmount => "umount.fuse.ministry",
        };
        eprintln!("{name}: {failure}");
        ExitCode::from(code)
    }
}

fn mount(plan: &Plan, request: &Request) -> Result<(), Failure> {
    if plan.options.remount {
        return if request.fake { Ok(()) } else { remount(plan) };
    }
    if request.fake {
        return place::check(&plan.directory, plan.options.non_empty).map(drop);
    }
    start_or_serve(plan)
}

/// The flags of what is mounted there are changed. Everything else stays as it was mounted: the
/// line of `/etc/fstab`, which mount(8) adds, may hold it.
fn remount(plan: &Plan) -> Result<(), Failure> {
    let shown = plan.directory.display();
    let place = place::resolve(&plan.directory)
        .map_err(|error| usage(format!("cannot use {shown}: {error}")))?;
    match place::mounted_at(&place)? {
        Some(entry) if entry.is_ministry() => {}
        _ => return Err(usage(format!("nothing of Ministry is mounted on {}", place.display()))),
    }
    if !rustix::process::geteuid().is_root() {
        return Err(usage("only the super-user may change a mount: unmount and mount it anew"));
    }
    ministry_fuse::remount(&plan.mount_options(place))
        .map_err(|error| Failure::text(Kind::Failed, error.to_string()))
}

/// What mount(8) or umount(8) said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    source: String,
    target: PathBuf,
    options: String,
    sloppy: bool,
    fake: bool,
    lazy: bool,
    force: bool,
}

impl Request {
    fn parse(words: Vec<OsString>, helper: Helper) -> Result<Request, Failure> {
        let mut request = Request::default();
        let mut places: Vec<OsString> = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.to_str().filter(|text| text.len() > 1).and_then(|it| it.strip_prefix('-')) {
                Some(flags) => request.take_flags(flags, helper, &mut words)?,
                None => places.push(word),
            }
        }
        let mut places = places.into_iter();
        if helper == Helper::Mount {
            let source = places.next().ok_or_else(|| missing("what to mount"))?;
            request.source = text(source)?;
        }
        request.target = places.next().ok_or_else(|| missing("the directory"))?.into();
        match places.next() {
            None => Ok(request),
            Some(more) => Err(usage(format!("'{}' is one word too many", more.display()))),
        }
    }

    /// One word of single letters; the value of the last may be the next word.
    fn take_flags(
        &mut self,
        flags: &str,
        helper: Helper,
        words: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), Failure> {
        let mut rest = flags;
        while let Some(flag) = rest.chars().next() {
            rest = rest.get(flag.len_utf8()..).unwrap_or_default();
            match (flag, helper) {
                ('n' | 'v', _) | ('r', Helper::Unmount) => {}
                ('s', Helper::Mount) => self.sloppy = true,
                ('f', Helper::Mount) => self.fake = true,
                ('f', Helper::Unmount) => self.force = true,
                ('l', Helper::Unmount) => self.lazy = true,
                ('o' | 't' | 'N', _) => {
                    let value = match rest {
                        "" => text(words.next().ok_or_else(|| missing("a value"))?)?,
                        value => value.to_owned(),
                    };
                    if flag == 'o' {
                        let comma = if self.options.is_empty() { "" } else { "," };
                        self.options = format!("{}{comma}{value}", self.options);
                    }
                    return Ok(());
                }
                _ => return Err(usage(format!("'-{flag}' is not an option; see --help"))),
            }
        }
        Ok(())
    }

    fn plan(&self) -> Result<Plan, Failure> {
        let options = Options::parse(&self.options, self.sloppy)?;
        let source = match options.remount {
            // What is mounted there stays; mount(8) may not know its name.
            true => Source::parse(&self.source).unwrap_or_default(),
            false => Source::parse(&self.source)?,
        };
        Plan::new(source, self.target.clone(), options, TIMEOUT)
    }
}

fn text(word: OsString) -> Result<String, Failure> {
    word.into_string().map_err(|word| usage(format!("'{}' is not UTF-8", word.display())))
}

fn missing(what: &str) -> Failure {
    usage(format!("{what} is missing; see --help"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str, helper: Helper) -> Result<Request, Failure> {
        Request::parse(line.split_whitespace().map(OsString::from).collect(), helper)
    }

    #[test]
    fn the_program_knows_what_it_was_called_to_be() {
        let called = |name: &str| Helper::called(OsStr::new(name));
        assert_eq!(called("/sbin/mount.fuse.ministry"), Some(Helper::Mount));
        assert_eq!(called("umount.ministry"), Some(Helper::Unmount));
        assert_eq!(called("/usr/bin/ministryctl"), None);
    }

    #[test]
    fn what_mount_says_is_understood() {
        let wanted = Request {
            source: "home:/a".to_owned(),
            target: "/mnt".into(),
            options: "ro,uid=1".to_owned(),
            ..Request::default()
        };
        for line in [
            "home:/a /mnt -o ro,uid=1",
            "home:/a /mnt -n -v -o ro,uid=1 -t fuse.ministry",
            "-nvo ro,uid=1 home:/a /mnt",
            "home:/a /mnt -o ro -o uid=1 -N /proc/1/ns/mnt",
        ] {
            assert_eq!(request(line, Helper::Mount).unwrap(), wanted, "{line}");
        }
        let flags = request("home:/a /mnt -sf", Helper::Mount).unwrap();
        assert!(flags.sloppy && flags.fake);
    }

    #[test]
    fn what_umount_says_is_understood() {
        let request = request("/mnt -l -f -n -r -t fuse.ministry", Helper::Unmount).unwrap();
        assert!(request.lazy && request.force);
        assert_eq!(request.target, Path::new("/mnt"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["", "home:/a", "home:/a /mnt more", "home:/a /mnt -x", "home:/a /mnt -o"] {
            assert!(request(line, Helper::Mount).is_err(), "{line}");
        }
        assert!(request("/mnt -o ro -s", Helper::Unmount).is_err());
        let wrong = request("home:/a /mnt -o nonsense", Helper::Mount).unwrap();
        assert!(wrong.plan().unwrap_err().to_string().contains("nonsense"));
    }

    #[test]
    fn flags_are_changed_also_where_the_name_is_not_known() {
        let request = request("none /mnt -o remount,ro,user_id=0", Helper::Mount).unwrap();
        let plan = request.plan().unwrap();
        assert!(plan.options.remount && plan.options.read_only);
    }
}
