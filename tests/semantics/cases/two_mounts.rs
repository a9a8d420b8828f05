//! What one mount did, the other one sees: `far` looks through the second mount.
//!
//! On a local disk both ways lead through the same folder, and the sentences hold too.

use super::*;

pub const SECTION: Section = Section {
    title: "Two mounts",
    intro: "After any call returned, every later call on any mount of the cluster sees its effect. \
            A mapping that is already in place is one exception. The other is the size, where the \
            kernel asks nobody for it: by the size that this mount saw last it moves the place of \
            a descriptor after an append, and cuts the length of `copy_file_range` (see \
            limits-today.md; `two-31` says how to be sure).",
    cases: CASES,
};

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Forty times all four do the same at the same moment; one of them must succeed each time.
fn winners(s: &Scene, work: fn(&std::ffi::CStr) -> bool) {
    for round in 0..40 {
        let name = std::ffi::CString::new(format!("r{round}")).expect("no zero byte");
        let race: Vec<_> = [&s.root, &s.far, &s.ann, &s.far_ann]
            .map(|who| {
                let name = name.clone();
                who.starts(format!("race for r{round}"), move || Ok(work(&name)))
            })
            .into_iter()
            .collect();
        let won: usize = race.into_iter().map(|one| usize::from(one.ends().ok())).sum();
        same("winners", won, 1);
    }
}

const CASES: &[Case] = &[
    case(
        "two-1",
        "A new file, directory, link, fifo and symbolic link is there on the other mount at its \
         next call, also where that had just found nothing.",
        |s| {
            for name in ["f", "d", "l", "p", "h"] {
                s.far.lstat(name).fails(ENOENT);
            }
            s.root.put("f", "abc");
            same("content", s.far.get("f"), b"abc".to_vec());
            s.root.mkdir("d", 0o755).ok();
            s.far.touch("d/in");
            s.root.symlink("f", "l").ok();
            s.far.readlink("l", 9).gives_bytes("f");
            s.root.mknod("p", S_IFIFO | 0o600, 0).ok();
            same("kind", s.far.lstat("p").ok().kind(), S_IFIFO);
            s.root.link("f", "h").ok();
            same("links", s.far.lstat("f").ok().links, 2);
        },
    ),
    case("two-2", "A removed name is gone on the other mount at its next call.", |s| {
        s.root.touch("f");
        s.root.mkdir("d", 0o755).ok();
        s.far.lstat("f").ok();
        s.far.lstat("d").ok();
        s.root.unlink("f").ok();
        s.root.rmdir("d").ok();
        s.far.lstat("f").fails(ENOENT);
        s.far.reader("f").fails(ENOENT);
        s.far.lstat("d").fails(ENOENT);
        s.far.create("d/f", 0o644).fails(ENOENT);
        s.far.touch("f");
    }),
    case(
        "two-3",
        "A rename shows on the other mount at its next call: the old name is gone, the new one \
         there, also below a renamed directory.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.put("d/f", "abc");
            same("content", s.far.get("d/f"), b"abc".to_vec());
            s.root.rename("d/f", "d/g").ok();
            s.far.lstat("d/f").fails(ENOENT);
            same("content", s.far.get("d/g"), b"abc".to_vec());
            s.root.rename("d", "e").ok();
            s.far.lstat("d/g").fails(ENOENT);
            same("content", s.far.get("e/g"), b"abc".to_vec());
        },
    ),
    case(
        "two-4",
        "A write is read on the other mount at its next read, also by a descriptor that has read \
         these bytes before.",
        |s| {
            s.root.put("f", vec![b'a'; 20_000]);
            let (writer, reader) = (s.root.writer("f").ok(), s.far.reader("f").ok());
            for round in 0..20u8 {
                let byte = [b'a' + round];
                s.root.pwrite(&writer, byte, 10_000).gives(1);
                s.far.pread(&reader, 1, 10_000).gives_bytes(byte);
            }
        },
    ),
    case("two-5", "The same holds for small files, which live in their inode.", |s| {
        s.root.put("f", "start");
        let (writer, reader) = (s.root.writer("f").ok(), s.far.reader("f").ok());
        for round in 0..20u8 {
            let byte = [b'a' + round];
            s.root.pwrite(&writer, byte, 2).gives(1);
            s.far.pread(&reader, 1, 2).gives_bytes(byte);
        }
    }),
    case(
        "two-6",
        "Size, mtime and ctime after a write show at the next `stat` on the other mount, by name \
         and by descriptor.",
        |s| {
            s.root.put("f", "abc");
            let (writer, open) =
                (s.root.open("f", O_WRONLY | O_APPEND, 0).ok(), s.far.reader("f").ok());
            for size in 4..14 {
                let before = s.far.lstat("f").ok();
                s.tick();
                s.root.write(&writer, "x").gives(1);
                let after = s.far.lstat("f").ok();
                same("size", after.size, size);
                crate::scene::moved("f", &before, &after, "mc");
                same("by descriptor", s.far.fstat(&open).ok(), after);
            }
        },
    ),
    case(
        "two-7",
        "`truncate` shows at once on the other mount: in the size, and in what is read.",
        |s| {
            s.root.put("f", vec![b'a'; 20_000]);
            let reader = s.far.reader("f").ok();
            s.far.pread(&reader, 1, 15_000).gives_bytes("a");
            s.root.truncate("f", 10_000).ok();
            s.far.pread(&reader, 1, 15_000).gives_bytes("");
            s.root.truncate("f", 20_000).ok();
            s.far.pread(&reader, 2, 9_999).gives_bytes("a\0");
            s.far.pread(&reader, 1, 15_000).gives_bytes("\0");
            s.root.open("f", O_WRONLY | O_TRUNC, 0).ok();
            s.far.pread(&reader, 1, 0).gives_bytes("");
        },
    ),
    case("two-8", "Mode and owner count on the other mount from its next call on.", |s| {
        s.file("f", ROOT, 0o600);
        s.far_ann.reader("f").fails(EACCES);
        s.root.chmod("f", 0o644).ok();
        s.far_ann.reader("f").ok();
        s.root.chmod("f", 0o600).ok();
        s.far_ann.reader("f").fails(EACCES);
        s.root.chown("f", ANN.id, ANN.group).ok();
        s.far_ann.both("f").ok();
    }),
    case(
        "two-9",
        "A directory closed to a user is closed on the other mount from its next call on.",
        |s| {
            s.folder("d", ROOT, 0o755);
            s.file("d/f", ROOT, 0o644);
            s.far_ann.reader("d/f").ok();
            s.root.chmod("d", 0o700).ok();
            s.far_ann.reader("d/f").fails(EACCES);
            s.far_ann.lstat("d/f").fails(EACCES);
        },
    ),
    case(
        "two-10",
        "Times that were set, attributes and lists show on the other mount at its next call.",
        |s| {
            s.root.touch("f");
            s.root.utimensat("f", Some([(1, 2), (3, 4)]), 0).ok();
            same("mtime", s.far.lstat("f").ok().mtime, time(3, 4));
            s.far.get_xattr("f", "user.a").fails(ENODATA);
            s.root.set_xattr("f", "user.a", "1", 0).ok();
            s.far.get_xattr("f", "user.a").gives_bytes("1");
            s.root.remove_xattr("f", "user.a").ok();
            s.far.get_xattr("f", "user.a").fails(ENODATA);
        },
    ),
    case(
        "two-11",
        "A listing that begins shows what the other mount has created, removed and renamed.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            same("names", s.far.names("d"), strings(&[]));
            s.root.touch("d/a");
            same("names", s.far.names("d"), strings(&["a"]));
            s.root.rename("d/a", "d/b").ok();
            same("names", s.far.names("d"), strings(&["b"]));
            s.root.unlink("d/b").ok();
            same("names", s.far.names("d"), strings(&[]));
        },
    ),
    case(
        "two-12",
        "A symbolic link made anew leads to its new target on the other mount at once.",
        |s| {
            s.root.put("f", "one");
            s.root.put("g", "two");
            s.root.symlink("f", "l").ok();
            same("content", s.far.get("l"), b"one".to_vec());
            s.root.symlink("g", "m").ok();
            s.root.rename("m", "l").ok();
            same("content", s.far.get("l"), b"two".to_vec());
        },
    ),
    case(
        "two-13",
        "A file that is open on one mount and removed on the other lives on where it is open.",
        |s| {
            s.root.put("f", vec![b'a'; 20_000]);
            let file = s.far.both("f").ok();
            s.root.unlink("f").ok();
            s.root.put("f", "new");
            s.far.pread(&file, 1, 15_000).gives_bytes("a");
            s.far.pwrite(&file, "b", 15_000).gives(1);
            s.far.pread(&file, 1, 15_000).gives_bytes("b");
            same("links", s.far.fstat(&file).ok().links, 0);
            same("content", s.root.get("f"), b"new".to_vec());
        },
    ),
    case(
        "two-14",
        "A file open on both mounts and renamed on one of them stays the same file on both.",
        |s| {
            s.root.put("f", "abc");
            let (near, far) = (s.root.both("f").ok(), s.far.both("f").ok());
            s.root.rename("f", "g").ok();
            s.far.pwrite(&far, "X", 0).gives(1);
            s.root.pread(&near, 9, 0).gives_bytes("Xbc");
            same("content", s.far.get("g"), b"Xbc".to_vec());
        },
    ),
    case(
        "two-15",
        "Of all who create one name with `O_EXCL` at the same time, on both mounts, one wins.",
        |s| {
            winners(s, |name| {
                crate::raw::open(name, O_CREAT | O_EXCL | O_WRONLY, 0o644)
                    .map(crate::raw::close)
                    .is_ok()
            });
        },
    ),
    case(
        "two-16",
        "Of all who make one directory at the same time one wins, and of all who remove one file \
         too.",
        |s| {
            winners(s, |name| crate::raw::mkdir(name, 0o755).is_ok());
            for round in 0..40 {
                s.root.rmdir(format!("r{round}")).ok();
                s.root.touch(format!("r{round}"));
            }
            winners(s, |name| crate::raw::unlink(name).is_ok());
        },
    ),
    case(
        "two-17",
        "A name that is replaced by `rename` again and again is always there for a watcher on \
         the other mount, with the whole content of one of the files.",
        |s| {
            s.root.put("f", "0".repeat(100));
            let watching = s.far.starts(String::from("watch f"), || {
                let mut seen = std::collections::BTreeSet::new();
                for _ in 0..150 {
                    crate::raw::lstat(c"f")?;
                    let file = crate::raw::open(c"f", O_RDONLY, 0)?;
                    let content = crate::raw::read(file, 200);
                    crate::raw::close(file)?;
                    seen.insert(content?);
                }
                Ok(seen)
            });
            for round in 0..100 {
                s.root.put("new", (round % 10).to_string().repeat(100));
                s.root.rename("new", "f").ok();
            }
            for content in watching.ends().ok() {
                holds(
                    "100 bytes of one kind",
                    content.len() == 100 && content.iter().all(|byte| *byte == content[0]),
                );
            }
        },
    ),
    case(
        "two-18",
        "A watcher of a directory in which a file is renamed to and fro lists one of its names, \
         never both nor none.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.touch("d/a");
            let watching = s.far.starts(String::from("list d"), || {
                let mut counts = std::collections::BTreeSet::new();
                for _ in 0..100 {
                    let folder = crate::raw::open(c"d", O_RDONLY, 0)?;
                    let entries = crate::raw::getdents(folder, 4096);
                    crate::raw::close(folder)?;
                    counts.insert(entries?.len());
                }
                Ok(counts)
            });
            for _ in 0..100 {
                s.root.rename("d/a", "d/b").ok();
                s.root.rename("d/b", "d/a").ok();
            }
            same("entries with . and ..", watching.ends().ok(), [3].into());
        },
    ),
    case(
        "two-19",
        "Records that both mounts append to one file at the same time neither overlap nor tear, \
         small file or large.",
        |s| {
            for (name, size, count) in [("small", 20, 60), ("large", 3000, 60)] {
                s.root.put(name, "");
                s.root.chmod(name, 0o666).ok();
                let jobs: Vec<_> =
                    [(&s.root, b'a'), (&s.far, b'b'), (&s.ann, b'c'), (&s.far_ann, b'd')]
                        .into_iter()
                        .map(|(who, letter)| {
                            let file = who.open(name, O_WRONLY | O_APPEND, 0).ok();
                            let number = file.number();
                            let job = who.starts(String::from("appends"), move || {
                                for _ in 0..count {
                                    crate::raw::write(number, &vec![letter; size])?;
                                }
                                Ok(())
                            });
                            (job, file)
                        })
                        .collect();
                for (job, _file) in jobs {
                    job.ends().ok();
                }
                let content = s.far.get(name);
                same("size", content.len(), 4 * count * size);
                for record in content.chunks(size) {
                    holds("a whole record", record.iter().all(|byte| *byte == record[0]));
                }
            }
        },
    ),
    case(
        "two-20",
        "`flock` holds over both mounts, and is handed on when it is freed there.",
        |s| {
            s.root.touch("f");
            let (near, far) = (s.root.both("f").ok(), s.far.both("f").ok());
            s.root.flock(&near, LOCK_EX | LOCK_NB).ok();
            s.far.flock(&far, LOCK_EX | LOCK_NB).fails(EAGAIN);
            s.far.flock(&far, LOCK_SH | LOCK_NB).fails(EAGAIN);
            let waiting = s.far.starts_flock(&far, LOCK_EX);
            waiting.waits();
            s.root.flock(&near, LOCK_UN).ok();
            waiting.ends().ok();
            s.root.flock(&near, LOCK_SH | LOCK_NB).fails(EAGAIN);
        },
    ),
    case("two-21", "Record locks of open files hold over both mounts, byte by byte.", |s| {
        s.root.touch("f");
        let (near, far) = (s.root.both("f").ok(), s.far.both("f").ok());
        s.root.lock(&near, F_OFD_SETLK, F_WRLCK, 10, 10).ok();
        s.far.lock(&far, F_OFD_SETLK, F_RDLCK, 15, 1).fails(EAGAIN);
        s.far.lock(&far, F_OFD_SETLK, F_WRLCK, 20, 10).ok();
        let found = s.far.lock(&far, F_OFD_GETLK, F_WRLCK, 0, 0).ok();
        same("bytes", (found.l_start, found.l_len), (10, 10));
        drop(near);
        s.far.lock(&far, F_OFD_SETLK, F_WRLCK, 0, 0).ok();
    }),
    case(
        "two-22",
        "Record locks of processes hold over both mounts; one that waits gets its turn, and who \
         would wait in a circle `EDEADLK`.",
        |s| {
            s.root.touch("f");
            let (one, two) = (s.process(ROOT), s.far_process(ROOT));
            let (near, far) = (one.both("f").ok(), two.both("f").ok());
            one.lock(&near, F_SETLK, F_WRLCK, 0, 1).ok();
            two.lock(&far, F_SETLK, F_WRLCK, 1, 1).ok();
            one.lock(&near, F_SETLK, F_WRLCK, 1, 1).fails(EAGAIN);
            let waiting = one.starts_lock(&near, F_SETLKW, F_WRLCK, 1, 1);
            waiting.waits();
            two.lock(&far, F_SETLKW, F_WRLCK, 0, 1).fails(EDEADLK);
            two.lock(&far, F_SETLK, F_UNLCK, 1, 1).ok();
            waiting.ends().ok();
        },
    ),
    case("two-23", "What was stored in a mapping is read on the other mount after `msync`.", |s| {
        s.root.put("f", vec![b'a'; 8192]);
        let file = s.root.both("f").ok();
        let reader = s.far.reader("f").ok();
        s.far.pread(&reader, 1, 5000).gives_bytes("a");
        let map = s.root.mmap(&file, 8192, PROT_READ | PROT_WRITE, MAP_SHARED).ok();
        map.set(5000, b'b');
        map.sync(MS_SYNC).expect("msync");
        s.far.pread(&reader, 1, 5000).gives_bytes("b");
        same("content", s.far.get("f")[5000], b'b');
    }),
    case(
        "two-24",
        "A mapping made after the other mount wrote shows what it wrote, if the file was opened or \
         its attributes were asked for since. One that was in place before may go on showing the \
         old bytes: the exception.",
        |s| {
            s.root.put("f", vec![b'a'; 8192]);
            let file = s.far.reader("f").ok();
            let old = s.far.mmap(&file, 8192, PROT_READ, MAP_SHARED).ok();
            same("byte", old.byte(5000), b'a');
            let writer = s.root.writer("f").ok();
            s.root.pwrite(&writer, "b", 5000).gives(1);
            holds("the old or the new byte", [b'a', b'b'].contains(&old.byte(5000)));
            drop(old);
            let again = s.far.reader("f").ok();
            let new = s.far.mmap(&again, 8192, PROT_READ, MAP_SHARED).ok();
            same("byte", new.byte(5000), b'b');
        },
    ),
    case("two-25", "Inode numbers are the same on both mounts.", |s| {
        s.root.touch("f");
        s.root.mkdir("d", 0o755).ok();
        for name in ["f", "d", "."] {
            same(name, s.far.lstat(name).ok().inode, s.stat(name).inode);
        }
    }),
    case(
        "two-26",
        "A directory that one mount is in and the other removes takes nothing new: `ENOENT`.",
        |s| {
            s.root.mkdir("d", 0o777).ok();
            s.far.chdir("d").ok();
            s.root.rmdir("d").ok();
            s.far.create("f", 0o644).fails(ENOENT);
            s.far.mkdir("e", 0o755).fails(ENOENT);
        },
    ),
    case(
        "two-27",
        "A file that was written under one name on one mount shows its bytes under its other \
         names on the other.",
        |s| {
            s.root.put("f", "abc");
            s.root.link("f", "g").ok();
            same("content", s.far.get("g"), b"abc".to_vec());
            s.root.put("f", "changed");
            same("content", s.far.get("g"), b"changed".to_vec());
            s.far.put("g", "back");
            same("content", s.root.get("f"), b"back".to_vec());
        },
    ),
    case(
        "two-28",
        "Two mounts that write different bytes of one file both find all of them there.",
        |s| {
            s.root.put("f", vec![b'.'; 16_384]);
            let (near, far) = (s.root.both("f").ok(), s.far.both("f").ok());
            for at in (0..16_384).step_by(2048) {
                s.root.pwrite(&near, "near", at).gives(4);
                s.far.pwrite(&far, "far.", at + 4).gives(4);
            }
            for at in (0..16_384).step_by(2048) {
                s.root.pread(&near, 9, at).gives_bytes("nearfar..");
                s.far.pread(&far, 9, at).gives_bytes("nearfar..");
            }
        },
    ),
    case(
        "two-29",
        "`O_APPEND` that is set on an open file appends behind what the other mount has written.",
        |s| {
            for size in [3, 5000] {
                s.root.put("f", "");
                let file = s.root.both("f").ok();
                s.far.put("f", vec![b'x'; size]);
                s.root.set_flags(&file, O_APPEND).ok();
                s.root.write(&file, "y").gives(1);
                let mut wanted = vec![b'x'; size];
                wanted.push(b'y');
                same("content", s.far.get("f"), wanted);
            }
        },
    ),
    case(
        "two-30",
        "Pages of a mapping that are written back after the other mount has cut the file do not make \
         it longer again.",
        |s| {
            for size in [4000, 40_000] {
                s.root.put("f", vec![b'a'; size]);
                let file = s.root.both("f").ok();
                let map = s.root.mmap(&file, size, PROT_READ | PROT_WRITE, MAP_SHARED).ok();
                map.set(10, b'b');
                map.set(size - 1, b'b');
                s.far.truncate("f", 100).ok();
                map.sync(MS_SYNC).expect("msync");
                drop(map);
                let found = s.far.get("f");
                same("size", found.len(), 100);
                holds("the byte before the end", [b'a', b'b'].contains(&found[10]));
            }
        },
    ),
    case(
        "two-31",
        "Once its attributes were asked for, `copy_file_range` copies all that the other mount has \
         written to a file, and an append leaves the descriptor behind what it wrote.",
        |s| {
            for size in [100, 9000] {
                s.root.put("f", "");
                s.root.put("g", "");
                let (from, to) = (s.root.both("f").ok(), s.root.both("g").ok());
                s.far.put("f", vec![b'x'; size]);
                s.root.fstat(&from).ok();
                s.root.copy_file_range((&from, 0), (&to, 0), size).gives(size);
                s.root.set_flags(&from, O_APPEND).ok();
                s.root.write(&from, "yz").gives(2);
                s.root.lseek(&from, 0, SEEK_CUR).gives(size as i64 + 2);
            }
        },
    ),
];
