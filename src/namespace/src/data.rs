//! Content: inline bytes, sizes, cuts, and what was written to chunks.
//!
//! Called by `apply` for the operations that write, and by `attributes` for a new size.
//!
//! What must always hold: the content record of an inline file is as long as its size says. Each
//! change of size of a chunked file makes a cut: a smaller size at the new end, a larger one at the
//! old end, so that what was written behind the end and never reported does not show. A file with
//! cuts that storage has not confirmed is in the index of such files. `allocated_bytes` is the sum
//! of the file's allocation records. Nothing here asks for permission: that was done at open.

use std::ops::{ControlFlow, Range};

use ministry_types::kv::KvError;
use ministry_types::limits::{
    BLOCK_BYTES, CHUNK_BYTES, FILE_BYTES_MAX, INLINE_BYTES_MAX, TRUNCATE_MARKS_MAX,
};
use ministry_types::operations::{Outcome, WriteAt, move_out_mark};
use ministry_types::{ChunkNumber, FsError, InodeId, Layout, SpaceChange, Timestamp, TruncateMark};

use crate::attributes::check_has_bytes;
use crate::permissions;
use crate::records::{Fault, InodeRecord, Ruled, Work, read_value};

/// Records that are removed one by one; more become a range.
const SINGLE_DELETES_MAX: usize = 16;

/// What became of a new size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resized {
    /// The record has it.
    Done,
    /// The content has to move out first; nothing has changed.
    NotInline,
}

/// What a client tells of a write to chunks.
pub(crate) struct Report<'a> {
    pub(crate) truncate_sequence: u64,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    pub(crate) allocated: &'a [(ChunkNumber, u64)],
}

/// What a client tells of a content that it has moved out.
pub(crate) struct MovedOut {
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) chunk_bytes: u64,
    pub(crate) allocated_bytes: u64,
}

impl Work<'_> {
    /// Gives the record of an ordinary file a new size. The caller writes the record.
    pub(crate) fn resize(&mut self, record: &mut InodeRecord, size: u64) -> Ruled<Resized> {
        if record.attributes.layout == Layout::Inline {
            return self.resize_inline(record, size);
        }
        let old = record.attributes.size;
        if size != old {
            self.add_mark(record, size.min(old))?;
        }
        if size < old {
            self.cut_allocations(record, size)?;
        }
        record.attributes.size = size;
        record.data_end = record.data_end.max(size);
        Ok(Resized::Done)
    }

    fn resize_inline(&mut self, record: &mut InodeRecord, size: u64) -> Ruled<Resized> {
        if let Ok(length) = usize::try_from(size)
            && length <= INLINE_BYTES_MAX
        {
            let mut content = self.inline_content(record)?;
            content.resize(length, 0);
            self.set_inline_content(record, content);
            return Ok(Resized::Done);
        }
        if record.attributes.size > 0 {
            return Ok(Resized::NotInline);
        }
        // Nothing to move. A move that was begun and given up may have left bytes in chunks, under
        // the mark of a time not later than this: the first mark cuts them all.
        let sequence = next_sequence(move_out_mark(record.attributes.ctime).sequence)?;
        self.lay_out(record, CHUNK_BYTES, TruncateMark { sequence, size: 0 });
        record.attributes.size = size;
        record.attributes.allocated_bytes = 0;
        record.data_end = size;
        Ok(Resized::Done)
    }

    fn inline_content(&self, record: &InodeRecord) -> Ruled<Vec<u8>> {
        let inode = record.attributes.inode;
        let content = self.records().content(inode)?;
        if content.len() as u64 != record.attributes.size {
            let damage = format!("inode {inode} has lost inline bytes");
            return Err(Fault::Kv(KvError(damage)));
        }
        Ok(content)
    }

    fn set_inline_content(&mut self, record: &mut InodeRecord, content: Vec<u8>) {
        assert!(content.len() <= INLINE_BYTES_MAX, "the caller checks the limit");
        record.attributes.size = content.len() as u64;
        record.attributes.allocated_bytes = record.attributes.size;
        self.write_content(record.attributes.inode, content);
    }

    fn lay_out(&mut self, record: &mut InodeRecord, chunk_bytes: u64, mark: TruncateMark) {
        record.attributes.layout = Layout::Chunked { chunk_bytes, truncates: vec![mark] };
        record.cuts_confirmed = 0;
        self.state.put(self.keys.truncated(record.attributes.inode), Vec::new());
    }

    /// Notes a cut that storage has to make.
    fn add_mark(&mut self, record: &mut InodeRecord, size: u64) -> Ruled<()> {
        let confirmed = record.cuts_confirmed;
        let newest = record.attributes.layout.truncate_sequence();
        let Layout::Chunked { truncates, .. } = &mut record.attributes.layout else {
            return Err(FsError::Invalid.into());
        };
        truncates.retain(|mark| mark.sequence > confirmed);
        if truncates.len() >= TRUNCATE_MARKS_MAX {
            return Err(FsError::Overloaded.into());
        }
        truncates.push(TruncateMark { sequence: next_sequence(newest)?, size });
        self.state.put(self.keys.truncated(record.attributes.inode), Vec::new());
        Ok(())
    }

    /// Storage has made the cuts up to `sequence`.
    pub(crate) fn confirm_cuts(&mut self, inode: InodeId, sequence: u64) -> Ruled<()> {
        let Some(mut record) = self.records().inode_here(inode)? else {
            return Ok(());
        };
        let newest = record.attributes.layout.truncate_sequence();
        let Layout::Chunked { truncates, .. } = &mut record.attributes.layout else {
            return Ok(());
        };
        record.cuts_confirmed = record.cuts_confirmed.max(sequence.min(newest));
        let confirmed = record.cuts_confirmed;
        truncates.retain(|mark| mark.sequence > confirmed || mark.sequence == newest);
        if confirmed == newest {
            self.state.delete(self.keys.truncated(inode));
        }
        self.write_inode(&record);
        Ok(())
    }

    /// Makes a cut where the file ends, so that nothing changes but what storage still takes.
    pub(crate) fn fence(&mut self, inode: InodeId) -> Ruled<()> {
        let Some(mut record) = self.records().inode_here(inode)? else { return Ok(()) };
        if !record.attributes.layout.is_chunked() {
            return Ok(());
        }
        let size = record.attributes.size;
        self.add_mark(&mut record, size)?;
        self.write_inode(&record);
        Ok(())
    }

    /// Forgets the allocation behind a cut.
    fn cut_allocations(&mut self, record: &mut InodeRecord, size: u64) -> Ruled<()> {
        let Layout::Chunked { chunk_bytes, .. } = record.attributes.layout else {
            return Ok(());
        };
        let inode = record.attributes.inode;
        let gone = self.allocations_from(inode, size.div_ceil(chunk_bytes));
        let freed = self.remove_allocations(&gone)?;
        let total = &mut record.attributes.allocated_bytes;
        *total = total.saturating_sub(freed);
        let rest = size % chunk_bytes;
        if rest > 0 {
            let key = self.keys.allocation(inode, size / chunk_bytes);
            let before = self.records().read::<u64>(&key)?.unwrap_or(0);
            let after = before.min(rest.next_multiple_of(BLOCK_BYTES as u64));
            if after < before {
                self.write(key, &after);
                *total = total.saturating_sub(before - after);
            }
        }
        Ok(())
    }

    fn allocations_from(&self, inode: InodeId, chunk: ChunkNumber) -> (Vec<u8>, Vec<u8>) {
        (self.keys.allocation(inode, chunk), self.keys.allocation(inode, u64::MAX))
    }

    /// Forgets all allocation of a file.
    pub(crate) fn clear_allocations(&mut self, inode: InodeId) -> Ruled<()> {
        let all = self.allocations_from(inode, 0);
        self.remove_allocations(&all)?;
        Ok(())
    }

    /// Removes allocation records, and tells how many bytes they were.
    fn remove_allocations(&mut self, range: &(Vec<u8>, Vec<u8>)) -> Ruled<u64> {
        let mut freed = 0u64;
        let mut keys = Vec::new();
        self.records().each(range, |key, value| {
            freed = freed.saturating_add(read_value::<u64>(key, value)?);
            if keys.len() <= SINGLE_DELETES_MAX {
                keys.push(key.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        // A removed range costs every later reader of its neighbourhood a little: it is for many.
        if keys.len() > SINGLE_DELETES_MAX {
            self.state.delete_range(&range.0, &range.1);
        } else {
            keys.into_iter().for_each(|key| self.state.delete(key));
        }
        Ok(freed)
    }

    /// Writes bytes into an inline file.
    pub(crate) fn write_inline(
        &mut self,
        inode: InodeId,
        at: WriteAt,
        data: &[u8],
    ) -> Ruled<Outcome> {
        let mut record = self.records().inode(inode)?;
        check_has_bytes(&record.attributes)?;
        let size = record.attributes.size;
        let (offset, data) = match at {
            WriteAt::Offset(offset) => (offset, data),
            WriteAt::End => (size, data),
            WriteAt::Within(offset) => {
                let room = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
                (offset, &data[..data.len().min(room)])
            }
        };
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(FsError::FileTooLarge)?;
        if record.attributes.layout != Layout::Inline {
            return Ok(Outcome::NotInline { attributes: record.attributes });
        }
        if data.is_empty() {
            return Ok(Outcome::Written { offset, attributes: record.attributes });
        }
        let (Ok(from), Ok(to)) = (usize::try_from(offset), usize::try_from(end)) else {
            return Err(FsError::FileTooLarge.into());
        };
        if to > INLINE_BYTES_MAX {
            return Ok(Outcome::NotInline { attributes: record.attributes });
        }
        let mut content = self.inline_content(&record)?;
        content.resize(content.len().max(to), 0);
        content[from..to].copy_from_slice(data);
        self.set_inline_content(&mut record, content);
        self.after_write(&mut record)?;
        Ok(Outcome::Written { offset, attributes: record.attributes })
    }

    /// Changes the space of an inline file. What lies behind the end has no room to keep.
    pub(crate) fn space_inline(
        &mut self,
        inode: InodeId,
        range: Range<u64>,
        change: SpaceChange,
        keep_size: bool,
    ) -> Ruled<Outcome> {
        let mut record = self.records().inode(inode)?;
        check_has_bytes(&record.attributes)?;
        if range.is_empty() || (change == SpaceChange::Punch && !keep_size) {
            return Err(FsError::Invalid.into());
        }
        if range.end > FILE_BYTES_MAX {
            return Err(FsError::FileTooLarge.into());
        }
        let size = record.attributes.size;
        let new_size = if keep_size { size } else { size.max(range.end) };
        let fits = usize::try_from(new_size).is_ok_and(|size| size <= INLINE_BYTES_MAX);
        if keep_size && range.start >= size && record.attributes.layout != Layout::Inline {
            // Nothing is kept behind the end; that it was asked for moves the times all the same.
            self.after_write(&mut record)?;
            return Ok(Outcome::Written { offset: range.start, attributes: record.attributes });
        }
        if record.attributes.layout != Layout::Inline || !fits {
            return Ok(Outcome::NotInline { attributes: record.attributes });
        }
        let mut content = self.inline_content(&record)?;
        content.resize(new_size as usize, 0);
        if change != SpaceChange::Allocate {
            let from = range.start.min(new_size) as usize;
            let to = range.end.min(new_size) as usize;
            content[from..to].fill(0);
        }
        self.set_inline_content(&mut record, content);
        self.after_write(&mut record)?;
        Ok(Outcome::Written { offset: range.start, attributes: record.attributes })
    }

    /// Times and bits after a write; writes the record.
    fn after_write(&mut self, record: &mut InodeRecord) -> Ruled<()> {
        if permissions::strip_after_write(self.caller, record) {
            self.drop_capability(record)?;
        }
        record.touch_content(self.time);
        self.write_inode(record);
        Ok(())
    }

    /// Turns an inline file into a chunked one, whose content storage has. No time moves: the
    /// content is the same, and its new place is told by the layout.
    pub(crate) fn move_out(&mut self, inode: InodeId, moved: &MovedOut) -> Ruled<Outcome> {
        let mut record = self.records().inode(inode)?;
        let of = &record.attributes;
        check_has_bytes(of)?;
        let unchanged = (of.mtime, of.ctime) == (moved.mtime, moved.ctime);
        if of.layout != Layout::Inline || !unchanged {
            return Ok(Outcome::Conflict { attributes: record.attributes });
        }
        let holds_content = moved.chunk_bytes >= INLINE_BYTES_MAX as u64;
        if !moved.chunk_bytes.is_power_of_two() || !holds_content {
            return Err(FsError::Invalid.into());
        }
        let size = of.size;
        let sequence = next_sequence(move_out_mark(of.ctime).sequence)?;
        let allocated = moved.allocated_bytes.min(size.next_multiple_of(BLOCK_BYTES as u64));
        self.lay_out(&mut record, moved.chunk_bytes, TruncateMark { sequence, size });
        self.state.delete(self.keys.content(inode));
        if allocated > 0 {
            self.write(self.keys.allocation(inode, 0), &allocated);
        }
        record.attributes.allocated_bytes = allocated;
        record.data_end = size;
        self.write_inode(&record);
        Ok(Outcome::Attributes(record.attributes))
    }

    /// Takes note of bytes that every in-sync replica has.
    pub(crate) fn report_write(&mut self, inode: InodeId, report: &Report<'_>) -> Ruled<Outcome> {
        let mut record = self.records().inode(inode)?;
        check_has_bytes(&record.attributes)?;
        if report.end < report.offset {
            return Err(FsError::Invalid.into());
        }
        if report.end > FILE_BYTES_MAX {
            return Err(FsError::FileTooLarge.into());
        }
        let cut_since = report.truncate_sequence != record.attributes.layout.truncate_sequence();
        let Layout::Chunked { chunk_bytes, .. } = record.attributes.layout else {
            return Ok(Outcome::Conflict { attributes: record.attributes });
        };
        if cut_since || report.offset > record.attributes.size {
            return Ok(Outcome::Conflict { attributes: record.attributes });
        }
        if report.end == report.offset {
            let attributes = record.attributes;
            return Ok(Outcome::Written { offset: report.offset, attributes });
        }
        let written = report.offset / chunk_bytes..=(report.end - 1) / chunk_bytes;
        if !report.allocated.iter().all(|(chunk, _)| written.contains(chunk)) {
            return Err(FsError::Invalid.into());
        }
        for (chunk, bytes) in report.allocated {
            self.set_allocation(&mut record, *chunk, (*bytes).min(chunk_bytes))?;
        }
        record.attributes.size = record.attributes.size.max(report.end);
        record.data_end = record.data_end.max(report.end);
        self.after_write(&mut record)?;
        Ok(Outcome::Written { offset: report.offset, attributes: record.attributes })
    }

    fn set_allocation(
        &mut self,
        record: &mut InodeRecord,
        chunk: ChunkNumber,
        bytes: u64,
    ) -> Ruled<()> {
        let key = self.keys.allocation(record.attributes.inode, chunk);
        let before = self.records().read::<u64>(&key)?.unwrap_or(0);
        if bytes != before {
            self.write(key, &bytes);
            let total = record.attributes.allocated_bytes.saturating_sub(before);
            record.attributes.allocated_bytes = total.saturating_add(bytes);
        }
        Ok(())
    }

    /// Raises the size; a file that is long enough stays exactly as it is.
    pub(crate) fn extend(&mut self, inode: InodeId, size: u64) -> Ruled<Outcome> {
        let mut record = self.records().inode(inode)?;
        check_has_bytes(&record.attributes)?;
        if size > FILE_BYTES_MAX {
            return Err(FsError::FileTooLarge.into());
        }
        if size <= record.attributes.size {
            return Ok(Outcome::Attributes(record.attributes));
        }
        if self.resize(&mut record, size)? == Resized::NotInline {
            return Ok(Outcome::NotInline { attributes: record.attributes });
        }
        self.after_write(&mut record)?;
        Ok(Outcome::Attributes(record.attributes))
    }
}

/// The number of the next cut.
fn next_sequence(sequence: u64) -> Result<u64, FsError> {
    sequence.checked_add(1).ok_or(FsError::Overloaded)
}
