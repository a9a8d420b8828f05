//! Ordinary users: the minister judges what they may do, with their further groups.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use ministry_tests::{Cluster, Ended, Program};

const USER: u32 = 1000;
const OTHER: u32 = 1001;
const TEAM: u32 = 2000;

struct Home<'a> {
    top: &'a Path,
}

impl Home<'_> {
    /// A shell line as the user, with the team among the further groups or not.
    fn run(&self, user: u32, groups: &[u32], line: &str) -> Ended {
        Program::script(line).dir(self.top).user(user, user, groups).run()
    }

    fn may(&self, line: &str) {
        let ended = self.run(USER, &[], line);
        assert!(ended.status.success(), "{ended}");
    }

    fn may_with_team(&self, line: &str) {
        let ended = self.run(USER, &[TEAM], line);
        assert!(ended.status.success(), "{ended}");
    }

    fn may_not(&self, line: &str, why: &str) {
        let ended = self.run(USER, &[], line);
        assert!(!ended.status.success(), "this had to fail: {ended}");
        assert!(ended.err.contains(why), "{ended}");
    }

    fn file(&self, name: &str, owner: u32, group: u32, mode: u32) {
        let path = self.top.join(name);
        if !path.exists() {
            std::fs::write(&path, "content\n").unwrap();
        }
        self.set(name, owner, group, mode);
    }

    fn folder(&self, name: &str, owner: u32, group: u32, mode: u32) {
        std::fs::create_dir(self.top.join(name)).unwrap();
        self.set(name, owner, group, mode);
    }

    fn set(&self, name: &str, owner: u32, group: u32, mode: u32) {
        let path = self.top.join(name);
        chown(&path, Some(owner), Some(group)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn mode(&self, name: &str) -> u32 {
        std::fs::symlink_metadata(self.top.join(name)).unwrap().mode() & 0o7777
    }
}

const DENIED: &str = "Permission denied";
const NOT_PERMITTED: &str = "Operation not permitted";

#[test]
fn files_open_only_for_those_whom_their_mode_names() {
    let cluster = Cluster::start();
    let home = Home { top: cluster.mount(0) };
    home.file("secret", 0, 0, 0o600);
    home.may_not("cat secret", DENIED);
    home.may_not("echo x >> secret", DENIED);
    home.may_not("echo x > secret", DENIED);
    home.may_not("truncate -s 0 secret", DENIED);
    home.may("stat secret && ! test -r secret && ! test -w secret");
    home.file("readable", 0, 0, 0o644);
    home.may("cat readable && test -r readable && ! test -w readable && ! test -x readable");
    home.may_not("echo x >> readable", DENIED);
    home.file("teams", 0, TEAM, 0o660);
    home.may_not("cat teams", DENIED);
    home.may_with_team("cat teams; echo more >> teams; test -w teams");
    // The owner's bits count for the owner, even where the others have more.
    home.file("mine", USER, USER, 0o077);
    home.may_not("cat mine", DENIED);
    home.file("ours", OTHER, TEAM, 0o606);
    let ended = home.run(USER, &[TEAM], "cat ours");
    assert!(!ended.status.success(), "the group has fewer rights than the rest: {ended}");
    home.may("cat ours");
    // Programs need an x, for root too.
    std::fs::write(home.top.join("program"), "#!/bin/sh\necho ran\n").unwrap();
    home.set("program", 0, 0, 0o644);
    home.may_not("./program", DENIED);
    Program::script("! ./program").dir(home.top).ok();
    home.set("program", 0, 0, 0o711);
    Program::script("./program").dir(home.top).ok();
    // Root reads all.
    assert_eq!(std::fs::read(home.top.join("mine")).unwrap(), b"content\n");
}

#[test]
fn folders_are_searched_listed_and_changed_by_their_mode() {
    let cluster = Cluster::start();
    let home = Home { top: cluster.mount(0) };
    home.folder("closed", 0, 0, 0o700);
    home.file("closed/f", 0, 0, 0o666);
    home.may_not("cat closed/f", DENIED);
    home.may_not("ls closed", DENIED);
    home.may_not("stat closed/f", DENIED);
    home.folder("passage", 0, 0, 0o711);
    home.file("passage/f", 0, 0, 0o644);
    home.may("cat passage/f");
    home.may_not("ls passage", DENIED);
    home.may_not("touch passage/new", DENIED);
    home.folder("glass", 0, 0, 0o744);
    home.file("glass/f", 0, 0, 0o644);
    home.may("ls glass");
    home.may_not("cat glass/f", DENIED);
    home.folder("teams", 0, TEAM, 0o770);
    home.may_not("touch teams/x", DENIED);
    home.may_with_team("touch teams/x; mkdir teams/d; mv teams/x teams/d/y; rm -r teams/d");
    // Without a right to write into the folder nothing is created, renamed or removed there.
    home.folder("fixed", 0, 0, 0o755);
    home.file("fixed/f", USER, USER, 0o666);
    for line in ["rm -f fixed/f", "mv fixed/f fixed/g", "ln fixed/f fixed/g", "mkdir fixed/d"] {
        home.may_not(line, DENIED);
    }
    home.may("echo x >> fixed/f");
    // Sticky: only the owner of a file or of the folder takes it away.
    home.folder("tmp", 0, 0, 0o1777);
    home.file("tmp/others", OTHER, OTHER, 0o666);
    home.may_not("rm -f tmp/others", NOT_PERMITTED);
    home.may_not("mv tmp/others tmp/x", NOT_PERMITTED);
    home.may("touch tmp/own; mv tmp/own tmp/own2; rm tmp/own2");
    home.may_not("touch tmp/own; mv tmp/own tmp/others", NOT_PERMITTED);
    let ended = home.run(OTHER, &[], "rm tmp/others");
    assert!(ended.status.success(), "{ended}");
}

#[test]
fn what_is_made_belongs_to_its_maker_with_the_umask_and_the_folders_group() {
    let cluster = Cluster::start();
    let home = Home { top: cluster.mount(0) };
    home.folder("open", 0, 0, 0o777);
    home.may("umask 027; cd open; touch f; mkdir d; mkfifo p; ln -s f l; umask 0; touch g");
    for (name, mode) in [("f", 0o640), ("d", 0o750), ("p", 0o640), ("g", 0o666)] {
        let is = std::fs::symlink_metadata(home.top.join("open").join(name)).unwrap();
        assert_eq!((is.mode() & 0o7777, is.uid(), is.gid()), (mode, USER, USER), "{name}");
    }
    home.folder("shared", 0, TEAM, 0o2777);
    home.may("umask 022; cd shared; touch f; mkdir d; touch d/g");
    for (name, mode) in [("f", 0o644), ("d", 0o2755), ("d/g", 0o644)] {
        let is = std::fs::metadata(home.top.join("shared").join(name)).unwrap();
        assert_eq!((is.mode() & 0o7777, is.gid()), (mode, TEAM), "{name}");
    }
}

#[test]
fn attributes_are_changed_by_the_owner_alone() {
    let cluster = Cluster::start();
    let home = Home { top: cluster.mount(0) };
    home.file("theirs", OTHER, OTHER, 0o666);
    home.may_not("chmod 777 theirs", NOT_PERMITTED);
    home.may_not("chown 1000 theirs", NOT_PERMITTED);
    home.may_not("touch -d 2001-01-01 theirs", NOT_PERMITTED);
    home.may("touch theirs");
    home.file("own", USER, USER, 0o644);
    home.may("chmod 600 own; touch -d 2001-01-01 own; setfattr -n user.a -v b own");
    home.may_not("chown 1001 own", NOT_PERMITTED);
    home.may_not("chgrp 2000 own", NOT_PERMITTED);
    home.may_with_team("chgrp 2000 own");
    assert_eq!(std::fs::metadata(home.top.join("own")).unwrap().gid(), TEAM);
    home.file("locked", 0, 0, 0o644);
    home.may_not("setfattr -n user.a -v b locked", DENIED);
    home.may_not("touch locked", DENIED);
    home.file("secret", 0, 0, 0o600);
    home.may_not("getfattr -n user.a secret", DENIED);
}

#[test]
fn the_bits_that_lend_rights_fall_when_others_change_the_file() {
    let cluster = Cluster::start();
    let home = Home { top: cluster.mount(0) };
    home.file("suid", 0, 0, 0o6777);
    home.may("echo x >> suid");
    assert_eq!(home.mode("suid"), 0o777, "written");
    home.file("suid", 0, 0, 0o6777);
    home.may("truncate -s 3 suid");
    assert_eq!(home.mode("suid"), 0o777, "cut");
    home.file("suid", USER, USER, 0o6777);
    home.may_with_team("chgrp 2000 suid");
    assert_eq!(home.mode("suid"), 0o777, "given to another group");
    // Not in the group: the bit cannot be set.
    home.file("foreign", USER, TEAM, 0o755);
    home.may("chmod 2755 foreign");
    assert_eq!(home.mode("foreign"), 0o755);
    home.may_with_team("chmod 2755 foreign");
    assert_eq!(home.mode("foreign"), 0o2755);
}
