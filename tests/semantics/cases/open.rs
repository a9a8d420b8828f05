//! open(2): flags, permissions, what a new file is like.

use super::*;

pub const SECTION: Section =
    Section { title: "Opening and creating files", intro: "", cases: CASES };

const CASES: &[Case] = &[
    case(
        "open-1",
        "Opening a name that does not exist answers `ENOENT`, and so does the empty name.",
        |s| {
            s.root.reader("f").fails(ENOENT);
            s.ann.both("f").fails(ENOENT);
            s.root.reader("").fails(ENOENT);
            s.root.reader("no/f").fails(ENOENT);
        },
    ),
    case(
        "open-2",
        "`O_CREAT` makes an empty regular file that belongs to the caller, with the mode asked \
         for less the umask.",
        |s| {
            s.ann.umask(0o027);
            s.ann.create("f", 0o666).ok();
            let found = s.stat("f");
            same("kind", found.kind(), S_IFREG);
            same("permissions", found.permissions(), 0o640);
            same("size, blocks, links", (found.size, found.blocks, found.links), (0, 0, 1));
            s.has_owner("f", ANN.id, ANN.group);
        },
    ),
    case(
        "open-3",
        "`O_CREAT` of a file that exists opens it and changes neither its content, mode, owner \
         nor times.",
        |s| {
            s.file("f", BEN, 0o666);
            let watch = s.watch(["f", "."]);
            s.ann.open("f", O_CREAT | O_RDWR, 0o600).ok();
            watch.moved(["", ""]);
            s.has_mode("f", 0o666);
            s.has_owner("f", BEN.id, BEN.group);
            same("content", s.root.get("f"), b"content\n".to_vec());
        },
    ),
    case(
        "open-4",
        "`O_CREAT|O_EXCL` of a name that exists answers `EEXIST`, whatever the name stands for.",
        |s| {
            s.root.touch("f");
            s.root.mkdir("d", 0o755).ok();
            s.root.symlink("nothing", "l").ok();
            for name in ["f", "d", "l"] {
                s.root.create(name, 0o644).fails(EEXIST);
            }
            s.is_gone("nothing");
        },
    ),
    case(
        "open-5",
        "`O_CREAT` through a symbolic link that leads nowhere makes the file it names.",
        |s| {
            s.root.symlink("target", "l").ok();
            s.root.open("l", O_CREAT | O_RDWR, 0o600).ok();
            s.has_mode("target", 0o600);
            same("kind of l", s.stat("l").kind(), S_IFLNK);
        },
    ),
    case("open-6", "A new name moves mtime and ctime of its directory.", |s| {
        let watch = s.watch(["."]);
        s.ann.create("f", 0o644).ok();
        watch.moved(["mc"]);
    }),
    case(
        "open-7",
        "`O_TRUNC` empties the file and moves its mtime and ctime, also when it was empty.",
        |s| {
            s.root.put("f", "content");
            let watch = s.watch(["f"]);
            s.root.open("f", O_WRONLY | O_TRUNC, 0).ok();
            watch.moved(["mc"]);
            s.has_size("f", 0);
            let watch = s.watch(["f"]);
            s.root.open("f", O_WRONLY | O_TRUNC, 0).ok();
            watch.moved(["mc"]);
        },
    ),
    case(
        "open-8",
        "`O_TRUNC` needs the right to write, also with `O_RDONLY`; without it nothing is lost.",
        |s| {
            s.file("f", ROOT, 0o644);
            s.ann.open("f", O_RDONLY | O_TRUNC, 0).fails(EACCES);
            s.ann.open("f", O_WRONLY | O_TRUNC, 0).fails(EACCES);
            s.has_size("f", 8);
        },
    ),
    case(
        "open-9",
        "Every write of a file opened with `O_APPEND` goes to its end, wherever the offset \
         stands.",
        |s| {
            s.root.put("f", "one");
            let file = s.root.open("f", O_RDWR | O_APPEND, 0).ok();
            s.root.lseek(&file, 0, SEEK_SET).gives(0);
            s.root.write(&file, "two").gives(3);
            s.root.lseek(&file, 0, SEEK_CUR).gives(6);
            s.root.pread(&file, 9, 0).gives_bytes("onetwo");
        },
    ),
    case("open-10", "`O_APPEND` can be set and cleared on an open file.", |s| {
        s.root.put("f", "one");
        let file = s.root.both("f").ok();
        s.root.set_flags(&file, O_APPEND).ok();
        s.root.write(&file, "two").gives(3);
        s.root.set_flags(&file, 0).ok();
        s.root.lseek(&file, 0, SEEK_SET).gives(0);
        s.root.write(&file, "ONE").gives(3);
        s.root.pread(&file, 9, 0).gives_bytes("ONEtwo");
        // And the other way round, of a file that was opened with it.
        let file = s.root.open("f", O_RDWR | O_APPEND, 0).ok();
        s.root.set_flags(&file, 0).ok();
        s.root.pwrite(&file, "T", 3).gives(1);
        s.root.set_flags(&file, O_APPEND).ok();
        s.root.pwrite(&file, "!", 0).gives(1);
        s.root.pread(&file, 9, 0).gives_bytes("ONETwo!");
    }),
    case(
        "open-11",
        "`O_DIRECTORY` opens a directory and answers `ENOTDIR` for anything else.",
        |s| {
            s.root.touch("f");
            s.root.mkdir("d", 0o755).ok();
            s.root.symlink("d", "l").ok();
            s.root.open("d", O_RDONLY | O_DIRECTORY, 0).ok();
            s.root.open("l", O_RDONLY | O_DIRECTORY, 0).ok();
            s.root.open("f", O_RDONLY | O_DIRECTORY, 0).fails(ENOTDIR);
        },
    ),
    case(
        "open-12",
        "A directory opens for reading only: otherwise, and with `O_CREAT`, the answer is \
         `EISDIR`; `read` of it answers `EISDIR`.",
        |s| {
            s.root.mkdir("d", 0o777).ok();
            s.root.writer("d").fails(EISDIR);
            s.ann.both("d").fails(EISDIR);
            s.root.open("d", O_RDONLY | O_CREAT, 0o644).fails(EISDIR);
            let folder = s.root.reader("d").ok();
            s.root.read(&folder, 1).fails(EISDIR);
        },
    ),
    case(
        "open-13",
        "`O_NOFOLLOW` answers `ELOOP` for a symbolic link, and follows those on the way.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.touch("d/f");
            s.root.symlink("d", "l").ok();
            s.root.symlink("f", "d/l").ok();
            s.root.open("d/l", O_RDONLY | O_NOFOLLOW, 0).fails(ELOOP);
            s.root.open("l/f", O_RDONLY | O_NOFOLLOW, 0).ok();
        },
    ),
    case(
        "open-14",
        "`O_PATH` needs no right to the file itself; the descriptor can be asked for attributes, \
         but neither read nor written.",
        |s| {
            s.file("f", ROOT, 0o000);
            let file = s.ann.open("f", O_PATH, 0).ok();
            same("size", s.ann.fstat(&file).ok().size, 8);
            s.ann.read(&file, 1).fails(EBADF);
            s.ann.write(&file, "x").fails(EBADF);
            s.ann.fchmod(&file, 0o777).fails(EBADF);
        },
    ),
    case("open-15", "`O_PATH|O_NOFOLLOW` opens a symbolic link itself.", |s| {
        s.root.symlink("nothing", "l").ok();
        let link = s.root.open("l", O_PATH | O_NOFOLLOW, 0).ok();
        same("kind", s.root.fstat(&link).ok().kind(), S_IFLNK);
    }),
    case("open-16", "`O_NOATIME` is for the owner and for root; others get `EPERM`.", |s| {
        s.file("f", ANN, 0o666);
        s.ann.open("f", O_RDONLY | O_NOATIME, 0).ok();
        s.root.open("f", O_RDONLY | O_NOATIME, 0).ok();
        s.ben.open("f", O_RDONLY | O_NOATIME, 0).fails(EPERM);
    }),
    case("open-17", "`O_TMPFILE` answers `EOPNOTSUPP`.", |s| {
        s.root.open(".", O_TMPFILE | O_RDWR, 0o600).fails(EOPNOTSUPP);
    }),
    case(
        "open-18",
        "`O_DIRECT` reads and writes pages; what it wrote is read by others without it, and the \
         other way round.",
        |s| {
            s.root.put("f", vec![b'a'; 8192]);
            let plain = s.root.both("f").ok();
            let direct = s.root.open("f", O_RDWR | O_DIRECT, 0).ok();
            s.root.pread(&plain, 1, 4096).gives_bytes("a");
            s.root.direct(&direct, Some(b'b'), 4096).ok();
            s.root.pread(&plain, 2, 4095).gives_bytes("ab");
            s.root.pwrite(&plain, "c", 4096).ok();
            let page = s.root.direct(&direct, None, 4096).ok();
            same("the page", (page.len(), page[0], page[1]), (4096, b'c', b'b'));
        },
    ),
    case(
        "open-19",
        "`O_SYNC` and `O_DSYNC` are accepted: their writes are durable when they return.",
        |s| {
            for (name, flag) in [("f", O_SYNC), ("g", O_DSYNC)] {
                let file = s.root.open(name, O_CREAT | O_RDWR | flag, 0o644).ok();
                s.root.write(&file, "x").gives(1);
                s.root.pread(&file, 2, 0).gives_bytes("x");
            }
        },
    ),
    case("open-20", "Opening to read needs `r`, to write `w`, to do both both of them.", |s| {
        for (mode, read, write) in
            [(0o604, true, false), (0o602, false, true), (0o606, true, true), (0o601, false, false)]
        {
            let name = format!("{mode:o}");
            s.file(&name, ROOT, mode);
            for (flags, may) in [(O_RDONLY, read), (O_WRONLY, write), (O_RDWR, read && write)] {
                let did = s.ann.open(&name, flags, 0);
                if may { drop(did.ok()) } else { did.fails(EACCES) }
            }
        }
    }),
    case(
        "open-21",
        "Of the three sets of bits one counts: the owner's for the owner, the group's for its \
         members, the last for all others, even where another set would allow more.",
        |s| {
            s.file("mine", ANN, 0o077);
            s.ann.reader("mine").fails(EACCES);
            s.ben.reader("mine").ok();
            s.root.put("ours", "x");
            s.root.chown("ours", ROOT.id, BEN.group).ok();
            s.root.chmod("ours", 0o707).ok();
            s.ben.reader("ours").fails(EACCES);
            s.ann.reader("ours").ok();
        },
    ),
    case("open-22", "A further group of the caller counts like the first one.", |s| {
        s.root.put("f", "x");
        s.root.chown("f", ROOT.id, TEAM).ok();
        s.root.chmod("f", 0o060).ok();
        s.ben.both("f").ok();
        s.cat.both("f").ok();
        s.ann.reader("f").fails(EACCES);
    }),
    case("open-23", "Root reads and writes every file, whatever its mode.", |s| {
        s.file("f", ANN, 0o000);
        let file = s.root.both("f").ok();
        s.root.write(&file, "x").gives(1);
    }),
    case(
        "open-24",
        "Every directory on the way needs `x` for the caller, else the answer is `EACCES`; `r` \
         of it does not matter.",
        |s| {
            s.folder("d", ROOT, 0o755);
            s.folder("d/e", ROOT, 0o711);
            s.file("d/e/f", ROOT, 0o644);
            s.ann.reader("d/e/f").ok();
            s.root.chmod("d/e", 0o744).ok();
            s.ann.reader("d/e/f").fails(EACCES);
            s.ann.lstat("d/e/f").fails(EACCES);
            s.ann.lstat("d/e/none").fails(EACCES);
            s.root.chmod("d/e", 0o711).ok();
            s.root.chmod("d", 0o766).ok();
            s.ann.reader("d/e/f").fails(EACCES);
            s.root.reader("d/e/f").ok();
        },
    ),
    case(
        "open-25",
        "A way that leads through something that is no directory answers `ENOTDIR`, also with a \
         slash at the end.",
        |s| {
            s.root.touch("f");
            s.root.reader("f/g").fails(ENOTDIR);
            s.root.create("f/g", 0o644).fails(ENOTDIR);
            s.root.reader("f/").fails(ENOTDIR);
            s.root.lstat("f/.").fails(ENOTDIR);
        },
    ),
    case(
        "open-26",
        "Creating needs `w` and `x` of the directory; opening what exists there does not.",
        |s| {
            s.folder("d", ROOT, 0o755);
            s.file("d/f", ANN, 0o600);
            s.ann.open("d/f", O_CREAT | O_RDWR, 0o600).ok();
            s.ann.open("d/g", O_CREAT | O_RDWR, 0o600).fails(EACCES);
            s.root.chmod("d", 0o752).ok();
            s.ann.create("d/g", 0o600).fails(EACCES);
            s.root.chmod("d", 0o753).ok();
            s.ann.create("d/g", 0o600).ok();
        },
    ),
    case(
        "open-27",
        "Whoever creates a file may use it as opened, even with a mode that allows nothing.",
        |s| {
            let file = s.ann.create("f", 0o000).ok();
            s.ann.write(&file, "mine").gives(4);
            s.ann.pread(&file, 9, 0).gives_bytes("mine");
            s.ann.reader("f").fails(EACCES);
        },
    ),
    case(
        "open-28",
        "A right is checked when the file is opened: a later `chmod` or `chown` takes nothing \
         from an open file.",
        |s| {
            s.file("f", ANN, 0o600);
            let file = s.ann.both("f").ok();
            s.give("f", ROOT, 0o000);
            s.ann.pwrite(&file, "CONTENT", 0).gives(7);
            s.ann.pread(&file, 9, 0).gives_bytes("CONTENT\n");
            s.ann.ftruncate(&file, 3).ok();
            s.has_size("f", 3);
            s.ann.reader("f").fails(EACCES);
        },
    ),
    case(
        "open-29",
        "Reading what was opened for writing alone answers `EBADF`, and writing what was opened \
         for reading alone too.",
        |s| {
            s.root.put("f", "x");
            let writer = s.root.writer("f").ok();
            s.root.read(&writer, 1).fails(EBADF);
            let reader = s.root.reader("f").ok();
            s.root.write(&reader, "y").fails(EBADF);
            s.root.ftruncate(&reader, 0).fails(EINVAL);
        },
    ),
    case("open-30", "Opening and closing change no time of the file.", |s| {
        s.root.put("f", "x");
        let watch = s.watch(["f", "."]);
        s.root.both("f").ok();
        watch.moved(["", ""]);
    }),
    case("open-31", "Set-id and sticky bits in the mode of `O_CREAT` are kept.", |s| {
        s.ann.create("f", 0o6755).ok();
        s.has_mode("f", 0o6755);
        s.root.create("g", 0o1644).ok();
        s.has_mode("g", 0o1644);
    }),
    case("open-32", "Two opens of one file have offsets of their own.", |s| {
        s.root.put("f", "abcdef");
        let (one, two) = (s.root.reader("f").ok(), s.root.reader("f").ok());
        s.root.read(&one, 4).gives_bytes("abcd");
        s.root.read(&two, 2).gives_bytes("ab");
        s.root.read(&one, 4).gives_bytes("ef");
        s.root.read(&one, 4).gives_bytes("");
    }),
    case(
        "open-33",
        "Running a program needs an `x` for the caller, for root one at all; who may run it need \
         not be able to read it.",
        |s| {
            s.root.put("p", std::fs::read("/bin/true").expect("there is a program"));
            let path = format!("{}/p", s.path());
            let runs = |user: User| {
                use std::os::unix::process::CommandExt;
                let mut command = std::process::Command::new(&path);
                command.uid(user.id).gid(user.group).status().map_err(|error| error.raw_os_error())
            };
            s.root.chmod("p", 0o666).ok();
            same("root without x", runs(ROOT).err(), Some(Some(EACCES)));
            same("ann without x", runs(ANN).err(), Some(Some(EACCES)));
            s.root.chmod("p", 0o711).ok();
            holds("root runs it", runs(ROOT).is_ok_and(|status| status.success()));
            holds("ann runs it", runs(ANN).is_ok_and(|status| status.success()));
        },
    ),
    case("open-34", "A program that is open for writing does not run: `ETXTBSY`.", |s| {
        s.root.put("p", std::fs::read("/bin/true").expect("there is a program"));
        s.root.chmod("p", 0o755).ok();
        let path = format!("{}/p", s.path());
        let runs = || std::process::Command::new(&path).status();
        let writer = s.root.writer("p").ok();
        same("busy", runs().err().and_then(|error| error.raw_os_error()), Some(ETXTBSY));
        drop(writer);
        holds("it runs", runs().is_ok_and(|status| status.success()));
    }),
];
