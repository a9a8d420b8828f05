//! mount(8), umount(8) and `/etc/fstab` with the helper, as root and as an ordinary user.
//!
//! What is mounted here serves itself in the background for good, so the stories run in namespaces
//! of their own, of mounts and of processes: when those end, however they end, all is gone. In them
//! the folder of helpers is covered by one that holds ours; nothing is left in the machine's.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use ministry_tests::{Cluster, Ended, Program, cluster};

use crate::{MINUTE, healthy, text};

/// `nobody` and `nogroup`: fusermount3 mounts for users with a name only.
const USER: u32 = 65_534;

/// Functions and variables of all stories: `$mnt` is where to mount, `$other` a mount that is
/// there, `$client` a folder with credentials, `$user` one of the user's.
const PRELUDE: &str = "
    # Where a user finds the programs, though the folder they were built in may be closed to others.
    mkdir -p \"$scratch/bin\"; mount --bind \"$bin\" \"$scratch/bin\"; bin=\"$scratch/bin\"
    mkdir -p \"$scratch/helpers\" \"$mnt\"
    for name in mount.fuse.ministry umount.fuse.ministry; do
        ln -sf \"$bin/ministryctl\" \"$scratch/helpers/$name\"
    done
    mount --bind \"$scratch/helpers\" /usr/sbin
    # As udev makes it; in a virtual machine without udev only root may open it.
    [ -e \"$scratch/fuse\" ] || mknod -m 666 \"$scratch/fuse\" c 10 229
    mount --bind \"$scratch/fuse\" /dev/fuse
    as_user() { setpriv --reuid $uid --regid $uid --clear-groups env HOME=\"$home\" \"$@\"; }
    mounted() { mount -t fuse.ministry home:\"${1:-/}\" \"$mnt\" -o credentials=\"$client${2:+,$2}\"; }
    shown() { findmnt -rn -o SOURCE,FSTYPE,OPTIONS \"$mnt\"; }
    ";

struct Place {
    cluster: Cluster,
    client: PathBuf,
    home: PathBuf,
}

impl Place {
    fn new() -> Place {
        let cluster = Cluster::start();
        let client = cluster.new_client("helper");
        let home = cluster.scratch().join("home");
        let own = home.join(".config/ministry");
        std::fs::create_dir_all(&own).unwrap();
        let token = cluster.ctl(&["--timeout", "60s", "invite", "--client"]).ok();
        let identity = own.join("client");
        cluster.ctl(&["client", "join", token.trim(), "--identity"]).arg(&identity).ok();
        give(&home);
        Place { cluster, client, home }
    }

    fn story(&self, text: &str) -> Program {
        let scratch = self.cluster.scratch();
        Program::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["bash", "-euo", "pipefail", "-c", &format!("{PRELUDE}{text}")])
            .env("bin", cluster::binaries())
            .env("scratch", &scratch)
            .env("mnt", scratch.join("mnt"))
            .env("other", self.cluster.mount(0))
            .env("client", &self.client)
            .env("home", &self.home)
            .env("uid", USER.to_string())
            .within(2 * MINUTE)
    }

    /// What a story that is refused says, in one line, and its exit code.
    fn refused(&self, story: &str) -> (String, i32) {
        let ended: Ended = self.story(story).fails();
        let said = ended.err.trim().to_owned();
        (said, ended.status.code().unwrap_or(-1))
    }
}

/// Gives a folder with all in it to the user.
fn give(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            give(&path);
        } else {
            chown(&path, Some(USER), Some(USER)).unwrap();
        }
    }
    chown(folder, Some(USER), Some(USER)).unwrap();
}

#[test]
fn mount_and_umount_work_as_with_any_file_system() {
    let mut place = Place::new();
    let out = place
        .story(
            "mounted /
            shown
            echo one > \"$mnt/file\"; grep one \"$other/file\"
            umount \"$mnt\"
            ! mountpoint -q \"$mnt\"
            mount -f -t fuse.ministry home:/ \"$mnt\" -o credentials=\"$client\"
            ! mountpoint -q \"$mnt\"
            mount -t fuse.ministry -o \"credentials=$client,name=mine\" home:/ \"$mnt\"
            shown
            umount -l \"$mnt\"
            ! mountpoint -q \"$mnt\"",
        )
        .ok();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("home:/ fuse.ministry rw,nosuid,nodev,relatime"), "{out}");
    assert!(lines[0].contains("allow_other"), "root shares what it mounts: {out}");
    assert!(out.contains("\nmine:/ fuse.ministry rw"), "{out}");
    healthy(&mut place.cluster);
}

#[test]
fn a_line_of_fstab_mounts_with_all_that_belongs_to_others_in_it() {
    let place = Place::new();
    place
        .story(
            "mkdir \"$other/sub\"; echo two > \"$other/sub/file\"
            tab=\"$scratch/fstab\"
            more=_netdev,nofail,x-systemd.automount,x-systemd.requires=network.target
            printf 'home:/sub %s fuse.ministry credentials=%s,ro,%s 0 0\\n' \
                \"$mnt\" \"$client\" \"$more\" > \"$tab\"
            mount -T \"$tab\" \"$mnt\"
            grep two \"$mnt/file\"; shown | grep '^home:/sub fuse.ministry ro,'
            umount \"$mnt\"
            mount -a -T \"$tab\"; grep two \"$mnt/file\"
            mount -a -T \"$tab\"
            [ \"$(grep -c \" $mnt \" /proc/self/mountinfo)\" = 1 ]
            umount \"$mnt\"
            sed -i 's/nofail/noauto/' \"$tab\"
            mount -a -T \"$tab\"; ! mountpoint -q \"$mnt\"
            mount -T \"$tab\" \"$mnt\"; umount \"$mnt\"",
        )
        .ok();
}

#[test]
fn a_directory_can_be_the_root_of_a_mount() {
    let place = Place::new();
    place
        .story(
            "mkdir -p \"$other/a/b/c\"; echo three > \"$other/a/b/file\"; ln -s file \"$other/a/b/link\"
            mounted /a/b
            grep three \"$mnt/file\"; grep three \"$mnt/link\"
            [ \"$(stat -c %i \"$mnt\")\" = \"$(stat -c %i \"$other/a/b\")\" ]
            [ \"$(stat -c %i \"$mnt/c\")\" = \"$(stat -c %i \"$other/a/b/c\")\" ]
            [ \"$(cd \"$mnt/c/..\" && ls | sort | tr '\\n' ' ')\" = 'c file link ' ]
            echo new > \"$mnt/new\"; mv \"$mnt/new\" \"$mnt/c/moved\"; mkdir \"$mnt/d\"; rmdir \"$mnt/d\"
            chmod 700 \"$mnt\"; [ \"$(stat -c %a \"$other/a/b\")\" = 700 ]
            grep new \"$other/a/b/c/moved\"
            # A directory of the file system that is moved stays the root of the mount.
            mv \"$other/a/b\" \"$other/elsewhere\"; grep three \"$mnt/file\"
            rm -r \"$other/elsewhere\"
            # A directory without a name is empty, until no mount has it open any more.
            ! mkdir \"$mnt/x\" 2> /dev/null
            for _ in $(seq 100); do ls \"$mnt\" > /dev/null 2>&1 || break; sleep 0.1; done
            ! said=$(ls \"$mnt\" 2>&1); echo \"$said\" | grep 'Stale file handle'
            ! said=$(stat \"$mnt\" 2>&1); echo \"$said\" | grep 'Stale file handle'
            ! mkdir \"$mnt/x\" 2> /dev/null
            umount \"$mnt\"",
        )
        .ok();
    place
        .story(
            "mkdir \"$other/p\"; mount -t fuse.ministry home: \"$mnt\" -o subdir=/p,credentials=\"$client\"
            echo five > \"$mnt/file\"; grep five \"$other/p/file\"; shown | grep '^home:/p '
            where=$(\"$bin/ministryctl\" --admin \"$scratch/../admin\" --json where \"$mnt/file\")
            echo \"$where\" | grep '\"path\": \"/p/file\"'
            umount \"$mnt\"",
        )
        .ok();
}

#[test]
fn a_root_that_cannot_be_is_refused_with_the_reason() {
    let place = Place::new();
    let (said, code) = place.refused("mounted /nothing/here");
    assert!(said.contains("there is no directory /nothing/here"), "{said}");
    assert_eq!(code, 32, "{said}");
    let (said, code) = place.refused("echo x > \"$other/plain\"; mounted /plain");
    assert!(said.contains("/plain is no directory"), "{said}");
    assert_eq!(code, 32, "{said}");
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line_with_the_codes_of_mount() {
    let place = Place::new();
    for (story, why, wanted) in [
        ("mounted / nonsense", "unknown option 'nonsense'", 1),
        ("mounted / uid=tom", "'tom' is no value for the option 'uid'", 1),
        ("mounted / default_permissions", "the minister judges", 1),
        ("mounted /a subdir=/b", "give one of them", 1),
        ("mount -t fuse.ministry nothing \"$mnt\"", "write CLUSTER:/PATH", 1),
        ("mount -t fuse.ministry nowhere:/ \"$mnt\"", "client join TOKEN", 32),
        ("touch \"$mnt/x\"; trap 'rm \"$mnt/x\"' EXIT; mounted /", "is not empty", 32),
        ("mount.fuse.ministry home:/ \"$mnt/none\"", "mkdir -p", 32),
        ("mount.fuse.ministry home:/", "the directory is missing", 1),
        ("umount.fuse.ministry \"$mnt\"", "nothing is mounted on", 32),
    ] {
        let (said, code) = place.refused(story);
        assert!(said.contains(why), "{story}: {said}");
        assert_eq!(code, wanted, "{story}: {said}");
        assert_eq!(said.lines().count(), 1, "{story}: {said}");
    }
    // A cluster that does not answer: the time is bounded.
    let (said, code) = place.refused(
        "mount -t fuse.ministry 127.0.0.1:1:/ \"$mnt\" -o credentials=\"$client\",timeout=1s",
    );
    assert_eq!(code, 32, "{said}");
}

#[test]
fn flags_are_kept_by_the_kernel_and_changed_by_remount() {
    let place = Place::new();
    place
        .story(
            "cp /bin/true \"$other/program\"
            mounted / ro; shown | grep ' ro,'
            ! said=$(touch \"$mnt/x\" 2>&1); echo \"$said\" | grep 'Read-only file system'
            mount -o remount,rw \"$mnt\"; touch \"$mnt/x\"; rm \"$mnt/x\"
            mount -o remount,ro \"$mnt\"; shown | grep ' ro,'
            ! touch \"$mnt/x\" 2>/dev/null
            umount \"$mnt\"
            mounted / noexec,noatime,nodiratime,sync,dirsync,noallow_other
            shown | grep noexec | grep noatime | grep nodiratime | grep sync | grep dirsync
            ! shown | grep allow_other
            ! said=$(\"$mnt/program\" 2>&1); echo \"$said\" | grep 'Permission denied'
            mount -o remount,exec \"$mnt\"; \"$mnt/program\"
            ! said=$(as_user ls \"$mnt\" 2>&1); echo \"$said\" | grep 'Permission denied'
            umount \"$mnt\"
            mounted / suid,dev,max_background=16,read_ahead=256,readdirplus
            ! shown | grep -E 'nosuid|nodev'
            device=$(findmnt -rn -o MAJ:MIN \"$mnt\" | tr -d ' ')
            [ \"$(cat /sys/class/bdi/$device/read_ahead_kb)\" = 256 ]
            ls -l \"$mnt\" | grep program
            umount \"$mnt\"",
        )
        .ok();
}

#[test]
fn owners_are_shown_as_asked_for_and_judged_as_they_are() {
    let place = Place::new();
    place
        .story(
            "chmod 1777 \"$other\"; echo six > \"$other/roots\"; chmod 600 \"$other/roots\"
            mounted / uid=$uid,gid=77
            for each in roots .; do [ \"$(stat -c %u:%g \"$mnt/$each\")\" = $uid:77 ]; done
            find \"$mnt\" ! -user $uid | grep . && exit 1
            # It looks like the user's own, and is not.
            ! said=$(as_user cat \"$mnt/roots\" 2>&1); echo \"$said\" | grep 'Permission denied'
            as_user touch \"$mnt/new\"
            [ \"$(stat -c %u:%g \"$mnt/new\")\" = $uid:77 ]
            [ \"$(stat -c %u:%g \"$other/new\")\" = $uid:$uid ]
            chown 5:6 \"$mnt/roots\"
            [ \"$(stat -c %u:%g \"$mnt/roots\")\" = $uid:77 ]
            [ \"$(stat -c %u:%g \"$other/roots\")\" = 5:6 ]
            umount \"$mnt\"",
        )
        .ok();
}

#[test]
fn an_ordinary_user_mounts_and_unmounts_by_fusermount3() {
    let place = Place::new();
    place
        .story(
            "chmod 1777 \"$other\"; chown $uid \"$mnt\"
            as_user \"$bin/ministryctl\" mount \"$mnt\"
            shown | grep '^ministry:/ fuse.ministry rw,nosuid,nodev' | grep user_id=$uid
            as_user sh -c 'echo seven > \"$1/file\"' sh \"$mnt\"
            grep seven \"$other/file\"; [ \"$(stat -c %u \"$other/file\")\" = $uid ]
            # Not even root enters what a user mounted for itself.
            ! ls \"$mnt\" 2>/dev/null
            as_user \"$bin/ministryctl\" umount \"$mnt\"
            ! mountpoint -q \"$mnt\"
            as_user \"$bin/ministryctl\" mount client:/ \"$mnt\" -o ro,noexec
            shown | grep '^client:/ fuse.ministry ro,nosuid,nodev,noexec'
            as_user fusermount3 -u \"$mnt\"
            ! mountpoint -q \"$mnt\"",
        )
        .ok();
    // By a line of fstab with the option user: the set-uid programs mount and umount.
    place
        .story(
            "chown $uid \"$mnt\"; mkdir -p \"$home/log\"; chown $uid \"$home/log\"
            own=\"$home/.config/ministry/client\"
            printf 'client:/ %s fuse.ministry noauto,user,credentials=%s,log=%s 0 0\\n' \
                \"$mnt\" \"$own\" \"$home/log/mount\" > \"$scratch/fstab\"
            mount --bind \"$scratch/fstab\" /etc/fstab
            as_user mount \"$mnt\"; shown | grep '^client:/ fuse.ministry rw' | grep noexec
            as_user ls \"$mnt\"
            as_user umount \"$mnt\"
            ! mountpoint -q \"$mnt\"",
        )
        .ok();
    // Where a user may mount is fusermount3's to say.
    let (said, _) = place.refused(
        "chown 0 \"$mnt\"; chmod 755 \"$mnt\"; as_user \"$bin/ministryctl\" mount \"$mnt\"",
    );
    assert!(said.contains("no write access to mountpoint"), "{said}");
    for option in ["suid", "dev", "strictatime"] {
        let (said, _) = place.refused(&format!(
            "chown $uid \"$mnt\"; as_user \"$bin/ministryctl\" mount \"$mnt\" -o {option}"
        ));
        assert!(said.contains(&format!("only the super-user may mount with '{option}'")), "{said}");
    }
    let (said, _) = place.refused(
        "as_user \"$bin/ministryctl\" mount \"$mnt\" -o credentials=\"$client\",timeout=1s",
    );
    assert!(said.contains("Permission denied") && said.contains("make your own"), "{said}");
}

#[test]
fn others_enter_a_users_mount_only_where_the_machine_permits_it() {
    let place = Place::new();
    let with = |line: &str, story: &str| {
        format!(
            "echo '{line}' > \"$scratch/fuse.conf\"
            mount --bind \"$scratch/fuse.conf\" /etc/fuse.conf
            chown $uid \"$mnt\"
            as_user \"$bin/ministryctl\" mount \"$mnt\" -o allow_other{story}"
        )
    };
    let (said, _) = place.refused(&with("# nothing", ""));
    assert!(said.contains("user_allow_other") && said.contains("/etc/fuse.conf"), "{said}");
    let story = "
        shown | grep allow_other; ls \"$mnt\"
        as_user \"$bin/ministryctl\" umount \"$mnt\"";
    place.story(&with("user_allow_other", story)).ok();
}

#[test]
fn a_busy_mount_stays_and_says_who_keeps_it_busy() {
    let place = Place::new();
    let out = place
        .story(
            "mounted /
            mkdir \"$mnt/work\" \"$mnt/inner\"; cp /bin/sleep \"$mnt/program\"; echo x > \"$mnt/open file\"
            busy() {
                ! said=$(\"$bin/ministryctl\" unmount \"$mnt\" 2>&1) || exit 1
                echo \"$said\"; mountpoint -q \"$mnt\"
                [ \"$(echo \"$said\" | wc -l)\" = 1 ]
            }
            (cd \"$mnt/work\" && exec sleep 100) & first=$!
            sleep 100 3< \"$mnt/open file\" & second=$!
            \"$mnt/program\" 100 & third=$!
            until [ \"$(readlink /proc/$third/exe)\" = \"$mnt/program\" ]; do sleep 0.05; done
            echo \"pids $first $second $third\"
            busy
            ! umount \"$mnt\" 2>/dev/null
            kill $first $second $third; wait || true
            mount -t tmpfs none \"$mnt/inner\"; busy; umount \"$mnt/inner\"
            \"$bin/ministryctl\" unmount \"$mnt\"
            ! mountpoint -q \"$mnt\"
            # Out of sight at once, and the file that is open can be used.
            mounted /
            exec 4> \"$mnt/late\"
            \"$bin/ministryctl\" unmount --lazy \"$mnt\"
            ! mountpoint -q \"$mnt\"
            echo eight >&4; exec 4>&-
            grep eight \"$other/late\"
            mounted /
            \"$bin/ministryctl\" unmount --force \"$mnt\"
            ! mountpoint -q \"$mnt\"",
        )
        .ok();
    let pids = out.lines().find_map(|line| line.strip_prefix("pids ")).unwrap();
    let pids: Vec<&str> = pids.split(' ').collect();
    let mnt = place.cluster.scratch().join("mnt");
    let mnt = text(&mnt);
    for wanted in [
        format!("sleep (process {}) works in {mnt}/work", pids[0]),
        format!("sleep (process {}) has open {mnt}/open file", pids[1]),
        format!("program (process {}) runs {mnt}/program", pids[2]),
        format!("{mnt}/inner is mounted inside it"),
    ] {
        assert!(out.contains(&wanted), "{wanted} is missing in {out}");
    }
}

#[test]
fn what_was_written_is_there_for_others_when_unmounting_has_ended() {
    let place = Place::new();
    std::fs::set_permissions(&place.home, PermissionsExt::from_mode(0o755)).unwrap();
    for unmount in [
        "umount \"$mnt\"",
        "umount -i \"$mnt\"",
        "\"$bin/ministryctl\" unmount \"$mnt\"",
        "kill $server",
    ] {
        place
            .story(&format!(
                "rm -rf \"$other\"/*
                mounted /
                server=$(pgrep -f '^/sbin/mount')
                for i in $(seq 200); do echo $i > \"$mnt/small-$i\"; done
                head -c 3000000 /dev/urandom > \"$scratch/data\"; cp \"$scratch/data\" \"$mnt/large\"
                for i in $(seq 50); do echo line >> \"$mnt/log\"; done
                {unmount}
                while mountpoint -q \"$mnt\"; do sleep 0.05; done
                [ \"$(cat \"$other\"/small-* | sort -n | md5sum)\" = \"$(seq 200 | md5sum)\" ]
                cmp \"$scratch/data\" \"$other/large\"
                [ \"$(grep -c line \"$other/log\")\" = 50 ]
                for _ in $(seq 100); do pgrep -f '^/sbin/mount' > /dev/null || break; sleep 0.1; done
                ! pgrep -f '^/sbin/mount'"
            ))
            .ok();
    }
}
