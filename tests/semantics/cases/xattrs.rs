//! Extended attributes of all four name spaces.

use super::*;

pub const SECTION: Section = Section { title: "Extended attributes", intro: "", cases: CASES };

fn names(s: &Actor, path: &str) -> Vec<String> {
    let listed = s.list_xattrs(path, 65_536).ok();
    let mut names: Vec<String> = listed
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .filter(|name| name != "security.selinux")
        .collect();
    names.sort();
    names
}

/// A `security.capability` as `setcap` writes it: the right to bind low ports.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const CASES: &[Case] = &[
    case("xattr-1", "An attribute is set, read, replaced, listed and removed.", |s| {
        s.file("f", ANN, 0o644);
        s.ann.set_xattr("f", "user.a", "one", 0).ok();
        s.ann.set_xattr("f", "user.b", "two", 0).ok();
        s.ann.get_xattr("f", "user.a").gives_bytes("one");
        s.ann.set_xattr("f", "user.a", "three", 0).ok();
        s.ann.get_xattr("f", "user.a").gives_bytes("three");
        same("names", names(&s.ann, "f"), vec![String::from("user.a"), String::from("user.b")]);
        s.ann.remove_xattr("f", "user.a").ok();
        s.ann.get_xattr("f", "user.a").fails(ENODATA);
        same("names", names(&s.ann, "f"), vec![String::from("user.b")]);
    }),
    case(
        "xattr-2",
        "`XATTR_CREATE` answers `EEXIST` for an attribute that is there, `XATTR_REPLACE` \
         `ENODATA` for one that is not.",
        |s| {
            s.root.touch("f");
            s.root.set_xattr("f", "user.a", "1", XATTR_REPLACE).fails(ENODATA);
            s.root.set_xattr("f", "user.a", "1", XATTR_CREATE).ok();
            s.root.set_xattr("f", "user.a", "2", XATTR_CREATE).fails(EEXIST);
            s.root.set_xattr("f", "user.a", "3", XATTR_REPLACE).ok();
            s.root.get_xattr("f", "user.a").gives_bytes("3");
            s.root.set_xattr("f", "user.a", "4", 4).fails(EINVAL);
        },
    ),
    case(
        "xattr-3",
        "Reading or removing an attribute that is not there answers `ENODATA`, of a file that is \
         not there `ENOENT`.",
        |s| {
            s.root.touch("f");
            s.root.get_xattr("f", "user.a").fails(ENODATA);
            s.root.remove_xattr("f", "user.a").fails(ENODATA);
            s.root.set_xattr("none", "user.a", "1", 0).fails(ENOENT);
            s.root.get_xattr("none", "user.a").fails(ENOENT);
            s.root.list_xattrs("none", 9).fails(ENOENT);
        },
    ),
    case(
        "xattr-4",
        "Asked without room, reading tells the length; with too little it answers `ERANGE`, \
         listing too.",
        |s| {
            s.root.touch("f");
            s.root.set_xattr("f", "user.a", "12345", 0).ok();
            s.root.xattr_length("f", "user.a").gives(5);
            s.root.get_xattr_into("f", "user.a", 5).gives_bytes("12345");
            s.root.get_xattr_into("f", "user.a", 4).fails(ERANGE);
            s.root.list_xattrs("f", 6).fails(ERANGE);
            s.root.list_xattrs("f", 7).gives_bytes("user.a\0");
        },
    ),
    case("xattr-5", "A value may be empty and hold any bytes; a name any bytes but zero.", |s| {
        s.root.touch("f");
        s.root.set_xattr("f", "user.empty", "", 0).ok();
        s.root.get_xattr("f", "user.empty").gives_bytes("");
        let bytes: Vec<u8> = (0..=255).collect();
        s.root.set_xattr("f", "user.all", &bytes, 0).ok();
        s.root.get_xattr("f", "user.all").gives_bytes(&bytes);
        s.root.set_xattr("f", b"user.\xff\n", "1", 0).ok();
        s.root.get_xattr("f", b"user.\xff\n").gives_bytes("1");
    }),
    case(
        "xattr-6",
        "Setting and removing move ctime and leave mtime; reading moves nothing.",
        |s| {
            s.root.touch("f");
            let watch = s.watch(["f"]);
            s.root.set_xattr("f", "user.a", "1", 0).ok();
            watch.moved(["c"]);
            let watch = s.watch(["f"]);
            s.root.get_xattr("f", "user.a").gives_bytes("1");
            names(&s.root, "f");
            watch.moved([""]);
            s.root.remove_xattr("f", "user.a").ok();
            watch.moved(["c"]);
        },
    ),
    case(
        "xattr-7",
        "`user.` attributes are for files and directories: anything else answers `EPERM`, also \
         to root, and has none to read: `ENODATA`.",
        |s| {
            s.root.symlink("nothing", "l").ok();
            s.root.mknod("p", S_IFIFO | 0o666, 0).ok();
            s.root.mknod("c", S_IFCHR | 0o666, 0x103).ok();
            for name in ["l", "p", "c"] {
                s.root.set_xattr(name, "user.a", "1", 0).fails(EPERM);
                s.root.get_xattr(name, "user.a").fails(ENODATA);
            }
            s.root.mkdir("d", 0o755).ok();
            s.root.set_xattr("d", "user.a", "1", 0).ok();
            s.root.get_xattr("d", "user.a").gives_bytes("1");
        },
    ),
    case(
        "xattr-8",
        "`user.` attributes need `r` to be read and `w` to be changed, else `EACCES`; listing \
         names needs neither.",
        |s| {
            s.file("f", ROOT, 0o600);
            s.root.set_xattr("f", "user.a", "1", 0).ok();
            s.ann.get_xattr("f", "user.a").fails(EACCES);
            s.ann.set_xattr("f", "user.a", "2", 0).fails(EACCES);
            s.ann.remove_xattr("f", "user.a").fails(EACCES);
            same("names", names(&s.ann, "f"), vec![String::from("user.a")]);
            s.root.chmod("f", 0o604).ok();
            s.ann.get_xattr("f", "user.a").gives_bytes("1");
            s.ann.set_xattr("f", "user.a", "2", 0).fails(EACCES);
            s.root.chmod("f", 0o602).ok();
            s.ann.set_xattr("f", "user.a", "2", 0).ok();
            s.ann.get_xattr("f", "user.a").fails(EACCES);
        },
    ),
    case(
        "xattr-9",
        "`user.` attributes of a directory with the sticky bit are set by its owner and root \
         alone: others get `EPERM`.",
        |s| {
            s.folder("d", ANN, 0o1777);
            s.ben.set_xattr("d", "user.a", "1", 0).fails(EPERM);
            s.ann.set_xattr("d", "user.a", "1", 0).ok();
            s.root.set_xattr("d", "user.b", "1", 0).ok();
        },
    ),
    case(
        "xattr-10",
        "`trusted.` attributes are root's: others get `EPERM` for changing, `ENODATA` for \
         reading, and do not see their names.",
        |s| {
            s.file("f", ANN, 0o666);
            s.root.set_xattr("f", "trusted.a", "1", 0).ok();
            s.root.get_xattr("f", "trusted.a").gives_bytes("1");
            s.ann.get_xattr("f", "trusted.a").fails(ENODATA);
            s.ann.set_xattr("f", "trusted.a", "2", 0).fails(EPERM);
            s.ann.remove_xattr("f", "trusted.a").fails(EPERM);
            same("names", names(&s.ann, "f"), Vec::new());
            same("names", names(&s.root, "f"), vec![String::from("trusted.a")]);
        },
    ),
    case("xattr-11", "`trusted.` attributes are on every kind of file.", |s| {
        s.root.symlink("nothing", "l").ok();
        s.root.mknod("p", S_IFIFO | 0o666, 0).ok();
        for name in ["l", "p"] {
            s.root.set_xattr(name, "trusted.a", "1", 0).ok();
            s.root.get_xattr(name, "trusted.a").gives_bytes("1");
        }
    }),
    case(
        "xattr-12",
        "`security.` attributes are changed by root alone, others get `EPERM`; everybody reads \
         them.",
        |s| {
            s.file("f", ANN, 0o600);
            s.ann.set_xattr("f", "security.note", "1", 0).fails(EPERM);
            s.root.set_xattr("f", "security.note", "1", 0).ok();
            s.ben.get_xattr("f", "security.note").gives_bytes("1");
            s.ann.remove_xattr("f", "security.note").fails(EPERM);
            s.root.remove_xattr("f", "security.note").ok();
        },
    ),
    case("xattr-13", "`security.capability` is gone after a write or a `chown`.", |s| {
        for name in ["f", "g"] {
            s.file(name, ANN, 0o755);
            s.root.set_xattr(name, "security.capability", CAPABILITY, 0).ok();
            s.root.get_xattr(name, "security.capability").gives_bytes(CAPABILITY);
        }
        let file = s.ann.writer("f").ok();
        s.ann.write(&file, "x").gives(1);
        s.root.get_xattr("f", "security.capability").fails(ENODATA);
        s.root.chown("g", BEN.id, BEN.group).ok();
        s.root.get_xattr("g", "security.capability").fails(ENODATA);
    }),
    case(
        "xattr-14",
        "A name of no known name space, and an unknown `system.` one, answer `EOPNOTSUPP`; a \
         name space alone `EINVAL`; no name `ERANGE`.",
        |s| {
            s.root.touch("f");
            for name in ["plain", "other.a", "system.other"] {
                s.root.set_xattr("f", name, "1", 0).fails(EOPNOTSUPP);
                s.root.get_xattr("f", name).fails(EOPNOTSUPP);
            }
            s.root.set_xattr("f", "user.", "1", 0).fails(EINVAL);
            s.root.set_xattr("f", "", "1", 0).fails(ERANGE);
        },
    ),
    case("xattr-15", "A name has up to 255 bytes: a longer one answers `ERANGE`.", |s| {
        s.root.touch("f");
        let name = format!("user.{}", "n".repeat(250));
        s.root.set_xattr("f", &name, "1", 0).ok();
        s.root.get_xattr("f", &name).gives_bytes("1");
        s.root.set_xattr("f", format!("{name}n"), "1", 0).fails(ERANGE);
    }),
    case("xattr-16", "A value has up to 65,536 bytes: a longer one answers `E2BIG`.", |s| {
        s.root.touch("f");
        s.root.set_xattr("f", "user.a", vec![7; 65_537], 0).fails(E2BIG);
        s.root.set_xattr("f", "user.a", vec![7; 65_536], 0).ok();
        s.root.get_xattr("f", "user.a").gives_bytes(vec![7; 65_536]);
    }),
    case(
        "xattr-17",
        "Names and values of one file have a limit together: beyond it a new one answers \
         `ENOSPC`, and all others stay.",
        |s| {
            s.root.touch("f");
            let mut kept = 0;
            let refused = loop {
                match s.root.set_xattr("f", format!("user.{kept}"), vec![7; 1000], 0).result() {
                    Ok(()) => kept += 1,
                    Err(errno) => break errno,
                }
                holds("there is a limit", kept < 1000);
            };
            same("error", refused, crate::errno::Errno(ENOSPC));
            same("count", names(&s.root, "f").len(), kept);
            s.root.get_xattr("f", "user.0").gives_bytes(vec![7; 1000]);
            s.root.remove_xattr("f", "user.0").ok();
            s.root.set_xattr("f", "user.again", vec![7; 1000], 0).ok();
        },
    ),
    case("xattr-18", "At least 128 KiB of names and values have room in one file.", |s| {
        s.root.touch("f");
        for number in 0..31 {
            s.root.set_xattr("f", format!("user.{number}"), vec![7; 4096], 0).ok();
        }
        same("count", names(&s.root, "f").len(), 31);
    }),
    case(
        "xattr-19",
        "Attributes belong to the file, not to a name: other names show them, a new file of the \
         same name has none.",
        |s| {
            s.root.touch("f");
            s.root.link("f", "g").ok();
            s.root.set_xattr("f", "user.a", "1", 0).ok();
            s.root.get_xattr("g", "user.a").gives_bytes("1");
            s.root.unlink("f").ok();
            s.root.touch("f");
            s.root.get_xattr("f", "user.a").fails(ENODATA);
        },
    ),
    case(
        "xattr-20",
        "Attributes are set through a descriptor too, also of a file without a name.",
        |s| {
            let file = s.root.create("f", 0o644).ok();
            s.root.set_xattr_of(&file, "user.a", "1").ok();
            s.root.get_xattr("f", "user.a").gives_bytes("1");
            s.root.unlink("f").ok();
            s.root.set_xattr_of(&file, "user.b", "2").ok();
        },
    ),
];
