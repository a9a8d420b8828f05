//! rename(2) and renameat2(2).

use super::*;

pub const SECTION: Section = Section { title: "Renaming", intro: "", cases: CASES };

const NOREPLACE: u32 = RENAME_NOREPLACE;
const EXCHANGE: u32 = RENAME_EXCHANGE;

const CASES: &[Case] = &[
    case(
        "rename-1",
        "`rename` gives a file another name; inode number, mode, owner and content stay.",
        |s| {
            s.file("f", ANN, 0o640);
            let before = s.stat("f");
            s.ann.rename("f", "g").ok();
            s.is_gone("f");
            let after = s.stat("g");
            same(
                "inode, mode, owner",
                (after.inode, after.mode, after.user),
                (before.inode, before.mode, before.user),
            );
            same("content", s.root.get("g"), b"content\n".to_vec());
        },
    ),
    case(
        "rename-2",
        "A rename moves ctime of what is renamed, and mtime and ctime of the directories \
         concerned; its mtime stays.",
        |s| {
            s.root.mkdir("a", 0o755).ok();
            s.root.mkdir("b", 0o755).ok();
            s.root.put("a/f", "x");
            let file = s.root.reader("a/f").ok();
            let before = s.root.fstat(&file).ok();
            let watch = s.watch(["a", "b", "."]);
            s.root.rename("a/f", "b/g").ok();
            watch.moved(["mc", "mc", ""]);
            crate::scene::moved("the file", &before, &s.root.fstat(&file).ok(), "c");
        },
    ),
    case(
        "rename-3",
        "A rename of a directory moves its ctime and leaves its mtime, also into another \
         directory.",
        |s| {
            s.root.mkdir("a", 0o755).ok();
            s.root.mkdir("d", 0o755).ok();
            let folder = s.root.reader("d").ok();
            let before = s.root.fstat(&folder).ok();
            s.tick();
            s.root.rename("d", "a/d").ok();
            crate::scene::moved("the directory", &before, &s.root.fstat(&folder).ok(), "c");
        },
    ),
    case(
        "rename-4",
        "A file renamed onto another one takes its place; the other, if open, lives on with a \
         link count of 0.",
        |s| {
            s.root.put("f", "new");
            s.root.put("g", "old");
            let old = s.root.reader("g").ok();
            s.root.rename("f", "g").ok();
            same("content", s.root.get("g"), b"new".to_vec());
            s.is_gone("f");
            same("links of the old one", s.root.fstat(&old).ok().links, 0);
            s.root.read(&old, 9).gives_bytes("old");
        },
    ),
    case(
        "rename-5",
        "If what is replaced has further names, its link count falls and its ctime moves.",
        |s| {
            s.root.put("f", "new");
            s.root.put("g", "old");
            s.root.link("g", "h").ok();
            let watch = s.watch(["h"]);
            s.root.rename("f", "g").ok();
            watch.moved(["c"]);
            s.has_links("h", 1);
            same("content", s.root.get("h"), b"old".to_vec());
        },
    ),
    case(
        "rename-6",
        "A rename onto another name of the same file does nothing and succeeds.",
        |s| {
            s.root.touch("f");
            s.root.link("f", "g").ok();
            let watch = s.watch(["f", "."]);
            s.root.rename("f", "g").ok();
            watch.moved(["", ""]);
            s.has_links("f", 2);
            s.has_links("g", 2);
        },
    ),
    case("rename-7", "A rename onto its own name does nothing and succeeds.", |s| {
        s.root.touch("f");
        s.root.mkdir("d", 0o755).ok();
        let watch = s.watch(["f", "d", "."]);
        s.root.rename("f", "f").ok();
        s.root.rename("d", "d").ok();
        watch.moved(["", "", ""]);
    }),
    case(
        "rename-8",
        "A rename of what does not exist, or into what does not exist, answers `ENOENT`.",
        |s| {
            s.root.touch("f");
            s.root.rename("none", "g").fails(ENOENT);
            s.root.rename("f", "none/g").fails(ENOENT);
            s.root.rename("f", "").fails(ENOENT);
            s.root.rename("", "g").fails(ENOENT);
        },
    ),
    case(
        "rename-9",
        "A file does not replace a directory: `EISDIR`; a directory replaces nothing else: \
         `ENOTDIR`.",
        |s| {
            s.root.touch("f");
            s.root.symlink("nothing", "l").ok();
            s.root.mkdir("d", 0o755).ok();
            s.root.rename("f", "d").fails(EISDIR);
            s.root.rename("l", "d").fails(EISDIR);
            s.root.rename("d", "f").fails(ENOTDIR);
            s.root.rename("d", "l").fails(ENOTDIR);
        },
    ),
    case(
        "rename-10",
        "A directory replaces an empty directory, and not one with anything in it: `ENOTEMPTY`.",
        |s| {
            for name in ["a", "a/in", "b", "c", "c/in"] {
                s.root.mkdir(name, 0o755).ok();
            }
            s.root.rename("a", "c").fails(ENOTEMPTY);
            let inode = s.stat("a").inode;
            s.root.rename("a", "b").ok();
            s.is_gone("a");
            same("inode", s.stat("b").inode, inode);
            same("names", s.root.names("b"), vec![String::from("in")]);
        },
    ),
    case(
        "rename-11",
        "A directory does not go into itself or below: `EINVAL`; nor onto one it lies in: \
         `ENOTEMPTY`.",
        |s| {
            for name in ["a", "a/b", "a/b/c"] {
                s.root.mkdir(name, 0o755).ok();
            }
            s.root.rename("a", "a/x").fails(EINVAL);
            s.root.rename("a", "a/b/x").fails(EINVAL);
            s.root.rename("a", "a/b").fails(EINVAL);
            s.root.rename("a/b/c", "a").fails(ENOTEMPTY);
            s.root.rename("a/b", "a").fails(ENOTEMPTY);
        },
    ),
    case(
        "rename-12",
        "When a directory goes to another place, the link counts of both directories above \
         follow.",
        |s| {
            for name in ["a", "b", "a/d"] {
                s.root.mkdir(name, 0o755).ok();
            }
            s.root.rename("a/d", "b/e").ok();
            s.has_links("a", 2);
            s.has_links("b", 3);
            s.root.mkdir("b/f", 0o755).ok();
            s.has_links("b", 4);
            s.root.rename("b/e", "b/f").ok();
            s.has_links("b", 3);
        },
    ),
    case("rename-13", "`.` and `..` are not renamed nor replaced: `EBUSY`.", |s| {
        s.root.mkdir("d", 0o755).ok();
        s.root.touch("f");
        for name in ["d/.", "d/.."] {
            s.root.rename(name, "e").fails(EBUSY);
            s.root.rename("f", name).fails(EBUSY);
        }
    }),
    case(
        "rename-14",
        "`RENAME_NOREPLACE` answers `EEXIST` where the new name exists, and renames where it \
         does not.",
        |s| {
            s.root.put("f", "one");
            s.root.put("g", "two");
            s.root.mkdir("d", 0o755).ok();
            for name in ["f", "g", "d"] {
                s.root.renameat2("f", name, NOREPLACE).fails(EEXIST);
            }
            same("content", s.root.get("g"), b"two".to_vec());
            s.root.renameat2("f", "h", NOREPLACE).ok();
            same("content", s.root.get("h"), b"one".to_vec());
            s.is_gone("f");
        },
    ),
    case("rename-15", "`RENAME_EXCHANGE` swaps two names at once, of whatever kinds.", |s| {
        s.root.put("f", "one");
        s.root.put("g", "two");
        s.root.mkdir("d", 0o755).ok();
        s.root.touch("d/in");
        s.root.renameat2("f", "g", EXCHANGE).ok();
        same("content", (s.root.get("f"), s.root.get("g")), (b"two".to_vec(), b"one".to_vec()));
        s.root.renameat2("f", "d", EXCHANGE).ok();
        same("content", s.root.get("d"), b"two".to_vec());
        same("names", s.root.names("f"), vec![String::from("in")]);
    }),
    case("rename-16", "`RENAME_EXCHANGE` needs both names: else `ENOENT`.", |s| {
        s.root.touch("f");
        s.root.renameat2("f", "none", EXCHANGE).fails(ENOENT);
        s.root.renameat2("none", "f", EXCHANGE).fails(ENOENT);
    }),
    case(
        "rename-17",
        "`RENAME_EXCHANGE` of a directory and a file in different directories carries the link \
         counts along, and `..`.",
        |s| {
            for name in ["a", "b", "a/x"] {
                s.root.mkdir(name, 0o755).ok();
            }
            s.root.touch("b/x");
            s.root.renameat2("a/x", "b/x", EXCHANGE).ok();
            s.has_links("a", 2);
            s.has_links("b", 3);
            same("..", s.stat("b/x/..").inode, s.stat("b").inode);
        },
    ),
    case(
        "rename-18",
        "`RENAME_EXCHANGE` of a directory with something below it answers `EINVAL`.",
        |s| {
            for name in ["a", "a/b", "a/b/c"] {
                s.root.mkdir(name, 0o755).ok();
            }
            s.root.renameat2("a", "a/b", EXCHANGE).fails(EINVAL);
            s.root.renameat2("a/b/c", "a", EXCHANGE).fails(EINVAL);
        },
    ),
    case(
        "rename-19",
        "`RENAME_EXCHANGE` moves ctime of both, and mtime and ctime of both directories.",
        |s| {
            for name in ["a", "b"] {
                s.root.mkdir(name, 0o755).ok();
                s.root.touch(format!("{name}/{name}"));
            }
            let (a, b) = (s.root.reader("a/a").ok(), s.root.reader("b/b").ok());
            let before = (s.root.fstat(&a).ok(), s.root.fstat(&b).ok());
            let watch = s.watch(["a", "b"]);
            s.root.renameat2("a/a", "b/b", EXCHANGE).ok();
            watch.moved(["mc", "mc"]);
            crate::scene::moved("one", &before.0, &s.root.fstat(&a).ok(), "c");
            crate::scene::moved("the other", &before.1, &s.root.fstat(&b).ok(), "c");
        },
    ),
    case(
        "rename-20",
        "`RENAME_EXCHANGE` together with `RENAME_NOREPLACE` or `RENAME_WHITEOUT`, and flags that \
         do not exist, answer `EINVAL`.",
        |s| {
            s.root.touch("f");
            s.root.touch("g");
            s.root.renameat2("f", "g", EXCHANGE | NOREPLACE).fails(EINVAL);
            s.root.renameat2("f", "g", EXCHANGE | RENAME_WHITEOUT).fails(EINVAL);
            s.root.renameat2("f", "g", 1 << 9).fails(EINVAL);
        },
    ),
    case("rename-21", "`RENAME_WHITEOUT` answers `EINVAL`.", |s| {
        s.root.put("f", "x");
        s.root.renameat2("f", "g", RENAME_WHITEOUT).fails(EINVAL);
        same("content", s.root.get("f"), b"x".to_vec());
        s.is_gone("g");
    }),
    case("rename-22", "A rename needs `w` and `x` of both directories.", |s| {
        s.folder("mine", ANN, 0o755);
        s.folder("other", ROOT, 0o755);
        s.file("mine/f", ANN, 0o644);
        s.file("other/g", ANN, 0o644);
        s.ann.rename("mine/f", "other/f").fails(EACCES);
        s.ann.rename("other/g", "mine/g").fails(EACCES);
        s.ann.rename("other/g", "other/h").fails(EACCES);
        s.ann.renameat2("mine/f", "other/g", EXCHANGE).fails(EACCES);
        s.ann.rename("mine/f", "mine/h").ok();
    }),
    case(
        "rename-23",
        "In a directory with the sticky bit only root, its owner and the owner of the file \
         rename that: others get `EPERM`.",
        |s| {
            s.folder("d", CAT, 0o1777);
            s.file("d/f", ANN, 0o666);
            s.ben.rename("d/f", "d/g").fails(EPERM);
            s.ann.rename("d/f", "d/g").ok();
            s.cat.rename("d/g", "d/h").ok();
            s.root.rename("d/h", "d/i").ok();
        },
    ),
    case(
        "rename-24",
        "In a directory with the sticky bit what is replaced must belong to the caller too.",
        |s| {
            s.folder("d", ROOT, 0o1777);
            s.file("d/hers", ANN, 0o666);
            s.file("d/his", BEN, 0o666);
            s.ben.rename("d/his", "d/hers").fails(EPERM);
            s.ben.renameat2("d/his", "d/hers", EXCHANGE).fails(EPERM);
            s.root.chown("d/hers", BEN.id, BEN.group).ok();
            s.ben.rename("d/his", "d/hers").ok();
        },
    ),
    case(
        "rename-25",
        "Moving a directory to another one needs `w` of the directory itself, since its `..` \
         changes; renaming it in its place does not.",
        |s| {
            s.folder("a", ANN, 0o755);
            s.folder("b", ANN, 0o755);
            s.folder("a/d", ROOT, 0o755);
            s.ann.rename("a/d", "b/d").fails(EACCES);
            s.ann.rename("a/d", "a/e").ok();
            s.root.chmod("a/e", 0o757).ok();
            s.ann.rename("a/e", "b/e").ok();
        },
    ),
    case(
        "rename-26",
        "A symbolic link is renamed and replaced itself, never what it leads to.",
        |s| {
            s.root.put("f", "x");
            s.root.symlink("f", "l").ok();
            s.root.rename("l", "m").ok();
            s.root.readlink("m", 99).gives_bytes("f");
            s.root.put("g", "y");
            s.root.rename("g", "m").ok();
            same("kind", s.stat("m").kind(), S_IFREG);
            same("content", s.root.get("f"), b"x".to_vec());
        },
    ),
    case(
        "rename-27",
        "A slash behind a name asks for a directory: renaming a file so answers `ENOTDIR`.",
        |s| {
            s.root.touch("f");
            s.root.mkdir("d", 0o755).ok();
            s.root.rename("f/", "g").fails(ENOTDIR);
            s.root.rename("f", "g/").fails(ENOTDIR);
            s.root.rename("d/", "e/").ok();
            same("kind", s.stat("e").kind(), S_IFDIR);
        },
    ),
    case(
        "rename-28",
        "An open file goes on under its new name, and one that lies in a renamed directory too.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            let file = s.root.create("d/f", 0o644).ok();
            s.root.write(&file, "one").gives(3);
            s.root.rename("d/f", "d/g").ok();
            s.root.rename("d", "e").ok();
            s.root.write(&file, "two").gives(3);
            same("content", s.root.get("e/g"), b"onetwo".to_vec());
        },
    ),
    case(
        "rename-29",
        "What lies below a renamed directory is found under its new name at once, and no longer \
         under the old one.",
        |s| {
            for name in ["a", "a/b", "a/b/c"] {
                s.root.mkdir(name, 0o755).ok();
            }
            s.root.put("a/b/c/f", "x");
            s.root.rename("a/b", "n").ok();
            same("content", s.root.get("n/c/f"), b"x".to_vec());
            s.root.lstat("a/b/c/f").fails(ENOENT);
        },
    ),
    case("rename-30", "A rename keeps set-id bits, extended attributes and further names.", |s| {
        s.file("f", ANN, 0o6755);
        s.root.set_xattr("f", "user.a", "1", 0).ok();
        s.root.link("f", "h").ok();
        s.root.rename("f", "g").ok();
        s.has_mode("g", 0o6755);
        s.root.get_xattr("g", "user.a").gives_bytes("1");
        s.has_links("g", 2);
    }),
];
