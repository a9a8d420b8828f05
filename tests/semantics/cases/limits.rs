//! Names, paths and their limits.

use super::*;

pub const SECTION: Section = Section { title: "Names and paths", intro: "", cases: CASES };

const CASES: &[Case] = &[
    case(
        "name-1",
        "A name has up to 255 bytes; a longer one answers `ENAMETOOLONG`, whatever the call.",
        |s| {
            let (long, longer) = ("n".repeat(255), "n".repeat(256));
            s.root.touch(&long);
            s.root.lstat(&long).ok();
            s.root.rename(&long, "m".repeat(255)).ok();
            s.root.touch("f");
            s.root.create(&longer, 0o644).fails(ENAMETOOLONG);
            s.root.lstat(&longer).fails(ENAMETOOLONG);
            s.root.mkdir(&longer, 0o755).fails(ENAMETOOLONG);
            s.root.rmdir(&longer).fails(ENAMETOOLONG);
            s.root.unlink(&longer).fails(ENAMETOOLONG);
            s.root.rename("f", &longer).fails(ENAMETOOLONG);
            s.root.rename(&longer, "g").fails(ENAMETOOLONG);
            s.root.link("f", &longer).fails(ENAMETOOLONG);
            s.root.symlink("f", &longer).fails(ENAMETOOLONG);
            s.root.mknod(&longer, S_IFIFO | 0o600, 0).fails(ENAMETOOLONG);
            s.root.chmod(&longer, 0o600).fails(ENAMETOOLONG);
            s.root.reader(format!("{longer}/f")).fails(ENAMETOOLONG);
        },
    ),
    case("name-2", "The limit is of bytes, not of letters.", |s| {
        let name = "é".repeat(127);
        s.root.touch(&name);
        s.root.lstat(&name).ok();
        s.root.create("é".repeat(128), 0o644).fails(ENAMETOOLONG);
    }),
    case(
        "name-3",
        "A name is any bytes but `/` and zero; two names are the same if their bytes are.",
        |s| {
            for byte in (1..=255u8).filter(|byte| *byte != b'/' && *byte != b'.') {
                s.root.put([byte, b'x'], [byte]);
            }
            for byte in (1..=255u8).filter(|byte| *byte != b'/' && *byte != b'.') {
                same("content", s.root.get([byte, b'x']), vec![byte]);
            }
            s.root.put("e\u{301}", "composed");
            s.root.lstat("é").fails(ENOENT);
            s.root.put("Name", "upper");
            s.root.lstat("name").fails(ENOENT);
        },
    ),
    case("name-4", "Names that begin with dots are names like others.", |s| {
        for name in ["...", ".a", "..a", "a.", "a..", "-"] {
            s.root.touch(name);
        }
        same("count", s.root.names(".").len(), 6);
    }),
    case(
        "path-1",
        "A path of 4,096 bytes or more answers `ENAMETOOLONG`, a shorter one of existing names \
         works.",
        |s| {
            s.root.touch("f");
            let path = |length: usize| format!("{}f", "./".repeat((length - 1) / 2));
            s.root.lstat(path(4095)).ok();
            s.root.lstat(path(4097)).fails(ENAMETOOLONG);
            s.root.create(path(4097), 0o644).fails(ENAMETOOLONG);
            s.root.unlink(path(4097)).fails(ENAMETOOLONG);
        },
    ),
    case("path-2", "Directories nest deeper than a path is long, step by step.", |s| {
        let name = "d".repeat(200);
        for _ in 0..30 {
            s.root.mkdir(&name, 0o755).ok();
            s.root.chdir(&name).ok();
        }
        s.root.put("f", "deep");
        same("content", s.root.get("f"), b"deep".to_vec());
        for _ in 0..30 {
            s.root.chdir("..").ok();
        }
        same("names", s.root.names("."), vec![name]);
    }),
    case("path-3", "Slashes in a row and `.` on the way count for nothing.", |s| {
        s.root.mkdir("d", 0o755).ok();
        s.root.touch("d/f");
        same("inode", s.stat("d///./f").inode, s.stat("d/f").inode);
        same("inode", s.stat("./d/../d//f").inode, s.stat("d/f").inode);
    }),
    case(
        "path-4",
        "`..` of a directory reached by a symbolic link is the one above its real place.",
        |s| {
            for name in ["a", "a/b", "c"] {
                s.root.mkdir(name, 0o755).ok();
            }
            s.root.symlink("../a/b", "c/l").ok();
            same("inode", s.stat("c/l/..").inode, s.stat("a").inode);
        },
    ),
    case(
        "path-5",
        "`openat` counts from the directory that is open, also after that was renamed.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.put("d/f", "x");
            let folder = s.root.open("d", O_PATH | O_DIRECTORY, 0).ok();
            s.root.rename("d", "e").ok();
            let file = s.root.openat(&folder, "f", O_RDONLY).ok();
            s.root.read(&file, 9).gives_bytes("x");
            s.root.openat(&file, "f", O_RDONLY).fails(ENOTDIR);
        },
    ),
];
