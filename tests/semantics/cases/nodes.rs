//! mknod(2): fifos, sockets, devices.

use super::*;

pub const SECTION: Section =
    Section { title: "Fifos, sockets and devices", intro: "", cases: CASES };

const NULL: u64 = (1 << 8) | 3;

const CASES: &[Case] = &[
    case(
        "node-1",
        "Any user makes fifos, sockets and regular files with `mknod`; they belong to the caller \
         and obey the umask.",
        |s| {
            s.ann.umask(0o022);
            for (name, kind) in [("p", S_IFIFO), ("s", S_IFSOCK), ("f", S_IFREG)] {
                s.ann.mknod(name, kind | 0o666, 0).ok();
                same("mode", s.stat(name).mode, kind | 0o644);
                s.has_owner(name, ANN.id, ANN.group);
                s.has_links(name, 1);
            }
        },
    ),
    case("node-2", "Devices are made by root alone: others get `EPERM`.", |s| {
        s.ann.mknod("c", S_IFCHR | 0o666, NULL).fails(EPERM);
        s.ann.mknod("b", S_IFBLK | 0o666, NULL).fails(EPERM);
        s.root.mknod("c", S_IFCHR | 0o666, NULL).ok();
        s.root.mknod("b", S_IFBLK | 0o600, 7 << 8).ok();
        same("char", (s.stat("c").kind(), s.stat("c").node), (S_IFCHR, NULL));
        same("block", (s.stat("b").kind(), s.stat("b").node), (S_IFBLK, 7 << 8));
    }),
    case("node-3", "Any user makes the character device 0:0, a whiteout.", |s| {
        s.ann.mknod("w", S_IFCHR, 0).ok();
        same("kind", s.stat("w").kind(), S_IFCHR);
    }),
    case("node-4", "A device keeps large numbers: 4,095 and 1,048,575.", |s| {
        let device = libc::makedev(4095, 1_048_575);
        s.root.mknod("c", S_IFCHR | 0o600, device).ok();
        same("device", s.stat("c").node, device);
    }),
    case(
        "node-5",
        "`mknod` of a name that exists answers `EEXIST`, of a directory `EPERM`, of an unknown \
         kind `EINVAL`.",
        |s| {
            s.root.touch("f");
            s.root.mknod("f", S_IFIFO | 0o600, 0).fails(EEXIST);
            s.root.mknod("d", S_IFDIR | 0o700, 0).fails(EPERM);
            s.root.mknod("x", 0o170_000 | 0o600, 0).fails(EINVAL);
            s.root.mknod("l", S_IFLNK | 0o600, 0).fails(EINVAL);
        },
    ),
    case(
        "node-6",
        "`mknod` moves mtime and ctime of the directory and needs `w` and `x` of it.",
        |s| {
            s.folder("d", ROOT, 0o755);
            s.ann.mknod("d/p", S_IFIFO | 0o600, 0).fails(EACCES);
            let watch = s.watch(["d"]);
            s.root.mknod("d/p", S_IFIFO | 0o600, 0).ok();
            watch.moved(["mc"]);
        },
    ),
    case("node-7", "A fifo hands bytes from its writer to its reader, in order.", |s| {
        s.root.mknod("p", S_IFIFO | 0o666, 0).ok();
        let reader = s.ann.open("p", O_RDONLY | O_NONBLOCK, 0).ok();
        let writer = s.ben.open("p", O_WRONLY | O_NONBLOCK, 0).ok();
        s.ben.write(&writer, "hello").gives(5);
        s.ann.read(&reader, 99).gives_bytes("hello");
        drop(writer);
        s.ann.read(&reader, 99).gives_bytes("");
        s.has_size("p", 0);
    }),
    case(
        "node-8",
        "A fifo without a reader does not open for writing with `O_NONBLOCK`: `ENXIO`; its \
         mode is not asked.",
        |s| {
            s.root.mknod("p", S_IFIFO | 0o622, 0).ok();
            s.ann.open("p", O_WRONLY | O_NONBLOCK, 0).fails(ENXIO);
            s.ann.open("p", O_RDONLY | O_NONBLOCK, 0).ok();
        },
    ),
    case(
        "node-9",
        "A socket is made by `bind` and reached by `connect`; `open` of it answers `ENXIO`.",
        |s| {
            use std::os::unix::net::{UnixListener, UnixStream};
            let path = format!("{}/s", s.path());
            let listener = UnixListener::bind(&path).expect("bind");
            same("kind", s.stat("s").kind(), S_IFSOCK);
            UnixStream::connect(&path).expect("connect");
            drop(listener);
            s.root.both("s").fails(ENXIO);
            s.root.unlink("s").ok();
        },
    ),
    case("node-10", "A device node opens the device, not a file.", |s| {
        s.root.mknod("null", S_IFCHR | 0o666, NULL).ok();
        let null = s.ann.both("null").ok();
        s.ann.write(&null, "lost").gives(4);
        s.ann.read(&null, 9).gives_bytes("");
        s.has_size("null", 0);
    }),
    case("node-11", "Fifos, sockets and devices have no size: `truncate` answers `EINVAL`.", |s| {
        s.root.mknod("p", S_IFIFO | 0o666, 0).ok();
        s.root.mknod("s", S_IFSOCK | 0o666, 0).ok();
        s.root.truncate("p", 1).fails(EINVAL);
        s.root.truncate("s", 1).fails(EINVAL);
    }),
    case(
        "node-12",
        "Mode, owner and times of fifos, sockets and devices are changed like those of files.",
        |s| {
            s.root.mknod("c", S_IFCHR | 0o600, NULL).ok();
            let watch = s.watch(["c"]);
            s.give("c", ANN, 0o640);
            watch.moved(["c"]);
            s.ann.utimensat("c", Some([(1, 2), (3, 4)]), 0).ok();
            let found = s.stat("c");
            same("times", (found.atime, found.mtime), (time(1, 2), time(3, 4)));
            same("device", found.node, NULL);
        },
    ),
];
