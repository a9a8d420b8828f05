//! Objects without a name, until nobody can have them open any more.
//!
//! `remove` makes them; `apply` and `sessions` bring the word of sessions that an object is closed
//! there. An orphan is read, written and changed as any other object.
//!
//! What must always hold: an orphan waits for every session that lived when its last name went,
//! until that session says that it is closed or ends; then it goes with everything that belongs to
//! it, and a chunked file leaves a record that storage has to remove its data.

use std::ops::ControlFlow;

use ministry_types::kv::KvError;
use ministry_types::{InodeId, Layout, SessionId};

use crate::keys;
use crate::records::{Fault, InodeRecord, OrphanRecord, PurgeRecord, Ruled, Work};

impl Work<'_> {
    /// Takes note that the last name of an object is gone.
    pub(crate) fn make_orphan(&mut self, record: &InodeRecord) -> Ruled<()> {
        assert!(record.is_orphan(), "a name is left");
        let inode = record.attributes.inode;
        let mut sessions = Vec::new();
        self.records().each(&self.keys.sessions(), |key, _| {
            sessions.extend(keys::session_of(key));
            Ok(ControlFlow::Continue(()))
        })?;
        if sessions.is_empty() {
            return self.remove_object(inode);
        }
        let awaited = u32::try_from(sessions.len()).expect("the number of sessions is bounded");
        self.write(self.keys.orphan(inode), &OrphanRecord { awaited });
        for session in sessions {
            self.state.put(self.keys.awaited(session, inode), Vec::new());
        }
        Ok(())
    }

    /// An orphan is not open at this session, and cannot be opened there again. What the orphan
    /// does not wait for is passed over.
    pub(crate) fn close_orphan(&mut self, session: SessionId, inode: InodeId) -> Ruled<()> {
        let awaited = self.keys.awaited(session, inode);
        if self.records().state.get(&awaited)?.is_none() {
            return Ok(());
        }
        self.state.delete(awaited);
        let key = self.keys.orphan(inode);
        let Some(mut orphan) = self.records().read::<OrphanRecord>(&key)? else {
            return Err(Fault::Kv(KvError(format!("inode {inode} is awaited and no orphan"))));
        };
        orphan.awaited = orphan.awaited.saturating_sub(1);
        if orphan.awaited > 0 {
            self.write(key, &orphan);
            return Ok(());
        }
        self.state.delete(key);
        self.remove_object(inode)
    }

    /// Removes an object with everything that belongs to it.
    fn remove_object(&mut self, inode: InodeId) -> Ruled<()> {
        let record = self.records().inode(inode)?;
        assert!(record.is_orphan(), "only what has no name is removed");
        self.state.delete(self.keys.inode(inode));
        self.state.delete(self.keys.content(inode));
        self.take_xattrs(&record)?;
        self.forget_acls(&record);
        self.remove_locks(inode)?;
        self.count_objects(-1)?;
        if let Layout::Chunked { chunk_bytes, .. } = record.attributes.layout {
            self.state.delete(self.keys.truncated(inode));
            self.clear_allocations(inode)?;
            let purge = PurgeRecord { chunk_bytes, data_end: record.data_end };
            self.write(self.keys.purge(inode), &purge);
        }
        Ok(())
    }
}
