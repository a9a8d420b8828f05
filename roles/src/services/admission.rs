//! How many requests of clients a node works on at the same time.
//!
//! The clients' door asks here before it hands a request to an office. Signs of life, openings of
//! sessions and questions for the map pass without: they are small, there are as many of them as
//! clients, and a client that cannot renew its session because of others' load would lose it.
//!
//! What must always hold: requests that were let in and are not answered are at most
//! [`CLIENT_REQUESTS_PER_NODE_MAX`], and hold at most [`CLIENT_REQUEST_BYTES_PER_NODE_MAX`].
//!
//! When there is no room: the request is refused at once, with a time after which to come again,
//! which grows while refusing alone would keep the node busy.
//! Nothing waits here: what waits takes memory too, and grows old while it does.

use std::sync::Arc;
use std::time::Duration;

use ministry_types::limits::{
    ATTEMPT_TIMEOUT, CLIENT_REQUEST_BYTES_PER_NODE_MAX, CLIENT_REQUESTS_PER_NODE_MAX,
    COMMAND_BYTES_MAX, LISTING_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX,
};
use ministry_types::operations::{Operation, Query};
use ministry_wire::minister::Refusal;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What every request holds: its task, its caller with groups, its names, its answer.
const REQUEST_BYTES: usize = 16 << 10;
/// What a listing holds beside names: an entry with attributes, for each of the most there can be.
const LISTING_ATTRIBUTES_BYTES: usize = 256 << 10;
/// When to come again, at least: about what it takes to work off what was let in.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(20);
/// The longest: an attempt of a client.
const RETRY_AFTER_MAX: Duration = ATTEMPT_TIMEOUT;
/// How long refusals are counted before the time to come again is set anew.
const COUNTED_FOR: Duration = Duration::from_millis(100);
/// Refusals in that time that cost a node little. Beyond these it would be busy with refusing.
const REFUSALS_CHEAP: u32 = 500;

/// The room for requests of clients on one node.
#[derive(Debug)]
pub(crate) struct Admission {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    refusals: Mutex<Refusals>,
}

/// How many had to be refused of late, and when they are asked to come again.
#[derive(Debug)]
struct Refusals {
    since: Instant,
    count: u32,
    retry_after: Duration,
}

impl Refusals {
    /// Counts one, and says when it may come again: later and later while there are too many.
    fn count(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.since) >= COUNTED_FOR {
            self.retry_after = match self.count {
                count if count > REFUSALS_CHEAP => self.retry_after * 2,
                count if count < REFUSALS_CHEAP / 4 => self.retry_after / 2,
                _ => self.retry_after,
            };
            self.retry_after = self.retry_after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        self.retry_after
    }
}

/// The room of one request; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Default for Admission {
    fn default() -> Admission {
        Admission {
            requests: Arc::new(Semaphore::new(CLIENT_REQUESTS_PER_NODE_MAX)),
            bytes: Arc::new(Semaphore::new(CLIENT_REQUEST_BYTES_PER_NODE_MAX)),
            refusals: Mutex::new(Refusals {
                since: Instant::now(),
                count: 0,
                retry_after: RETRY_AFTER_MIN,
            }),
        }
    }
}

impl Admission {
    /// Lets a request in that holds `bytes` beside what every request holds.
    pub(crate) fn admit(&self, bytes: usize) -> Result<Admitted, Refusal> {
        let bytes = u32::try_from(REQUEST_BYTES.saturating_add(bytes)).unwrap_or(u32::MAX);
        let request = Arc::clone(&self.requests).try_acquire_owned();
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        match (request, bytes) {
            (Ok(request), Ok(bytes)) => Ok(Admitted { _request: request, _bytes: bytes }),
            _ => Err(Refusal::Busy { retry_after: self.refusals.lock().count(Instant::now()) }),
        }
    }
}

/// What a change brings along. It lies in memory twice: as it came, and as a command of the log.
pub(crate) fn change_bytes(operation: &Operation) -> usize {
    let brought = match operation {
        Operation::WriteInline { data, .. } => data.len(),
        Operation::SetXattr { value, .. } => value.len(),
        Operation::ReportWrite { allocated, .. } => std::mem::size_of_val(allocated.as_slice()),
        _ => 0,
    };
    2 * brought.min(COMMAND_BYTES_MAX)
}

/// What the answer to a question may hold, beside a small file.
pub(crate) fn answer_bytes(query: &Query) -> usize {
    match query {
        Query::List { attributes: true, .. } => LISTING_BYTES_MAX + LISTING_ATTRIBUTES_BYTES,
        Query::List { .. } => LISTING_BYTES_MAX,
        Query::GetXattr { .. } => XATTR_VALUE_BYTES_MAX,
        Query::ListXattrs { .. } => XATTRS_BYTES_MAX,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use ministry_types::InodeId;

    use super::*;

    #[test]
    fn what_is_let_in_is_bounded_in_number_and_comes_back() {
        let admission = Admission::default();
        let mut held: Vec<_> =
            (0..CLIENT_REQUESTS_PER_NODE_MAX).map(|_| admission.admit(0).unwrap()).collect();
        assert!(matches!(admission.admit(0), Err(Refusal::Busy { .. })));
        held.pop();
        let again = admission.admit(0);
        assert!(again.is_ok());
        assert!(admission.admit(0).is_err());
    }

    #[test]
    fn the_more_are_refused_the_later_they_are_asked_to_come_again() {
        let mut at = Instant::now();
        let mut refusals = Refusals { since: at, count: 0, retry_after: RETRY_AFTER_MIN };
        let mut told = Vec::new();
        for refused in [2000, 2000, 2000, 2000, 2000, 2000, 2000, 2000, 300, 1, 1, 1, 1] {
            at += COUNTED_FOR;
            for _ in 0..refused {
                refusals.count(at);
            }
            told.push(refusals.retry_after);
        }
        assert!(told[0..7].is_sorted() && told[7] == RETRY_AFTER_MAX, "{told:?}");
        assert_eq!(told[9], RETRY_AFTER_MAX, "a middling number changes nothing");
        assert!(told[12] < RETRY_AFTER_MAX / 2, "{told:?}");
        let single = refusals.count(at + 100 * COUNTED_FOR);
        assert!(single < told[12], "{single:?}");
    }

    #[test]
    fn what_is_let_in_is_bounded_in_bytes() {
        let admission = Admission::default();
        let list = Query::List { inode: InodeId(1), after: 0, entries_max: 9, attributes: true };
        let held: Vec<_> = (0..).map_while(|_| admission.admit(answer_bytes(&list)).ok()).collect();
        assert!(held.len() < CLIENT_REQUESTS_PER_NODE_MAX);
        let bytes = held.len() * (answer_bytes(&list) + REQUEST_BYTES);
        assert!(bytes <= CLIENT_REQUEST_BYTES_PER_NODE_MAX);
        assert!(admission.admit(0).is_ok(), "a small one still fits");
        drop(held);
        assert!(admission.admit(CLIENT_REQUEST_BYTES_PER_NODE_MAX / 2).is_ok());
    }
}
