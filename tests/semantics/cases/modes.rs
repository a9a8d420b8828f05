//! chmod(2), umask(2), set-id and sticky bits; chown(2).

use super::*;

pub const SECTION: Section = Section { title: "Modes and owners", intro: "", cases: CASES };

const SAME: u32 = u32::MAX;

/// What `id -u` and `id -g` say when a copy of it with this owner and mode is run by Ben.
fn runs_as(s: &Scene, mode: u32) -> (String, String) {
    use std::os::unix::process::CommandExt;
    s.root.put("id", std::fs::read("/usr/bin/id").expect("there is such a program"));
    s.root.chown("id", ANN.id, ANN.group).ok();
    s.root.chmod("id", mode).ok();
    let path = format!("{}/id", s.path());
    let says = |flag: &str| {
        let mut command = std::process::Command::new(&path);
        let output = command.arg(flag).uid(BEN.id).gid(BEN.group).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    (says("-u"), says("-g"))
}

const CASES: &[Case] = &[
    case(
        "chmod-1",
        "The owner and root change the twelve bits of the mode; all others get `EPERM`, whatever \
         the mode allows them.",
        |s| {
            s.file("f", ANN, 0o777);
            s.ann.chmod("f", 0o640).ok();
            s.has_mode("f", 0o640);
            s.ben.chmod("f", 0o777).fails(EPERM);
            s.root.chmod("f", 0o7777).ok();
            s.has_mode("f", 0o7777);
        },
    ),
    case(
        "chmod-2",
        "`chmod` moves ctime and leaves mtime, also when it sets the mode that was.",
        |s| {
            s.file("f", ANN, 0o644);
            for mode in [0o600, 0o600] {
                let watch = s.watch(["f", "."]);
                s.ann.chmod("f", mode).ok();
                watch.moved(["c", ""]);
            }
        },
    ),
    case(
        "chmod-3",
        "`fchmod` needs no right but to be the owner: a descriptor open for reading will do.",
        |s| {
            s.file("f", ANN, 0o644);
            let file = s.ann.reader("f").ok();
            s.ann.fchmod(&file, 0o600).ok();
            s.has_mode("f", 0o600);
            s.root.chmod("f", 0o644).ok();
            let file = s.ben.reader("f").ok();
            s.ben.fchmod(&file, 0o777).fails(EPERM);
        },
    ),
    case("chmod-4", "`chmod` follows symbolic links.", |s| {
        s.file("f", ANN, 0o644);
        s.root.symlink("f", "l").ok();
        s.ann.chmod("l", 0o600).ok();
        s.has_mode("f", 0o600);
        s.has_mode("l", 0o777);
    }),
    case(
        "chmod-5",
        "An owner who is not in the file's group and is not root loses the set-group-id bit with \
         `chmod`; one who is in it, also by a further group, keeps it.",
        |s| {
            s.root.put("f", "x");
            s.root.chown("f", ANN.id, TEAM).ok();
            s.ann.chmod("f", 0o2755).ok();
            s.has_mode("f", 0o755);
            s.root.chown("f", BEN.id, TEAM).ok();
            s.ben.chmod("f", 0o2755).ok();
            s.has_mode("f", 0o2755);
            s.root.chown("f", ANN.id, TEAM).ok();
            s.root.chmod("f", 0o2755).ok();
            s.has_mode("f", 0o2755);
        },
    ),
    case("chmod-6", "The owner may set the set-user-id and sticky bits of his file.", |s| {
        s.file("f", ANN, 0o644);
        s.ann.chmod("f", 0o5755).ok();
        s.has_mode("f", 0o5755);
    }),
    case(
        "chmod-7",
        "`chmod` of what does not exist answers `ENOENT`, without `x` on the way `EACCES`.",
        |s| {
            s.root.chmod("none", 0o644).fails(ENOENT);
            s.folder("d", ROOT, 0o766);
            s.file("d/f", ANN, 0o644);
            s.ann.chmod("d/f", 0o600).fails(EACCES);
        },
    ),
    case("chmod-8", "A new mode counts from the next call on, for everybody.", |s| {
        s.file("f", ANN, 0o644);
        s.ben.reader("f").ok();
        s.ann.chmod("f", 0o600).ok();
        s.ben.reader("f").fails(EACCES);
        s.folder("d", ANN, 0o755);
        s.file("d/f", ANN, 0o644);
        s.ben.lstat("d/f").ok();
        s.ann.chmod("d", 0o700).ok();
        s.ben.lstat("d/f").fails(EACCES);
    }),
    case(
        "setid-1",
        "A write by anybody but root takes the set-user-id bit away, and the set-group-id bit \
         where the group may execute.",
        |s| {
            s.file("f", ANN, 0o6777);
            let file = s.ann.writer("f").ok();
            s.ann.write(&file, "x").gives(1);
            s.has_mode("f", 0o777);
            s.file("g", ANN, 0o6777);
            let file = s.ben.writer("g").ok();
            s.ben.write(&file, "x").gives(1);
            s.has_mode("g", 0o777);
        },
    ),
    case("setid-2", "A write by root keeps the set-id bits.", |s| {
        s.file("f", ANN, 0o6777);
        let file = s.root.writer("f").ok();
        s.root.write(&file, "x").gives(1);
        s.has_mode("f", 0o6777);
    }),
    case("setid-3", "`truncate` and `O_TRUNC` take the set-id bits away like a write.", |s| {
        s.file("f", ANN, 0o6777);
        s.ben.truncate("f", 3).ok();
        s.has_mode("f", 0o777);
        s.file("g", ANN, 0o6777);
        s.ben.open("g", O_WRONLY | O_TRUNC, 0).ok();
        s.has_mode("g", 0o777);
        s.file("h", ANN, 0o6777);
        let file = s.ben.writer("h").ok();
        s.ben.ftruncate(&file, 1).ok();
        s.has_mode("h", 0o777);
    }),
    case("setid-4", "`fallocate` takes the set-id bits away like a write.", |s| {
        s.file("f", ANN, 0o6777);
        let file = s.ben.writer("f").ok();
        s.ben.fallocate(&file, 0, 0, 10_000).ok();
        s.has_mode("f", 0o777);
    }),
    case("setid-5", "Reading and opening take no set-id bits away.", |s| {
        s.file("f", ANN, 0o6777);
        let file = s.ben.both("f").ok();
        s.ben.read(&file, 9).ok();
        drop(file);
        s.has_mode("f", 0o6777);
    }),
    case(
        "setid-6",
        "`chown` of a file takes the set-user-id bit away, and the set-group-id bit where the \
         group may execute, also when root does it.",
        |s| {
            s.file("f", ANN, 0o6755);
            s.root.chown("f", BEN.id, BEN.group).ok();
            s.has_mode("f", 0o755);
            s.file("g", BEN, 0o6755);
            s.ben.chown("g", SAME, TEAM).ok();
            s.has_mode("g", 0o755);
        },
    ),
    case("setid-7", "`chown` of a directory keeps its set-group-id bit.", |s| {
        s.folder("d", ANN, 0o2755);
        s.root.chown("d", BEN.id, BEN.group).ok();
        s.has_mode("d", 0o2755);
    }),
    case(
        "setid-8",
        "Where the group may not execute, root's `chown` leaves the set-group-id bit.",
        |s| {
            s.file("f", ANN, 0o2745);
            s.root.chown("f", BEN.id, BEN.group).ok();
            s.has_mode("f", 0o2745);
        },
    ),
    case(
        "setid-9",
        "In a directory with the set-group-id bit everything new gets the group of the \
         directory, and new directories the bit too.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.chown("d", ROOT.id, TEAM).ok();
            s.root.chmod("d", 0o2777).ok();
            s.ann.touch("d/f");
            s.ann.mkdir("d/e", 0o755).ok();
            s.ann.symlink("x", "d/l").ok();
            s.ann.mknod("d/p", S_IFIFO | 0o600, 0).ok();
            for name in ["d/f", "d/e", "d/l", "d/p"] {
                s.has_owner(name, ANN.id, TEAM);
            }
            s.has_mode("d/e", 0o2755);
            s.has_mode("d/f", 0o644);
        },
    ),
    case(
        "setid-10",
        "There a new file keeps the set-group-id bit only if its maker is in the group or root.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.chown("d", ROOT.id, TEAM).ok();
            s.root.chmod("d", 0o2777).ok();
            s.ann.create("d/ann", 0o2755).ok();
            s.ben.create("d/ben", 0o2755).ok();
            s.root.create("d/root", 0o2755).ok();
            s.has_mode("d/ann", 0o755);
            s.has_mode("d/ben", 0o2755);
            s.has_mode("d/root", 0o2755);
        },
    ),
    case(
        "setid-11",
        "A program with the set-user-id bit runs as its owner, with the set-group-id bit as its \
         group.",
        |s| {
            same("plain", runs_as(s, 0o755), (BEN.id.to_string(), BEN.group.to_string()));
            same("both", runs_as(s, 0o6755), (ANN.id.to_string(), ANN.group.to_string()));
        },
    ),
    case(
        "umask-1",
        "The umask takes bits from the mode of new files, directories and nodes, never from \
         `chmod`.",
        |s| {
            s.ann.umask(0o137);
            s.ann.create("f", 0o777).ok();
            s.ann.mkdir("d", 0o777).ok();
            s.ann.mknod("p", S_IFIFO | 0o777, 0).ok();
            for name in ["f", "d", "p"] {
                s.has_mode(name, 0o640);
            }
            s.ann.chmod("f", 0o777).ok();
            s.has_mode("f", 0o777);
        },
    ),
    case(
        "chown-1",
        "Root gives a file to anybody; a plain user gives nothing away: `EPERM`.",
        |s| {
            s.file("f", ANN, 0o644);
            s.ann.chown("f", BEN.id, SAME).fails(EPERM);
            s.ben.chown("f", BEN.id, SAME).fails(EPERM);
            s.root.chown("f", BEN.id, TEAM).ok();
            s.has_owner("f", BEN.id, TEAM);
        },
    ),
    case(
        "chown-2",
        "The owner gives a file to a group he is in, first or further; to another one he does \
         not: `EPERM`.",
        |s| {
            s.file("f", BEN, 0o644);
            s.ben.chown("f", SAME, TEAM).ok();
            s.has_owner("f", BEN.id, TEAM);
            s.ben.chown("f", BEN.id, BEN.group).ok();
            s.has_owner("f", BEN.id, BEN.group);
            s.ben.chown("f", SAME, ANN.group).fails(EPERM);
        },
    ),
    case(
        "chown-3",
        "Who is not the owner changes no group, not even to one he is in: `EPERM`.",
        |s| {
            s.file("f", ANN, 0o666);
            s.ben.chown("f", SAME, TEAM).fails(EPERM);
            s.ben.chown("f", SAME, BEN.group).fails(EPERM);
        },
    ),
    case("chown-4", "An owner or group of -1 stays as it is.", |s| {
        s.file("f", ANN, 0o644);
        s.root.chown("f", SAME, TEAM).ok();
        s.has_owner("f", ANN.id, TEAM);
        s.root.chown("f", BEN.id, SAME).ok();
        s.has_owner("f", BEN.id, TEAM);
    }),
    case("chown-5", "`chown` moves ctime and leaves mtime.", |s| {
        s.file("f", ANN, 0o644);
        let watch = s.watch(["f", "."]);
        s.root.chown("f", BEN.id, BEN.group).ok();
        watch.moved(["c", ""]);
    }),
    case(
        "chown-6",
        "`chown` follows symbolic links, `lchown` changes the link itself, `fchown` what is \
         open.",
        |s| {
            s.file("f", ANN, 0o644);
            s.root.symlink("f", "l").ok();
            s.root.chown("l", BEN.id, BEN.group).ok();
            s.has_owner("f", BEN.id, BEN.group);
            s.has_owner("l", 0, 0);
            s.root.lchown("l", CAT.id, CAT.group).ok();
            s.has_owner("l", CAT.id, CAT.group);
            let file = s.root.reader("f").ok();
            s.root.fchown(&file, ANN.id, ANN.group).ok();
            s.has_owner("f", ANN.id, ANN.group);
        },
    ),
    case("chown-7", "Users and groups are numbers up to 2^32-2.", |s| {
        s.root.touch("f");
        s.root.chown("f", u32::MAX - 1, u32::MAX - 1).ok();
        s.has_owner("f", u32::MAX - 1, u32::MAX - 1);
    }),
    case(
        "chown-8",
        "A new owner has the owner's rights at once, and the old one has them no longer.",
        |s| {
            s.file("f", ANN, 0o600);
            s.root.chown("f", BEN.id, SAME).ok();
            s.ben.both("f").ok();
            s.ann.reader("f").fails(EACCES);
            s.ann.chmod("f", 0o644).fails(EPERM);
            s.ben.chmod("f", 0o644).ok();
        },
    ),
];
