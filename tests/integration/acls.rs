//! Access control lists and extended attributes, by the programs that people use for them.
//!
//! What can be said on a local disk is said there too, line by line, and has to come out the same.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use ministry_tests::{Cluster, Ended, Program};

use crate::{errno, healthy};

const USER: u32 = 1000;
const OTHER: u32 = 1001;
const TEAM: u32 = 2000;

fn run(top: &Path, user: u32, groups: &[u32], line: &str) -> Ended {
    Program::script(line).dir(top).user(user, user, groups).run()
}

fn may(top: &Path, user: u32, groups: &[u32], line: &str) {
    let ended = run(top, user, groups, line);
    assert!(ended.status.success(), "{user} with {groups:?}: {ended}");
}

fn may_not(top: &Path, user: u32, groups: &[u32], line: &str, why: &str) {
    let ended = run(top, user, groups, line);
    assert!(!ended.status.success(), "{user} with {groups:?}: this had to fail: {ended}");
    assert!(ended.err.contains(why), "{ended}");
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn file(path: &Path, owner: u32, group: u32, mode: u32) {
    std::fs::write(path, "content\n").unwrap();
    chown(path, Some(owner), Some(group)).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// The entries of a list, a line each.
fn list(path: &Path) -> Vec<String> {
    let out = Program::new("getfacl").args(["-c", "-E", "-p", "-n"]).arg(path).ok();
    out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

const DENIED: &str = "Permission denied";
const NOT_PERMITTED: &str = "Operation not permitted";

#[test]
fn lists_are_set_shown_and_enforced() {
    let mut cluster = Cluster::with_two_mounts();
    let (here, there) = (cluster.mount(0).to_owned(), cluster.mount(1).to_owned());
    file(&here.join("f"), OTHER, OTHER, 0o600);
    may_not(&here, USER, &[], "cat f", DENIED);
    may_not(&here, USER, &[], "setfacl -m u:1000:rw f", NOT_PERMITTED);
    may(&here, OTHER, &[], "setfacl -m u:1000:rw,g:2000:r f");
    // Another mount judges by it at once.
    let whole =
        ["user::rw-", "user:1000:rw-", "group::---", "group:2000:r--", "mask::rw-", "other::---"];
    assert_eq!(list(&there.join("f")), whole);
    assert_eq!(mode(&there.join("f")), 0o660);
    may(&there, USER, &[], "cat f; echo more >> f; test -r f && test -w f && ! test -x f");
    may(&there, 1002, &[TEAM], "cat f; ! test -w f");
    may_not(&there, 1002, &[TEAM], "echo more >> f", DENIED);
    may_not(&there, 1002, &[], "cat f", DENIED);
    // chmod sets the mask, not the group's entry.
    may(&here, OTHER, &[], "chmod g=r f");
    assert_eq!(list(&there.join("f"))[4], "mask::r--");
    may_not(&there, USER, &[], "echo more >> f", DENIED);
    may(&there, USER, &[], "cat f; getfattr -m - f | grep -qx system.posix_acl_access");
    // A list that says what the mode says is none.
    may(&here, OTHER, &[], "setfacl -b f");
    assert_eq!(list(&there.join("f")), ["user::rw-", "group::---", "other::---"]);
    may_not(&there, USER, &[], "cat f", DENIED);
    may(&there, USER, &[], "! getfattr -m - f | grep -q posix_acl");
    healthy(&mut cluster);
}

#[test]
fn folders_with_lists_are_searched_listed_and_changed_by_them() {
    let cluster = Cluster::start();
    let top = cluster.mount(0);
    std::fs::create_dir(top.join("d")).unwrap();
    file(&top.join("d/f"), 0, 0, 0o644);
    std::fs::set_permissions(top.join("d"), PermissionsExt::from_mode(0o700)).unwrap();
    Program::script("setfacl -m u:1000:x,g:2000:rwx d").dir(top).ok();
    may(top, USER, &[], "cat d/f");
    may_not(top, USER, &[], "ls d", DENIED);
    may_not(top, USER, &[], "touch d/new", DENIED);
    may(
        top,
        OTHER,
        &[TEAM],
        "ls d; touch d/new; mv d/new d/newer; ln d/newer d/link; rm d/newer d/link; mkdir d/s; rmdir d/s",
    );
    may_not(top, OTHER, &[], "cat d/f", DENIED);
    // A named user is not asked for groups.
    may_not(top, USER, &[TEAM], "touch d/new", DENIED);
    // Sticky holds with lists as without.
    Program::script("chmod +t d").dir(top).ok();
    may_not(top, OTHER, &[TEAM], "rm -f d/f", NOT_PERMITTED);
    // A directory that changes its parent has to be writable.
    Program::script("mkdir -m 700 d/sub e; chmod -t d; setfacl -m g:2000:rwx e").dir(top).ok();
    may_not(top, OTHER, &[TEAM], "mv d/sub e/sub", DENIED);
    Program::script("setfacl -m g:2000:w d/sub").dir(top).ok();
    may(top, OTHER, &[TEAM], "mv d/sub e/sub");
}

/// Lines that print what can be seen; `$?` of what fails is seen too.
const COMPARED: &str = r#"
show() { for at in "$@"; do stat -c '%n %a' "$at"; getfacl -cEpn "$at"; done; }
try() { "$@" 2>/dev/null && echo "$1: yes" || echo "$1: $?"; }
umask 077
mkdir plain shared
touch plain/f; mkdir plain/d; mkfifo plain/p
show plain/f plain/d plain/p
setfacl -d -m u:1000:rwx,g:2000:rx,o::--- shared
show shared
touch shared/f; mkdir shared/d shared/d/e; mkfifo shared/p; ln -s f shared/l
echo x > shared/d/e/x; mknod shared/n c 1 3
show shared/f shared/d shared/d/e shared/p shared/d/e/x shared/n
umask 000
touch shared/open; mkdir -m 750 shared/closed; mkdir -m 2775 shared/group
show shared/open shared/closed shared/group
setfacl -k shared/d; touch shared/d/after; show shared/d shared/d/after
cp shared/f shared/copy; cp -a shared/f plain/copy; show shared/copy plain/copy
chmod 640 shared/f; show shared/f; chmod g+s,o+r shared/f; show shared/f
setfacl -m m::r shared/f; show shared/f
setfacl -x u:1000 shared/f; show shared/f; setfacl -b shared/f; show shared/f
try setfacl -d -m u:1:r plain/f
try setfacl -m u:1:r shared/l
try setfacl -n -m u:1:rwx,m::--- plain/f; show plain/f
mkdir tar; tar --acls -cf - shared | tar --acls -xpf - -C tar; show tar/shared tar/shared/d/e
rsync -aA shared/ rsync/; show rsync rsync/d/e
mv shared/d plain/moved; show plain/moved/e; mv plain/f shared/moved; show shared/moved
"#;

#[test]
fn lists_come_out_as_on_a_local_disk() {
    let mut cluster = Cluster::start();
    let (mount, local) = (cluster.mount(0).join("work"), cluster.scratch().join("work"));
    for top in [&mount, &local] {
        std::fs::create_dir(top).unwrap();
    }
    let said = Program::script(COMPARED).dir(&mount).ok();
    let expected = Program::script(COMPARED).dir(&local).ok();
    assert!(expected.contains("user:1000:rwx"), "the local disk keeps no lists: {expected}");
    for (number, (ours, theirs)) in said.lines().zip(expected.lines()).enumerate() {
        assert_eq!(ours, theirs, "line {number} of\n{said}");
    }
    assert_eq!(said.lines().count(), expected.lines().count());
    healthy(&mut cluster);
}

#[test]
fn attributes_of_all_name_spaces_follow_their_rules_and_limits() {
    let cluster = Cluster::start();
    let top = cluster.mount(0);
    file(&top.join("f"), USER, USER, 0o644);
    symlink("f", top.join("l")).unwrap();
    std::fs::create_dir(top.join("tmp")).unwrap();
    std::fs::set_permissions(top.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    may(top, USER, &[], "setfattr -n user.a -v 1 f; getfattr -n user.a f");
    may_not(top, OTHER, &[], "setfattr -n user.a -v 2 f", DENIED);
    may_not(top, OTHER, &[], "setfattr -n user.a -v 2 tmp", NOT_PERMITTED);
    may_not(top, USER, &[], "setfattr -n trusted.a -v 1 f", NOT_PERMITTED);
    may_not(top, USER, &[], "setfattr -n security.a -v 1 f", NOT_PERMITTED);
    may_not(top, USER, &[], "setfattr -n other.a -v 1 f", "Operation not supported");
    Program::script("setfattr -n trusted.a -v t f; setfattr -n security.a -v s f").dir(top).ok();
    Program::script("! setfattr -h -n user.a -v 1 l; setfattr -h -n trusted.a -v 1 l")
        .dir(top)
        .ok();
    let seen = run(top, USER, &[], "getfattr -m - f").out;
    assert!(seen.contains("security.a") && !seen.contains("trusted.a"), "{seen}");
    let seen = Program::script("getfattr -m - f").dir(top).ok();
    assert!(seen.contains("trusted.a"), "{seen}");
    may_not(top, USER, &[], "getfattr -n trusted.a f", "No such attribute");
    // Limits.
    let file = top.join("f");
    assert_eq!(errno(set(&file, &format!("user.{}", "n".repeat(251)), b"v")), libc::ERANGE);
    set(&file, &format!("user.{}", "n".repeat(250)), b"v").unwrap();
    assert_eq!(errno(set(&file, "user.", b"v")), libc::EINVAL);
    let most = vec![7; 65_536];
    set(&file, "user.large", &most).unwrap();
    assert_eq!(errno(set(&file, "user.larger", &vec![7; 65_537])), libc::E2BIG);
    assert_eq!(errno(set(&file, "user.large2", &most)), libc::ENOSPC);
    assert_eq!(get(&file, "user.large", 65_536).unwrap(), most);
    assert_eq!(get(&file, "user.large", 0).unwrap().len(), 65_536, "the size is told");
    assert_eq!(errno(get(&file, "user.large", 65_535)), libc::ERANGE);
    assert_eq!(errno(get(&file, "user.none", 10)), libc::ENODATA);
    // More entries than the kernel hands over.
    let mut value = vec![2, 0, 0, 0];
    value.resize(4 + 8 * 512, 0);
    assert!([libc::E2BIG, libc::EINVAL].contains(&errno(set(
        &file,
        "system.posix_acl_access",
        &value
    ))));
}

#[test]
fn rights_that_a_program_lends_are_lost_with_its_owner_and_its_content() {
    let cluster = Cluster::start();
    let (mount, local) = (cluster.mount(0).join("work"), cluster.scratch().join("work"));
    let lines = r#"
seen() { stat -c "$1 %a" f; getfattr -n security.capability f >/dev/null 2>&1 && echo capable || true; }
new() { rm -f f; echo content > f; chown 1000:1000 f; chmod 6755 f
  setfattr -n security.capability -v 0x0100000200000000000000000000000000000000 f; }
new; seen new
echo x >> f; seen "written by root"
new; truncate -s 2 f; seen "cut by root"
new; chown 1001 f; seen "given away by root"
new; chmod 2644 f; chown :2000 f; seen "group given, not executable"
new; setpriv --reuid 1000 --regid 1000 --clear-groups bash -c 'echo x >> f'; seen "written by its owner"
new; setpriv --reuid 1000 --regid 1000 --clear-groups truncate -s 1 f; seen "cut by its owner"
new; setpriv --reuid 1000 --regid 1000 --groups 2000 chgrp 2000 f; seen "group given by its owner"
mkdir d; chmod 6755 d; chown 1000 d; stat -c '%a' d
"#;
    let mut said = Vec::new();
    for top in [&mount, &local] {
        std::fs::create_dir(top).unwrap();
        std::fs::set_permissions(top, PermissionsExt::from_mode(0o777)).unwrap();
        said.push(Program::script(lines).dir(top).ok());
    }
    assert_eq!(said[0], said[1], "the mount and the local disk differ");
    assert!(said[1].contains("capable"), "{}", said[1]);
}

fn path(of: &Path) -> std::ffi::CString {
    std::ffi::CString::new(of.as_os_str().as_encoded_bytes()).unwrap()
}

fn set(file: &Path, name: &str, value: &[u8]) -> std::io::Result<()> {
    let (file, name) = (path(file), std::ffi::CString::new(name).unwrap());
    // SAFETY: both names end in a zero, and the length is that of the value.
    let done = unsafe {
        libc::setxattr(file.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The value, in a buffer of `room` bytes; with none, as many bytes as it would need.
fn get(file: &Path, name: &str, room: usize) -> std::io::Result<Vec<u8>> {
    let (file, name) = (path(file), std::ffi::CString::new(name).unwrap());
    let mut value = vec![0_u8; room];
    // SAFETY: both names end in a zero, and the room is that of the buffer.
    let length =
        unsafe { libc::getxattr(file.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room) };
    match usize::try_from(length) {
        Ok(length) => {
            value.resize(length, 0);
            Ok(value)
        }
        Err(_) => Err(std::io::Error::last_os_error()),
    }
}
