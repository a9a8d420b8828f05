//! Files without a name, handles, mappings, syncing.

use super::*;

pub const SECTION: Section = Section {
    title: "Open files without a name, handles, mappings, syncing",
    intro: "",
    cases: CASES,
};

const BOTH: i32 = PROT_READ | PROT_WRITE;
const NOBODYS: i32 = 12_345;

const CASES: &[Case] = &[
    case(
        "orphan-1",
        "A file whose last name is removed lives on where it is open: it is read, written, cut, \
         and shows a link count of 0.",
        |s| {
            s.root.put("f", "abc");
            let file = s.root.both("f").ok();
            s.root.unlink("f").ok();
            s.root.pread(&file, 9, 0).gives_bytes("abc");
            s.root.pwrite(&file, vec![b'x'; 100_000], 3).gives(100_000);
            let found = s.root.fstat(&file).ok();
            same("links and size", (found.links, found.size), (0, 100_003));
            s.root.ftruncate(&file, 5).ok();
            s.root.pread(&file, 9, 0).gives_bytes("abcxx");
            s.root.fsync(&file).ok();
        },
    ),
    case(
        "orphan-2",
        "Mode, owner and times of a file without a name can be changed and asked for.",
        |s| {
            let file = s.root.create("f", 0o644).ok();
            s.root.unlink("f").ok();
            s.root.fchmod(&file, 0o600).ok();
            s.root.fchown(&file, ANN.id, ANN.group).ok();
            s.root.futimens(&file, [(1, 2), (3, 4)]).ok();
            let found = s.root.fstat(&file).ok();
            same("mode, owner", (found.permissions(), found.user), (0o600, ANN.id));
            same("mtime", found.mtime, time(3, 4));
        },
    ),
    case("orphan-3", "Removing the last name moves ctime of the open file.", |s| {
        let file = s.root.create("f", 0o644).ok();
        let before = s.root.fstat(&file).ok();
        s.tick();
        s.root.unlink("f").ok();
        crate::scene::moved("the file", &before, &s.root.fstat(&file).ok(), "c");
    }),
    case("orphan-4", "A file without a name is opened again by way of `/proc/self/fd`.", |s| {
        s.root.put("f", "abc");
        let file = s.root.reader("f").ok();
        s.root.unlink("f").ok();
        let again = s.root.both(format!("/proc/self/fd/{}", file.number())).ok();
        s.root.pwrite(&again, "x", 0).gives(1);
        s.root.pread(&file, 9, 0).gives_bytes("xbc");
    }),
    case("orphan-5", "A file without a name lives until its last descriptor is closed.", |s| {
        s.root.put("f", "abc");
        let (one, two) = (s.root.reader("f").ok(), s.ann.reader("f").ok());
        s.root.unlink("f").ok();
        drop(one);
        s.ann.read(&two, 9).gives_bytes("abc");
    }),
    case(
        "handle-1",
        "`open_by_handle_at` opens the file of a `name_to_handle_at`, also under another name.",
        |s| {
            s.root.put("f", "abc");
            let handle = s.root.name_to_handle("f").ok();
            let mount = s.root.reader(".").ok();
            s.root.rename("f", "g").ok();
            let file = s.root.open_by_handle(&mount, &handle, O_RDWR).ok();
            s.root.read(&file, 9).gives_bytes("abc");
            same("inode", s.root.fstat(&file).ok().inode, s.stat("g").inode);
        },
    ),
    case(
        "handle-2",
        "A handle of a file that is gone answers `ESTALE`, also when another file has its name.",
        |s| {
            s.root.put("f", "abc");
            let handle = s.root.name_to_handle("f").ok();
            let mount = s.root.reader(".").ok();
            s.root.unlink("f").ok();
            s.root.put("f", "new");
            s.root.open_by_handle(&mount, &handle, O_RDONLY).fails(ESTALE);
        },
    ),
    case(
        "handle-3",
        "`open_by_handle_at` is for root: others get `EPERM`; asking for a handle is for \
         everybody.",
        |s| {
            s.file("f", ANN, 0o644);
            let handle = s.ann.name_to_handle("f").ok();
            let mount = s.ann.reader(".").ok();
            s.ann.open_by_handle(&mount, &handle, O_RDONLY).fails(EPERM);
        },
    ),
    case("handle-4", "Directories have handles too.", |s| {
        s.root.mkdir("d", 0o755).ok();
        s.root.touch("d/f");
        let handle = s.root.name_to_handle("d").ok();
        let mount = s.root.reader(".").ok();
        let folder = s.root.open_by_handle(&mount, &handle, O_RDONLY | O_DIRECTORY).ok();
        s.root.openat(&folder, "f", O_RDONLY).ok();
    }),
    case("mmap-1", "A shared mapping shows the file, and writes of it as they happen.", |s| {
        s.root.put("f", vec![b'a'; 8192]);
        let file = s.root.both("f").ok();
        let map = s.root.mmap(&file, 8192, PROT_READ, MAP_SHARED).ok();
        same("byte", map.byte(5000), b'a');
        s.root.pwrite(&file, "b", 5000).gives(1);
        same("byte", map.byte(5000), b'b');
    }),
    case(
        "mmap-2",
        "What is stored in a shared mapping is read by `read` at once, and durable after \
         `msync(MS_SYNC)`.",
        |s| {
            s.root.put("f", vec![b'a'; 8192]);
            let file = s.root.both("f").ok();
            let map = s.root.mmap(&file, 8192, BOTH, MAP_SHARED).ok();
            map.set(5000, b'b');
            s.root.pread(&file, 2, 4999).gives_bytes("ab");
            map.sync(MS_SYNC).expect("msync");
            same("content", s.ann.get("f")[5000], b'b');
        },
    ),
    case(
        "mmap-3",
        "A store in a shared mapping has moved mtime and ctime when `msync` returns.",
        |s| {
            s.root.put("f", vec![b'a'; 4096]);
            let file = s.root.both("f").ok();
            let watch = s.watch(["f"]);
            let map = s.root.mmap(&file, 4096, BOTH, MAP_SHARED).ok();
            map.set(7, b'b');
            map.sync(MS_SYNC).expect("msync");
            watch.moved(["mc"]);
        },
    ),
    case("mmap-4", "A private mapping keeps its stores to itself.", |s| {
        s.root.put("f", vec![b'a'; 4096]);
        let file = s.root.reader("f").ok();
        let map = s.root.mmap(&file, 4096, BOTH, MAP_PRIVATE).ok();
        map.set(7, b'b');
        same("byte", map.byte(7), b'b');
        same("content", s.root.get("f")[7], b'a');
    }),
    case(
        "mmap-5",
        "A shared mapping for writing needs a descriptor open for both, one for reading one open \
         for reading: else `EACCES`.",
        |s| {
            s.root.put("f", "abc");
            let (reader, writer) = (s.root.reader("f").ok(), s.root.writer("f").ok());
            s.root.mmap(&reader, 4096, BOTH, MAP_SHARED).fails(EACCES);
            s.root.mmap(&writer, 4096, PROT_READ, MAP_SHARED).fails(EACCES);
            s.root.mmap(&reader, 4096, PROT_READ, MAP_SHARED).ok();
        },
    ),
    case("mmap-6", "A directory is not mapped: `ENODEV`.", |s| {
        s.root.mkdir("d", 0o755).ok();
        let folder = s.root.reader("d").ok();
        s.root.mmap(&folder, 4096, PROT_READ, MAP_PRIVATE).fails(ENODEV);
    }),
    case("mmap-7", "A mapping goes on when its descriptor is closed and the name removed.", |s| {
        s.root.put("f", vec![b'a'; 8192]);
        let file = s.root.both("f").ok();
        let map = s.root.mmap(&file, 8192, BOTH, MAP_SHARED).ok();
        drop(file);
        s.root.unlink("f").ok();
        same("byte", map.byte(8000), b'a');
        map.set(8000, b'b');
        map.sync(MS_SYNC).expect("msync");
        same("byte", map.byte(8000), b'b');
    }),
    case(
        "mmap-8",
        "Behind the end of the file its last page shows zeros, and stores there do not lengthen \
         the file.",
        |s| {
            s.root.put("f", "abc");
            let file = s.root.both("f").ok();
            let map = s.root.mmap(&file, 4096, BOTH, MAP_SHARED).ok();
            same("byte", map.byte(100), 0);
            map.set(1, b'X');
            map.set(100, b'Y');
            map.sync(MS_SYNC).expect("msync");
            same("content", s.root.get("f"), b"aXc".to_vec());
        },
    ),
    case(
        "mmap-9",
        "A mapping is made and stored into in a file opened with `O_DIRECT` elsewhere; both see \
         the same bytes after `msync`.",
        |s| {
            s.root.put("f", vec![b'a'; 8192]);
            let (plain, direct) =
                (s.root.both("f").ok(), s.root.open("f", O_RDWR | O_DIRECT, 0).ok());
            let map = s.root.mmap(&plain, 8192, BOTH, MAP_SHARED).ok();
            map.set(0, b'b');
            map.sync(MS_SYNC).expect("msync");
            same("direct", s.root.direct(&direct, None, 0).ok()[0], b'b');
        },
    ),
    case(
        "fsync-1",
        "`fsync` and `fdatasync` work on files and directories, also open for reading alone, and \
         change no time.",
        |s| {
            s.root.put("f", "abc");
            s.root.mkdir("d", 0o755).ok();
            let (file, folder) = (s.ann.reader("f").ok(), s.ann.reader("d").ok());
            let watch = s.watch(["f", "d"]);
            for open in [&file, &folder] {
                s.ann.fsync(open).ok();
                s.ann.fdatasync(open).ok();
                s.root.syncfs(open).ok();
            }
            watch.moved(["", ""]);
        },
    ),
    case(
        "fsync-2",
        "`fsync` of an `O_PATH` descriptor answers `EBADF`, of a fifo `EINVAL`.",
        |s| {
            s.root.touch("f");
            let path = s.root.open("f", O_PATH, 0).ok();
            s.root.fsync(&path).fails(EBADF);
            s.root.mknod("p", S_IFIFO | 0o600, 0).ok();
            let fifo = s.root.open("p", O_RDWR | O_NONBLOCK, 0).ok();
            s.root.fsync(&fifo).fails(EINVAL);
        },
    ),
    case("fsync-3", "A descriptor that is not open answers `EBADF` to every call.", |_| {
        same("close", crate::raw::close(NOBODYS), Err(crate::errno::Errno(EBADF)));
        same("fsync", crate::raw::fsync(NOBODYS), Err(crate::errno::Errno(EBADF)));
        same("fstat", crate::raw::fstat(NOBODYS), Err(crate::errno::Errno(EBADF)));
    }),
    case("close-1", "`close` reports success once the writes before it have been taken.", |s| {
        let file = s.root.create("f", 0o644).ok();
        s.root.write(&file, vec![1; 100_000]).gives(100_000);
        file.close().ok();
        s.has_size("f", 100_000);
    }),
];
