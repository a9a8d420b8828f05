//! mkdir(2) and rmdir(2).

use super::*;

pub const SECTION: Section = Section { title: "Directories", intro: "", cases: CASES };

const CASES: &[Case] = &[
    case(
        "mkdir-1",
        "`mkdir` makes an empty directory of the caller with the mode asked for less the umask \
         and a link count of 2.",
        |s| {
            s.ann.umask(0o022);
            s.ann.mkdir("d", 0o777).ok();
            let found = s.stat("d");
            same("kind", found.kind(), S_IFDIR);
            same("permissions and links", (found.permissions(), found.links), (0o755, 2));
            s.has_owner("d", ANN.id, ANN.group);
            same("names", s.ann.names("d"), Vec::<String>::new());
        },
    ),
    case(
        "mkdir-2",
        "The link count of a directory is 2 and one for each directory in it; files do not \
         count.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            for name in ["d/1", "d/2", "d/3"] {
                s.root.mkdir(name, 0o755).ok();
            }
            s.root.touch("d/f");
            s.root.symlink("1", "d/l").ok();
            s.has_links("d", 5);
            s.root.rmdir("d/2").ok();
            s.has_links("d", 4);
        },
    ),
    case("mkdir-3", "`mkdir` moves mtime and ctime of the directory above.", |s| {
        let watch = s.watch(["."]);
        s.ann.mkdir("d", 0o755).ok();
        watch.moved(["mc"]);
    }),
    case(
        "mkdir-4",
        "`mkdir` of a name that exists answers `EEXIST`, whatever the name stands for, also a \
         symbolic link that leads nowhere.",
        |s| {
            s.root.touch("f");
            s.root.mkdir("d", 0o755).ok();
            s.root.symlink("nothing", "l").ok();
            for name in ["f", "d", "l", ".", "d/.", "d/.."] {
                s.root.mkdir(name, 0o755).fails(EEXIST);
            }
        },
    ),
    case(
        "mkdir-5",
        "`mkdir` below what does not exist answers `ENOENT`, below what is no directory \
         `ENOTDIR`.",
        |s| {
            s.root.touch("f");
            s.root.mkdir("no/d", 0o755).fails(ENOENT);
            s.root.mkdir("f/d", 0o755).fails(ENOTDIR);
            s.root.mkdir("", 0o755).fails(ENOENT);
        },
    ),
    case("mkdir-6", "`mkdir` needs `w` and `x` of the directory above.", |s| {
        for mode in [0o755, 0o752, 0o751] {
            let name = format!("{mode:o}");
            s.folder(&name, ROOT, mode);
            s.ann.mkdir(format!("{name}/d"), 0o755).fails(EACCES);
        }
        s.folder("open", ROOT, 0o753);
        s.ann.mkdir("open/d", 0o755).ok();
    }),
    case(
        "mkdir-7",
        "`mkdir` takes the sticky bit from its mode and leaves the set-id bits out.",
        |s| {
            s.root.mkdir("d", 0o7777).ok();
            s.has_mode("d", 0o1777);
        },
    ),
    case("mkdir-8", "A slash behind the name of a new directory is allowed.", |s| {
        s.root.mkdir("d/", 0o755).ok();
        same("kind", s.stat("d").kind(), S_IFDIR);
    }),
    case(
        "mkdir-9",
        "`.` is the directory itself and `..` the one above, wherever it is moved.",
        |s| {
            s.root.mkdir("a", 0o755).ok();
            s.root.mkdir("b", 0o755).ok();
            s.root.mkdir("a/d", 0o755).ok();
            same(".", s.stat("a/d/.").inode, s.stat("a/d").inode);
            same("..", s.stat("a/d/..").inode, s.stat("a").inode);
            s.root.rename("a/d", "b/d").ok();
            same("..", s.stat("b/d/..").inode, s.stat("b").inode);
        },
    ),
    case(
        "rmdir-1",
        "`rmdir` removes an empty directory, and moves mtime and ctime of the one above.",
        |s| {
            s.ann.mkdir("d", 0o755).ok();
            let watch = s.watch(["."]);
            s.ann.rmdir("d").ok();
            watch.moved(["mc"]);
            s.is_gone("d");
        },
    ),
    case("rmdir-2", "`rmdir` of a directory with anything in it answers `ENOTEMPTY`.", |s| {
        s.root.mkdir("d", 0o755).ok();
        s.root.touch("d/f");
        s.root.rmdir("d").fails(ENOTEMPTY);
        s.root.unlink("d/f").ok();
        s.root.symlink("nothing", "d/l").ok();
        s.root.rmdir("d").fails(ENOTEMPTY);
        s.root.unlink("d/l").ok();
        s.root.rmdir("d").ok();
    }),
    case(
        "rmdir-3",
        "`rmdir` of what is no directory answers `ENOTDIR`, also of a symbolic link to one; of \
         what does not exist `ENOENT`.",
        |s| {
            s.root.touch("f");
            s.root.mkdir("d", 0o755).ok();
            s.root.symlink("d", "l").ok();
            s.root.rmdir("f").fails(ENOTDIR);
            s.root.rmdir("l").fails(ENOTDIR);
            s.root.rmdir("none").fails(ENOENT);
            s.root.rmdir("f/d").fails(ENOTDIR);
        },
    ),
    case("rmdir-4", "`rmdir` of `.` answers `EINVAL`, of `..` `ENOTEMPTY`.", |s| {
        s.root.mkdir("d", 0o755).ok();
        s.root.rmdir("d/.").fails(EINVAL);
        s.root.rmdir("d/..").fails(ENOTEMPTY);
    }),
    case(
        "rmdir-5",
        "`rmdir` needs `w` and `x` of the directory above, none of the directory itself.",
        |s| {
            s.folder("d", ROOT, 0o755);
            s.folder("d/e", ANN, 0o777);
            s.ann.rmdir("d/e").fails(EACCES);
            s.folder("f", ANN, 0o755);
            s.folder("f/g", ROOT, 0o000);
            s.ann.rmdir("f/g").ok();
        },
    ),
    case(
        "rmdir-6",
        "In a directory with the sticky bit only root, its owner and the owner of the directory \
         in it remove that: others get `EPERM`.",
        |s| {
            s.folder("d", CAT, 0o1777);
            for name in ["d/1", "d/2", "d/3"] {
                s.folder(name, ANN, 0o777);
            }
            s.ben.rmdir("d/1").fails(EPERM);
            s.ann.rmdir("d/1").ok();
            s.cat.rmdir("d/2").ok();
            s.root.rmdir("d/3").ok();
        },
    ),
    case(
        "rmdir-7",
        "In a directory that was removed while someone is in it nothing can be made, and it \
         lists as gone: `ENOENT`.",
        |s| {
            s.root.mkdir("d", 0o777).ok();
            let folder = s.root.open("d", O_RDONLY | O_DIRECTORY, 0).ok();
            s.ann.chdir("d").ok();
            s.root.rmdir("d").ok();
            s.ann.create("f", 0o644).fails(ENOENT);
            s.ann.mkdir("e", 0o755).fails(ENOENT);
            s.ann.lstat("f").fails(ENOENT);
            s.root.getdents(&folder, 4096).fails(ENOENT);
            same("links", s.root.fstat(&folder).ok().links, 0);
        },
    ),
    case(
        "rmdir-8",
        "A directory removed and made again is another one: another inode number.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            let open = s.root.open("d", O_PATH, 0).ok();
            let before = s.stat("d").inode;
            s.root.rmdir("d").ok();
            s.root.mkdir("d", 0o755).ok();
            holds("another inode number", s.stat("d").inode != before);
            same("the old one", s.root.fstat(&open).ok().inode, before);
        },
    ),
];
