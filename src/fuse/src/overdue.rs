//! Look-ups that have just ended at their deadline.
//!
//! The kernel asks for a name it has seen before once more by a look-up. If that fails, by whatever
//! error, it forgets the name and looks it up afresh, at once and within the same call of the
//! program: a program that waits for a ministry out of reach would wait two deadlines. So the
//! repetition is answered as the first was.
//!
//! What must always hold: forgetting an entry is always safe, it costs a second wait. A program
//! that calls again itself within the moment for which entries live may get the answer once
//! without a wait; after that it waits anew.

use std::collections::HashMap;
use std::time::Duration;

use ministry_types::InodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The kernel repeats at once; this is for a machine that is busy.
const REPEATED_WITHIN: Duration = Duration::from_secs(1);
/// Each belongs to a thread that waits in a call.
const REMEMBERED_MAX: usize = 4_096;

/// The look-ups that ended, by thread and directory.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    ended: Mutex<HashMap<(u32, InodeId), LookUp>>,
}

#[derive(Debug)]
struct LookUp {
    name: Vec<u8>,
    ended: Instant,
}

impl Overdue {
    /// A look-up of this thread ended at its deadline.
    pub(crate) fn ended(&self, thread: u32, parent: InodeId, name: Vec<u8>) {
        let now = Instant::now();
        let mut ended = self.ended.lock();
        if ended.len() >= REMEMBERED_MAX {
            ended.retain(|_, one| now.duration_since(one.ended) < REPEATED_WITHIN);
        }
        if ended.len() < REMEMBERED_MAX {
            ended.insert((thread, parent), LookUp { name, ended: now });
        }
    }

    /// Whether this look-up only repeats one that has just ended so.
    pub(crate) fn repeats(&self, thread: u32, parent: InodeId, name: &[u8]) -> bool {
        let found = self.ended.lock().remove(&(thread, parent));
        found.is_some_and(|one| one.name == name && one.ended.elapsed() < REPEATED_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: InodeId = InodeId(7);

    #[tokio::test(start_paused = true)]
    async fn only_the_repetition_by_the_same_thread_is_answered_at_once() {
        let overdue = Overdue::default();
        overdue.ended(1, PARENT, b"name".to_vec());
        assert!(!overdue.repeats(2, PARENT, b"name"), "another thread");
        assert!(overdue.repeats(1, PARENT, b"name"));
        assert!(!overdue.repeats(1, PARENT, b"name"), "the program's own next call waits");
        overdue.ended(1, PARENT, b"name".to_vec());
        assert!(!overdue.repeats(1, PARENT, b"other"), "another name");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_later_is_no_repetition() {
        let overdue = Overdue::default();
        overdue.ended(1, PARENT, b"name".to_vec());
        tokio::time::advance(REPEATED_WITHIN).await;
        assert!(!overdue.repeats(1, PARENT, b"name"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let overdue = Overdue::default();
        for thread in 0..3 * REMEMBERED_MAX as u32 {
            overdue.ended(thread, PARENT, Vec::new());
        }
        assert!(overdue.ended.lock().len() <= REMEMBERED_MAX);
        tokio::time::advance(REPEATED_WITHIN).await;
        overdue.ended(1, PARENT, b"name".to_vec());
        assert_eq!(overdue.ended.lock().len(), 1);
    }
}
