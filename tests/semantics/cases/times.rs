//! utimensat(2) and what moves atime.

use super::*;

pub const SECTION: Section = Section { title: "Times", intro: "", cases: CASES };

const NOW: (i64, i64) = (0, UTIME_NOW);
const OMIT: (i64, i64) = (0, UTIME_OMIT);
const LINK: i32 = AT_SYMLINK_NOFOLLOW;

#[track_caller]
fn has_times(s: &Scene, name: &str, atime: (i64, i64), mtime: (i64, i64)) {
    let found = s.stat(name);
    same(name, (found.atime, found.mtime), (time(atime.0, atime.1), time(mtime.0, mtime.1)));
}

fn clock() -> i128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("it is later than 1970").as_nanos() as i128
}

/// Whether atime of a name gets later than it was, within five seconds.
fn atime_moves(s: &Scene, name: &str, before: i128) -> bool {
    for _ in 0..50 {
        if s.stat(name).atime > before {
            return true;
        }
        crate::raw::pause(100);
    }
    false
}

const CASES: &[Case] = &[
    case(
        "time-1",
        "`utimensat` sets atime and mtime to the nanosecond and moves ctime to now.",
        |s| {
            s.file("f", ANN, 0o644);
            let watch = s.watch(["f"]);
            let before = clock();
            s.ann
                .utimensat(
                    "f",
                    Some([(1_000_000_001, 123_456_789), (1_000_000_002, 987_654_321)]),
                    0,
                )
                .ok();
            has_times(s, "f", (1_000_000_001, 123_456_789), (1_000_000_002, 987_654_321));
            let after = s.stat("f").ctime;
            holds("ctime is now", (after - before).abs() < 2_000_000_000);
            drop(watch);
        },
    ),
    case(
        "time-2",
        "`UTIME_NOW` takes the time of the call, `UTIME_OMIT` leaves a time as it is.",
        |s| {
            s.file("f", ANN, 0o644);
            s.ann.utimensat("f", Some([(5, 6), (7, 8)]), 0).ok();
            s.ann.utimensat("f", Some([OMIT, (9, 10)]), 0).ok();
            has_times(s, "f", (5, 6), (9, 10));
            s.ann.utimensat("f", Some([(11, 12), OMIT]), 0).ok();
            has_times(s, "f", (11, 12), (9, 10));
            s.ann.utimensat("f", Some([OMIT, NOW]), 0).ok();
            let found = s.stat("f");
            same("atime", found.atime, time(11, 12));
            holds("mtime is now", (found.mtime - clock()).abs() < 2_000_000_000);
        },
    ),
    case("time-3", "Two times `UTIME_OMIT` change nothing, not even ctime.", |s| {
        s.file("f", ANN, 0o644);
        let watch = s.watch(["f"]);
        s.ann.utimensat("f", Some([OMIT, OMIT]), 0).ok();
        watch.moved([""]);
    }),
    case("time-4", "Without times both become now.", |s| {
        s.file("f", ANN, 0o644);
        s.ann.utimensat("f", Some([(5, 6), (7, 8)]), 0).ok();
        s.ann.utimensat("f", None, 0).ok();
        let (found, now) = (s.stat("f"), clock());
        holds("atime is now", (found.atime - now).abs() < 2_000_000_000);
        holds("mtime is now", (found.mtime - now).abs() < 2_000_000_000);
    }),
    case("time-5", "Setting a time needs to be the owner or root: others get `EPERM`.", |s| {
        s.file("f", ANN, 0o666);
        s.ben.utimensat("f", Some([(1, 2), (3, 4)]), 0).fails(EPERM);
        s.root.utimensat("f", Some([(1, 2), (3, 4)]), 0).ok();
        has_times(s, "f", (1, 2), (3, 4));
    }),
    case("time-6", "Setting both to now needs `w` alone: others get `EACCES`.", |s| {
        s.file("f", ANN, 0o646);
        s.ben.utimensat("f", None, 0).ok();
        s.ben.utimensat("f", Some([NOW, NOW]), 0).ok();
        s.root.chmod("f", 0o644).ok();
        s.ben.utimensat("f", None, 0).fails(EACCES);
        s.ben.utimensat("f", Some([NOW, NOW]), 0).fails(EACCES);
    }),
    case(
        "time-7",
        "Setting one of them to now and not the other is for the owner: others get `EPERM`, even \
         with `w`.",
        |s| {
            s.file("f", ANN, 0o666);
            s.ben.utimensat("f", Some([NOW, OMIT]), 0).fails(EPERM);
            s.ben.utimensat("f", Some([OMIT, NOW]), 0).fails(EPERM);
            s.ann.utimensat("f", Some([NOW, OMIT]), 0).ok();
        },
    ),
    case("time-8", "Nanoseconds beyond a second answer `EINVAL`.", |s| {
        s.file("f", ANN, 0o644);
        s.ann.utimensat("f", Some([(1, 1_000_000_000), (3, 4)]), 0).fails(EINVAL);
        s.ann.utimensat("f", Some([(1, 2), (3, -5)]), 0).fails(EINVAL);
    }),
    case(
        "time-9",
        "`utimensat` follows symbolic links; with `AT_SYMLINK_NOFOLLOW` it sets the times of the \
         link.",
        |s| {
            s.file("f", ANN, 0o644);
            s.ann.symlink("f", "l").ok();
            s.ann.utimensat("l", Some([(1, 2), (3, 4)]), 0).ok();
            has_times(s, "f", (1, 2), (3, 4));
            s.ann.utimensat("l", Some([(5, 6), (7, 8)]), LINK).ok();
            has_times(s, "l", (5, 6), (7, 8));
            has_times(s, "f", (1, 2), (3, 4));
        },
    ),
    case("time-10", "Times before 1970 and beyond 2038 are kept.", |s| {
        s.file("f", ANN, 0o644);
        s.ann.utimensat("f", Some([(-1_262_304_000, 500), (7_258_118_400, 999_999_999)]), 0).ok();
        has_times(s, "f", (-1_262_304_000, 500), (7_258_118_400, 999_999_999));
        s.ann.utimensat("f", Some([(-1, 999_999_999), (-2, 1)]), 0).ok();
        has_times(s, "f", (-1, 999_999_999), (-2, 1));
    }),
    case("time-11", "`futimens` sets the times of what is open, also for reading alone.", |s| {
        s.file("f", ANN, 0o644);
        let file = s.ann.reader("f").ok();
        s.ann.futimens(&file, [(1, 2), (3, 4)]).ok();
        has_times(s, "f", (1, 2), (3, 4));
    }),
    case(
        "time-12",
        "Directories have times that are set like those of files, and a later change of them \
         moves on to now.",
        |s| {
            s.folder("d", ANN, 0o755);
            s.ann.utimensat("d", Some([(1, 2), (3, 4)]), 0).ok();
            has_times(s, "d", (1, 2), (3, 4));
            s.ann.touch("d/f");
            holds("mtime is now", (s.stat("d").mtime - clock()).abs() < 2_000_000_000);
        },
    ),
    case("time-13", "A write after a time was set moves mtime to now.", |s| {
        s.file("f", ANN, 0o644);
        s.ann.utimensat("f", Some([(1, 2), (3, 4)]), 0).ok();
        let file = s.ann.writer("f").ok();
        s.ann.write(&file, "x").gives(1);
        holds("mtime is now", (s.stat("f").mtime - clock()).abs() < 2_000_000_000);
        same("atime", s.stat("f").atime, time(1, 2));
    }),
    case(
        "time-14",
        "A time set on a file that is open for writing stays when it is closed.",
        |s| {
            let file = s.ann.create("f", 0o644).ok();
            s.ann.write(&file, "content").gives(7);
            s.ann.futimens(&file, [(1, 2), (3, 4)]).ok();
            file.close().ok();
            has_times(s, "f", (1, 2), (3, 4));
        },
    ),
    case("time-15", "A new file has one time for atime, mtime and ctime, which is now.", |s| {
        s.ann.mkdir("d", 0o755).ok();
        s.ann.touch("f");
        for name in ["d", "f"] {
            let found = s.stat(name);
            same("times", (found.atime, found.mtime), (found.ctime, found.ctime));
            holds("it is now", (found.ctime - clock()).abs() < 2_000_000_000);
        }
    }),
    case(
        "atime-1",
        "Reading moves atime where it is not later than mtime and ctime (relatime), at the \
         latest a second after.",
        |s| {
            s.root.put("f", "x");
            let before = s.stat("f").atime;
            s.tick();
            s.root.get("f");
            holds("atime moves", atime_moves(s, "f", before));
        },
    ),
    case(
        "atime-2",
        "Where atime is later than mtime and ctime, and less than a day old, reading leaves it.",
        |s| {
            s.root.put("f", "x");
            let before = s.stat("f").atime;
            s.tick();
            s.root.get("f");
            holds("atime moves", atime_moves(s, "f", before));
            let before = s.stat("f").atime;
            s.tick();
            s.root.get("f");
            crate::raw::pause(1200);
            same("atime", s.stat("f").atime, before);
        },
    ),
    case("atime-3", "Reading with `O_NOATIME` leaves atime.", |s| {
        s.root.put("f", "x");
        let before = s.stat("f").atime;
        s.tick();
        let file = s.root.open("f", O_RDONLY | O_NOATIME, 0).ok();
        s.root.read(&file, 9).gives_bytes("x");
        drop(file);
        crate::raw::pause(1200);
        same("atime", s.stat("f").atime, before);
    }),
    case("atime-4", "Writing, `stat`, `open`, and changes of mode or owner leave atime.", |s| {
        s.file("f", ANN, 0o644);
        s.ann.utimensat("f", Some([(1, 2), OMIT]), 0).ok();
        let file = s.ann.writer("f").ok();
        s.ann.write(&file, "x").gives(1);
        s.ann.chmod("f", 0o600).ok();
        s.ann.rename("f", "g").ok();
        drop(file);
        crate::raw::pause(1200);
        same("atime", s.stat("g").atime, time(1, 2));
    }),
    case("atime-5", "Listing moves atime of a directory like reading that of a file.", |s| {
        s.root.mkdir("d", 0o755).ok();
        s.root.touch("d/f");
        let before = s.stat("d").atime;
        s.tick();
        s.root.list("d");
        holds("atime moves", atime_moves(s, "d", before));
    }),
];
