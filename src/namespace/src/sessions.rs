//! Sessions and their replay slots.
//!
//! Called by `apply`. A session's changes are numbered within a slot; the last reply of each slot
//! is kept, so that a change that comes again is answered again and not done again.
//!
//! What must always hold: a slot's number only grows. A session that ends leaves nothing behind:
//! no slot, no lock, no orphan that waits for it.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use ministry_types::kv::KvError;
use ministry_types::limits::{SESSIONS_PER_MINISTRY_MAX, SLOTS_PER_SESSION};
use ministry_types::operations::ChangeResult;
use ministry_types::{ClientId, FsError, InodeId, SessionId};

use crate::Namespace;
use crate::command::encode;
use crate::overlay::Overlay;
use crate::records::{Records, Ruled, SessionRecord, SlotRecord, Work, read_number};

/// What to do with a change.
pub(crate) enum Turn {
    /// Carry it out.
    New,
    /// Answer what was answered.
    Again(ChangeResult),
    /// A later one was done before, or there is no such slot.
    Stale,
}

impl Records<'_> {
    /// Whether a session lives.
    pub(crate) fn has_session(&self, session: SessionId) -> Result<bool, KvError> {
        Ok(self.state.get(&self.keys.session(session))?.is_some())
    }

    /// Whose turn it is in a slot.
    pub(crate) fn turn(
        &self,
        session: SessionId,
        slot: u32,
        sequence: u64,
    ) -> Result<Turn, KvError> {
        if slot >= SLOTS_PER_SESSION {
            return Ok(Turn::Stale);
        }
        let last: Option<SlotRecord> = self.read(&self.keys.slot(session, slot))?;
        let Some(last) = last else {
            return Ok(if sequence > 0 { Turn::New } else { Turn::Stale });
        };
        Ok(match sequence.cmp(&last.sequence) {
            Ordering::Greater => Turn::New,
            Ordering::Equal => Turn::Again(last.reply),
            Ordering::Less => Turn::Stale,
        })
    }

    fn session_count(&self) -> Ruled<u64> {
        Ok(self.read(&self.keys.session_count())?.unwrap_or(0))
    }
}

impl Work<'_> {
    /// Lets a session live. `false`: the number belongs to another client.
    pub(crate) fn open_session(&mut self, session: SessionId, client: ClientId) -> Ruled<bool> {
        let key = self.keys.session(session);
        if let Some(known) = self.records().read::<SessionRecord>(&key)? {
            return Ok(known.client == client);
        }
        let count = self.records().session_count()?;
        if count >= SESSIONS_PER_MINISTRY_MAX as u64 {
            return Err(FsError::Overloaded.into());
        }
        self.write(key, &SessionRecord { client });
        self.write(self.keys.session_count(), &(count + 1));
        Ok(true)
    }

    /// Ends a session. One that does not live is left so.
    pub(crate) fn end_session(&mut self, session: SessionId) -> Ruled<()> {
        if !self.records().has_session(session)? {
            return Ok(());
        }
        let mut awaited = Vec::new();
        self.records().each(&self.keys.awaited_all(session), |key, _| {
            awaited.push(InodeId(read_number(key)?));
            Ok(ControlFlow::Continue(()))
        })?;
        for inode in awaited {
            self.close_orphan(session, inode)?;
        }
        self.end_locks(session)?;
        let mut slots = Vec::new();
        self.records().each(&self.keys.slots(session), |key, _| {
            slots.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        slots.into_iter().for_each(|key| self.state.delete(key));
        self.state.delete(self.keys.session(session));
        let count = self.records().session_count()?;
        assert!(count > 0, "a session that lives is counted");
        self.write(self.keys.session_count(), &(count - 1));
        Ok(())
    }
}

impl Namespace {
    /// Keeps the reply of a slot's last change.
    pub(crate) fn keep_reply(
        &self,
        state: &mut Overlay<'_>,
        session: SessionId,
        slot: u32,
        sequence: u64,
        reply: &ChangeResult,
    ) {
        let record = SlotRecord { sequence, reply: reply.clone() };
        state.put(self.keys.slot(session, slot), encode(&record));
    }
}
