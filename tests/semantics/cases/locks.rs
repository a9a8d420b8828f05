//! flock(2), and record locks of processes and of open files (fcntl).

use super::*;

pub const SECTION: Section = Section { title: "Locks", intro: "", cases: CASES };

/// Locks of these kinds, as numbers that the calls take.
const READ: i32 = F_RDLCK;
const WRITE: i32 = F_WRLCK;
const FREE: i32 = F_UNLCK;
const SHARED: i32 = LOCK_SH | LOCK_NB;
const ALONE: i32 = LOCK_EX | LOCK_NB;
const OFD_SET: i32 = F_OFD_SETLK;

/// Another process and its descriptor of a file, open for both.
fn other(s: &Scene, name: &str) -> (Actor, File) {
    let actor = s.process(ROOT);
    let file = actor.both(name).ok();
    (actor, file)
}

const CASES: &[Case] = &[
    case(
        "flock-1",
        "Any number hold a shared `flock` of a file, or one an exclusive one; `LOCK_NB` answers \
         `EAGAIN` instead of waiting.",
        |s| {
            s.root.touch("f");
            let (a, b, c) = (s.root.both("f").ok(), s.ann.reader("f").ok(), s.root.both("f").ok());
            s.root.flock(&a, SHARED).ok();
            s.ann.flock(&b, SHARED).ok();
            s.root.flock(&c, ALONE).fails(EAGAIN);
            s.root.flock(&a, LOCK_UN).ok();
            s.ann.flock(&b, LOCK_UN).ok();
            s.root.flock(&c, ALONE).ok();
            s.root.flock(&a, SHARED).fails(EAGAIN);
            s.root.flock(&a, ALONE).fails(EAGAIN);
        },
    ),
    case(
        "flock-2",
        "A `flock` belongs to the open file: two opens of one process exclude each other.",
        |s| {
            s.root.touch("f");
            let (a, b) = (s.root.both("f").ok(), s.root.both("f").ok());
            s.root.flock(&a, ALONE).ok();
            s.root.flock(&b, ALONE).fails(EAGAIN);
            s.root.flock(&a, ALONE).ok();
        },
    ),
    case("flock-3", "Closing frees a `flock`.", |s| {
        s.root.touch("f");
        let (a, b) = (s.root.both("f").ok(), s.root.both("f").ok());
        s.root.flock(&a, ALONE).ok();
        drop(a);
        s.root.flock(&b, ALONE).ok();
    }),
    case(
        "flock-4",
        "A shared `flock` becomes an exclusive one and the other way round, if nobody else holds \
         one.",
        |s| {
            s.root.touch("f");
            let (a, b) = (s.root.both("f").ok(), s.root.both("f").ok());
            s.root.flock(&a, SHARED).ok();
            s.root.flock(&a, ALONE).ok();
            s.root.flock(&b, SHARED).fails(EAGAIN);
            s.root.flock(&a, SHARED).ok();
            s.root.flock(&b, SHARED).ok();
            s.root.flock(&a, ALONE).fails(EAGAIN);
        },
    ),
    case("flock-5", "Without `LOCK_NB` the call waits until the lock is free.", |s| {
        s.root.touch("f");
        let (process, b) = other(s, "f");
        let a = s.root.both("f").ok();
        s.root.flock(&a, ALONE).ok();
        let waiting = process.starts_flock(&b, LOCK_EX);
        waiting.waits();
        s.root.flock(&a, LOCK_UN).ok();
        waiting.ends().ok();
        s.root.flock(&a, SHARED).fails(EAGAIN);
    }),
    case("flock-6", "`flock` needs no right but the open file, and works on directories.", |s| {
        s.file("f", ROOT, 0o644);
        let file = s.ann.reader("f").ok();
        s.ann.flock(&file, ALONE).ok();
        let folder = s.ann.reader(".").ok();
        s.ann.flock(&folder, ALONE).ok();
        let again = s.root.reader(".").ok();
        s.root.flock(&again, SHARED).fails(EAGAIN);
    }),
    case("flock-7", "`flock` and record locks do not see each other.", |s| {
        s.root.touch("f");
        let a = s.root.both("f").ok();
        s.root.flock(&a, ALONE).ok();
        let (process, b) = other(s, "f");
        process.lock(&b, F_SETLK, WRITE, 0, 0).ok();
    }),
    case("flock-8", "A signal ends the wait for a `flock` with `EINTR`.", |s| {
        s.root.touch("f");
        let (process, b) = other(s, "f");
        let a = s.root.both("f").ok();
        s.root.flock(&a, ALONE).ok();
        let waiting = process.starts_flock(&b, LOCK_EX);
        waiting.waits();
        process.interrupt();
        waiting.ends().fails(EINTR);
        s.root.flock(&a, LOCK_UN).ok();
        let c = s.root.both("f").ok();
        s.root.flock(&c, ALONE).ok();
    }),
    case(
        "lock-1",
        "A write lock of a process excludes every lock of another one on these bytes: `EAGAIN`.",
        |s| {
            s.root.touch("f");
            let a = s.root.both("f").ok();
            let (process, b) = other(s, "f");
            s.root.lock(&a, F_SETLK, WRITE, 10, 10).ok();
            process.lock(&b, F_SETLK, WRITE, 19, 1).fails_with_one_of(&[EAGAIN, EACCES]);
            process.lock(&b, F_SETLK, READ, 0, 11).fails_with_one_of(&[EAGAIN, EACCES]);
            process.lock(&b, F_SETLK, WRITE, 0, 10).ok();
            process.lock(&b, F_SETLK, WRITE, 20, 10).ok();
        },
    ),
    case(
        "lock-2",
        "Read locks of several processes go together, a write lock does not join them.",
        |s| {
            s.root.touch("f");
            let a = s.root.both("f").ok();
            let (process, b) = other(s, "f");
            s.root.lock(&a, F_SETLK, READ, 0, 10).ok();
            process.lock(&b, F_SETLK, READ, 5, 10).ok();
            process.lock(&b, F_SETLK, WRITE, 5, 10).fails(EAGAIN);
            s.root.lock(&a, F_SETLK, WRITE, 0, 10).fails(EAGAIN);
            s.root.lock(&a, F_SETLK, WRITE, 0, 5).ok();
        },
    ),
    case(
        "lock-3",
        "A process never stands in its own way: its new lock takes the place of the old one on \
         these bytes.",
        |s| {
            s.root.touch("f");
            let (a, c) = (s.root.both("f").ok(), s.root.both("f").ok());
            let (process, b) = other(s, "f");
            s.root.lock(&a, F_SETLK, WRITE, 0, 100).ok();
            s.root.lock(&c, F_SETLK, READ, 20, 10).ok();
            process.lock(&b, F_SETLK, READ, 20, 10).ok();
            process.lock(&b, F_SETLK, READ, 19, 1).fails(EAGAIN);
            process.lock(&b, F_SETLK, READ, 30, 1).fails(EAGAIN);
        },
    ),
    case(
        "lock-4",
        "Unlocking the middle of a lock leaves both ends; locking it again joins them.",
        |s| {
            s.root.touch("f");
            let a = s.root.both("f").ok();
            let (process, b) = other(s, "f");
            s.root.lock(&a, F_SETLK, WRITE, 0, 100).ok();
            s.root.lock(&a, F_SETLK, FREE, 40, 20).ok();
            process.lock(&b, F_SETLK, WRITE, 40, 20).ok();
            process.lock(&b, F_SETLK, FREE, 40, 20).ok();
            let found = process.lock(&b, F_GETLK, WRITE, 0, 0).ok();
            same("the first part", (found.l_start, found.l_len), (0, 40));
            s.root.lock(&a, F_SETLK, WRITE, 40, 20).ok();
            let found = process.lock(&b, F_GETLK, WRITE, 0, 0).ok();
            same("all of it", (found.l_start, found.l_len), (0, 100));
        },
    ),
    case(
        "lock-5",
        "`F_GETLK` tells a lock in the way with its kind and bytes, or that there is none; it \
         takes no lock.",
        |s| {
            s.root.touch("f");
            let a = s.root.both("f").ok();
            let (process, b) = other(s, "f");
            s.root.lock(&a, F_SETLK, READ, 7, 3).ok();
            let found = process.lock(&b, F_GETLK, WRITE, 0, 100).ok();
            same("kind", i32::from(found.l_type), READ);
            same("bytes", (found.l_start, found.l_len), (7, 3));
            same("owner", found.l_pid, std::process::id() as i32);
            let found = process.lock(&b, F_GETLK, READ, 0, 100).ok();
            same("kind", i32::from(found.l_type), FREE);
        },
    ),
    case(
        "lock-6",
        "A length of zero reaches to the end of every file, a negative one lies before its \
         begin.",
        |s| {
            s.root.touch("f");
            let a = s.root.both("f").ok();
            let (process, b) = other(s, "f");
            s.root.lock(&a, F_SETLK, WRITE, 1000, 0).ok();
            process.lock(&b, F_SETLK, WRITE, i64::MAX - 1, 1).fails(EAGAIN);
            process.lock(&b, F_SETLK, WRITE, 1000, -1000).ok();
            s.root.lock(&a, F_SETLK, WRITE, 0, 1).fails(EAGAIN);
            s.root.lock(&a, F_SETLK, WRITE, 5, -10).fails(EINVAL);
        },
    ),
    case(
        "lock-7",
        "A read lock needs a descriptor open for reading, a write lock one open for writing: \
         else `EBADF`.",
        |s| {
            s.root.touch("f");
            let (reader, writer) = (s.root.reader("f").ok(), s.root.writer("f").ok());
            s.root.lock(&reader, F_SETLK, WRITE, 0, 1).fails(EBADF);
            s.root.lock(&writer, F_SETLK, READ, 0, 1).fails(EBADF);
            s.root.lock(&reader, F_SETLK, READ, 0, 1).ok();
            s.root.lock(&writer, F_SETLK, WRITE, 0, 1).ok();
        },
    ),
    case("lock-8", "`F_SETLKW` waits until the bytes are free.", |s| {
        s.root.touch("f");
        let a = s.root.both("f").ok();
        let (process, b) = other(s, "f");
        s.root.lock(&a, F_SETLK, WRITE, 0, 10).ok();
        let waiting = process.starts_lock(&b, F_SETLKW, WRITE, 5, 10);
        waiting.waits();
        s.root.lock(&a, F_SETLK, FREE, 0, 10).ok();
        waiting.ends().ok();
        s.root.lock(&a, F_SETLK, WRITE, 5, 1).fails(EAGAIN);
    }),
    case(
        "lock-9",
        "Closing any descriptor of the file frees all record locks of the process on it.",
        |s| {
            s.root.touch("f");
            let (a, c) = (s.root.both("f").ok(), s.root.reader("f").ok());
            let (process, b) = other(s, "f");
            s.root.lock(&a, F_SETLK, WRITE, 0, 10).ok();
            process.lock(&b, F_SETLK, WRITE, 0, 10).fails(EAGAIN);
            drop(c);
            process.lock(&b, F_SETLK, WRITE, 0, 10).ok();
            drop(a);
        },
    ),
    case("lock-10", "The end of a process frees its locks.", |s| {
        s.root.touch("f");
        let a = s.root.both("f").ok();
        let (process, b) = other(s, "f");
        process.lock(&b, F_SETLK, WRITE, 0, 10).ok();
        s.root.lock(&a, F_SETLK, WRITE, 0, 10).fails(EAGAIN);
        let waiting = s.root.starts_lock(&a, F_SETLKW, WRITE, 0, 10);
        waiting.waits();
        process.exits();
        waiting.ends().ok();
    }),
    case(
        "lock-11",
        "Two processes that would wait for each other for ever: the second gets `EDEADLK`.",
        |s| {
            s.root.touch("f");
            let (one, a) = other(s, "f");
            let (two, b) = other(s, "f");
            one.lock(&a, F_SETLK, WRITE, 0, 1).ok();
            two.lock(&b, F_SETLK, WRITE, 1, 1).ok();
            let waiting = one.starts_lock(&a, F_SETLKW, WRITE, 1, 1);
            waiting.waits();
            two.lock(&b, F_SETLKW, WRITE, 0, 1).fails(EDEADLK);
            two.lock(&b, F_SETLK, FREE, 1, 1).ok();
            waiting.ends().ok();
        },
    ),
    case(
        "lock-12",
        "A signal ends the wait for a record lock with `EINTR`, and the lock is not taken later.",
        |s| {
            s.root.touch("f");
            let a = s.root.both("f").ok();
            let (process, b) = other(s, "f");
            s.root.lock(&a, F_SETLK, WRITE, 0, 10).ok();
            let waiting = process.starts_lock(&b, F_SETLKW, WRITE, 0, 10);
            waiting.waits();
            process.interrupt();
            waiting.ends().fails(EINTR);
            s.root.lock(&a, F_SETLK, FREE, 0, 10).ok();
            let (third, c) = other(s, "f");
            third.lock(&c, F_SETLK, WRITE, 0, 10).ok();
        },
    ),
    case("lock-13", "Several waiters each get their turn.", |s| {
        s.root.touch("f");
        let a = s.root.both("f").ok();
        s.root.lock(&a, F_SETLK, WRITE, 0, 1).ok();
        let others: Vec<_> = (0..4).map(|_| other(s, "f")).collect();
        let waiting: Vec<_> =
            others.iter().map(|(who, file)| who.starts_lock(file, F_SETLKW, READ, 0, 1)).collect();
        waiting[3].waits();
        s.root.lock(&a, F_SETLK, FREE, 0, 1).ok();
        for one in waiting {
            one.ends().ok();
        }
    }),
    case(
        "lock-14",
        "Locks hold bytes, not the file: reading, writing, renaming and removing go on beside \
         them.",
        |s| {
            s.root.put("f", "abc");
            let a = s.root.both("f").ok();
            s.root.lock(&a, F_SETLK, WRITE, 0, 0).ok();
            let (process, b) = other(s, "f");
            process.pwrite(&b, "x", 0).gives(1);
            process.pread(&b, 3, 0).gives_bytes("xbc");
            process.rename("f", "g").ok();
            process.lock(&b, F_SETLK, WRITE, 0, 1).fails(EAGAIN);
            process.unlink("g").ok();
            process.lock(&b, F_SETLK, WRITE, 0, 1).fails(EAGAIN);
        },
    ),
    case(
        "ofd-1",
        "A record lock of an open file excludes other opens, also of the same process: `EAGAIN`.",
        |s| {
            s.root.touch("f");
            let (a, b) = (s.root.both("f").ok(), s.root.both("f").ok());
            s.root.lock(&a, OFD_SET, WRITE, 0, 10).ok();
            s.root.lock(&b, OFD_SET, WRITE, 5, 1).fails(EAGAIN);
            s.root.lock(&b, OFD_SET, READ, 5, 1).fails(EAGAIN);
            s.root.lock(&b, OFD_SET, WRITE, 10, 1).ok();
            s.root.lock(&a, OFD_SET, READ, 0, 10).ok();
            s.root.lock(&b, OFD_SET, READ, 5, 1).ok();
        },
    ),
    case("ofd-2", "It lives until its own open file is closed, whatever else is closed.", |s| {
        s.root.touch("f");
        let (a, b) = (s.root.both("f").ok(), s.root.both("f").ok());
        s.root.lock(&a, OFD_SET, WRITE, 0, 10).ok();
        drop(s.root.both("f").ok());
        s.root.lock(&b, OFD_SET, WRITE, 0, 10).fails(EAGAIN);
        drop(a);
        s.root.lock(&b, OFD_SET, WRITE, 0, 10).ok();
    }),
    case(
        "ofd-3",
        "Record locks of open files and of processes exclude each other; of both `F_GETLK` tells \
         the process that took it, `F_OFD_GETLK` -1.",
        |s| {
            s.root.touch("f");
            let (a, b) = (s.root.both("f").ok(), s.root.both("f").ok());
            s.root.lock(&a, OFD_SET, WRITE, 0, 10).ok();
            s.root.lock(&b, F_SETLK, WRITE, 0, 1).fails(EAGAIN);
            let found = s.root.lock(&b, F_GETLK, WRITE, 0, 0).ok();
            same("bytes", (found.l_start, found.l_len), (0, 10));
            holds("a process is told", found.l_pid > 0);
            s.root.lock(&b, F_SETLK, WRITE, 20, 5).ok();
            s.root.lock(&a, OFD_SET, WRITE, 20, 1).fails(EAGAIN);
            let found = s.root.lock(&a, F_OFD_GETLK, WRITE, 20, 0).ok();
            same("owner", found.l_pid, -1);
        },
    ),
    case("ofd-4", "`F_OFD_SETLKW` waits until the bytes are free.", |s| {
        s.root.touch("f");
        let a = s.root.both("f").ok();
        let (process, b) = other(s, "f");
        s.root.lock(&a, OFD_SET, WRITE, 0, 10).ok();
        let waiting = process.starts_lock(&b, F_OFD_SETLKW, WRITE, 0, 10);
        waiting.waits();
        s.root.lock(&a, OFD_SET, FREE, 0, 10).ok();
        waiting.ends().ok();
    }),
];
