//! Bad input to the programs, and folders that are not what they should be: one clear line, the
//! right exit code, nothing changed, and what was put right starts again.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ministry_tests::{Cluster, Ended, Plan, Program, tree};

use crate::text;

/// A program that had to be refused with this code, in one line that names what is wrong.
fn refused(program: Program, code: i32, why: &str) -> Ended {
    let ended = program.within(Duration::from_secs(20)).run();
    assert_eq!(ended.status.code(), Some(code), "{ended}");
    assert!(ended.err.contains(why), "no word of '{why}': {ended}");
    assert!(!ended.err.contains("panicked"), "{ended}");
    ended
}

#[test]
fn every_flag_of_ministryd_refuses_a_wrong_value() {
    let cluster = Cluster::bare();
    let data = cluster.scratch().join("data");
    let before = |line: &str| -> Vec<String> {
        line.split(' ').map(|word| word.replace("DATA", text(&data))).collect()
    };
    for (line, why) in [
        ("fly", "fly"),
        ("run", "--data"),
        ("run --data", "--data"),
        ("run --data DATA --listen nowhere", "--listen"),
        ("run --data DATA --listen 127.0.0.1", "--listen"),
        ("run --data DATA --listen 127.0.0.1:70000", "--listen"),
        ("run --data DATA --advertise x:y", "--advertise"),
        ("run --data DATA --metrics 7400", "--metrics"),
        ("run --data DATA --failure-domain rack\u{7}", "--failure-domain"),
        ("run --data DATA --weight=-1", "--weight"),
        ("run --data DATA --weight much", "--weight"),
        ("run --data DATA --weight NaN", "--weight"),
        ("run --data DATA --weight inf", "--weight"),
        ("run --data DATA --metadata perhaps", "--metadata"),
        ("run --data DATA --nonsense 1", "--nonsense"),
        ("run --data DATA --config /nonexistent/file", "/nonexistent/file"),
        ("join --data DATA --listen 127.0.0.1:1", "TOKEN"),
        ("join nonsense --data DATA --listen 127.0.0.1:1", "token"),
        ("join ministry1-aaaa --data DATA --listen 127.0.0.1:1", "token"),
        ("join ministry1-aaaa --data DATA --timeout soon", "--timeout"),
        ("join ministry1-aaaa --data DATA --timeout=-5s", "--timeout"),
        ("check", "--data"),
    ] {
        refused(cluster.ministryd(&[]).args(before(line)), 2, why);
    }
    let missing = cluster.ministryd(&["run", "--listen", "127.0.0.1:1", "--data"]);
    refused(missing.arg(&data), 3, "does not exist");
    assert!(!data.exists(), "a refused command makes no folder");
}

#[test]
fn every_flag_of_ministryctl_refuses_a_wrong_value() {
    let cluster = Cluster::bare();
    for (line, why) in [
        ("fly", "fly"),
        ("--timeout soon status", "--timeout"),
        ("--timeout 0s status", "--timeout"),
        ("--address nowhere status", "--address"),
        ("--address 127.0.0.1 status", "--address"),
        ("--nonsense status", "--nonsense"),
        ("network create", "--data"),
        ("network create --data d", "--listen"),
        ("network create --data d --listen here", "--listen"),
        ("network create --data d --listen 127.0.0.1:1 --nodes 2", "--nodes"),
        ("network create --data d --listen 127.0.0.1:1 --nodes many", "--nodes"),
        ("network create --data d --listen 127.0.0.1:1 --nodes 99999", "--nodes"),
        ("network create --data d --listen 127.0.0.1:1 --weight=-1", "--weight"),
        ("network create --data d --listen 127.0.0.1:1 --metrics x", "--metrics"),
        ("network create --data d --listen 127.0.0.1:1 --advertise x", "--advertise"),
        ("invite", "--node"),
        ("invite --node --client", "--client"),
        ("invite --node --for never", "--for"),
        ("invite --node --for=-1h", "--for"),
        ("invite --node --count 0", "--count"),
        ("invite --node --count 100000", "--count"),
        ("client join", "TOKEN"),
        ("client join nonsense --identity d", "token"),
        ("events --from yesterday", "--from"),
        ("where", "PATH"),
        ("where --chunks few /", "--chunks"),
        ("ministry create", "--subtree"),
        ("ministry create --subtree relative", "--subtree"),
        ("mount", "DIR"),
        ("mount d --metrics x", "--metrics"),
        ("umount", "DIR"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        refused(cluster.ctl(&words).dir(&cluster.scratch()), 2, why);
    }
    assert_eq!(std::fs::read_dir(cluster.scratch()).unwrap().count(), 0, "nothing was made");
}

/// A folder of a stopped node that is spoiled in one way after another, and put right again.
struct Patient {
    data: PathBuf,
    copy: PathBuf,
}

impl Patient {
    fn new(cluster: &Cluster, node: usize) -> Patient {
        let copy = cluster.scratch().join("copy");
        let data = cluster.data(node);
        Program::new("cp").args(["-a", text(&data), text(&copy)]).ok();
        Patient { data, copy }
    }

    fn restore(&self) {
        std::fs::remove_dir_all(&self.data).unwrap();
        Program::new("cp").args(["-a", text(&self.copy), text(&self.data)]).ok();
    }

    /// Spoils the folder: the node must refuse to start, with this code and these words, and
    /// change nothing.
    fn refuses(
        &self,
        cluster: &Cluster,
        code: i32,
        why: &str,
        spoil: impl FnOnce(&Path) -> String,
    ) {
        // The log opens before the state does.
        let opens = why == "the state store";
        let what = spoil(&self.data);
        let before = contents(&self.data);
        let run = cluster.ministryd(&["run", "--data", text(&self.data)]);
        let ended = refused(run, code, why);
        let lines: Vec<&str> =
            ended.err.lines().filter(|line| line.starts_with("ministryd: ")).collect();
        assert_eq!(lines.len(), 1, "{what}: one line for a person: {ended}");
        let after = contents(&self.data);
        // RocksDB moves what is in its write-ahead log into tables when a store opens.
        let kept = |file: &&(PathBuf, u64)| !file.0.starts_with(self.data.join("log/db")) || !opens;
        let changed: Vec<_> =
            before.iter().filter(kept).filter(|file| !after.contains(*file)).collect();
        assert!(changed.is_empty(), "{what}: changed {changed:?}");
        self.restore();
    }
}

/// Every file that holds something of the node, with a sum of its content; not RocksDB's own notes.
fn contents(folder: &Path) -> Vec<(PathBuf, u64)> {
    let note = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("LOG") || name.starts_with("OPTIONS") || name == "LOCK"
    };
    let mut todo = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if !note(&path) {
                found.push((path.clone(), tree::sum(&std::fs::read(&path).unwrap())));
            }
        }
    }
    found.sort();
    found
}

fn edit(path: &Path, from: &str, to: &str) -> String {
    let before = std::fs::read_to_string(path).unwrap();
    let after = before.replace(from, to);
    assert_ne!(before, after, "{from} is in {path:?}");
    std::fs::write(path, after).unwrap();
    format!("{from} to {to} in {path:?}")
}

/// The largest file with this ending.
fn largest(folder: &Path, ending: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let named = files.filter(|path| path.to_string_lossy().ends_with(ending));
    named.max_by_key(|path| std::fs::metadata(path).unwrap().len()).expect("there is one")
}

fn cut(path: &Path, off: u64) -> String {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(off)).unwrap();
    format!("{path:?} cut by {off} of {length}")
}

/// A cluster whose last node is stopped and has something to lose.
fn with_a_stopped_node() -> (Cluster, usize) {
    let mut cluster = Cluster::with(Plan { nodes: 3, ..Plan::default() });
    tree::make(cluster.mount(0), 40, 1);
    let node = (0..3).find(|node| *node != cluster.president()).unwrap();
    cluster.stop_node(node);
    (cluster, node)
}

#[test]
fn a_node_refuses_folders_that_are_not_its_own_or_not_of_its_time() {
    let (mut cluster, node) = with_a_stopped_node();
    let patient = Patient::new(&cluster, node);
    let marker = |data: &Path| data.join("ministry.toml");
    patient.refuses(&cluster, 3, "newer version", |data| {
        edit(&marker(data), "format = 1", "format = 2")
    });
    patient.refuses(&cluster, 3, "damaged", |data| edit(&marker(data), "node = \"", "node = \"0"));
    patient.refuses(&cluster, 3, "no ministry.toml", |data| {
        std::fs::remove_file(marker(data)).unwrap();
        "no marker".into()
    });
    patient.refuses(&cluster, 3, "state", |data| {
        std::fs::remove_dir_all(data.join("state")).unwrap();
        "no state".into()
    });
    patient.refuses(&cluster, 3, "log", |data| {
        std::fs::remove_dir_all(data.join("log")).unwrap();
        "no log".into()
    });
    // The folder of a node of another cluster, in part: its identity.
    let other = Cluster::with(Plan { nodes: 3, mounts: 0, ..Plan::default() });
    let stranger = other.data(1);
    patient.refuses(&cluster, 3, "cluster", |data| {
        std::fs::remove_dir_all(data.join("identity")).unwrap();
        let (from, to) = (stranger.join("identity"), data.join("identity"));
        Program::new("cp").args(["-a", text(&from), text(&to)]).ok();
        "the identity of another cluster".into()
    });
    // Another node of this cluster has the folder.
    let taken = (node + 1) % 3;
    let run = cluster.ministryd(&["run", "--data", text(&cluster.data(taken))]);
    refused(run, 3, "in use");
    back_with_everything(&mut cluster);
}

#[test]
fn corrupt_settings_are_refused_with_the_line() {
    let (mut cluster, node) = with_a_stopped_node();
    let patient = Patient::new(&cluster, node);
    for (text, why) in [
        ("listen = [\n", "line"),
        ("listen = 5\n", "line 1"),
        ("log = \"info\"\nlistn = \"10.0.0.1:7400\"\n", "line 2"),
        ("listen = \"127.0.0.1:1\"\nstorage_weight = -2\n", "storage_weight"),
        ("listen = \"127.0.0.1:1\"\nlog = \"ministry_raft=loudly\"\n", "loudly"),
        ("\u{0}\u{1}\u{2}", "line 1"),
    ] {
        patient.refuses(&cluster, 2, why, |data| {
            std::fs::write(data.join("ministryd.toml"), text).unwrap();
            format!("settings {text:?}")
        });
    }
    back_with_everything(&mut cluster);
}

#[test]
fn a_log_that_lost_its_end_is_refused_and_loses_nothing() {
    let (mut cluster, node) = with_a_stopped_node();
    let patient = Patient::new(&cluster, node);
    let log = |data: &Path| largest(&data.join("log/db"), ".log");
    for off in [1, 100, 3_000, u64::MAX] {
        patient.refuses(&cluster, 1, "the log ends before", |data| cut(&log(data), off));
    }
    patient.refuses(&cluster, 1, "the log", |data| {
        let path = log(data);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&tree::bytes(1, 64), 1_500).unwrap();
        "noise in the middle".into()
    });
    patient.refuses(&cluster, 1, "watermark", |data| {
        std::fs::remove_file(data.join("log/watermark")).unwrap();
        "no watermark".into()
    });
    patient.refuses(&cluster, 1, "watermark", |data| cut(&data.join("log/watermark"), 3));
    patient.refuses(&cluster, 1, "the state store", |data| cut(&data.join("state/CURRENT"), 5));
    patient.refuses(&cluster, 3, "key", |data| {
        std::fs::write(data.join("identity/node.key"), "nonsense").unwrap();
        "a key that is none".into()
    });
    back_with_everything(&mut cluster);
}

/// Put right, the node starts, and all is there.
fn back_with_everything(cluster: &mut Cluster) {
    cluster.start_all();
    let source = cluster.scratch().join("made-again");
    std::fs::create_dir(&source).unwrap();
    tree::make(&source, 40, 1);
    let (made, found) = (tree::read(&source), tree::read(cluster.mount(0)));
    tree::compare(&tree::without_times(made), &tree::without_times(found));
    cluster.assert_all_run();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let (mut cluster, node) = with_a_stopped_node();
    let address = cluster.ports().node(node);
    let taken = std::net::TcpListener::bind(&address).unwrap();
    let run = cluster.ministryd(&["run", "--data", text(&cluster.data(node))]);
    refused(run, 1, &address);
    drop(taken);
    back_with_everything(&mut cluster);
}
