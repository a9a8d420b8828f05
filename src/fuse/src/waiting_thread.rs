//! What can be learned of a thread while it waits inside its system call for our answer.
//!
//! Two things that fuser does not hand over: whether a lock was asked for by `flock` or by `fcntl`
//! (`/proc/<thread>/syscall` tells the call), and that a signal is to end a wait
//! (`/proc/<thread>/status` tells which are pending). The thread cannot go away meanwhile, since
//! it gets our answer first.
//!
//! What must always hold: nothing is guessed. Where `/proc` does not tell (a process outside of our
//! name space of processes, or of another user under a strict `ptrace_scope`), the call is unknown
//! and no signal is pending.

use std::time::Duration;

/// The call by which a lock was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockCall {
    /// `flock`.
    Flock,
    /// `fcntl` for the process (`F_SETLK`, `F_SETLKW`).
    Process,
    /// `fcntl` for the open file (`F_OFD_SETLK`, `F_OFD_SETLKW`).
    OpenFile,
}

/// The numbers of `flock` and of the two `fcntl` in 32-bit programs on x86 and Arm. A 64-bit call
/// of the same number asks for no locks.
const CALLS_OF_32_BITS: (u64, [u64; 2]) = (143, [55, 221]);
/// Looks at a thread that has not come to rest in its call yet, and the time between two.
const LOOKS: u32 = 50;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
/// Threads of a process that are looked at to find out for which of them a signal is.
const THREADS_MAX: usize = 256;

/// By which call the thread asked for a lock. `None`: it cannot be told. Blocks for a moment: the
/// kernel waits until the thread has come to rest.
pub(crate) fn lock_call(thread: u32) -> Option<LockCall> {
    for _ in 0..LOOKS {
        let text = std::fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
        if text.trim() != "running" {
            return parse_call(&text);
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    None
}

fn parse_call(text: &str) -> Option<LockCall> {
    let mut words = text.split_ascii_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let command = words.nth(1)?.strip_prefix("0x")?;
    let command = u64::from_str_radix(command, 16).ok()?;
    let (flock, fcntl) = CALLS_OF_32_BITS;
    if number == libc::SYS_flock as u64 || number == flock {
        return Some(LockCall::Flock);
    }
    if number != libc::SYS_fcntl as u64 && !fcntl.contains(&number) {
        return None;
    }
    let of_open_file = [libc::F_OFD_GETLK, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
    let open_file = of_open_file.iter().any(|one| u64::try_from(*one) == Ok(command));
    Some(if open_file { LockCall::OpenFile } else { LockCall::Process })
}

/// Signals of a thread, one bit each, the first at the bottom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Signals {
    process: u32,
    threads: u32,
    of_thread: u64,
    of_process: u64,
    blocked: u64,
    ignored: u64,
}

fn signals_of(path: &str) -> Option<Signals> {
    // The proc file system answers from memory: this does not block.
    std::fs::read_to_string(path).ok().map(|status| parse_signals(&status))
}

fn parse_signals(status: &str) -> Signals {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let number = |name| field(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    let mask = |name| field(name).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    Signals {
        process: number("Tgid:"),
        threads: number("Threads:"),
        of_thread: mask("SigPnd:"),
        of_process: mask("ShdPnd:"),
        blocked: mask("SigBlk:"),
        ignored: mask("SigIgn:"),
    }
}

/// Whether a signal waits for this thread to come back from its call.
///
/// A signal of the whole process is handled by one thread, and the kernel has chosen which: the
/// first one if it does not block the signal. Telling another one that it was interrupted would
/// hand that program an error number that is none (`ERESTARTSYS` without a signal), so where it is
/// not certain that the signal is this thread's, the answer is no.
pub(crate) fn is_signalled(thread: u32) -> bool {
    let Some(signals) = signals_of(&format!("/proc/{thread}/status")) else { return false };
    let open = !signals.blocked & !signals.ignored;
    if signals.of_thread & open != 0 {
        return true;
    }
    let shared = signals.of_process & open;
    if shared == 0 {
        return false;
    }
    signals.threads == 1 || signals.process == thread || others_block(thread, &signals, shared)
}

/// Whether every other thread of the process blocks one of these signals.
fn others_block(thread: u32, signals: &Signals, shared: u64) -> bool {
    let folder = format!("/proc/{}/task", signals.process);
    let Ok(threads) = std::fs::read_dir(folder) else { return false };
    let mut left = shared;
    for (count, entry) in threads.enumerate() {
        let Some(path) = entry.ok().map(|entry| entry.path()) else { return false };
        if count >= THREADS_MAX || left == 0 {
            return false;
        }
        if path.file_name().and_then(|name| name.to_str()) == Some(thread.to_string().as_str()) {
            continue;
        }
        match path.join("status").to_str().and_then(signals_of) {
            Some(other) => left &= other.blocked,
            // It has just ended: it takes no signal.
            None => continue,
        }
    }
    left != 0
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_call_is_known_by_its_number_and_command() {
        let (flock, fcntl) = (libc::SYS_flock, libc::SYS_fcntl);
        let text =
            |number, command| format!("{number} 0x3 0x{command:x} 0x7ff 0x0 0x0 0x0 0x1 0x2");
        assert_eq!(parse_call(&text(flock, 2)), Some(LockCall::Flock));
        assert_eq!(parse_call(&text(fcntl, libc::F_SETLKW)), Some(LockCall::Process));
        assert_eq!(parse_call(&text(fcntl, libc::F_OFD_SETLKW)), Some(LockCall::OpenFile));
        assert_eq!(parse_call(&text(143, 2)), Some(LockCall::Flock));
        assert_eq!(parse_call(&text(221, libc::F_SETLK)), Some(LockCall::Process));
        assert_eq!(parse_call(&text(0, libc::F_SETLK)), None);
        assert_eq!(parse_call("-1 0x7ffe 0x7f"), None);
        assert_eq!(parse_call(""), None);
    }

    #[test]
    fn masks_of_signals_are_read() {
        let status = "Tgid:\t77\nThreads:\t3\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000002000\n\
             SigBlk:\t0000000000000002\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000000\n";
        let expected = Signals {
            process: 77,
            threads: 3,
            of_thread: 1,
            of_process: 0x2000,
            blocked: 2,
            ignored: 0x1000,
        };
        assert_eq!(parse_signals(status), expected);
        assert_eq!(parse_signals("nonsense"), Signals::default());
    }

    #[test]
    fn the_call_of_another_process_is_found_and_no_signal_in_it() {
        let file = tempfile_path();
        let hold = std::fs::File::create(&file).unwrap();
        hold.lock().unwrap();
        let path = file.to_str().unwrap();
        let mut waiting = Command::new("flock")
            .args(["--exclusive", path, "true"])
            .stdout(Stdio::null())
            .spawn()
            .expect("util-linux is everywhere");
        let until = Instant::now() + Duration::from_secs(20);
        while lock_call(waiting.id()) != Some(LockCall::Flock) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(lock_call(waiting.id()), Some(LockCall::Flock));
        assert!(!is_signalled(waiting.id()));
        drop(hold);
        assert!(waiting.wait().unwrap().success());
        std::fs::remove_file(file).unwrap();
        assert_eq!(lock_call(0), None);
        assert!(!is_signalled(0));
    }

    fn tempfile_path() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("ministry-waiting-thread-{}", std::process::id()))
    }
}
