//! Soft state: what writes have made of files before the log has it.
//!
//! A small write must not cost an entry of the log and its sync, and neither must a change of a
//! file's times (an archive that is unpacked sets those of each file, and owner and mode to what
//! they are). So the minister carries such a change out over the state with the same rules as ever
//! ([`Namespace::write_softly`]), but keeps the result in memory as an [`Unlogged`], one for each
//! file. Rights are only ever given this way (an archive's files are made for their owner alone, and
//! opened to others when they are whole): what takes rights away, or changes an owner, goes through
//! the log at once, so that nobody has more rights for a minister's death. In what follows *write*
//! means either. Whoever asks sees the state with it laid
//! over ([`SoftView`]). Before `fsync`, before any other change of that file, and a moment later in
//! any case it goes into the log ([`Command::Settle`]), where every member does what the minister
//! showed.
//!
//! The minister's office holds the [`Unlogged`]s and orders writes and changes of one file; the
//! client keeps its writes until they are logged and tells them to the next minister. Here are the
//! rules alone.
//!
//! What must always hold: settling an [`Unlogged`] gives the state that the view showed, also when
//! names of the file have come and gone in between: those change the number of links and `ctime`
//! alone. Each write of a file gets a time larger than those before, which is its identity: the
//! record keeps the newest one ([`InodeRecord::newest_write`]; [`InodeRecord::atime_until`] for times
//! of access), so the same thing settled twice, or something old settled late, changes nothing. A
//! write that is told again to another minister keeps its time; its `ctime` may be a later one,
//! where a name of the file has changed meanwhile.
//!
//! [`Command::Settle`]: crate::Command::Settle

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ministry_types::kv::{KvError, KvRead, Visit};
use ministry_types::operations::{ChangeResult, Operation, Outcome};
use ministry_types::{
    Attributes, Caller, ChunkNumber, FileKind, FsError, InodeId, SessionId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::Namespace;
use crate::acl_attributes::AclsKept;
use crate::command::encode;
use crate::data::Report;
use crate::keys::Subject;
use crate::overlay::Overlay;
use crate::permissions;
use crate::records::{Fault, InodeRecord, Ruled, Work, read_value};
use crate::sessions::Turn;

/// What is known of one file beyond the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlogged {
    /// The file, or the directory whose `atime` it is.
    pub inode: InodeId,
    /// What writes have made of it.
    pub written: Option<WrittenState>,
    /// When it was last read, or what was set instead.
    pub atime: Option<Access>,
    /// The writes in it, for the replay slots: the newest of each slot.
    pub answered: Vec<Answered>,
}

/// A time of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The time that is shown.
    pub shown: Timestamp,
    /// When it got that: the same, unless it was set by hand.
    pub since: Timestamp,
}

/// A file as the last write left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenState {
    /// Size in bytes.
    pub size: u64,
    /// As [`Attributes::allocated_bytes`].
    pub allocated_bytes: u64,
    /// Of a chunked file: no byte that was reported ever lay at or behind this.
    pub data_end: u64,
    /// The permission bits, where they were widened.
    pub permissions: Option<u32>,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change.
    pub ctime: Timestamp,
    /// The time that the newest write got: its identity.
    pub newest_write: Timestamp,
    /// The bytes of an inline file; `None`: no write has changed them since they were logged, or
    /// they are in chunks.
    pub content: Option<Bytes>,
    /// Bytes allocated in the chunks that were written to.
    pub allocations: BTreeMap<ChunkNumber, u64>,
}

/// A write that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Whose.
    pub session: SessionId,
    /// Its replay slot.
    pub slot: u32,
    /// Its number within the slot.
    pub sequence: u64,
    /// Where the bytes went, if it wrote any.
    pub offset: Option<u64>,
}

/// What became of a write that was tried without the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Softly {
    /// Nothing has changed: this is the answer.
    Answer(ChangeResult),
    /// The file is as `unlogged` says; nothing else has changed.
    Written {
        /// For whoever wrote.
        outcome: Outcome,
        /// Takes the place of what was unlogged of the file before.
        unlogged: Unlogged,
    },
    /// It does more than may be done without the log: rights or an owner go, or a capability; or it
    /// is no ordinary file.
    MustBeLogged,
}

/// Reading, writing and executing, for everybody.
const ACCESS_BITS: u32 = 0o777;
/// A time of access that is older is renewed by a read.
const RELATIVE_ATIME_NANOSECONDS: i64 = 24 * 3600 * 1_000_000_000;

/// Whether a read at `now` has to be noted: Linux's rule for `relatime`. The time of the last read
/// tells whether it was read since it was written, and is not older than a day.
pub fn access_is_due(of: &Attributes, now: Timestamp) -> bool {
    let newer_than_content = of.atime > of.mtime && of.atime > of.ctime;
    !newer_than_content || now.0.saturating_sub(of.atime.0) >= RELATIVE_ATIME_NANOSECONDS
}

impl Unlogged {
    /// Nothing but a time of access.
    pub fn access(inode: InodeId, now: Timestamp) -> Unlogged {
        Unlogged { inode, written: None, atime: None, answered: Vec::new() }.read(now)
    }

    /// The same, read at this time.
    #[must_use]
    pub fn read(mut self, now: Timestamp) -> Unlogged {
        self.atime = Some(Access { shown: now, since: now });
        self
    }

    /// About how many bytes it takes, in memory and in the log.
    pub fn bytes(&self) -> usize {
        let written = self.written.as_ref().map_or(0, |written| {
            let content = written.content.as_ref().map_or(0, Bytes::len);
            content + written.allocations.len() * 16 + 64
        });
        written + self.answered.len() * 40 + 64
    }

    /// Whether the log has to have it soon; a time of access alone may wait.
    pub fn is_written(&self) -> bool {
        self.written.is_some()
    }

    /// Whether a session other than this one has written in it.
    pub fn is_of_another(&self, session: SessionId) -> bool {
        self.is_written() && self.answered.iter().any(|answered| answered.session != session)
    }

    /// The newest write in it.
    pub fn newest(&self) -> Option<Timestamp> {
        self.written.as_ref().map(|written| written.newest_write)
    }

    /// Whether a record lacks what was written.
    fn is_news_to(&self, record: &InodeRecord) -> bool {
        self.newest().is_some_and(|newest| newest > record.newest_write)
    }

    /// Lays it over the record of the file.
    fn lay_over(&self, record: &mut InodeRecord) {
        if let Some(written) = self.written.as_ref().filter(|_| self.is_news_to(record)) {
            let of = &mut record.attributes;
            of.size = written.size;
            of.allocated_bytes = written.allocated_bytes;
            of.permissions = written.permissions.unwrap_or(of.permissions);
            of.mtime = written.mtime;
            of.ctime = of.ctime.max(written.ctime);
            record.data_end = record.data_end.max(written.data_end);
            record.newest_write = written.newest_write;
        }
        if let Some(atime) = self.atime.filter(|atime| atime.since > record.atime_until) {
            record.attributes.atime = atime.shown;
            record.atime_until = atime.since;
        }
    }

    fn note(&mut self, answered: Answered) {
        let same_slot =
            |other: &Answered| (other.session, other.slot) == (answered.session, answered.slot);
        self.answered.retain(|other| !same_slot(other));
        self.answered.push(answered);
    }
}

/// Whether a change leaves everybody every right over a file, and the file its owner. The rules for
/// other objects ask for a file's owner (in a sticky directory) and never for its mode, so they need
/// not know of a wider one. Where there are lists, the mode is not all there is to it.
fn takes_no_right(was: &InodeRecord, is: &InodeRecord) -> bool {
    let (old, new) = (&was.attributes, &is.attributes);
    let same =
        (old.uid, old.gid, was.capability, was.acls) == (new.uid, new.gid, is.capability, is.acls);
    let widened = old.permissions & new.permissions == old.permissions
        && (old.permissions ^ new.permissions) & !ACCESS_BITS == 0
        && was.acls == AclsKept::default();
    same && (old.permissions == new.permissions || widened)
}

/// What is unlogged of an inode.
pub type LookUp<'a> = &'a dyn Fn(InodeId) -> Option<Arc<Unlogged>>;

/// The state with everything unlogged laid over it.
pub struct SoftView<'a> {
    namespace: Namespace,
    base: &'a dyn KvRead,
    look_up: LookUp<'a>,
}

impl<'a> SoftView<'a> {
    /// A view of `base`; `look_up` may be asked again for the same inode.
    pub fn new(namespace: Namespace, base: &'a dyn KvRead, look_up: LookUp<'a>) -> SoftView<'a> {
        SoftView { namespace, base, look_up }
    }

    /// The file's record, and what is unlogged of it where the record does not have that yet.
    fn news(&self, inode: InodeId) -> Result<Option<Arc<Unlogged>>, KvError> {
        let Some(unlogged) = (self.look_up)(inode) else { return Ok(None) };
        let key = self.namespace.keys.inode(inode);
        let Some(value) = self.base.get(&key)? else { return Ok(None) };
        let record: InodeRecord = read_value(&key, &value)?;
        Ok(unlogged.is_news_to(&record).then_some(unlogged))
    }

    fn inode(&self, inode: InodeId, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let value = self.base.get(key)?;
        let (Some(unlogged), Some(value)) = ((self.look_up)(inode), &value) else {
            return Ok(value);
        };
        let mut record: InodeRecord = read_value(key, value)?;
        unlogged.lay_over(&mut record);
        Ok(Some(encode(&record)))
    }

    fn content(&self, inode: InodeId, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.news(inode)?.as_ref().and_then(|unlogged| unlogged.written.as_ref()) {
            Some(WrittenState { content: Some(content), .. }) => {
                Ok((!content.is_empty()).then(|| content.to_vec()))
            }
            _ => self.base.get(key),
        }
    }

    fn allocation(
        &self,
        inode: InodeId,
        chunk: ChunkNumber,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, KvError> {
        let news = self.news(inode)?;
        let written = news.as_ref().and_then(|unlogged| unlogged.written.as_ref());
        match written.and_then(|written| written.allocations.get(&chunk)) {
            Some(bytes) => Ok(Some(encode(bytes))),
            None => self.base.get(key),
        }
    }
}

impl KvRead for SoftView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.namespace.keys.subject(key) {
            Some(Subject::Inode(inode)) => self.inode(inode, key),
            Some(Subject::Content(inode)) => self.content(inode, key),
            Some(Subject::Allocation(inode, chunk)) => self.allocation(inode, chunk, key),
            None => self.base.get(key),
        }
    }

    /// Names, sessions and the like, of which nothing is ever unlogged.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<(), KvError> {
        self.base.scan(from, to, visit)
    }
}

/// A write that is to be carried out without the log.
#[derive(Debug, Clone, Copy)]
pub struct SoftWrite<'a> {
    /// On whose behalf.
    pub caller: &'a Caller,
    /// Larger than the time of every write of the file before; else it becomes so.
    pub time: Timestamp,
    /// Whose it is.
    pub session: SessionId,
    /// Its replay slot.
    pub slot: u32,
    /// Its number within the slot.
    pub sequence: u64,
    /// One that [may stay unlogged](Operation::may_stay_unlogged).
    pub operation: &'a Operation,
}

impl Namespace {
    /// What the replay slots of the log say to a change: `None`, it is new.
    pub fn replayed(
        &self,
        state: &dyn KvRead,
        session: SessionId,
        slot: u32,
        sequence: u64,
    ) -> Result<Option<Replay>, KvError> {
        Ok(match self.records(state).turn(session, slot, sequence)? {
            Turn::New => None,
            Turn::Again(reply) => Some(Replay::Answered(reply)),
            Turn::Stale => Some(Replay::Stale),
        })
    }

    /// Attributes of an object, if it is here.
    pub fn attributes(
        &self,
        state: &dyn KvRead,
        inode: InodeId,
    ) -> Result<Option<Attributes>, KvError> {
        Ok(self.records(state).inode_here(inode)?.map(|record| record.attributes))
    }

    /// The newest write of a file that the state has, or that its view shows.
    pub fn newest_write(&self, state: &dyn KvRead, inode: InodeId) -> Result<Timestamp, KvError> {
        let record = self.records(state).inode_here(inode)?;
        Ok(record.map_or(Timestamp(i64::MAX), |record| record.newest_write))
    }

    /// Carries out a write over `view`, which shows `before`, and changes nothing.
    pub fn write_softly(
        &self,
        view: &dyn KvRead,
        write: &SoftWrite<'_>,
        before: Option<&Unlogged>,
    ) -> Result<Softly, KvError> {
        let SoftWrite { caller, time, operation, .. } = *write;
        let inode = operation.routing_inode();
        let Some(old) = self.records(view).inode_here(inode)? else {
            // Gone, or another ministry's: the log has the last word.
            return Ok(Softly::MustBeLogged);
        };
        let is_file = old.attributes.kind == FileKind::Regular;
        let stripped = permissions::after_write(caller, &old.attributes);
        if !is_file || old.capability || stripped != old.attributes.permissions {
            return Ok(Softly::MustBeLogged);
        }
        let mut work = Work { keys: self.keys, state: Overlay::new(view), caller, time };
        let outcome = match work.carry_out_write(operation) {
            Ok(outcome) => outcome,
            Err(Fault::Fs(error)) => return Ok(Softly::Answer(Err(error))),
            Err(Fault::Elsewhere(_)) => return Ok(Softly::MustBeLogged),
            Err(Fault::Kv(error)) => return Err(error),
        };
        let offset = match &outcome {
            Outcome::Written { offset, .. } => Some(*offset),
            Outcome::Attributes(_) => None,
            _ => return Ok(Softly::Answer(Ok(outcome))),
        };
        let Some(mut record) = work.records().inode_here(inode)? else {
            return Ok(Softly::MustBeLogged);
        };
        if record == old {
            return Ok(Softly::Answer(Ok(outcome)));
        }
        if !takes_no_right(&old, &record) {
            return Ok(Softly::MustBeLogged);
        }
        record.newest_write = old.newest_write.advance(time);
        let mut unlogged = self.unlogged(&work, &record, write, offset, before)?;
        let (was, is) = (old.attributes.permissions, record.attributes.permissions);
        if let Some(written) = unlogged.written.as_mut().filter(|_| was != is) {
            written.permissions = Some(is);
        }
        if record.atime_until != old.atime_until {
            let (shown, since) = (record.attributes.atime, record.atime_until);
            unlogged.atime = Some(Access { shown, since });
        }
        Ok(Softly::Written { outcome, unlogged })
    }

    fn unlogged(
        &self,
        work: &Work<'_>,
        record: &InodeRecord,
        write: &SoftWrite<'_>,
        offset: Option<u64>,
        before: Option<&Unlogged>,
    ) -> Result<Unlogged, KvError> {
        let inode = record.attributes.inode;
        let earlier = before.and_then(|before| before.written.as_ref());
        let content = match write.operation {
            Operation::WriteInline { .. } => Some(work.records().content(inode)?.into()),
            _ => earlier.and_then(|earlier| earlier.content.clone()),
        };
        let mut allocations = earlier.map_or_else(BTreeMap::new, |old| old.allocations.clone());
        if let Operation::ReportWrite { allocated, .. } = write.operation {
            for (chunk, _) in allocated {
                let key = self.keys.allocation(inode, *chunk);
                allocations.insert(*chunk, work.records().read(&key)?.unwrap_or(0));
            }
        }
        let of = &record.attributes;
        let written = WrittenState {
            size: of.size,
            allocated_bytes: of.allocated_bytes,
            permissions: earlier.and_then(|earlier| earlier.permissions),
            data_end: record.data_end,
            mtime: of.mtime,
            ctime: of.ctime,
            newest_write: record.newest_write,
            content,
            allocations,
        };
        let mut unlogged = Unlogged {
            inode,
            written: Some(written),
            atime: before.and_then(|before| before.atime),
            answered: before.map_or_else(Vec::new, |before| before.answered.clone()),
        };
        let SoftWrite { session, slot, sequence, .. } = *write;
        unlogged.note(Answered { session, slot, sequence, offset });
        Ok(unlogged)
    }

    /// Takes what was unlogged into the state.
    pub(crate) fn settle(
        &self,
        state: &mut Overlay<'_>,
        unlogged: &[Unlogged],
    ) -> Result<(), KvError> {
        for one in unlogged {
            self.settle_one(state, one)?;
        }
        Ok(())
    }

    fn settle_one(&self, state: &mut Overlay<'_>, unlogged: &Unlogged) -> Result<(), KvError> {
        let inode = unlogged.inode;
        let Some(mut record) = self.records(state).inode_here(inode)? else { return Ok(()) };
        let written = unlogged.written.as_ref().filter(|_| unlogged.is_news_to(&record));
        let before = record.clone();
        unlogged.lay_over(&mut record);
        if let Some(written) = written {
            if let Some(content) = &written.content {
                let key = self.keys.content(inode);
                if content.is_empty() {
                    state.delete(key)
                } else {
                    state.put(key, content.to_vec())
                }
            }
            for (chunk, bytes) in &written.allocations {
                state.put(self.keys.allocation(inode, *chunk), encode(bytes));
            }
        }
        if record != before {
            state.put(self.keys.inode(inode), encode(&record));
        }
        for answered in &unlogged.answered {
            let Answered { session, slot, sequence, offset } = *answered;
            let records = self.records(state);
            let lives = records.has_session(session)?;
            if lives && matches!(records.turn(session, slot, sequence)?, Turn::New) {
                let attributes = record.attributes.clone();
                let reply = Ok(match offset {
                    Some(offset) => Outcome::Written { offset, attributes },
                    None => Outcome::Attributes(attributes),
                });
                self.keep_reply(state, session, slot, sequence, &reply);
            }
        }
        Ok(())
    }
}

/// What the replay slots say to a change that was done before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// It was answered so.
    Answered(Result<Outcome, FsError>),
    /// A later one was done before, or there is no such slot.
    Stale,
}

impl Work<'_> {
    /// A write of an earlier reign: not done if its file has one as new in the log.
    pub(crate) fn write_again(&mut self, operation: &Operation) -> Ruled<()> {
        let inode = operation.routing_inode();
        let Some(record) = self.records().inode_here(inode)? else { return Ok(()) };
        if record.newest_write < self.time {
            self.carry_out_write(operation)?;
            let time = self.time;
            self.edit_inode(inode, |record| record.newest_write = time)?;
        }
        Ok(())
    }

    /// The operations that may go without the log.
    pub(crate) fn carry_out_write(&mut self, operation: &Operation) -> Ruled<Outcome> {
        match operation {
            Operation::WriteInline { inode, at, data } => self.write_inline(*inode, *at, data),
            Operation::ReportWrite { inode, truncate_sequence, offset, end, allocated, .. } => {
                let (truncate_sequence, offset, end) = (*truncate_sequence, *offset, *end);
                self.report_write(*inode, &Report { truncate_sequence, offset, end, allocated })
            }
            Operation::SetAttributes { inode, set } if set.size.is_none() => {
                self.set_attributes(*inode, set)
            }
            _ => Err(FsError::Invalid.into()),
        }
    }
}
