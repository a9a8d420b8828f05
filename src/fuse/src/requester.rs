//! On whose behalf the kernel asks.
//!
//! FUSE tells user, group and thread of the process, not its supplementary groups; those stand in
//! `/proc/<thread>/status`. The process waits inside the request until it is answered, so they can
//! be read at any time before. They are read anew each time: a process may change them, and
//! reading takes microseconds. The super-user passes all checks, so its groups are not read.
//!
//! What must always hold: nobody gets more rights than the process has. Where the groups cannot be
//! read (a process outside of our PID name space) there are none.

use fuser::Request;
use ministry_types::{Caller, limits};

/// The process that made a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requester {
    uid: u32,
    gid: u32,
    thread: u32,
}

impl Requester {
    /// Takes the identity out of a request.
    pub(crate) fn of(request: &Request) -> Requester {
        Requester { uid: request.uid(), gid: request.gid(), thread: request.pid() }
    }

    /// The thread that waits for the answer.
    pub(crate) fn thread(self) -> u32 {
        self.thread
    }

    /// Without the supplementary groups.
    pub(crate) fn caller_without_groups(self) -> Caller {
        Caller { uid: self.uid, gid: self.gid, groups: Vec::new() }
    }

    /// With the supplementary groups.
    pub(crate) fn caller(self) -> Caller {
        let groups = if self.uid == 0 { Vec::new() } else { groups_of(self.thread) };
        Caller { uid: self.uid, gid: self.gid, groups }
    }
}

fn groups_of(thread: u32) -> Vec<u32> {
    // The proc file system answers from memory: this does not block.
    match std::fs::read(format!("/proc/{thread}/status")) {
        Ok(status) => parse_groups(&status),
        Err(_) => Vec::new(),
    }
}

fn parse_groups(status: &[u8]) -> Vec<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Groups:"));
    let text = line.and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|group| group.parse().ok())
        .take(limits::CALLER_GROUPS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supplementary_groups_are_read_from_the_status_of_the_process() {
        let status = b"Name:\tGroups:\nUid:\t1\t1\t1\t1\nGroups:\t4 24 1000 \nNStgid:\t7\n";
        assert_eq!(parse_groups(status), [4, 24, 1000]);
        assert_eq!(parse_groups(b"Groups:\t \n"), [0u32; 0]);
        assert_eq!(parse_groups(b"Groups:\txyz 5"), [5]);
        assert_eq!(parse_groups(b""), [0u32; 0]);
    }

    #[test]
    fn of_more_groups_than_a_request_carries_the_first_count() {
        let many: Vec<String> = (0..3000).map(|group| group.to_string()).collect();
        let found = parse_groups(format!("Groups:\t{}\n", many.join(" ")).as_bytes());
        assert_eq!(found, Vec::from_iter(0..limits::CALLER_GROUPS_MAX as u32));
    }

    #[test]
    fn a_process_that_cannot_be_seen_has_no_further_groups() {
        assert_eq!(groups_of(0), [0u32; 0]);
        assert_eq!(Requester { uid: 0, gid: 0, thread: 1 }.caller(), Caller::root());
    }

    #[test]
    fn our_own_groups_are_found() {
        let expected = parse_groups(&std::fs::read("/proc/self/status").unwrap());
        assert_eq!(groups_of(std::process::id()), expected);
    }
}
