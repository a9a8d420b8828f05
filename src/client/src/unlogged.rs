//! Writes that a minister has acknowledged and not logged yet.
//!
//! A minister answers a write before its log has it, and tells so. The client that made the write
//! keeps it ([`UnloggedWrites::keep`]) until the minister says that it is logged, and tells it to
//! the next minister if this one dies before ([`UnloggedWrites::begin_reclaim`]). So an
//! acknowledged write is lost only when minister and client die within the same moment, and what
//! `fsync` acknowledged not even then.
//!
//! What must always hold: an acknowledgement of a minister that came after the client began to
//! tell its successor is none: the successor does not know of that write.

use std::collections::BTreeMap;

use ministry_types::limits::UNLOGGED_BYTES_PER_SESSION_MAX;
use ministry_types::operations::{Operation, WriteAt};
use ministry_types::{Epoch, MinistryId, SessionId, Timestamp};
use ministry_wire::minister::{ReignId, SoftMark, UnloggedWrite};
use parking_lot::Mutex;

/// The writes of one client.
#[derive(Debug, Default)]
pub(crate) struct UnloggedWrites {
    ministries: Mutex<BTreeMap<MinistryId, Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The reign that has been told everything, and by which session. `None`: nobody, or somebody
    /// is being told.
    told: Option<(SessionId, ReignId)>,
    /// The newest reign that may have been told something. An older one is told nothing after it:
    /// its acknowledgements would count again, and the newer one would not ask again.
    newest: Epoch,
    writes: BTreeMap<Timestamp, UnloggedWrite>,
    bytes: usize,
    /// Writes that nobody has answered yet.
    under_way: BTreeMap<(SessionId, u32), UnloggedWrite>,
}

/// A write that waits for its answer, as long as this lives.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    writes: &'a UnloggedWrites,
    ministry: MinistryId,
    place: (SessionId, u32),
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.writes.ministries.lock().get_mut(&self.ministry) {
            kept.under_way.remove(&self.place);
        }
    }
}

impl Kept {
    fn is_of(&self, reign: ReignId) -> bool {
        self.told.is_some_and(|(_, told)| told == reign)
    }
}

fn bytes(write: &UnloggedWrite) -> usize {
    let data = match &write.operation {
        Operation::WriteInline { data, .. } => data.len(),
        Operation::ReportWrite { allocated, .. } => allocated.len() * 16,
        _ => 0,
    };
    data + write.caller.groups.len() * 4 + 128
}

impl UnloggedWrites {
    /// A write goes on its way. The minister shows it to others of this client as soon as it has it;
    /// when that minister dies, its successor must have it before it shows them anything.
    pub fn begin(
        &self,
        ministry: MinistryId,
        session: SessionId,
        write: UnloggedWrite,
    ) -> UnderWay<'_> {
        let place = (session, write.slot);
        let mut ministries = self.ministries.lock();
        ministries.entry(ministry).or_default().under_way.insert(place, write);
        UnderWay { writes: self, ministry, place }
    }

    /// Keeps a write that was acknowledged. `false`: the acknowledgement came too late, and the
    /// write has to be asked for again.
    pub fn keep(&self, ministry: MinistryId, mark: SoftMark, write: UnloggedWrite) -> bool {
        let mut ministries = self.ministries.lock();
        let kept = ministries.entry(ministry).or_default();
        if !kept.is_of(mark.reign) {
            return false;
        }
        kept.bytes += bytes(&write);
        if let Some(before) = kept.writes.insert(mark.time, write) {
            kept.bytes -= bytes(&before);
        }
        true
    }

    /// A minister says that it has logged all writes up to `until`.
    pub fn logged(&self, ministry: MinistryId, reign: ReignId, until: Timestamp) {
        let mut ministries = self.ministries.lock();
        let Some(kept) = ministries.get_mut(&ministry) else { return };
        // Two ministers' clocks differ: each speaks for its own reign.
        if !kept.is_of(reign) {
            return;
        }
        while let Some(first) = kept.writes.first_entry()
            && *first.key() <= until
        {
            kept.bytes -= bytes(&first.remove());
        }
    }

    /// Whether a further write to a ministry has to wait. Each by itself: one that is down does not
    /// stop the others.
    pub fn is_full(&self, ministry: MinistryId) -> bool {
        let ministries = self.ministries.lock();
        let kept = ministries.get(&ministry).map_or(0, |kept| kept.bytes);
        kept >= UNLOGGED_BYTES_PER_SESSION_MAX
    }

    /// The ministries that have not logged everything.
    pub fn ministries(&self) -> Vec<MinistryId> {
        let ministries = self.ministries.lock();
        let waiting = ministries.iter().filter(|(_, kept)| !kept.writes.is_empty());
        waiting.map(|(ministry, _)| *ministry).collect()
    }

    /// Whether a ministry has logged everything.
    pub fn is_empty(&self, ministry: MinistryId) -> bool {
        self.ministries.lock().get(&ministry).is_none_or(|kept| kept.writes.is_empty())
    }

    /// A session was opened in a reign. `false`: that reign has to be told of older writes.
    pub fn begin_session(&self, ministry: MinistryId, session: SessionId, reign: ReignId) -> bool {
        let mut ministries = self.ministries.lock();
        let kept = ministries.entry(ministry).or_default();
        let nothing_to_tell = kept.writes.is_empty() && reign.epoch >= kept.newest;
        if nothing_to_tell {
            kept.told = Some((session, reign));
        }
        nothing_to_tell
    }

    /// Whether a session has told a reign everything.
    pub fn was_told(&self, ministry: MinistryId, session: SessionId, reign: ReignId) -> bool {
        let ministries = self.ministries.lock();
        ministries.get(&ministry).is_some_and(|kept| kept.told == Some((session, reign)))
    }

    /// What a new reign has to be told by a session, in order: first what was acknowledged. From now
    /// on an older one's word is worth nothing. `None`: it is an older one itself.
    pub fn begin_reclaim(
        &self,
        ministry: MinistryId,
        session: SessionId,
        reign: ReignId,
    ) -> Option<Vec<UnloggedWrite>> {
        let mut ministries = self.ministries.lock();
        let kept = ministries.entry(ministry).or_default();
        if reign.epoch < kept.newest {
            return None;
        }
        kept.newest = reign.epoch;
        kept.told = None;
        // Of a session that has ended nobody will ask for the answer any more.
        let of = (session, 0)..=(session, u32::MAX);
        let under_way = kept.under_way.range(of).map(|(_, write)| write);
        Some(kept.writes.values().chain(under_way).cloned().collect())
    }

    /// A reign has been told everything.
    pub fn reclaimed(&self, ministry: MinistryId, session: SessionId, reign: ReignId) {
        let mut ministries = self.ministries.lock();
        ministries.entry(ministry).or_default().told = Some((session, reign));
    }
}

/// The write as it can be told again: its place is settled.
pub(crate) fn placed(operation: &Operation, offset: u64) -> Operation {
    match operation {
        Operation::WriteInline { at: WriteAt::Within(_), .. } => operation.clone(),
        Operation::WriteInline { inode, data, .. } => Operation::WriteInline {
            inode: *inode,
            at: WriteAt::Offset(offset),
            data: data.clone(),
        },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ministry_types::{Caller, InodeId};

    const MINISTRY: MinistryId = MinistryId(1);
    const SESSION: SessionId = SessionId([1; 16]);

    fn reign(epoch: u64) -> ReignId {
        ReignId { epoch: Epoch(epoch), incarnation: 7 }
    }

    fn mark(epoch: u64, time: i64) -> SoftMark {
        SoftMark { reign: reign(epoch), time: Timestamp(time) }
    }

    fn writes() -> UnloggedWrites {
        let writes = UnloggedWrites::default();
        assert!(writes.begin_session(MINISTRY, SESSION, reign(1)));
        writes
    }

    fn write(time: i64, length: usize) -> UnloggedWrite {
        let data = Bytes::from(vec![1; length]);
        let operation = Operation::WriteInline { inode: InodeId(5), at: WriteAt::End, data };
        UnloggedWrite {
            slot: 0,
            sequence: time as u64,
            caller: Caller::root(),
            time: Some(Timestamp(time)),
            operation: placed(&operation, 7),
        }
    }

    #[test]
    fn what_is_logged_is_forgotten_and_the_rest_is_told_in_order() {
        let writes = writes();
        for time in [3, 1, 2, 4] {
            assert!(writes.keep(MINISTRY, mark(1, time), write(time, 10)));
        }
        writes.logged(MINISTRY, reign(2), Timestamp(9));
        writes.logged(MINISTRY, reign(1), Timestamp(2));
        let told = writes.begin_reclaim(MINISTRY, SESSION, reign(2)).unwrap();
        assert_eq!(
            told.iter().filter_map(|write| write.time).collect::<Vec<_>>(),
            [3, 4].map(Timestamp)
        );
        assert!(!writes.was_told(MINISTRY, SESSION, reign(2)));
        writes.reclaimed(MINISTRY, SESSION, reign(2));
        assert!(writes.was_told(MINISTRY, SESSION, reign(2)));
        writes.logged(MINISTRY, reign(2), Timestamp(4));
        assert!(writes.begin_session(MINISTRY, SESSION, reign(3)), "nothing is left");
    }

    #[test]
    fn an_acknowledgement_of_a_minister_that_was_replaced_is_none() {
        let writes = writes();
        assert!(writes.keep(MINISTRY, mark(1, 1), write(1, 10)));
        assert!(writes.begin_reclaim(MINISTRY, SESSION, reign(2)).is_some());
        assert!(!writes.keep(MINISTRY, mark(1, 2), write(2, 10)));
        // The one before, which does not know yet that it is over.
        assert_eq!(writes.begin_reclaim(MINISTRY, SESSION, reign(1)), None);
        assert!(!writes.keep(MINISTRY, mark(1, 2), write(2, 10)));
        assert!(!writes.begin_session(MINISTRY, SESSION, reign(2)));
        writes.reclaimed(MINISTRY, SESSION, reign(2));
        assert!(!writes.keep(MINISTRY, mark(1, 2), write(2, 10)));
        assert!(writes.keep(MINISTRY, mark(2, 3), write(3, 10)));
    }

    #[test]
    fn what_nobody_has_answered_is_told_last_by_the_session_that_asked() {
        let writes = writes();
        let unanswered = UnloggedWrite { time: None, slot: 3, ..write(9, 10) };
        let under_way = writes.begin(MINISTRY, SESSION, unanswered.clone());
        assert!(writes.keep(MINISTRY, mark(1, 5), write(5, 10)));
        let told = |session| writes.begin_reclaim(MINISTRY, session, reign(2)).unwrap();
        assert_eq!(told(SESSION), [write(5, 10), unanswered]);
        assert_eq!(told(SessionId([2; 16])), [write(5, 10)]);
        drop(under_way);
        assert_eq!(told(SESSION), [write(5, 10)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let writes = writes();
        let each = UNLOGGED_BYTES_PER_SESSION_MAX / 2;
        assert!(writes.keep(MINISTRY, mark(1, 1), write(1, each)));
        assert!(!writes.is_full(MINISTRY));
        assert!(writes.keep(MINISTRY, mark(1, 2), write(2, each)));
        assert!(writes.is_full(MINISTRY));
        assert!(!writes.is_full(MinistryId(2)), "another ministry has room of its own");
        writes.logged(MINISTRY, reign(1), Timestamp(1));
        assert!(!writes.is_full(MINISTRY));
    }
}
