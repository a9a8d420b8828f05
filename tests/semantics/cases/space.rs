//! fallocate(2), SEEK_DATA and SEEK_HOLE, copy_file_range(2).

use super::*;

pub const SECTION: Section = Section { title: "Room, holes and copies", intro: "", cases: CASES };

const KEEP: i32 = FALLOC_FL_KEEP_SIZE;
const PUNCH: i32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = FALLOC_FL_ZERO_RANGE;
const KIB64: i64 = 64 << 10;

const CASES: &[Case] = &[
    case(
        "fallocate-1",
        "`fallocate` makes room and lengthens the file by zeros; what is there stays.",
        |s| {
            s.root.put("f", "abc");
            let file = s.root.both("f").ok();
            s.root.fallocate(&file, 0, 0, 1 << 20).ok();
            s.has_size("f", 1 << 20);
            holds("it takes its room", s.stat("f").blocks >= 2048);
            let content = s.root.get("f");
            same("begin", &content[..4], b"abc\0".as_slice());
            holds("zeros", content[3..].iter().all(|byte| *byte == 0));
        },
    ),
    case("fallocate-2", "`fallocate` inside of the file changes no byte and not the size.", |s| {
        s.root.put("f", vec![7; 100_000]);
        let file = s.root.both("f").ok();
        s.root.fallocate(&file, 0, 10, 5000).ok();
        same("content", s.root.get("f") == vec![7; 100_000], true);
    }),
    case(
        "fallocate-3",
        "With `FALLOC_FL_KEEP_SIZE` the size stays, and no room is kept behind the end.",
        |s| {
            s.root.put("f", "abc");
            let file = s.root.both("f").ok();
            s.root.fallocate(&file, KEEP, 0, 1 << 20).ok();
            s.has_size("f", 3);
            holds("it takes no room", s.stat("f").blocks < 2048);
        },
    ),
    case(
        "fallocate-4",
        "`FALLOC_FL_PUNCH_HOLE` makes zeros of any bytes, gives the room of whole blocks back \
         and keeps the size.",
        |s| {
            let mut expected = vec![7u8; 1 << 20];
            s.root.put("f", &expected);
            let file = s.root.both("f").ok();
            s.root.fsync(&file).ok();
            let before = s.stat("f").blocks;
            s.root.fallocate(&file, PUNCH, KIB64, 8 * KIB64).ok();
            expected[1 << 16..9 << 16].fill(0);
            s.root.fallocate(&file, PUNCH, 1001, 99).ok();
            expected[1001..1100].fill(0);
            same("content", s.root.get("f") == expected, true);
            s.has_size("f", 1 << 20);
            s.root.fsync(&file).ok();
            holds("room came back", s.stat("f").blocks <= before - 1000);
        },
    ),
    case(
        "fallocate-5",
        "`FALLOC_FL_PUNCH_HOLE` behind the end does nothing; without `FALLOC_FL_KEEP_SIZE` it \
         answers `EOPNOTSUPP`.",
        |s| {
            s.root.put("f", "abc");
            let file = s.root.both("f").ok();
            s.root.fallocate(&file, PUNCH, 1 << 20, 4096).ok();
            s.has_size("f", 3);
            s.root.fallocate(&file, FALLOC_FL_PUNCH_HOLE, 0, 4096).fails(EOPNOTSUPP);
            same("content", s.root.get("f"), b"abc".to_vec());
        },
    ),
    case("fallocate-6", "`FALLOC_FL_PUNCH_HOLE` also in a small file.", |s| {
        s.root.put("f", "abcdef");
        let file = s.root.both("f").ok();
        s.root.fallocate(&file, PUNCH, 1, 3).ok();
        same("content", s.root.get("f"), b"a\0\0\0ef".to_vec());
    }),
    case(
        "fallocate-7",
        "`FALLOC_FL_ZERO_RANGE` makes zeros and lengthens the file if it reaches behind the end; \
         with `FALLOC_FL_KEEP_SIZE` it does not.",
        |s| {
            s.root.put("f", vec![7; 10_000]);
            let file = s.root.both("f").ok();
            s.root.fallocate(&file, ZERO, 100, 200).ok();
            s.root.fallocate(&file, ZERO | KEEP, 9000, 5000).ok();
            s.has_size("f", 10_000);
            s.root.fallocate(&file, ZERO, 9500, 2500).ok();
            s.has_size("f", 12_000);
            let mut expected = vec![7u8; 12_000];
            expected[100..300].fill(0);
            expected[9000..].fill(0);
            same("content", s.root.get("f") == expected, true);
        },
    ),
    case("fallocate-8", "`fallocate` that changes content or size moves mtime and ctime.", |s| {
        s.root.put("f", vec![7; 10_000]);
        let file = s.root.both("f").ok();
        for (mode, from, length) in [(0, 0, 20_000), (PUNCH, 0, 4096), (ZERO, 4096, 4096)] {
            let watch = s.watch(["f"]);
            s.root.fallocate(&file, mode, from, length).ok();
            watch.moved(["mc"]);
        }
    }),
    case(
        "fallocate-9",
        "A length of zero or less and an offset below zero answer `EINVAL`, an end beyond 2^63-1 \
         `EFBIG`.",
        |s| {
            let file = s.root.create("f", 0o644).ok();
            s.root.fallocate(&file, 0, 0, 0).fails(EINVAL);
            s.root.fallocate(&file, 0, 0, -1).fails(EINVAL);
            s.root.fallocate(&file, 0, -1, 10).fails(EINVAL);
            s.root.fallocate(&file, 0, i64::MAX - 10, 100).fails(EFBIG);
        },
    ),
    case(
        "fallocate-10",
        "`fallocate` needs a descriptor open for writing: else `EBADF`; of a fifo it answers \
         `ESPIPE`.",
        |s| {
            s.root.put("f", "abc");
            let reader = s.root.reader("f").ok();
            s.root.fallocate(&reader, 0, 0, 10).fails(EBADF);
            s.root.mknod("p", S_IFIFO | 0o600, 0).ok();
            let fifo = s.root.open("p", O_RDWR | O_NONBLOCK, 0).ok();
            s.root.fallocate(&fifo, 0, 0, 10).fails(ESPIPE);
        },
    ),
    case(
        "fallocate-11",
        "`FALLOC_FL_COLLAPSE_RANGE` and `FALLOC_FL_INSERT_RANGE` answer `EOPNOTSUPP`.",
        |s| {
            s.root.put("f", vec![7; 65_536]);
            let file = s.root.both("f").ok();
            s.root.fallocate(&file, FALLOC_FL_COLLAPSE_RANGE, 0, 4096).fails(EOPNOTSUPP);
            s.root.fallocate(&file, FALLOC_FL_INSERT_RANGE, 0, 4096).fails(EOPNOTSUPP);
            s.has_size("f", 65_536);
        },
    ),
    case(
        "hole-1",
        "`SEEK_DATA` finds the next byte that is not in a hole, `SEEK_HOLE` the next hole, in \
         blocks of 4 KiB.",
        |s| {
            let file = s.root.create("f", 0o644).ok();
            s.root.pwrite(&file, "x", 8 * KIB64).gives(1);
            s.root.ftruncate(&file, 16 * KIB64).ok();
            s.root.lseek(&file, 0, SEEK_DATA).gives(8 * KIB64);
            s.root.lseek(&file, 0, SEEK_HOLE).gives(0);
            s.root.lseek(&file, 8 * KIB64, SEEK_HOLE).gives(8 * KIB64 + 4096);
            s.root.lseek(&file, 8 * KIB64 + 4096, SEEK_DATA).fails(ENXIO);
        },
    ),
    case(
        "hole-2",
        "The end of a file counts as a hole; a file without holes has only that one.",
        |s| {
            s.root.put("f", vec![7; 20_000]);
            let file = s.root.reader("f").ok();
            s.root.lseek(&file, 0, SEEK_HOLE).gives(20_000);
            s.root.lseek(&file, 19_999, SEEK_DATA).gives(19_999);
            s.root.put("g", "small");
            let file = s.root.reader("g").ok();
            s.root.lseek(&file, 0, SEEK_HOLE).gives(5);
            s.root.lseek(&file, 2, SEEK_DATA).gives(2);
        },
    ),
    case("hole-3", "At and behind the end, and in an empty file, both answer `ENXIO`.", |s| {
        s.root.put("f", "abc");
        let file = s.root.reader("f").ok();
        for whence in [SEEK_DATA, SEEK_HOLE] {
            s.root.lseek(&file, 3, whence).fails(ENXIO);
            s.root.lseek(&file, 100, whence).fails(ENXIO);
        }
        let empty = s.root.create("g", 0o644).ok();
        s.root.lseek(&empty, 0, SEEK_DATA).fails(ENXIO);
        s.root.lseek(&empty, 0, SEEK_HOLE).fails(ENXIO);
    }),
    case("hole-4", "A punched hole is found as one.", |s| {
        s.root.put("f", vec![7; 1 << 20]);
        let file = s.root.both("f").ok();
        s.root.fallocate(&file, PUNCH, KIB64, KIB64).ok();
        s.root.lseek(&file, 0, SEEK_HOLE).gives(KIB64);
        s.root.lseek(&file, KIB64, SEEK_DATA).gives(2 * KIB64);
    }),
    case(
        "copy-1",
        "`copy_file_range` copies bytes from one file to another and says how many.",
        |s| {
            let content: Vec<u8> = (0..200_000).map(|at| (at % 251) as u8).collect();
            s.root.put("f", &content);
            let (from, to) = (s.root.reader("f").ok(), s.root.create("g", 0o644).ok());
            let mut copied = 0;
            while copied < 150_000 {
                let more = 150_000 - copied;
                let did = s.root.copy_file_range(
                    (&from, 100 + copied as i64),
                    (&to, 5 + copied as i64),
                    more,
                );
                copied += did.ok();
            }
            let found = s.root.get("g");
            same("size", found.len(), 150_005);
            same("before", &found[..5], [0; 5].as_slice());
            holds("the bytes", found[5..] == content[100..150_100]);
        },
    ),
    case(
        "copy-2",
        "`copy_file_range` stops at the end of the source; behind it it copies nothing.",
        |s| {
            s.root.put("f", "abc");
            let (from, to) = (s.root.reader("f").ok(), s.root.create("g", 0o644).ok());
            s.root.copy_file_range((&from, 1), (&to, 0), 100).gives(2);
            s.root.copy_file_range((&from, 3), (&to, 0), 100).gives(0);
            s.root.copy_file_range((&from, 50), (&to, 0), 100).gives(0);
            same("content", s.root.get("g"), b"bc".to_vec());
        },
    ),
    case(
        "copy-3",
        "Within one file parts that do not overlap are copied; parts that do answer `EINVAL`.",
        |s| {
            s.root.put("f", "abcdef");
            let file = s.root.both("f").ok();
            s.root.copy_file_range((&file, 0), (&file, 3), 3).gives(3);
            same("content", s.root.get("f"), b"abcabc".to_vec());
            s.root.copy_file_range((&file, 0), (&file, 2), 3).fails(EINVAL);
        },
    ),
    case(
        "copy-4",
        "`copy_file_range` moves mtime and ctime of the target and leaves those of the source.",
        |s| {
            s.root.put("f", "abc");
            s.root.put("g", "xyz");
            let (from, to) = (s.root.reader("f").ok(), s.root.writer("g").ok());
            let watch = s.watch(["f", "g"]);
            s.root.copy_file_range((&from, 0), (&to, 0), 3).gives(3);
            watch.moved(["", "mc"]);
        },
    ),
    case(
        "copy-5",
        "`copy_file_range` needs a source open for reading and a target open for writing without \
         `O_APPEND`: else `EBADF`; with a directory it answers `EISDIR`.",
        |s| {
            s.root.put("f", "abc");
            s.root.mkdir("d", 0o755).ok();
            let (reader, writer) = (s.root.reader("f").ok(), s.root.writer("f").ok());
            let append = s.root.open("f", O_WRONLY | O_APPEND, 0).ok();
            let folder = s.root.reader("d").ok();
            let to = s.root.create("g", 0o644).ok();
            s.root.copy_file_range((&writer, 0), (&to, 0), 3).fails(EBADF);
            s.root.copy_file_range((&to, 0), (&reader, 0), 3).fails(EBADF);
            s.root.copy_file_range((&to, 0), (&append, 0), 3).fails(EBADF);
            s.root.copy_file_range((&folder, 0), (&to, 0), 3).fails(EISDIR);
        },
    ),
];
