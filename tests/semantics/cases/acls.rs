//! POSIX access control lists, by the attributes that carry them.

use super::*;

pub const SECTION: Section = Section {
    title: "Access control lists",
    intro: "A list is set and read as the attribute `system.posix_acl_access`; the default list of \
            a directory, which what is made in it inherits, as `system.posix_acl_default`: what \
            `setfacl` and `getfacl` use.",
    cases: CASES,
};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const NOBODY: u32 = u32::MAX;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A list in the kernel's form; entries are (tag, permissions, user or group).
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The list of a mode with one more user and a mask.
fn with_user(mode: u16, user: u32, permissions: u16, mask: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, mode >> 6 & 7, NOBODY),
        (USER, permissions, user),
        (GROUP_OBJ, mode >> 3 & 7, NOBODY),
        (MASK, mask, NOBODY),
        (OTHER, mode & 7, NOBODY),
    ])
}

/// The list of a mode with one more group and a mask.
fn with_group(mode: u16, group: u32, permissions: u16, mask: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, mode >> 6 & 7, NOBODY),
        (GROUP_OBJ, mode >> 3 & 7, NOBODY),
        (GROUP, permissions, group),
        (MASK, mask, NOBODY),
        (OTHER, mode & 7, NOBODY),
    ])
}

const CASES: &[Case] = &[
    case("acl-1", "An entry for a user gives that user its rights, and nobody else.", |s| {
        s.file("f", ROOT, 0o600);
        s.root.set_xattr("f", ACCESS, with_user(0o600, ANN.id, 4, 7), 0).ok();
        s.ann.reader("f").ok();
        s.ann.writer("f").fails(EACCES);
        s.ben.reader("f").fails(EACCES);
    }),
    case(
        "acl-2",
        "An entry for a group gives its members its rights, also those with it as a further \
         group.",
        |s| {
            s.file("f", ROOT, 0o600);
            s.root.set_xattr("f", ACCESS, with_group(0o600, TEAM, 6, 7), 0).ok();
            s.ben.both("f").ok();
            s.cat.both("f").ok();
            s.ann.reader("f").fails(EACCES);
        },
    ),
    case(
        "acl-3",
        "The mask limits entries for users and groups and the group of the file, neither the \
         owner nor the others.",
        |s| {
            s.file("f", ANN, 0o600);
            s.root.chown("f", ANN.id, TEAM).ok();
            s.root
                .set_xattr(
                    "f",
                    ACCESS,
                    acl(&[
                        (USER_OBJ, 6, NOBODY),
                        (USER, 6, BEN.id),
                        (GROUP_OBJ, 6, NOBODY),
                        (MASK, 4, NOBODY),
                        (OTHER, 6, NOBODY),
                    ]),
                    0,
                )
                .ok();
            s.ann.both("f").ok();
            s.ben.writer("f").fails(EACCES);
            s.ben.reader("f").ok();
            s.cat.writer("f").fails(EACCES);
            s.cat.reader("f").ok();
            let stranger = s.process(User { name: "dan", id: 12_004, group: 12_004, groups: &[] });
            stranger.both("f").ok();
        },
    ),
    case(
        "acl-4",
        "Setting a list sets the mode: owner, mask in the place of the group, others.",
        |s| {
            s.file("f", ANN, 0o777);
            s.ann.set_xattr("f", ACCESS, with_user(0o641, BEN.id, 7, 5), 0).ok();
            s.has_mode("f", 0o651);
        },
    ),
    case(
        "acl-5",
        "`chmod` of a file with a list changes the mask in place of the group's entry.",
        |s| {
            s.file("f", ANN, 0o600);
            s.ann.set_xattr("f", ACCESS, with_user(0o640, BEN.id, 6, 6), 0).ok();
            s.ben.both("f").ok();
            s.ann.chmod("f", 0o700).ok();
            s.has_mode("f", 0o700);
            s.ben.reader("f").fails(EACCES);
            s.ann.get_xattr("f", ACCESS).gives_bytes(with_user(0o740, BEN.id, 6, 0));
            s.ann.chmod("f", 0o660).ok();
            s.ben.both("f").ok();
        },
    ),
    case(
        "acl-6",
        "A list that says no more than a mode becomes the mode, and there is no list.",
        |s| {
            s.file("f", ANN, 0o600);
            let plain = acl(&[(USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 4, NOBODY)]);
            s.ann.set_xattr("f", ACCESS, plain, 0).ok();
            s.has_mode("f", 0o644);
            s.ann.get_xattr("f", ACCESS).fails(ENODATA);
        },
    ),
    case(
        "acl-7",
        "Removing a list leaves the mode as it is and takes the rights of the entries away.",
        |s| {
            s.file("f", ANN, 0o600);
            s.ann.set_xattr("f", ACCESS, with_user(0o600, BEN.id, 6, 6), 0).ok();
            s.ben.both("f").ok();
            s.ann.remove_xattr("f", ACCESS).ok();
            s.has_mode("f", 0o660);
            s.ben.reader("f").fails(EACCES);
            s.ann.get_xattr("f", ACCESS).fails(ENODATA);
        },
    ),
    case(
        "acl-8",
        "Lists are set and removed by the owner and root alone: others get `EPERM`; everybody \
         reads them.",
        |s| {
            s.file("f", ANN, 0o666);
            let list = with_user(0o666, BEN.id, 6, 6);
            s.ben.set_xattr("f", ACCESS, &list, 0).fails(EPERM);
            s.ann.set_xattr("f", ACCESS, &list, 0).ok();
            s.ben.remove_xattr("f", ACCESS).fails(EPERM);
            s.cat.get_xattr("f", ACCESS).gives_bytes(&list);
            s.folder("d", ANN, 0o777);
            s.ben.set_xattr("d", DEFAULT, &list, 0).fails(EPERM);
            s.root.set_xattr("d", DEFAULT, &list, 0).ok();
        },
    ),
    case(
        "acl-9",
        "Only directories have a default list: for anything else setting one answers `EACCES`.",
        |s| {
            s.file("f", ANN, 0o644);
            s.ann.set_xattr("f", DEFAULT, with_user(0o644, BEN.id, 6, 6), 0).fails(EACCES);
            s.ann.get_xattr("f", DEFAULT).fails(ENODATA);
        },
    ),
    case(
        "acl-10",
        "A default list changes neither the mode of its directory nor who may enter it.",
        |s| {
            s.folder("d", ANN, 0o700);
            s.ann.set_xattr("d", DEFAULT, with_user(0o777, BEN.id, 7, 7), 0).ok();
            s.has_mode("d", 0o700);
            s.ben.chdir("d").fails(EACCES);
        },
    ),
    case(
        "acl-11",
        "What is made in a directory with a default list inherits it as its list, limited by the \
         mode of the call; the umask does not count.",
        |s| {
            s.folder("d", ANN, 0o777);
            s.ann.set_xattr("d", DEFAULT, with_user(0o770, BEN.id, 7, 7), 0).ok();
            s.ann.umask(0o077);
            s.ann.create("d/f", 0o664).ok();
            s.has_mode("d/f", 0o660);
            s.ann.get_xattr("d/f", ACCESS).gives_bytes(with_user(0o670, BEN.id, 7, 6));
            s.ben.both("d/f").ok();
            s.ann.create("d/g", 0o600).ok();
            s.ben.reader("d/g").fails(EACCES);
        },
    ),
    case("acl-12", "New directories inherit the default list as default list too.", |s| {
        s.folder("d", ANN, 0o777);
        let list = with_user(0o750, BEN.id, 7, 7);
        s.ann.set_xattr("d", DEFAULT, &list, 0).ok();
        s.ann.mkdir("d/e", 0o777).ok();
        s.has_mode("d/e", 0o770);
        s.ann.get_xattr("d/e", DEFAULT).gives_bytes(&list);
        s.ann.get_xattr("d/e", ACCESS).gives_bytes(&list);
        s.ben.touch("d/e/f");
    }),
    case(
        "acl-13",
        "A default list without entries for users or groups decides the mode of what is new, in \
         place of the umask.",
        |s| {
            s.folder("d", ANN, 0o777);
            let plain = acl(&[(USER_OBJ, 7, NOBODY), (GROUP_OBJ, 5, NOBODY), (OTHER, 4, NOBODY)]);
            s.ann.set_xattr("d", DEFAULT, &plain, 0).ok();
            s.ann.umask(0o077);
            s.ann.create("d/f", 0o666).ok();
            s.has_mode("d/f", 0o644);
            s.ann.get_xattr("d/f", ACCESS).fails(ENODATA);
            s.ann.mkdir("d/e", 0o777).ok();
            s.has_mode("d/e", 0o754);
            s.ann.get_xattr("d/e", DEFAULT).gives_bytes(&plain);
        },
    ),
    case(
        "acl-14",
        "Fifos, sockets and devices inherit like files; symbolic links have no list.",
        |s| {
            s.folder("d", ANN, 0o777);
            s.ann.set_xattr("d", DEFAULT, with_user(0o770, BEN.id, 6, 7), 0).ok();
            s.ann.mknod("d/p", S_IFIFO | 0o660, 0).ok();
            s.ann.get_xattr("d/p", ACCESS).gives_bytes(with_user(0o670, BEN.id, 6, 6));
            s.ann.symlink("x", "d/l").ok();
            s.has_mode("d/l", 0o777);
            s.ann.set_xattr("d/l", ACCESS, with_user(0o770, BEN.id, 6, 7), 0).fails(EOPNOTSUPP);
        },
    ),
    case(
        "acl-15",
        "The owner's entry alone counts for the owner, an entry for a user before every group.",
        |s| {
            s.file("f", ANN, 0o600);
            s.root.chown("f", ANN.id, TEAM).ok();
            s.root
                .set_xattr(
                    "f",
                    ACCESS,
                    acl(&[
                        (USER_OBJ, 4, NOBODY),
                        (USER, 6, ANN.id),
                        (USER, 0, BEN.id),
                        (GROUP_OBJ, 6, NOBODY),
                        (MASK, 6, NOBODY),
                        (OTHER, 6, NOBODY),
                    ]),
                    0,
                )
                .ok();
            s.ann.writer("f").fails(EACCES);
            s.ben.reader("f").fails(EACCES);
            s.cat.both("f").ok();
        },
    ),
    case(
        "acl-16",
        "Of the groups that the caller is in one that allows is enough; if none does, the rights \
         of the others do not help.",
        |s| {
            s.file("f", ROOT, 0o600);
            s.root.chown("f", ROOT.id, BEN.group).ok();
            s.root.set_xattr("f", ACCESS, with_group(0o606, TEAM, 4, 7), 0).ok();
            s.ben.reader("f").ok();
            s.ben.writer("f").fails(EACCES);
            s.ben.both("f").fails(EACCES);
            s.ann.both("f").ok();
        },
    ),
    case("acl-17", "Setting a list moves ctime and leaves mtime.", |s| {
        s.file("f", ANN, 0o600);
        let watch = s.watch(["f"]);
        s.ann.set_xattr("f", ACCESS, with_user(0o600, BEN.id, 6, 6), 0).ok();
        watch.moved(["c"]);
    }),
    case("acl-18", "The list of a directory decides who searches, lists and changes it.", |s| {
        s.folder("d", ROOT, 0o700);
        s.file("d/f", ROOT, 0o644);
        s.root.set_xattr("d", ACCESS, with_user(0o700, ANN.id, 1, 7), 0).ok();
        s.ann.reader("d/f").ok();
        s.ann.reader("d").fails(EACCES);
        s.ann.unlink("d/f").fails(EACCES);
        s.root.set_xattr("d", ACCESS, with_user(0o700, ANN.id, 7, 7), 0).ok();
        same("names", s.ann.names("d"), vec![String::from("f")]);
        s.ann.unlink("d/f").ok();
        s.ben.lstat("d/f").fails(EACCES);
    }),
    case("acl-19", "`access` judges by the list.", |s| {
        s.file("f", ROOT, 0o600);
        s.root.set_xattr("f", ACCESS, with_user(0o600, ANN.id, 5, 7), 0).ok();
        s.ann.faccessat2("f", R_OK | X_OK, 0).ok();
        s.ann.faccessat2("f", W_OK, 0).fails(EACCES);
        s.ben.faccessat2("f", R_OK, 0).fails(EACCES);
    }),
    case(
        "acl-20",
        "A list shows among the names of attributes, one that is not there does not.",
        |s| {
            s.folder("d", ANN, 0o700);
            let has = |name: &str| {
                let names = s.ann.list_xattrs("d", 4096).ok();
                names.split(|byte| *byte == 0).any(|found| found == name.as_bytes())
            };
            holds("none", !has(ACCESS) && !has(DEFAULT));
            s.ann.set_xattr("d", ACCESS, with_user(0o700, BEN.id, 6, 6), 0).ok();
            s.ann.set_xattr("d", DEFAULT, with_user(0o700, BEN.id, 6, 6), 0).ok();
            holds("both", has(ACCESS) && has(DEFAULT));
            s.ann.remove_xattr("d", DEFAULT).ok();
            holds("one", has(ACCESS) && !has(DEFAULT));
        },
    ),
    case(
        "acl-21",
        "A list without the three entries of the mode, with one of them twice, with a user but \
         no mask, or cut off answers `EINVAL`; of another version `EOPNOTSUPP`.",
        |s| {
            s.file("f", ANN, 0o600);
            let three = [(USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 4, NOBODY)];
            let no_mask = [three[0], (USER, 6, BEN.id), three[1], three[2]];
            let twice = [three[0], three[0], three[1], three[2]];
            for entries in [&three[..2], &no_mask, &twice, &[(0x40, 6, NOBODY)]] {
                s.ann.set_xattr("f", ACCESS, acl(entries), 0).fails(EINVAL);
            }
            s.ann.set_xattr("f", ACCESS, &acl(&three)[..9], 0).fails(EINVAL);
            let mut other = acl(&three);
            other[0] = 3;
            s.ann.set_xattr("f", ACCESS, other, 0).fails(EOPNOTSUPP);
            s.has_mode("f", 0o600);
        },
    ),
    case(
        "acl-22",
        "Root passes every list; to run a program it needs one `x` somewhere in it.",
        |s| {
            s.file("f", ANN, 0o600);
            s.root.set_xattr("f", ACCESS, with_user(0o000, BEN.id, 0, 0), 0).ok();
            s.root.both("f").ok();
            s.root.faccessat2("f", X_OK, 0).fails(EACCES);
        },
    ),
    case(
        "acl-23",
        "An owner outside of the file's group who sets a list loses the set-group-id bit, as \
         with `chmod`.",
        |s| {
            s.root.put("f", "x");
            s.root.chown("f", ANN.id, TEAM).ok();
            s.root.chmod("f", 0o2755).ok();
            s.ann.set_xattr("f", ACCESS, with_user(0o755, BEN.id, 6, 7), 0).ok();
            s.has_mode("f", 0o775);
        },
    ),
    case("acl-24", "A rename and a further name keep the list.", |s| {
        s.file("f", ANN, 0o600);
        let list = with_user(0o600, BEN.id, 6, 6);
        s.ann.set_xattr("f", ACCESS, &list, 0).ok();
        s.ann.link("f", "g").ok();
        s.ann.rename("f", "h").ok();
        s.ann.get_xattr("g", ACCESS).gives_bytes(&list);
        s.ann.get_xattr("h", ACCESS).gives_bytes(&list);
    }),
];
