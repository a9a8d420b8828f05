//! stat(2), statx(2), statfs(2), access(2).

use super::*;

pub const SECTION: Section =
    Section { title: "Attributes and rights asked for", intro: "", cases: CASES };

/// A user who is in no group of the others.
const STRANGER: User = User { name: "dan", id: 12_004, group: 12_004, groups: &[] };

const CASES: &[Case] = &[
    case(
        "stat-1",
        "`lstat` shows a symbolic link, `stat` what it leads to, `fstat` what is open; all of \
         them the same of one file.",
        |s| {
            s.root.put("f", "abc");
            s.root.symlink("f", "l").ok();
            same("kind", s.root.lstat("l").ok().kind(), S_IFLNK);
            let found = s.root.stat("l").ok();
            same("stat", found, s.root.lstat("f").ok());
            let file = s.root.reader("f").ok();
            same("fstat", found, s.root.fstat(&file).ok());
        },
    ),
    case("stat-2", "Every kind of file shows as what it is.", |s| {
        s.root.touch("f");
        s.root.mkdir("d", 0o755).ok();
        s.root.symlink("f", "l").ok();
        for (name, kind) in [("p", S_IFIFO), ("s", S_IFSOCK), ("c", S_IFCHR), ("b", S_IFBLK)] {
            s.root.mknod(name, kind | 0o600, 0x105).ok();
            same(name, s.stat(name).kind(), kind);
        }
        same("f", s.stat("f").kind(), S_IFREG);
        same("d", s.stat("d").kind(), S_IFDIR);
        same("l", s.stat("l").kind(), S_IFLNK);
    }),
    case(
        "stat-3",
        "Device and inode number name a file: they differ for two files and stay through every \
         change of one.",
        |s| {
            s.root.touch("f");
            s.root.touch("g");
            let (f, g) = (s.stat("f"), s.stat("g"));
            same("device", f.device, g.device);
            holds("different numbers", f.inode != g.inode);
            s.root.put("f", "content");
            s.root.chmod("f", 0o600).ok();
            s.root.rename("f", "h").ok();
            same("inode", s.stat("h").inode, f.inode);
        },
    ),
    case("stat-4", "`stat` needs `x` on the way and no right to the file.", |s| {
        s.file("f", ROOT, 0o000);
        same("size", s.ann.stat("f").ok().size, 8);
        s.folder("d", ROOT, 0o600);
        s.file("d/f", ROOT, 0o666);
        s.ann.stat("d/f").fails(EACCES);
        s.ann.stat("d").ok();
    }),
    case("stat-5", "`st_blocks` counts units of 512 bytes in use: a hole takes none.", |s| {
        let file = s.root.create("f", 0o644).ok();
        s.root.ftruncate(&file, 1 << 30).ok();
        same("blocks", s.stat("f").blocks, 0);
        s.root.pwrite(&file, vec![1; 1 << 20], 1 << 20).gives(1 << 20);
        s.root.fsync(&file).ok();
        let blocks = s.stat("f").blocks;
        holds("1 MiB and little more", (2048..2048 + 256).contains(&blocks));
    }),
    case("stat-6", "`st_blksize` is a power of two of 4,096 or more.", |s| {
        s.root.touch("f");
        let unit = s.stat("f").unit;
        holds("a power of two", unit >= 4096 && (unit as u64).is_power_of_two());
    }),
    case(
        "stat-7",
        "A change through one name shows through every other one at the next `stat`: link count, \
         size, mode, owner, all times.",
        |s| {
            s.file("f", ANN, 0o644);
            s.root.link("f", "g").ok();
            s.root.link("f", "h").ok();
            let changes: [&dyn Fn(); 6] = [
                &|| s.root.chmod("g", 0o600).ok(),
                &|| s.root.chown("f", BEN.id, BEN.group).ok(),
                &|| s.root.truncate("g", 3).ok(),
                &|| s.root.utimensat("f", Some([(1, 2), (3, 4)]), 0).ok(),
                &|| s.root.unlink("h").ok(),
                &|| s.root.set_xattr("g", "user.a", "1", 0).ok(),
            ];
            for change in changes {
                let before = s.stat("f");
                s.tick();
                change();
                let after = s.stat("g");
                same("both names", s.stat("f"), after);
                holds("ctime moved on", after.ctime > before.ctime);
            }
            s.has_links("f", 2);
        },
    ),
    case("statx-1", "`statx` shows the same as `stat`.", |s| {
        s.file("f", ANN, 0o640);
        let (found, stat) = (s.root.statx("f", 0).ok(), s.stat("f"));
        same("inode, size", (found.stx_ino, found.stx_size), (stat.inode, stat.size as u64));
        same("mode, owner", (u32::from(found.stx_mode), found.stx_uid), (stat.mode, stat.user));
        let mtime = time(found.stx_mtime.tv_sec, i64::from(found.stx_mtime.tv_nsec));
        same("mtime", mtime, stat.mtime);
        same("links", u64::from(found.stx_nlink), stat.links);
        same("mask", found.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
    }),
    case(
        "statx-2",
        "`statx` has no time of birth: `STATX_BTIME` is not in the mask it gives.",
        |s| {
            s.root.touch("f");
            same("mask", s.root.statx("f", 0).ok().stx_mask & STATX_BTIME, 0);
        },
    ),
    case(
        "statx-3",
        "`AT_STATX_FORCE_SYNC` and `AT_STATX_DONT_SYNC` are accepted and change nothing.",
        |s| {
            s.root.put("f", "abc");
            for flags in [AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC] {
                same("size", s.root.statx("f", flags).ok().stx_size, 3);
            }
        },
    ),
    case(
        "statfs-1",
        "`statfs` works for every user and every name: blocks of 4,096 bytes, names of up to 255 \
         bytes, never more available than free, nor free than there are.",
        |s| {
            s.file("f", ROOT, 0o000);
            for name in [".", "f"] {
                let found = s.ann.statfs(name).ok();
                same("block", found.f_bsize, 4096);
                same("fragment", found.f_frsize, 4096);
                same("name", found.f_namelen, 255);
                holds("room", found.f_blocks >= found.f_bfree && found.f_bfree >= found.f_bavail);
                holds("some room", found.f_bavail > 0);
                holds("objects", found.f_files >= found.f_ffree && found.f_ffree > 0);
            }
            s.root.statfs("none").fails(ENOENT);
        },
    ),
    case("statfs-2", "`statfs` shows the type of FUSE, 0x65735546.", |s| {
        same("type", s.root.statfs(".").ok().f_type, 0x6573_5546);
    }),
    case(
        "access-1",
        "`access` judges by the mode: each of `r`, `w`, `x` alone and together.",
        |s| {
            for mode in 0..8u32 {
                let name = format!("f{mode}");
                s.file(&name, ROOT, 0o700 | mode);
                for asked in 0..8u32 {
                    let did = s.ann.faccessat2(&name, asked as i32, 0);
                    if asked & !mode == 0 { did.ok() } else { did.fails(EACCES) }
                }
            }
        },
    ),
    case(
        "access-2",
        "`access` of what does not exist answers `ENOENT`, without `x` on the way `EACCES`.",
        |s| {
            s.ann.faccessat2("none", F_OK, 0).fails(ENOENT);
            s.folder("d", ROOT, 0o700);
            s.file("d/f", ROOT, 0o777);
            s.ann.faccessat2("d/f", F_OK, 0).fails(EACCES);
        },
    ),
    case(
        "access-3",
        "Root may read and write everything, enter every directory, and run what has at least \
         one `x`.",
        |s| {
            s.file("f", ANN, 0o000);
            s.folder("d", ANN, 0o000);
            s.root.faccessat2("f", R_OK | W_OK, 0).ok();
            s.root.faccessat2("f", X_OK, 0).fails(EACCES);
            s.root.faccessat2("d", R_OK | W_OK | X_OK, 0).ok();
            s.root.chmod("f", 0o001).ok();
            s.root.faccessat2("f", X_OK, 0).ok();
        },
    ),
    case(
        "access-4",
        "`access` counts further groups, and of the three sets of bits only the one that is the \
         caller's.",
        |s| {
            s.root.put("f", "x");
            s.root.chown("f", ANN.id, TEAM).ok();
            s.root.chmod("f", 0o047).ok();
            s.ann.faccessat2("f", R_OK, 0).fails(EACCES);
            s.ben.faccessat2("f", R_OK, 0).ok();
            s.ben.faccessat2("f", W_OK, 0).fails(EACCES);
            s.cat.faccessat2("f", R_OK, 0).ok();
        },
    ),
    case(
        "access-5",
        "`faccessat2` with `AT_EACCESS` judges by the effective user, with `AT_SYMLINK_NOFOLLOW` \
         the link itself.",
        |s| {
            s.file("f", ROOT, 0o700);
            s.root.symlink("f", "l").ok();
            s.ann.faccessat2("f", R_OK, AT_EACCESS).fails(EACCES);
            s.root.faccessat2("f", R_OK, AT_EACCESS).ok();
            s.ann.faccessat2("l", F_OK, AT_SYMLINK_NOFOLLOW).ok();
            s.root.unlink("f").ok();
            s.ann.faccessat2("l", F_OK, AT_SYMLINK_NOFOLLOW).ok();
            s.ann.faccessat2("l", F_OK, 0).fails(ENOENT);
        },
    ),
    case(
        "access-6",
        "`chdir` needs `x` of the directory, and answers `ENOTDIR` for a file.",
        |s| {
            s.folder("d", ROOT, 0o766);
            s.ann.chdir("d").fails(EACCES);
            s.file("f", ROOT, 0o777);
            s.ann.chdir("f").fails(ENOTDIR);
            s.folder("e", ROOT, 0o711);
            s.ann.chdir("e").ok();
        },
    ),
    case(
        "rights-1",
        "For the owner, the group by first and by further membership, and all others, each of \
         the eight values of their bits decides alone whether a file opens for reading, for \
         writing, for both, and whether `access` agrees.",
        |s| {
            let dan = s.process(STRANGER);
            for class in 0..3 {
                for bits in 0..8u32 {
                    // Everybody else is allowed what this class is not.
                    let others = (0o777 ^ (0o111 * bits)) & !(0o7 << (3 * class));
                    let name = format!("f{class}{bits}");
                    s.root.put(&name, "x");
                    s.root.chown(&name, ANN.id, TEAM).ok();
                    s.root.chmod(&name, bits << (3 * class) | others).ok();
                    for (who, own) in [(&s.ann, 2), (&s.ben, 1), (&s.cat, 1), (&dan, 0)] {
                        let may = if own == class { bits } else { 7 ^ bits };
                        for (flags, needs) in [(O_RDONLY, 4), (O_WRONLY, 2), (O_RDWR, 6)] {
                            let did = who.open(&name, flags, 0);
                            if may & needs == needs {
                                drop(did.ok())
                            } else {
                                did.fails(EACCES)
                            }
                            let did = who.faccessat2(&name, needs as i32, 0);
                            if may & needs == needs { did.ok() } else { did.fails(EACCES) }
                        }
                    }
                }
            }
        },
    ),
    case(
        "rights-2",
        "For the same four each of the eight values of the bits of a directory decides whether \
         names are listed (`r`), found (`x`), and made, renamed and removed (`w` and `x`).",
        |s| {
            let dan = s.process(STRANGER);
            for bits in 0..8u32 {
                for (who, class, letter) in
                    [(&s.ann, 2, "a"), (&s.ben, 1, "b"), (&s.cat, 1, "c"), (&dan, 0, "d")]
                {
                    let name = format!("{letter}{bits}");
                    s.root.mkdir(&name, 0o700).ok();
                    for file in ["f", "g"] {
                        s.root.put(format!("{name}/{file}"), "x");
                    }
                    s.root.mkdir(format!("{name}/e"), 0o755).ok();
                    s.root.chmod(format!("{name}/f"), 0o644).ok();
                    s.root.chown(&name, ANN.id, TEAM).ok();
                    s.root.chmod(&name, bits << (3 * class)).ok();
                    let list = who.reader(&name);
                    if bits & 4 == 4 {
                        drop(list.ok())
                    } else {
                        list.fails(EACCES)
                    }
                    let found = who.readlink(format!("{name}/f"), 9);
                    found.fails(if bits & 1 == 1 { EINVAL } else { EACCES });
                    let may = bits & 3 == 3;
                    let changes = [
                        who.create(format!("{name}/new"), 0o644).result().map(drop),
                        who.mkdir(format!("{name}/d"), 0o755).result(),
                        who.rename(format!("{name}/f"), format!("{name}/h")).result(),
                        who.unlink(format!("{name}/g")).result(),
                        who.rmdir(format!("{name}/e")).result(),
                    ];
                    for (number, change) in changes.into_iter().enumerate() {
                        let what = format!("change {number} of {name} by {letter}");
                        let expected = if may { Ok(()) } else { Err(crate::errno::Errno(EACCES)) };
                        same(&what, change, expected);
                    }
                }
            }
        },
    ),
];
