//! The room of files: `fallocate`, holes and data, copies from file to file.
//!
//! A file that is inline has no room but its bytes: the minister does what there is to do, in one
//! change. A chunked file's room is kept and given back by the storage nodes, which also know where
//! data lies, and copy bytes among themselves; then the minister is told, as after a write.
//!
//! What must always hold: changes here take their turn with the writes of this client to the same
//! file. What meets a cut or another change of the layout is done again as a whole. Everything
//! behind the end of a file counts as cut off, so no room is kept there: a file that is to grow is
//! extended first.
//!
//! When it fails: for want of room the size is what it was. [`FsError::TimedOut`] may leave a change
//! done in part; nothing of it happens later.

use std::collections::BTreeMap;
use std::ops::Range;

use futures::{StreamExt, TryStreamExt, stream};
use ministry_types::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX};
use ministry_types::operations::{Operation, Outcome};
use ministry_types::{Attributes, Caller, ChunkNumber, FileKind, FsError, Layout, SpaceChange};
use ministry_wire::data::CopySource;
use tokio::time::Instant;

use crate::Client;
use crate::calls::{Core, unexpected};
use crate::data::DataFailure;
use crate::file_data::{Place, as_fs_error};
use crate::open_files::FileHandle;
use crate::retry::Backoff;

/// Chunks of one report to the minister; more are told in several.
const REPORT_CHUNKS_MAX: u64 = 256;
/// The same for holes that are punched: after each it is looked where the next data is.
const PUNCH_CHUNKS_MAX: u64 = 32;
/// Tries that follow each other at once: moving out, extending, a cut that came first.
const TRIES_WITHOUT_WAIT: u32 = 4;
/// Ranges from this size on are compared with the room that is left before anything is done: a
/// smaller one that does not fit is noticed soon enough.
const ROOM_ASKED_FROM_BYTES: u64 = 1 << 30;
/// Bytes that one call copies: what surely is done within an operation. The caller goes on.
const COPY_BYTES_MAX: u64 = 256 << 20;
/// Up to this size bytes are copied by way of this client: it is one round trip too.
const SMALL_COPY_BYTES: u64 = INLINE_BYTES_MAX as u64;
/// Pieces of data that one call copies, where the source has holes.
const COPY_EXTENTS_MAX: usize = 1024;
/// Pieces of data, or holes, under way at once.
const EXTENTS_AT_ONCE: usize = 4;
/// The minister's answer to a growth while as many cuts as may be wait for storage.
const TOO_MANY_CUTS: FsError = FsError::Overloaded;

/// Bytes that the chunks of a file take, as storage told it.
type Allocated = Vec<(ChunkNumber, u64)>;

/// A change of the room of a file.
struct Change<'a> {
    caller: &'a Caller,
    bytes: Range<u64>,
    change: SpaceChange,
    keep_size: bool,
    deadline: Instant,
}

/// What became of one try.
enum Step<T> {
    Done(T),
    /// Try again by these attributes.
    Again(Attributes),
    /// Something else came first: try again by fresh attributes.
    Conflict,
}

impl Client {
    /// Changes the room of a range, as `fallocate` does: what was a hole gets room, or is zeroed,
    /// or becomes one. The file grows to the end of the range unless its size is kept; a hole is
    /// only ever punched within the size.
    pub async fn fallocate(
        &self,
        handle: &FileHandle,
        offset: u64,
        length: u64,
        change: SpaceChange,
        keep_size: bool,
    ) -> Result<(), FsError> {
        let writes = handle.flags.write || handle.flags.append;
        if !writes || length == 0 || (change == SpaceChange::Punch && !keep_size) {
            return Err(FsError::Invalid);
        }
        let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX);
        let bytes = offset..end.ok_or(FsError::FileTooLarge)?;
        let (core, caller) = (&self.core, &handle.caller);
        let work = async |deadline| {
            let _turn = handle.file().writing.lock().await;
            core.fallocate(handle, &Change { caller, bytes, change, keep_size, deadline }).await
        };
        core.operation("fallocate", work).await
    }

    /// The first data, or the first hole, from `offset` on. Behind the last byte lies a hole.
    /// `None`: there is none, or the offset is not within the file (`ENXIO`).
    pub async fn seek(
        &self,
        handle: &FileHandle,
        offset: u64,
        hole: bool,
    ) -> Result<Option<u64>, FsError> {
        let core = &self.core;
        core.operation("seek", |deadline| core.seek(handle, offset, hole, deadline)).await
    }

    /// Copies bytes from one open file to another, or within one where the ranges do not overlap.
    /// Those of chunked files go from storage node to storage node, and holes stay holes. Returns
    /// how many bytes were copied: fewer where the source ends, and of a long range a beginning.
    pub async fn copy_range(
        &self,
        (source, from): (&FileHandle, u64),
        (target, to): (&FileHandle, u64),
        length: u64,
    ) -> Result<u64, FsError> {
        if !source.flags.read || !target.flags.write || target.flags.append {
            // The kernel refuses such calls itself, with EBADF.
            return Err(FsError::Invalid);
        }
        let length = length.min(FILE_BYTES_MAX.saturating_sub(from));
        if length > 0 && to >= FILE_BYTES_MAX {
            return Err(FsError::FileTooLarge);
        }
        let length = length.min(FILE_BYTES_MAX - to.min(FILE_BYTES_MAX));
        let overlap = from < to.saturating_add(length) && to < from.saturating_add(length);
        if source.inode() == target.inode() && overlap {
            return Err(FsError::Invalid);
        }
        let copy = |deadline| self.copy((source, from), (target, to), length, deadline);
        let copied = self.core.operation("copy_range", copy).await?;
        metrics::counter!("ministry_client_bytes_total", "direction" => "copy").increment(copied);
        Ok(copied)
    }

    async fn copy(
        &self,
        (source, from): (&FileHandle, u64),
        (target, to): (&FileHandle, u64),
        length: u64,
        deadline: Instant,
    ) -> Result<u64, FsError> {
        let core = &self.core;
        let mut backoff = Backoff::new();
        loop {
            let (found, inline) = core.content(&source.caller, source.inode(), true).await?;
            let length = length.min(found.size.saturating_sub(from)).min(COPY_BYTES_MAX);
            if length == 0 {
                return Ok(0);
            }
            if inline.is_some() || length <= SMALL_COPY_BYTES {
                let bytes = self.read(source, from, length as usize).await?;
                return self.write_at(target, to, bytes).await;
            }
            let _turn = target.file().writing.lock().await;
            let Some(origin) = origin(source, from, &found, deadline) else { continue };
            match core.copy_chunks(&origin, target, to, length).await? {
                Step::Done(copied) => return Ok(copied),
                Step::Again(_) | Step::Conflict => core.wait(&mut backoff).await,
            }
        }
    }
}

/// Where copied bytes come from.
struct Origin {
    place: Place,
    offset: u64,
}

/// `None`: the file is not chunked any more. That cannot be, but an answer may be old.
fn origin(source: &FileHandle, offset: u64, of: &Attributes, deadline: Instant) -> Option<Origin> {
    let inode = source.inode();
    match of.layout.clone() {
        Layout::Chunked { chunk_bytes, truncates } => {
            Some(Origin { place: Place { inode, chunk_bytes, truncates, deadline }, offset })
        }
        Layout::None | Layout::Inline => None,
    }
}

impl Core {
    async fn fallocate(&self, handle: &FileHandle, change: &Change<'_>) -> Result<(), FsError> {
        let inode = handle.inode();
        let mut backoff = Backoff::new();
        let mut known = handle.file().known();
        let mut tries = 0;
        loop {
            tries += 1;
            if tries > TRIES_WITHOUT_WAIT {
                self.wait(&mut backoff).await;
            }
            let attributes = match known.take() {
                Some(attributes) => attributes,
                None => self.attributes(change.caller, inode).await?,
            };
            let step = match attributes.layout {
                Layout::Inline => self.space_inline(change, &attributes).await?,
                Layout::Chunked { .. } => self.space_chunked(change, &attributes).await?,
                Layout::None if attributes.kind == FileKind::Directory => {
                    return Err(FsError::IsDirectory);
                }
                Layout::None => return Err(FsError::Invalid),
            };
            match step {
                Step::Done(()) => return Ok(()),
                Step::Again(attributes) => known = Some(self.learned(attributes)),
                Step::Conflict => {}
            }
        }
    }

    async fn space_inline(
        &self,
        change: &Change<'_>,
        known: &Attributes,
    ) -> Result<Step<()>, FsError> {
        let inode = known.inode;
        let operation = Operation::SpaceInline {
            inode,
            offset: change.bytes.start,
            length: change.bytes.end - change.bytes.start,
            change: change.change,
            keep_size: change.keep_size,
        };
        match self.change(change.caller, operation).await? {
            Outcome::Written { attributes, .. } => {
                self.learned(attributes);
                Ok(Step::Done(()))
            }
            Outcome::NotInline { attributes } if attributes.layout == Layout::Inline => {
                Ok(Step::Again(self.move_out(change.caller, inode, None, change.deadline).await?))
            }
            Outcome::NotInline { attributes } => Ok(Step::Again(attributes)),
            other => Err(unexpected("space_inline", &other)),
        }
    }

    async fn space_chunked(
        &self,
        change: &Change<'_>,
        attributes: &Attributes,
    ) -> Result<Step<()>, FsError> {
        let size = attributes.size;
        let end = change.bytes.end;
        let bytes = change.bytes.start..if change.keep_size { end.min(size) } else { end };
        if bytes.is_empty() {
            // Behind an end that stays: the minister moves the times, and that is all.
            return self.space_inline(change, attributes).await;
        }
        if change.change != SpaceChange::Punch {
            self.check_room(&bytes, attributes).await?;
        }
        if bytes.end > size {
            // A try, so that a full disk leaves the size as it is. What it keeps behind the end is
            // cut off by the extension, and kept again after it.
            if let Err(failure) = self.reserve(change, attributes, bytes.clone()).await {
                return as_fs_error(failure).map_or(Ok(Step::Conflict), Err);
            }
            return self.extend(change.caller, attributes, bytes.end).await;
        }
        let mut at = bytes.start;
        while at < bytes.end {
            let changed = self.change_window(change, attributes, at..bytes.end).await;
            let (window, allocated) = match changed {
                Ok(changed) => changed,
                Err(failure) => return as_fs_error(failure).map_or(Ok(Step::Conflict), Err),
            };
            at = window.end;
            match self.report(change.caller, attributes, window, allocated).await? {
                Step::Done(()) => {}
                other => return Ok(other),
            }
        }
        Ok(Step::Done(()))
    }

    /// Refuses what certainly does not fit, before the cluster is filled up by trying.
    async fn check_room(&self, bytes: &Range<u64>, attributes: &Attributes) -> Result<(), FsError> {
        let length = bytes.end - bytes.start;
        if length < ROOM_ASKED_FROM_BYTES {
            return Ok(());
        }
        let wanted = length.saturating_sub(attributes.allocated_bytes);
        let usage = self.usage().await?;
        if wanted > usage.available_bytes { Err(FsError::NoSpace) } else { Ok(()) }
    }

    /// Changes the beginning of a range, as much as one report tells. Says which bytes are done.
    async fn change_window(
        &self,
        change: &Change<'_>,
        attributes: &Attributes,
        bytes: Range<u64>,
    ) -> Result<(Range<u64>, Allocated), DataFailure> {
        let Some(place) = place(attributes, change.deadline) else {
            return Err(DataFailure::StaleTruncate { current: 0 });
        };
        let mut from = bytes.start;
        let mut chunks_max = REPORT_CHUNKS_MAX;
        if change.change == SpaceChange::Punch {
            chunks_max = PUNCH_CHUNKS_MAX;
            // What is a hole already, however large, takes no time.
            match self.data.seek(&place, bytes.clone(), false).await? {
                Some(data) => from = data,
                None => return Ok((bytes, Vec::new())),
            }
        }
        let last = (from / place.chunk_bytes).saturating_add(chunks_max);
        let end = bytes.end.min(last.saturating_mul(place.chunk_bytes));
        let allocated = self.data.space(&place, from..end, change.change).await?;
        // From where data began: chunks before it were not touched, and are not reported.
        Ok((from..end, allocated))
    }

    /// Keeps room for a range.
    async fn reserve(
        &self,
        change: &Change<'_>,
        attributes: &Attributes,
        bytes: Range<u64>,
    ) -> Result<(), DataFailure> {
        let Some(place) = place(attributes, change.deadline) else {
            return Err(DataFailure::StaleTruncate { current: 0 });
        };
        self.data.space(&place, bytes, SpaceChange::Allocate).await.map(drop)
    }

    async fn extend(
        &self,
        caller: &Caller,
        attributes: &Attributes,
        size: u64,
    ) -> Result<Step<()>, FsError> {
        let inode = attributes.inode;
        match self.change(caller, Operation::Extend { inode, size }).await {
            Ok(Outcome::Attributes(attributes) | Outcome::NotInline { attributes }) => {
                Ok(Step::Again(attributes))
            }
            Ok(Outcome::Conflict { .. }) | Err(TOO_MANY_CUTS) => Ok(Step::Conflict),
            Ok(other) => Err(unexpected("extend", &other)),
            Err(error) => Err(error),
        }
    }

    /// Tells the minister of bytes that every in-sync replica has.
    async fn report(
        &self,
        caller: &Caller,
        attributes: &Attributes,
        bytes: Range<u64>,
        allocated: Allocated,
    ) -> Result<Step<()>, FsError> {
        let report = Operation::ReportWrite {
            inode: attributes.inode,
            truncate_sequence: attributes.layout.truncate_sequence(),
            offset: bytes.start,
            end: bytes.end,
            allocated,
            turn: 0,
        };
        match self.change(caller, report).await? {
            Outcome::Written { attributes, .. } => {
                self.learned(attributes);
                Ok(Step::Done(()))
            }
            Outcome::Conflict { attributes } => Ok(Step::Again(attributes)),
            other => Err(unexpected("report_write", &other)),
        }
    }

    async fn seek(
        &self,
        handle: &FileHandle,
        offset: u64,
        hole: bool,
        deadline: Instant,
    ) -> Result<Option<u64>, FsError> {
        let mut backoff = Backoff::new();
        loop {
            let attributes = self.attributes(&handle.caller, handle.inode()).await?;
            let size = attributes.size;
            if offset >= size {
                return Ok(None);
            }
            let Some(place) = place(&attributes, deadline) else {
                // Inline: data from the beginning to the end.
                return Ok(Some(if hole { size } else { offset }));
            };
            match self.data.seek(&place, offset..size, hole).await.map_err(as_fs_error) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => return Ok(hole.then_some(size)),
                Err(Some(error)) => return Err(error),
                Err(None) => self.wait(&mut backoff).await,
            }
        }
    }

    /// Copies chunked bytes into a file that is, or becomes, chunked.
    async fn copy_chunks(
        &self,
        origin: &Origin,
        target: &FileHandle,
        to: u64,
        length: u64,
    ) -> Result<Step<u64>, FsError> {
        let (caller, deadline) = (&target.caller, origin.place.deadline);
        let mut attributes = self.attributes(caller, target.inode()).await?;
        if attributes.layout == Layout::Inline {
            attributes = self.move_out(caller, target.inode(), None, deadline).await?;
        }
        if to > attributes.size {
            match self.extend(caller, &attributes, to).await? {
                Step::Again(extended) => attributes = self.learned(extended),
                Step::Done(()) | Step::Conflict => return Ok(Step::Conflict),
            }
        }
        let Some(place) = place(&attributes, deadline) else { return Ok(Step::Conflict) };
        let copied = self.copy_extents(origin, &place, to, length).await;
        let (copied, allocated) = match copied {
            Ok(copied) => copied,
            Err(failure) => return as_fs_error(failure).map_or(Ok(Step::Conflict), Err),
        };
        match self.report(caller, &attributes, to..to + copied, allocated).await? {
            Step::Done(()) => Ok(Step::Done(copied)),
            Step::Again(attributes) => Ok(Step::Again(attributes)),
            Step::Conflict => Ok(Step::Conflict),
        }
    }

    /// Copies data and punches holes. Says how many bytes are done, and what the chunks take.
    async fn copy_extents(
        &self,
        origin: &Origin,
        place: &Place,
        to: u64,
        length: u64,
    ) -> Result<(u64, Allocated), DataFailure> {
        let wanted = origin.offset..origin.offset + length;
        let (extents, end) = self.extents(&origin.place, wanted).await?;
        let moved = |offset: u64| offset - origin.offset + to;
        let mut allocated = BTreeMap::new();
        // Holes first, so that of a chunk with both the answers to the writes count.
        let holes = gaps(&extents, origin.offset..end);
        let punch = |hole: Range<u64>| {
            self.data.space(place, moved(hole.start)..moved(hole.end), SpaceChange::Punch)
        };
        let mut punched = stream::iter(holes).map(punch).buffer_unordered(EXTENTS_AT_ONCE);
        while let Some(told) = punched.try_next().await? {
            for (chunk, bytes) in told {
                let least = allocated.entry(chunk).or_insert(bytes);
                *least = bytes.min(*least);
            }
        }
        let copy = |extent: Range<u64>| {
            let source = CopySource {
                inode: origin.place.inode,
                offset: extent.start,
                chunk_bytes: origin.place.chunk_bytes,
                truncates: origin.place.truncates.clone(),
            };
            self.data.copy(place, moved(extent.start)..moved(extent.end), source)
        };
        let mut written = BTreeMap::new();
        let mut copied = stream::iter(extents).map(copy).buffer_unordered(EXTENTS_AT_ONCE);
        while let Some(told) = copied.try_next().await? {
            for (chunk, bytes) in told {
                let most = written.entry(chunk).or_insert(bytes);
                *most = bytes.max(*most);
            }
        }
        allocated.extend(written);
        Ok((end - origin.offset, allocated.into_iter().collect()))
    }

    /// Where data lies in a range, and how far that is known: not to its end if it is much.
    async fn extents(
        &self,
        place: &Place,
        bytes: Range<u64>,
    ) -> Result<(Vec<Range<u64>>, u64), DataFailure> {
        let mut extents = Vec::new();
        let mut at = bytes.start;
        while let Some(data) = self.data.seek(place, at..bytes.end, false).await? {
            let hole = self.data.seek(place, data..bytes.end, true).await?;
            at = hole.unwrap_or(bytes.end);
            extents.push(data..at);
            if extents.len() >= COPY_EXTENTS_MAX {
                return Ok((extents, at));
            }
            if at >= bytes.end {
                break;
            }
        }
        Ok((extents, bytes.end))
    }
}

/// Which bytes data calls name; `None`: the file is not chunked.
fn place(attributes: &Attributes, deadline: Instant) -> Option<Place> {
    let inode = attributes.inode;
    match attributes.layout.clone() {
        Layout::Chunked { chunk_bytes, truncates } => {
            Some(Place { inode, chunk_bytes, truncates, deadline })
        }
        Layout::None | Layout::Inline => None,
    }
}

/// What lies between the extents of a range.
fn gaps(extents: &[Range<u64>], bytes: Range<u64>) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = bytes.start;
    for extent in extents {
        gaps.push(at..extent.start);
        at = extent.end;
    }
    gaps.push(at..bytes.end);
    gaps.retain(|gap| !gap.is_empty());
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_data_is_a_gap() {
        let all = 5..9;
        assert_eq!(gaps(&[], all.clone()), std::slice::from_ref(&all));
        assert_eq!(gaps(std::slice::from_ref(&all), all.clone()), []);
        assert_eq!(gaps(&[6..7, 8..9], 5..12), [5..6, 7..8, 9..12]);
    }
}
