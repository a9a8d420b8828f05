//! read(2), write(2), lseek(2) and their sisters; truncate(2).

use super::*;

pub const SECTION: Section =
    Section { title: "Reading, writing and sizes", intro: "", cases: CASES };

/// A file's bytes lie in its inode up to here.
const INLINE: usize = 4096;
/// Bytes of a chunk.
const CHUNK: i64 = 64 << 20;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

const CASES: &[Case] = &[
    case(
        "read-1",
        "`read` gives what was written, less at the end of the file, and nothing behind it.",
        |s| {
            s.root.put("f", "abcdef");
            let file = s.root.reader("f").ok();
            s.root.read(&file, 4).gives_bytes("abcd");
            s.root.read(&file, 4).gives_bytes("ef");
            s.root.read(&file, 4).gives_bytes("");
            s.root.pread(&file, 4, 100).gives_bytes("");
            s.root.read(&file, 0).gives_bytes("");
        },
    ),
    case("read-2", "`pread` and `pwrite` do not move the offset, `read` and `write` do.", |s| {
        s.root.put("f", "abcdef");
        let file = s.root.both("f").ok();
        s.root.pread(&file, 2, 4).gives_bytes("ef");
        s.root.pwrite(&file, "XY", 4).gives(2);
        s.root.lseek(&file, 0, SEEK_CUR).gives(0);
        s.root.write(&file, "12").gives(2);
        s.root.read(&file, 9).gives_bytes("cdXY");
    }),
    case("read-3", "Reading moves neither mtime nor ctime.", |s| {
        s.root.put("f", "x");
        let file = s.root.reader("f").ok();
        let watch = s.watch(["f"]);
        s.root.read(&file, 1).gives_bytes("x");
        watch.moved([""]);
    }),
    case("read-4", "An offset below zero answers `EINVAL`.", |s| {
        s.root.put("f", "x");
        let file = s.root.both("f").ok();
        s.root.pread(&file, 1, -1).fails(EINVAL);
        s.root.pwrite(&file, "x", -1).fails(EINVAL);
    }),
    case("write-1", "Every write moves mtime and ctime; a write of no bytes does not.", |s| {
        s.root.put("f", "x");
        let file = s.root.writer("f").ok();
        let watch = s.watch(["f"]);
        s.root.write(&file, "").gives(0);
        watch.moved([""]);
        s.root.write(&file, "y").gives(1);
        watch.moved(["mc"]);
        let watch = s.watch(["f"]);
        s.root.pwrite(&file, "y", 0).gives(1);
        watch.moved(["mc"]);
    }),
    case(
        "write-2",
        "After a write every descriptor and every name shows its bytes, the size and the times.",
        |s| {
            s.root.touch("f");
            s.root.link("f", "g").ok();
            let (writer, reader) = (s.root.writer("f").ok(), s.ann.reader("g").ok());
            s.root.write(&writer, "abc").gives(3);
            s.ann.read(&reader, 9).gives_bytes("abc");
            s.has_size("g", 3);
            same("fstat", s.ann.fstat(&reader).ok(), s.stat("f"));
        },
    ),
    case("write-3", "A write behind the end makes a hole that reads as zeros.", |s| {
        let file = s.root.create("f", 0o644).ok();
        s.root.pwrite(&file, "end", 100_000).gives(3);
        s.has_size("f", 100_003);
        let content = s.root.get("f");
        holds("zeros before", content[..100_000].iter().all(|byte| *byte == 0));
        same("end", &content[100_000..], b"end".as_slice());
        s.root.pwrite(&file, "x", 50_000).gives(1);
        s.root.pread(&file, 3, 49_999).gives_bytes("\0x\0");
    }),
    case("write-4", "Overwriting changes the bytes it names and no others.", |s| {
        let mut expected = pattern(20_000);
        s.root.put("f", &expected);
        let file = s.root.both("f").ok();
        for (at, length) in [(0, 1), (4095, 2), (8000, 5000), (19_999, 1)] {
            s.root.pwrite(&file, vec![7; length], at as i64).gives(length);
            expected[at..at + length].fill(7);
        }
        same("content", s.root.get("f") == expected, true);
    }),
    case("write-5", "A file that outgrows its inode (4,096 bytes) keeps its content.", |s| {
        let whole = pattern(INLINE + 1);
        let file = s.root.create("f", 0o644).ok();
        s.root.write(&file, &whole[..INLINE]).gives(INLINE);
        s.root.write(&file, &whole[INLINE..]).gives(1);
        same("content", s.root.get("f") == whole, true);
        s.root.put("g", &whole[..10]);
        let file = s.root.writer("g").ok();
        s.root.pwrite(&file, "far", 1 << 20).gives(3);
        same("begin", s.root.get("g")[..10] == whole[..10], true);
    }),
    case("write-6", "A write over the border of two chunks (64 MiB) is one write.", |s| {
        let file = s.root.create("f", 0o644).ok();
        s.root.pwrite(&file, "border", CHUNK - 3).gives(6);
        s.root.pread(&file, 9, CHUNK - 4).gives_bytes("\0border");
        s.has_size("f", CHUNK + 3);
    }),
    case("write-7", "A write of 3 MiB at once is taken whole.", |s| {
        let whole = pattern(3 << 20);
        let file = s.root.create("f", 0o644).ok();
        s.root.write(&file, &whole).gives(whole.len());
        same("content", s.root.get("f") == whole, true);
    }),
    case("write-8", "`writev` writes its pieces one behind the other.", |s| {
        let file = s.root.create("f", 0o644).ok();
        s.root.writev(&file, b"one", b"two").gives(6);
        same("content", s.root.get("f"), b"onetwo".to_vec());
    }),
    case(
        "write-9",
        "`pwrite` of a file opened with `O_APPEND` appends, whatever its offset, as Linux does.",
        |s| {
            s.root.put("f", "one");
            let file = s.root.open("f", O_WRONLY | O_APPEND, 0).ok();
            s.root.pwrite(&file, "two", 0).gives(3);
            same("content", s.root.get("f"), b"onetwo".to_vec());
        },
    ),
    case("write-10", "Records that two users append at the same time all arrive, whole.", |s| {
        s.root.put("f", "");
        s.root.chmod("f", 0o666).ok();
        let jobs: Vec<_> = [(&s.ann, b'a'), (&s.ben, b'b')]
            .into_iter()
            .map(|(who, letter)| {
                let file = who.open("f", O_WRONLY | O_APPEND, 0).ok();
                let number = file.number();
                let job = who.starts(String::from("fifty appends"), move || {
                    for _ in 0..50 {
                        crate::raw::write(number, &[letter; 100])?;
                    }
                    Ok(())
                });
                (job, file)
            })
            .collect();
        for (job, _file) in jobs {
            job.ends().ok();
        }
        let content = s.root.get("f");
        same("size", content.len(), 10_000);
        for record in content.chunks(100) {
            holds("a whole record", record.iter().all(|byte| *byte == record[0]));
        }
    }),
    case("write-11", "An end of a write beyond 2^63-1 answers `EINVAL`.", |s| {
        let file = s.root.create("f", 0o644).ok();
        s.root.pwrite(&file, "xx", i64::MAX - 1).fails(EINVAL);
        s.has_size("f", 0);
    }),
    case(
        "write-12",
        "Reading and writing through the offset of one descriptor goes on where the last call \
         ended, for whoever uses it.",
        |s| {
            s.root.put("f", "abcdef");
            let file = s.root.reader("f").ok();
            s.root.read(&file, 2).gives_bytes("ab");
            s.ann.read(&file, 2).gives_bytes("cd");
            s.root.read(&file, 2).gives_bytes("ef");
        },
    ),
    case(
        "seek-1",
        "`lseek` counts from the begin, the offset or the end; behind the end is allowed, before \
         the begin answers `EINVAL`.",
        |s| {
            s.root.put("f", "abcdef");
            let file = s.root.reader("f").ok();
            s.root.lseek(&file, 2, SEEK_SET).gives(2);
            s.root.lseek(&file, 2, SEEK_CUR).gives(4);
            s.root.lseek(&file, -1, SEEK_END).gives(5);
            s.root.lseek(&file, 100, SEEK_END).gives(106);
            s.root.lseek(&file, -1, SEEK_SET).fails(EINVAL);
            s.root.lseek(&file, -7, SEEK_END).fails(EINVAL);
            s.root.lseek(&file, 0, 99).fails(EINVAL);
            s.root.lseek(&file, 0, SEEK_CUR).gives(106);
        },
    ),
    case("seek-2", "`SEEK_END` knows what others have written meanwhile.", |s| {
        s.root.put("f", "abc");
        let (one, two) = (s.root.reader("f").ok(), s.root.writer("f").ok());
        s.root.lseek(&one, 0, SEEK_END).gives(3);
        s.root.pwrite(&two, "def", 3).gives(3);
        s.root.lseek(&one, 0, SEEK_END).gives(6);
    }),
    case(
        "truncate-1",
        "`truncate` shortens a file or lengthens it by zeros; what was cut off never comes back.",
        |s| {
            s.root.put("f", "abcdef");
            s.root.truncate("f", 3).ok();
            same("content", s.root.get("f"), b"abc".to_vec());
            s.root.truncate("f", 6).ok();
            same("content", s.root.get("f"), b"abc\0\0\0".to_vec());
        },
    ),
    case("truncate-2", "The same holds beyond the size of an inode, at any byte.", |s| {
        let whole = pattern(300_000);
        s.root.put("f", &whole);
        for cut in [200_001, 131_072, 5000, 4096, 1] {
            s.root.truncate("f", cut as i64).ok();
            s.root.truncate("f", 300_000).ok();
            let found = s.root.get("f");
            holds("kept what stays", found[..cut] == whole[..cut]);
            holds("zeros behind", found[cut..].iter().all(|byte| *byte == 0));
        }
    }),
    case(
        "truncate-3",
        "`truncate` and `ftruncate` that change the size move mtime and ctime; `ftruncate` to \
         the size the file has does too.",
        |s| {
            s.root.put("f", "abcdef");
            let watch = s.watch(["f"]);
            s.root.truncate("f", 3).ok();
            watch.moved(["mc"]);
            let file = s.root.writer("f").ok();
            for size in [9, 9] {
                let watch = s.watch(["f"]);
                s.root.ftruncate(&file, size).ok();
                watch.moved(["mc"]);
            }
        },
    ),
    case(
        "truncate-4",
        "`truncate` needs `w` of the file, `ftruncate` a descriptor open for writing: else \
         `EINVAL`.",
        |s| {
            s.file("f", ROOT, 0o644);
            s.ann.truncate("f", 0).fails(EACCES);
            let file = s.ann.reader("f").ok();
            s.ann.ftruncate(&file, 0).fails(EINVAL);
            s.root.chmod("f", 0o646).ok();
            s.ann.truncate("f", 0).ok();
        },
    ),
    case(
        "truncate-5",
        "`truncate` to less than zero answers `EINVAL`, of a directory `EISDIR`, of what does \
         not exist `ENOENT`.",
        |s| {
            s.root.touch("f");
            s.root.mkdir("d", 0o755).ok();
            s.root.truncate("f", -1).fails(EINVAL);
            s.root.truncate("d", 0).fails(EISDIR);
            s.root.truncate("none", 0).fails(ENOENT);
            s.root.truncate("f/g", 0).fails(ENOTDIR);
        },
    ),
    case(
        "truncate-6",
        "A descriptor keeps its offset when the file is cut before it: reads give nothing, a \
         write makes a hole.",
        |s| {
            s.root.put("f", "abcdef");
            let file = s.root.both("f").ok();
            s.root.read(&file, 6).gives_bytes("abcdef");
            s.root.truncate("f", 2).ok();
            s.root.read(&file, 6).gives_bytes("");
            s.root.write(&file, "x").gives(1);
            same("content", s.root.get("f"), b"ab\0\0\0\0x".to_vec());
        },
    ),
    case(
        "truncate-7",
        "Lengthening by `truncate` takes no room; shortening gives room back.",
        |s| {
            s.root.put("f", pattern(1 << 20));
            let file = s.root.writer("f").ok();
            s.root.fsync(&file).ok();
            let full = s.stat("f").blocks;
            holds("1 MiB takes 2,048 units or more", full >= 2048);
            s.root.truncate("f", 1 << 30).ok();
            same("blocks", s.stat("f").blocks, full);
            s.root.truncate("f", 0).ok();
            s.root.fsync(&file).ok();
            same("blocks", s.stat("f").blocks, 0);
        },
    ),
    case("truncate-8", "`truncate` follows symbolic links.", |s| {
        s.root.put("f", "abc");
        s.root.symlink("f", "l").ok();
        s.root.truncate("l", 1).ok();
        s.has_size("f", 1);
    }),
    case("size-1", "A file can be made 16 TiB less 4 KiB long; longer is `EFBIG`.", |s| {
        let file = s.root.create("f", 0o644).ok();
        let longest = (1 << 44) - 4096;
        for size in [1 << 40, longest] {
            s.root.ftruncate(&file, size).ok();
            s.has_size("f", size);
        }
        s.root.pread(&file, 4, longest - 4).gives_bytes([0; 4]);
        for size in [longest + 4096, 1 << 60, i64::MAX] {
            s.root.ftruncate(&file, size).fails(EFBIG);
            s.has_size("f", longest);
        }
        s.root.ftruncate(&file, 0).ok();
    }),
    case("size-2", "A file of several TiB takes bytes anywhere.", |s| {
        let file = s.root.create("f", 0o644).ok();
        for at in [1 << 32, 1 << 40, 7 << 40] {
            s.root.pwrite(&file, "here", at).gives(4);
            s.root.pread(&file, 9, at - 2).gives_bytes("\0\0here");
        }
        s.has_size("f", (7 << 40) + 4);
        s.root.unlink("f").ok();
    }),
    case(
        "size-3",
        "A write behind what the file systems of the storage nodes hold, 16 TiB on ext4, answers \
         `EFBIG` and changes nothing.",
        |s| {
            let file = s.root.create("f", 0o644).ok();
            s.root.pwrite(&file, "x", 1 << 45).fails(EFBIG);
            s.has_size("f", 0);
            s.root.write(&file, "x").gives(1);
            same("content", s.root.get("f"), b"x".to_vec());
        },
    ),
];
