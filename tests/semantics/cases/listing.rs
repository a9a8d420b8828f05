//! getdents64(2): what a directory lists, and when it changes meanwhile.

use super::*;

pub const SECTION: Section = Section { title: "Listing directories", intro: "", cases: CASES };

/// Room for a few entries, so that a listing takes many calls.
const LITTLE: usize = 256;

/// Makes `count` files `f000`… in a new directory `d`.
fn many(s: &Scene, count: usize) -> Vec<String> {
    s.root.mkdir("d", 0o777).ok();
    let names: Vec<String> = (0..count).map(|number| format!("f{number:03}")).collect();
    for name in &names {
        s.root.touch(format!("d/{name}"));
    }
    names
}

fn text(entries: &[crate::raw::Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
}

/// The rest of a listing, in little pieces.
fn rest(s: &Scene, folder: &File) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let entries = s.root.getdents(folder, LITTLE).ok();
        if entries.is_empty() {
            return found;
        }
        found.extend(text(&entries));
    }
}

#[track_caller]
fn each_once(found: &[String], expected: &[String]) {
    for name in expected {
        let times = found.iter().filter(|one| *one == name).count();
        assert!(times == 1, "{name}: expected once in the listing, found {times} times");
    }
}

const CASES: &[Case] = &[
    case("list-1", "A listing has every name once, and `.` and `..` once.", |s| {
        let mut expected = many(s, 300);
        expected.extend([String::from("."), String::from("..")]);
        let found = s.root.list("d");
        same("count", found.len(), 302);
        each_once(&found, &expected);
        let folder = s.root.reader("d").ok();
        let found = rest(s, &folder);
        same("count in little pieces", found.len(), 302);
        each_once(&found, &expected);
    }),
    case(
        "list-2",
        "Each entry has the inode number and the kind that `stat` shows; `..` those of the \
         directory above.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            s.root.touch("d/f");
            s.root.mkdir("d/e", 0o755).ok();
            s.root.symlink("x", "d/l").ok();
            s.root.mknod("d/p", S_IFIFO | 0o600, 0).ok();
            s.root.mknod("d/s", S_IFSOCK | 0o600, 0).ok();
            s.root.mknod("d/c", S_IFCHR | 0o600, 0x103).ok();
            s.root.mknod("d/b", S_IFBLK | 0o600, 0x700).ok();
            let folder = s.root.reader("d").ok();
            let entries = s.root.getdents(&folder, 4096).ok();
            same("count", entries.len(), 9);
            for entry in entries {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                let stat = s.stat(&format!("d/{name}"));
                same(&name, u32::from(entry.kind), stat.kind() >> 12);
                same(&name, entry.inode, stat.inode);
            }
        },
    ),
    case(
        "list-3",
        "`lseek` to the cookie of an entry goes on behind it; to 0 it begins anew and shows what \
         is new.",
        |s| {
            many(s, 50);
            let folder = s.root.reader("d").ok();
            let first = s.root.getdents(&folder, LITTLE).ok();
            let cookie = first.last().expect("some entries").next;
            let behind = rest(s, &folder);
            s.root.lseek(&folder, cookie, SEEK_SET).ok();
            same("behind the cookie", rest(s, &folder), behind);
            s.root.touch("d/new");
            s.root.lseek(&folder, 0, SEEK_SET).gives(0);
            let again = rest(s, &folder);
            same("count", again.len(), 53);
            each_once(&again, &[String::from("new")]);
        },
    ),
    case(
        "list-4",
        "Every cookie leads behind its entry, also the one in the middle of what a call gave.",
        |s| {
            many(s, 40);
            let folder = s.root.reader("d").ok();
            let all = s.root.getdents(&folder, 32 << 10).ok();
            same("count", all.len(), 42);
            for (at, entry) in all.iter().enumerate() {
                s.root.lseek(&folder, entry.next, SEEK_SET).ok();
                let next = s.root.getdents(&folder, LITTLE).ok();
                same(
                    "next",
                    next.first().map(|one| &one.name),
                    all.get(at + 1).map(|one| &one.name),
                );
            }
        },
    ),
    case(
        "list-5",
        "While others create and remove, what was there and stayed is listed once; what came or \
         went once or not at all.",
        |s| {
            let names = many(s, 200);
            let folder = s.root.reader("d").ok();
            let mut found = text(&s.root.getdents(&folder, LITTLE).ok());
            for number in (0..200).step_by(2) {
                s.ann.touch(format!("d/new{number}"));
                s.root.unlink(format!("d/{}", names[number])).ok();
                if number % 20 == 0 {
                    found.extend(text(&s.root.getdents(&folder, LITTLE).ok()));
                }
            }
            found.extend(rest(s, &folder));
            let stayed: Vec<String> = names.iter().skip(1).step_by(2).cloned().collect();
            each_once(&found, &stayed);
            for name in &found {
                let times = found.iter().filter(|one| *one == name).count();
                assert!(times == 1, "{name} is listed {times} times");
            }
        },
    ),
    case("list-6", "Removing each entry as soon as it is listed leaves none out.", |s| {
        many(s, 200);
        let folder = s.root.reader("d").ok();
        let mut removed = 0;
        loop {
            let entries = s.root.getdents(&folder, LITTLE).ok();
            if entries.is_empty() {
                break;
            }
            for name in text(&entries).iter().filter(|name| !name.starts_with('.')) {
                s.root.unlink(format!("d/{name}")).ok();
                removed += 1;
            }
        }
        same("removed", removed, 200);
        s.root.rmdir("d").ok();
    }),
    case(
        "list-7",
        "Listing needs `r` of the directory and not `x`; what an entry is like needs `x`.",
        |s| {
            s.folder("d", ROOT, 0o704);
            s.file("d/f", ROOT, 0o644);
            same("names", s.ann.names("d"), vec![String::from("f")]);
            s.ann.lstat("d/f").fails(EACCES);
            s.root.chmod("d", 0o701).ok();
            s.ann.reader("d").fails(EACCES);
            s.ann.lstat("d/f").ok();
        },
    ),
    case(
        "list-8",
        "Room that is too small for one entry answers `EINVAL`; a file answers `ENOTDIR`.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            let folder = s.root.reader("d").ok();
            s.root.getdents(&folder, 8).fails(EINVAL);
            s.root.touch("f");
            let file = s.root.reader("f").ok();
            s.root.getdents(&file, 4096).fails(ENOTDIR);
        },
    ),
    case("list-9", "At the end a listing gives nothing, however often it is asked.", |s| {
        many(s, 3);
        let folder = s.root.reader("d").ok();
        rest(s, &folder);
        for _ in 0..3 {
            same("nothing", s.root.getdents(&folder, 4096).ok().len(), 0);
        }
    }),
    case(
        "list-10",
        "A rename while a listing is under way never shows both names nor, for one that stays \
         where it is, none.",
        |s| {
            let names = many(s, 100);
            let folder = s.root.reader("d").ok();
            let mut found = text(&s.root.getdents(&folder, LITTLE).ok());
            s.root.rename("d/f050", "d/other").ok();
            found.extend(rest(s, &folder));
            let kept: Vec<String> = names.iter().filter(|name| *name != "f050").cloned().collect();
            each_once(&found, &kept);
        },
    ),
    case(
        "list-11",
        "A name made, removed or renamed shows in the next listing that begins.",
        |s| {
            s.root.mkdir("d", 0o755).ok();
            let names = |expected: &[&str]| {
                same("names", s.ann.names("d"), expected.iter().map(ToString::to_string).collect());
            };
            names(&[]);
            s.root.touch("d/a");
            names(&["a"]);
            s.root.rename("d/a", "d/b").ok();
            names(&["b"]);
            s.root.link("d/b", "d/c").ok();
            names(&["b", "c"]);
            s.root.unlink("d/b").ok();
            names(&["c"]);
        },
    ),
    case("list-12", "Two listings of one directory go on by themselves.", |s| {
        many(s, 60);
        let (one, two) = (s.root.reader("d").ok(), s.root.reader("d").ok());
        let first = s.root.getdents(&one, LITTLE).ok();
        same("the same begin", s.root.getdents(&two, LITTLE).ok(), first);
        same("the same rest", rest(s, &one), rest(s, &two));
    }),
    case("list-13", "Names of any bytes and of 255 bytes are listed as they are.", |s| {
        s.root.mkdir("d", 0o755).ok();
        let names: [&[u8]; 3] = [b"\xff\xfe\x01", b" \n\t", &[b'n'; 255]];
        for name in names {
            s.root.touch([b"d/", name].concat());
        }
        let folder = s.root.reader("d").ok();
        let entries = s.root.getdents(&folder, 4096).ok();
        for name in names {
            holds("it is listed", entries.iter().any(|entry| entry.name == name));
        }
    }),
];
