//! Locks over two mounts: `flock`, `fcntl` and locks of open files, by real programs.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ministry_tests::{Cluster, Program};

use crate::{MINUTE, healthy, text};

/// What answers at once has answered by then, also on a busy machine.
const ANSWERED: Duration = Duration::from_secs(20);
/// A request that has not been answered by then waits.
const WAITS: Duration = Duration::from_millis(700);

/// A program that does what it is told, one word after the other, and says what came of it.
const LOCKER: &str = r#"
import errno, fcntl, os, signal, struct, sys
MODES = {"sh": fcntl.F_RDLCK, "ex": fcntl.F_WRLCK, "un": fcntl.F_UNLCK}
NAMES = {mode: name for name, mode in MODES.items()}
FLOCK = {"sh": fcntl.LOCK_SH, "ex": fcntl.LOCK_EX, "un": fcntl.LOCK_UN}
OFD = {"ofd": True, "posix": False}
files = {}

class Interrupted(Exception):
    pass

def alarm(number, frame):
    raise Interrupted()

# Ignored in what a shell runs in the background, and so in all that is started from there.
signal.signal(signal.SIGINT, signal.default_int_handler)

def flock64(mode, first, length):
    return struct.pack("hhqqi0q", MODES[mode], os.SEEK_SET, int(first), int(length), 0)

def command(ofd, waits):
    if ofd:
        return 38 if waits else 37
    return fcntl.F_SETLKW if waits else fcntl.F_SETLK

def do(word, *words):
    if word == "open":
        files[words[0]] = os.open(words[1], os.O_RDWR)
    elif word == "dup":
        files[words[1]] = os.dup(files[words[0]])
    elif word == "close":
        os.close(files.pop(words[0]))
    elif word == "flock":
        flags = FLOCK[words[1]] | (0 if "wait" in words else fcntl.LOCK_NB)
        fcntl.flock(files[words[0]], flags)
    elif word in OFD:
        record = flock64(*words[1:4])
        fcntl.fcntl(files[words[0]], command(OFD[word], "wait" in words), record)
    elif word == "get":
        found = fcntl.fcntl(files[words[0]], fcntl.F_GETLK, flock64(*words[1:4]))
        mode, _, first, length, pid = struct.unpack("hhqqi0q", found)
        name = NAMES[mode]
        return "free" if name == "un" else f"{name} {first} {length} {pid}"
    elif word == "alarm":
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, float(words[0]))
    elif word == "write":
        os.pwrite(files[words[0]], b"x", 0)
    else:
        raise ValueError(word)
    return "ok"

for line in sys.stdin:
    try:
        answer = do(*line.split())
    except Interrupted:
        answer = "interrupted"
    except OSError as error:
        # Two names for one number.
        answer = "EDEADLK" if error.errno == errno.EDEADLK else errno.errorcode[error.errno]
    print(answer, flush=True)
"#;

/// A process that locks.
struct Locker {
    child: Child,
    words: ChildStdin,
    answers: Receiver<String>,
}

impl Locker {
    /// Begins, with the file open as `f`.
    fn start(file: &Path) -> Locker {
        let mut child = Command::new("python3")
            .args(["-c", LOCKER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let (words, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut locker = Locker { child, words, answers };
        locker.does(&format!("open f {}", text(file)), "ok");
        locker
    }

    fn says(&mut self, words: &str) {
        writeln!(self.words, "{words}").unwrap();
    }

    /// The answer to what was said.
    #[track_caller]
    fn answers(&self) -> String {
        self.answers.recv_timeout(ANSWERED).expect("an answer in time")
    }

    /// Says something that is answered so.
    #[track_caller]
    fn does(&mut self, words: &str, answer: &str) {
        self.says(words);
        assert_eq!(self.answers(), answer, "{words}");
    }

    /// Says something that is not answered yet.
    #[track_caller]
    fn waits(&mut self, words: &str) {
        self.says(words);
        self.still_waits();
    }

    #[track_caller]
    fn still_waits(&self) {
        assert_eq!(self.answers.recv_timeout(WAITS), Err(RecvTimeoutError::Timeout));
    }

    /// Sends a signal and waits until the process has ended.
    #[track_caller]
    fn ends_by(&mut self, signal: &str) -> Duration {
        let began = Instant::now();
        Program::new("kill").args([signal, &self.child.id().to_string()]).ok();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return began.elapsed();
            }
            assert!(began.elapsed() < ANSWERED, "{signal} does not end it");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two mounts with a file, and a process on each.
fn two() -> (Cluster, Locker, Locker) {
    let cluster = Cluster::with_two_mounts();
    std::fs::write(cluster.mount(0).join("file"), "content").unwrap();
    let [here, there] = [0, 1].map(|mount| Locker::start(&cluster.mount(mount).join("file")));
    (cluster, here, there)
}

#[test]
fn flock_holds_over_both_mounts_until_the_last_descriptor_is_closed() {
    let (mut cluster, mut here, mut there) = two();
    here.does("flock f sh", "ok");
    there.does("flock f sh", "ok");
    there.does("flock f ex", "EAGAIN");
    here.does("flock f un", "ok");
    there.does("flock f ex", "ok");
    here.does("flock f sh", "EAGAIN");
    there.does("flock f sh", "ok");
    here.does("flock f sh", "ok");
    there.does("flock f un", "ok");
    here.does("flock f ex", "ok");
    // A second descriptor of the same open file is the same holder.
    here.does("dup f g", "ok");
    here.does("close f", "ok");
    there.does("flock f ex", "EAGAIN");
    there.waits("flock f ex wait");
    here.does("close g", "ok");
    assert_eq!(there.answers(), "ok");
    // Another open file in the same process is another holder.
    let file = cluster.mount(1).join("file");
    there.does(&format!("open h {}", text(&file)), "ok");
    there.does("flock h sh", "EAGAIN");
    // fcntl does not see it.
    let mut third = Locker::start(&cluster.mount(0).join("file"));
    third.does("posix f ex 0 0", "ok");
    third.does("flock f ex", "EAGAIN");
    healthy(&mut cluster);
}

#[test]
fn ranges_of_fcntl_are_split_and_joined_and_go_with_the_first_close() {
    let (mut cluster, mut here, mut there) = two();
    here.does("posix f ex 0 100", "ok");
    here.does("posix f sh 40 20", "ok");
    let pid = here.child.id();
    there.does("get f ex 0 0", "ex 0 40 0");
    there.does("get f ex 40 0", "sh 40 20 0");
    there.does("get f sh 40 20", "free");
    there.does("get f sh 40 0", "ex 60 40 0");
    let mut neighbour = Locker::start(&cluster.mount(0).join("file"));
    neighbour.does("get f ex 0 0", &format!("ex 0 40 {pid}"));
    there.does("posix f sh 50 5", "ok");
    there.does("posix f ex 100 0", "ok");
    here.does("posix f sh 99 2", "EAGAIN");
    here.does("posix f un 10 80", "ok");
    there.does("get f sh 0 50", "ex 0 10 0");
    there.does("get f sh 10 90", "ex 90 10 0");
    here.does("posix f ex 10 10", "ok");
    there.does("get f sh 0 50", "ex 0 20 0");
    // Closing any descriptor of the file takes all locks of the process.
    let file = cluster.mount(0).join("file");
    here.does(&format!("open g {}", text(&file)), "ok");
    here.does("close g", "ok");
    there.does("posix f ex 0 0", "ok");
    healthy(&mut cluster);
}

#[test]
fn locks_of_open_files_stay_until_that_open_file_is_closed() {
    let (mut cluster, mut here, mut there) = two();
    let file = cluster.mount(0).join("file");
    here.does("ofd f ex 0 10", "ok");
    here.does(&format!("open g {}", text(&file)), "ok");
    here.does("ofd g sh 0 1", "EAGAIN");
    here.does("close g", "ok");
    there.does("posix f ex 0 1", "EAGAIN");
    there.waits("ofd f sh 9 1 wait");
    here.does("close f", "ok");
    assert_eq!(there.answers(), "ok");
    healthy(&mut cluster);
}

#[test]
fn locks_go_with_their_process_and_with_their_mount() {
    let (mut cluster, mut here, mut there) = two();
    here.does("flock f ex", "ok");
    here.does("posix f ex 0 0", "ok");
    there.waits("flock f ex wait");
    here.ends_by("-KILL");
    assert_eq!(there.answers(), "ok");
    there.does("posix f ex 0 0", "ok");
    // A mount that is taken away gives its locks back at once.
    let mut here = Locker::start(&cluster.mount(0).join("file"));
    here.waits("flock f sh wait");
    there.ends_by("-KILL");
    assert_eq!(here.answers(), "ok");
    let mut there = Locker::start(&cluster.mount(1).join("file"));
    there.does("posix f ex 0 0", "ok");
    here.waits("posix f ex 0 0 wait");
    // The session of a mount that was killed ends after five seconds.
    let killed = Instant::now();
    cluster.mount_process(1).kill();
    assert_eq!(here.answers(), "ok");
    let freed = killed.elapsed();
    println!("freed after {freed:?}");
    assert!(freed > Duration::from_secs(3) && freed < Duration::from_secs(9), "{freed:?}");
}

#[test]
fn who_waits_for_longer_comes_first() {
    let (mut cluster, mut here, mut there) = two();
    let mut third = Locker::start(&cluster.mount(0).join("file"));
    here.does("posix f sh 0 10", "ok");
    there.waits("posix f ex 0 10 wait");
    // It would go with the first; but then the second would wait for it too. (One that does not wait
    // is in nobody's way for long: it gets what nobody holds.)
    third.does("posix f sh 0 10", "ok");
    third.does("posix f un 0 0", "ok");
    third.says("posix f sh 0 10 wait");
    std::thread::sleep(Duration::from_millis(300));
    here.does("posix f un 0 0", "ok");
    assert_eq!(there.answers(), "ok");
    third.still_waits();
    there.does("posix f un 0 0", "ok");
    assert_eq!(third.answers(), "ok");
    // Nobody waits for ever for his turn alone: the holder may be waiting for him.
    there.says("posix f ex 0 10 wait");
    std::thread::sleep(WAITS);
    here.says("posix f sh 0 10 wait");
    assert_eq!(here.answers(), "ok");
    there.still_waits();
    healthy(&mut cluster);
}

#[test]
fn a_deadlock_over_two_mounts_is_found_for_fcntl_alone() {
    let (mut cluster, mut here, mut there) = two();
    here.does("posix f ex 0 1", "ok");
    there.does("posix f ex 1 1", "ok");
    here.waits("posix f ex 1 1 wait");
    there.does("posix f ex 0 1 wait", "EDEADLK");
    there.does("posix f un 1 1", "ok");
    assert_eq!(here.answers(), "ok");
    here.does("posix f un 0 0", "ok");
    // Locks of open files wait, as on a local file system.
    here.does("ofd f ex 0 1", "ok");
    there.does("ofd f ex 1 1", "ok");
    here.does("alarm 6", "ok");
    here.waits("ofd f ex 1 1 wait");
    there.waits("ofd f ex 0 1 wait");
    assert_eq!(here.answers(), "interrupted");
    here.does("ofd f un 0 0", "ok");
    assert_eq!(there.answers(), "ok");
    healthy(&mut cluster);
}

#[test]
fn signals_end_a_wait_and_leave_no_lock_behind() {
    let (mut cluster, mut here, mut there) = two();
    for lock in ["flock f ex wait", "posix f ex 0 0 wait", "ofd f ex 0 0 wait"] {
        let again = lock.replace(" wait", "");
        here.does(lock, "ok");
        there.does("alarm 1", "ok");
        let began = Instant::now();
        there.does(lock, "interrupted");
        println!("{lock}: interrupted after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        there.does(&again, "EAGAIN");
        // Ctrl-C and the signal that nobody can catch.
        for signal in ["-INT", "-KILL"] {
            let mut third = Locker::start(&cluster.mount(1).join("file"));
            third.waits(lock);
            let took = third.ends_by(signal);
            println!("{lock}: ended by {signal} after {took:?}");
            assert!(took < Duration::from_secs(4), "{took:?}");
        }
        here.does(&again.replace("ex", "un"), "ok");
        there.does(&again, "ok");
        there.does(&again.replace("ex", "un"), "ok");
    }
    healthy(&mut cluster);
}

#[test]
fn locks_and_waits_outlive_their_minister() {
    let (mut cluster, mut here, mut there) = two();
    here.does("posix f ex 0 10", "ok");
    here.does("flock f ex", "ok");
    there.waits("posix f ex 5 10 wait");
    let minister = cluster.minister(1);
    cluster.kill_node(minister);
    there.still_waits();
    let mut third = Locker::start(&cluster.mount(1).join("file"));
    third.does("flock f sh", "EAGAIN");
    third.waits("flock f sh wait");
    here.does("posix f un 0 0", "ok");
    assert_eq!(there.answers(), "ok");
    cluster.start_node(minister);
    cluster.wait_until_serving();
    let minister = cluster.minister(1);
    cluster.kill_node(minister);
    here.does("flock f un", "ok");
    assert_eq!(third.answers(), "ok");
    cluster.start_node(minister);
    cluster.wait_until_serving();
    healthy(&mut cluster);
}

#[test]
fn shells_on_both_mounts_count_without_losing_one() {
    let mut cluster = Cluster::with_two_mounts();
    std::fs::write(cluster.mount(0).join("count"), "0\n").unwrap();
    std::fs::write(cluster.mount(0).join("lock"), "").unwrap();
    let count = r#"for i in $(seq 15); do
        flock lock sh -c 'read n < count; echo $((n + 1)) > count'
    done"#;
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    std::thread::scope(|scope| {
        for mount in [here, there, here, there] {
            scope.spawn(move || Program::script(count).dir(mount).within(3 * MINUTE).ok());
        }
    });
    assert_eq!(std::fs::read_to_string(there.join("count")).unwrap(), "60\n");
    // What util-linux offers beside.
    let mut holder = Locker::start(&here.join("lock"));
    holder.does("flock f ex", "ok");
    let script = |text: &str| Program::script(text).dir(there).within(MINUTE).ok();
    assert_eq!(script("flock -n lock true || echo $?"), "1\n");
    assert_eq!(script("flock -w 1 lock true || echo $?"), "1\n");
    assert_eq!(script("flock -s -n lock true || echo $?"), "1\n");
    holder.does("close f", "ok");
    assert_eq!(script("flock -n lock echo free"), "free\n");
    healthy(&mut cluster);
}
