//! What each call costs: messages to the minister, and commits of its log. The page
//! `docs/reference/budgets.md` promises it; here every row is measured over many calls.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use ministry_tests::Cluster;

use crate::operator::get;

/// Calls that are measured together.
const CALLS: usize = 60;
/// Commits that others cause meanwhile: ten rounds of settling in a second, and what the president
/// orders.
const OTHER_COMMITS_PER_SECOND: f64 = 11.0;
const OTHER_COMMITS: f64 = 2.0;
/// Messages that belong to no call: signs of life.
const OTHER_MESSAGES_PER_SECOND: f64 = 2.0;
const OTHER_MESSAGES: f64 = 6.0;

#[derive(Debug, Clone, Copy)]
struct Cost {
    messages: f64,
    commits: f64,
}

fn sum(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn counted(cluster: &Cluster) -> Cost {
    let mut cost = Cost { messages: 0.0, commits: 0.0 };
    for node in 0..cluster.nodes() {
        let (status, page) = get(&cluster.ports().metrics(node), "/metrics");
        assert!(status.contains("200"), "{status}");
        cost.messages += sum(&page, "ministry_minister_change_seconds_count")
            + sum(&page, "ministry_minister_query_seconds_count");
        cost.commits += sum(&page, "ministry_raft_commit_seconds_count");
    }
    cost
}

/// Does something [`CALLS`] times, and holds what one of them cost against the page.
fn measure(cluster: &Cluster, row: &str, mut call: impl FnMut(usize)) {
    let page = include_str!("../../docs/reference/budgets.md");
    let line = page.lines().find(|line| line.starts_with(&format!("| {row} |")));
    let line = line.unwrap_or_else(|| panic!("the page has no row '{row}'"));
    let cells: Vec<f64> =
        line.split('|').skip(2).filter_map(|cell| cell.trim().parse().ok()).collect();
    let [messages, commits] = cells[..] else { panic!("two numbers in the row '{row}': {line}") };
    // What went before is settled by then.
    std::thread::sleep(Duration::from_millis(400));
    let before = counted(cluster);
    let began = Instant::now();
    for number in 0..CALLS {
        call(number);
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = counted(cluster);
    let calls = CALLS as f64;
    let cost = Cost {
        messages: (after.messages - before.messages) / calls,
        commits: (after.commits - before.commits) / calls,
    };
    println!("{row}: {:.2} messages, {:.2} commits", cost.messages, cost.commits);
    let others = (OTHER_MESSAGES + OTHER_MESSAGES_PER_SECOND * seconds) / calls;
    assert!(cost.messages <= messages + others, "{row}: {cost:?}, the page says {messages}");
    let others = (OTHER_COMMITS + OTHER_COMMITS_PER_SECOND * seconds) / calls;
    assert!(cost.commits <= commits + others, "{row}: {cost:?}, the page says {commits}");
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn calls_cost_what_the_page_says() {
    let cluster = Cluster::start();
    let top = cluster.mount(0).join("budgets");
    std::fs::create_dir(&top).unwrap();
    let name = |number: usize| top.join(format!("f{number}"));
    measure(&cluster, "create", |number| drop(File::create_new(name(number)).unwrap()));
    let mut file = open(&name(0));
    measure(&cluster, "write 4 KiB or less", |_| file.write_all(b"some bytes").unwrap());
    measure(&cluster, "write and fsync", |_| {
        file.write_all(b"more bytes").unwrap();
        file.sync_all().unwrap();
    });
    measure(&cluster, "fsync of a clean file", |_| file.sync_all().unwrap());
    drop(file);
    measure(&cluster, "chmod that takes rights", |number| {
        std::fs::set_permissions(name(number), Permissions::from_mode(0o600)).unwrap();
    });
    let files: Vec<File> = (0..CALLS).map(|number| open(&name(number))).collect();
    measure(&cluster, "utimens through a handle", |number| {
        files[number].set_modified(SystemTime::UNIX_EPOCH).unwrap();
    });
    measure(&cluster, "chown to the owner, chmod that gives rights, through a handle", |number| {
        fchown(&files[number], Some(0), Some(0)).unwrap();
        files[number].set_permissions(Permissions::from_mode(0o644)).unwrap();
    });
    drop(files);
    measure(&cluster, "stat", |number| {
        std::fs::metadata(name(number)).unwrap();
    });
    measure(&cluster, "open and close", |number| drop(open(&name(number))));
    measure(&cluster, "read a small file", |number| {
        let mut bytes = Vec::new();
        File::open(name(number)).unwrap().read_to_end(&mut bytes).unwrap();
    });
    measure(&cluster, "rename", |number| {
        std::fs::rename(name(number), top.join(format!("g{number}"))).unwrap();
    });
    let name = |number: usize| top.join(format!("g{number}"));
    measure(&cluster, "link", |number| {
        std::fs::hard_link(name(number), top.join(format!("l{number}"))).unwrap();
    });
    measure(&cluster, "symlink", |number| {
        std::os::unix::fs::symlink("target", top.join(format!("s{number}"))).unwrap();
    });
    let file = open(&name(0));
    measure(&cluster, "truncate through a handle", |number| {
        file.set_len(number as u64 + 1).unwrap();
    });
    measure(&cluster, "flock, and its end", |_| {
        file.lock().unwrap();
        file.unlock().unwrap();
    });
    drop(file);
    measure(&cluster, "unlink", |number| std::fs::remove_file(name(number)).unwrap());
    measure(&cluster, "mkdir", |number| std::fs::create_dir(name(number)).unwrap());
    measure(&cluster, "rmdir", |number| std::fs::remove_dir(name(number)).unwrap());
}
