//! link(2), unlink(2), symlink(2), readlink(2).

use super::*;

pub const SECTION: Section =
    Section { title: "Names of a file and symbolic links", intro: "", cases: CASES };

const CASES: &[Case] = &[
    case(
        "link-1",
        "`link` gives a file one more name: inode number, content, mode and times are one, \
         whichever name is used.",
        |s| {
            s.file("f", ANN, 0o640);
            s.root.link("f", "g").ok();
            same("all of stat", s.stat("f"), s.stat("g"));
            s.has_links("f", 2);
            s.root.put("g", "new");
            same("content", s.root.get("f"), b"new".to_vec());
        },
    ),
    case(
        "link-2",
        "`link` moves ctime of the file, mtime and ctime of the directory with the new name, \
         nothing else.",
        |s| {
            s.root.mkdir("a", 0o755).ok();
            s.root.mkdir("b", 0o755).ok();
            s.root.touch("a/f");
            let watch = s.watch(["a/f", "a", "b"]);
            s.root.link("a/f", "b/g").ok();
            watch.moved(["c", "", "mc"]);
        },
    ),
    case(
        "link-3",
        "`link` onto a name that exists answers `EEXIST`, of what does not exist `ENOENT`, of a \
         directory `EPERM`.",
        |s| {
            s.root.touch("f");
            s.root.touch("g");
            s.root.mkdir("d", 0o755).ok();
            s.root.symlink("nothing", "l").ok();
            s.root.link("f", "g").fails(EEXIST);
            s.root.link("f", "d").fails(EEXIST);
            s.root.link("f", "l").fails(EEXIST);
            s.root.link("none", "h").fails(ENOENT);
            s.root.link("f", "none/h").fails(ENOENT);
            s.root.link("d", "h").fails(EPERM);
            s.root.link("f", "g/h").fails(ENOTDIR);
        },
    ),
    case(
        "link-4",
        "`link` of a symbolic link gives the link itself another name; with `AT_SYMLINK_FOLLOW` \
         what it leads to.",
        |s| {
            s.root.touch("f");
            s.root.symlink("f", "l").ok();
            s.root.link("l", "m").ok();
            same("inode", s.stat("m").inode, s.stat("l").inode);
            s.has_links("l", 2);
            let here = s.root.open(".", O_PATH, 0).ok();
            s.root.linkat(&here, "l", "n", AT_SYMLINK_FOLLOW).ok();
            same("inode", s.stat("n").inode, s.stat("f").inode);
        },
    ),
    case("link-5", "`link` needs `w` and `x` of the directory with the new name.", |s| {
        s.file("f", ANN, 0o644);
        s.folder("d", ROOT, 0o755);
        s.ann.link("f", "d/f").fails(EACCES);
        s.root.chmod("d", 0o757).ok();
        s.ann.link("f", "d/f").ok();
    }),
    case(
        "link-6",
        "Root gives an open file a name by its descriptor (`AT_EMPTY_PATH`), unless its last \
         name was removed: `ENOENT`.",
        |s| {
            let file = s.root.create("f", 0o644).ok();
            s.root.linkat(&file, "", "g", AT_EMPTY_PATH).ok();
            s.has_links("g", 2);
            s.root.unlink("f").ok();
            s.root.unlink("g").ok();
            s.root.linkat(&file, "", "h", AT_EMPTY_PATH).fails(ENOENT);
        },
    ),
    case("link-7", "Fifos, sockets and devices have further names too.", |s| {
        s.root.mknod("p", S_IFIFO | 0o600, 0).ok();
        s.root.link("p", "q").ok();
        s.has_links("q", 2);
        same("kind", s.stat("q").kind(), S_IFIFO);
    }),
    case("link-8", "Three hundred names of one file are counted as such.", |s| {
        s.root.touch("f");
        for number in 1..300 {
            s.root.link("f", format!("f{number}")).ok();
        }
        s.has_links("f", 300);
        s.root.unlink("f").ok();
        s.has_links("f299", 299);
    }),
    case(
        "unlink-1",
        "`unlink` removes a name; what has others keeps them, its link count falls and its ctime \
         moves.",
        |s| {
            s.root.put("f", "x");
            s.root.link("f", "g").ok();
            let watch = s.watch(["g", "."]);
            s.root.unlink("f").ok();
            watch.moved(["c", "mc"]);
            s.is_gone("f");
            s.has_links("g", 1);
        },
    ),
    case(
        "unlink-2",
        "`unlink` of what does not exist answers `ENOENT`, of a directory `EISDIR`, below a file \
         `ENOTDIR`.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.touch("f");
            s.root.unlink("none").fails(ENOENT);
            s.root.unlink("d").fails(EISDIR);
            s.root.unlink("f/g").fails(ENOTDIR);
            s.root.unlink("f/").fails(ENOTDIR);
        },
    ),
    case(
        "unlink-3",
        "`unlink` of a symbolic link removes the link and leaves what it leads to.",
        |s| {
            s.root.touch("f");
            s.root.symlink("f", "l").ok();
            s.root.unlink("l").ok();
            s.has_links("f", 1);
        },
    ),
    case(
        "unlink-4",
        "`unlink` needs `w` and `x` of the directory, and no right to the file.",
        |s| {
            s.folder("a", ROOT, 0o755);
            s.file("a/f", ANN, 0o666);
            s.ann.unlink("a/f").fails(EACCES);
            s.folder("b", ANN, 0o755);
            s.file("b/f", ROOT, 0o000);
            s.ann.unlink("b/f").ok();
            s.folder("c", ROOT, 0o752);
            s.file("c/f", ANN, 0o666);
            s.ann.unlink("c/f").fails(EACCES);
        },
    ),
    case(
        "unlink-5",
        "In a directory with the sticky bit only root, its owner and the owner of the file \
         remove that: others get `EPERM`.",
        |s| {
            s.folder("d", CAT, 0o1777);
            for name in ["d/1", "d/2", "d/3"] {
                s.file(name, ANN, 0o666);
            }
            s.ben.unlink("d/1").fails(EPERM);
            s.ann.unlink("d/1").ok();
            s.cat.unlink("d/2").ok();
            s.root.unlink("d/3").ok();
        },
    ),
    case("unlink-6", "A name that was removed can be made again at once, as another file.", |s| {
        s.root.put("f", "old");
        let old = s.root.reader("f").ok();
        let inode = s.stat("f").inode;
        s.root.unlink("f").ok();
        s.root.put("f", "new");
        holds("another inode number", s.stat("f").inode != inode);
        s.root.read(&old, 9).gives_bytes("old");
        same("content", s.root.get("f"), b"new".to_vec());
    }),
    case(
        "symlink-1",
        "A symbolic link belongs to its maker, has all permissions whatever the umask, and the \
         length of its target as its size.",
        |s| {
            s.ann.umask(0o077);
            s.ann.symlink("to/nowhere", "l").ok();
            let found = s.stat("l");
            same("mode", found.mode, S_IFLNK | 0o777);
            same("size, links", (found.size, found.links), (10, 1));
            s.has_owner("l", ANN.id, ANN.group);
            s.ben.readlink("l", 99).gives_bytes("to/nowhere");
        },
    ),
    case(
        "symlink-2",
        "`symlink` moves mtime and ctime of the directory; onto a name that exists it answers \
         `EEXIST`, with an empty target `ENOENT`.",
        |s| {
            let watch = s.watch(["."]);
            s.root.symlink("x", "l").ok();
            watch.moved(["mc"]);
            s.root.symlink("x", "l").fails(EEXIST);
            s.root.symlink("", "m").fails(ENOENT);
            s.root.symlink("x", "none/m").fails(ENOENT);
        },
    ),
    case("symlink-3", "`symlink` needs `w` and `x` of the directory.", |s| {
        s.folder("d", ROOT, 0o755);
        s.ann.symlink("x", "d/l").fails(EACCES);
    }),
    case(
        "symlink-4",
        "`readlink` gives as many bytes of the target as there is room for, and answers `EINVAL` \
         for anything else than a symbolic link.",
        |s| {
            s.root.symlink("target", "l").ok();
            s.root.touch("f");
            s.root.mkdir("d", 0o755).ok();
            s.root.readlink("l", 3).gives_bytes("tar");
            s.root.readlink("f", 9).fails(EINVAL);
            s.root.readlink("d", 9).fails(EINVAL);
            s.root.readlink("none", 9).fails(ENOENT);
        },
    ),
    case(
        "symlink-5",
        "A relative target counts from the directory of the link, an absolute one from the root.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.put("d/f", "inside");
            s.root.put("f", "outside");
            s.root.symlink("f", "d/l").ok();
            s.root.symlink("../f", "d/m").ok();
            s.root.symlink(format!("{}/d/f", s.path()), "n").ok();
            same("content", s.root.get("d/l"), b"inside".to_vec());
            same("content", s.root.get("d/m"), b"outside".to_vec());
            same("content", s.root.get("n"), b"inside".to_vec());
        },
    ),
    case("symlink-6", "Symbolic links that lead in a circle answer `ELOOP`.", |s| {
        s.root.symlink("b", "a").ok();
        s.root.symlink("a", "b").ok();
        s.root.symlink("self", "self").ok();
        for name in ["a", "self", "a/f"] {
            s.root.reader(name).fails(ELOOP);
            s.root.stat(name).fails(ELOOP);
        }
        s.root.lstat("a").ok();
    }),
    case("symlink-7", "Forty symbolic links in a row are followed, more are not: `ELOOP`.", |s| {
        s.root.put("l0", "end");
        for number in 1..=41 {
            s.root.symlink(format!("l{}", number - 1), format!("l{number}")).ok();
        }
        same("content", s.root.get("l40"), b"end".to_vec());
        s.root.reader("l41").fails(ELOOP);
    }),
    case(
        "symlink-8",
        "A target of 4,095 bytes is kept as it is; one of 4,096 answers `ENAMETOOLONG`.",
        |s| {
            let target = vec![b'x'; 4095];
            s.root.symlink(&target, "l").ok();
            s.root.readlink("l", 9999).gives_bytes(&target);
            s.has_size("l", 4095);
            s.root.symlink(vec![b'x'; 4096], "m").fails(ENAMETOOLONG);
        },
    ),
    case("symlink-9", "The target of a symbolic link is any bytes and is not looked at.", |s| {
        let target = b"\xff\xfe//../.\n ".as_slice();
        s.root.symlink(target, "l").ok();
        s.root.readlink("l", 99).gives_bytes(target);
    }),
    case(
        "symlink-10",
        "A removed symbolic link can be made anew with another target, and that one is followed \
         at once.",
        |s| {
            s.root.put("f", "one");
            s.root.put("g", "two");
            s.root.symlink("f", "l").ok();
            same("content", s.root.get("l"), b"one".to_vec());
            s.root.unlink("l").ok();
            s.root.symlink("g", "l").ok();
            same("content", s.root.get("l"), b"two".to_vec());
        },
    ),
];
