//! Writing files, changing their size, and making them durable.
//!
//! A small file lives in its inode: a write to it is one message to the minister, which has it in
//! memory when it answers and in its log a moment later ([`crate::unlogged`]). A file that grows past the limit is *moved out* once: its content is written and synced
//! to its chunks, then the minister is told. From then on a write goes to the storage nodes, and
//! when every in-sync replica has it, the minister is told of size and time ([`Operation::ReportWrite`]);
//! only then it returns, so that whoever looks afterwards sees it.
//!
//! What must always hold: writes of this client to one inode go one after the other, in the order
//! in which they came. A write that met a cut or another change of the layout is done again as a
//! whole. The size is never set to make room ([`Operation::Extend`] only raises it), for that could
//! cut off what another client wrote.
//!
//! Appends to a file in chunks take turns at the minister, so that those of several clients never
//! meet; to an inline file the minister itself appends.
//!
//! When it fails: [`FsError::TimedOut`] may leave a write done in part. A move that was interrupted
//! leaves the file inline; what it wrote to the chunks is cut off by the next move.

use bytes::Bytes;
use ministry_types::limits::{CHUNK_BYTES, FILE_BYTES_MAX, INLINE_BYTES_MAX};
use ministry_types::operations::{Operation, Outcome, SetAttributes, WriteAt, move_out_mark};
use ministry_types::{Attributes, Caller, FileKind, FsError, InodeId, Layout};
use ministry_wire::minister::AppendTurn;
use tokio::time::Instant;

use crate::Client;
use crate::calls::{Core, unexpected};
use crate::file_data::{Place, as_fs_error};
use crate::open_files::FileHandle;
use crate::retry::Backoff;

/// Tries of one write before it waits in between: moving out, extending, a cut that came first.
const TRIES_WITHOUT_WAIT: u32 = 4;

/// The minister's answer to a change of size while as many cuts as may be wait for storage to
/// confirm them: a matter of a moment.
const TOO_MANY_CUTS: FsError = FsError::Overloaded;

/// One write of a program.
struct Write<'a> {
    inode: InodeId,
    caller: &'a Caller,
    /// `None`: at the end, wherever that is.
    offset: Option<u64>,
    data: Bytes,
    /// Only up to the end that the file has at that time.
    within: bool,
    deadline: Instant,
}

impl Write<'_> {
    /// What of it lies within a file of this size; nothing is left to do if that is nothing.
    fn cut_to(&self, size: u64) -> Write<'_> {
        let room = size.saturating_sub(self.offset.unwrap_or(size));
        let length = usize::try_from(room).unwrap_or(usize::MAX).min(self.data.len());
        Write { data: self.data.slice(..length), ..*self }
    }
}

/// What became of one try.
enum Step {
    Written(Attributes),
    /// Try again by these attributes.
    Again(Attributes),
    /// Something else came first: try again by fresh attributes.
    Conflict,
}

impl Client {
    /// Writes all of `data` from `offset`, or at the end when the file was opened for appending.
    /// Returns how many bytes were written: all.
    pub async fn write(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<u64, FsError> {
        let offset = (!handle.flags.append).then_some(offset);
        self.write_to(handle, offset, data, false).await
    }

    /// Writes all of `data` from `offset`, also when the file was opened for appending.
    pub async fn write_at(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<u64, FsError> {
        self.write_to(handle, Some(offset), data, false).await
    }

    /// Writes the dirty pages of a memory map back: as [`Client::write_at`], but what lies behind the
    /// end of the file, where another client has cut it, is dropped.
    pub async fn write_back(
        &self,
        handle: &FileHandle,
        offset: u64,
        pages: Bytes,
    ) -> Result<u64, FsError> {
        self.write_to(handle, Some(offset), pages, true).await
    }

    async fn write_to(
        &self,
        handle: &FileHandle,
        offset: Option<u64>,
        data: Bytes,
        within: bool,
    ) -> Result<u64, FsError> {
        if !handle.flags.write && !handle.flags.append {
            // The kernel refuses such calls itself, with EBADF.
            return Err(FsError::Invalid);
        }
        let written = data.len() as u64;
        if written == 0 {
            return Ok(0);
        }
        if offset.unwrap_or(0).checked_add(written).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(FsError::FileTooLarge);
        }
        let core = &self.core;
        let write = async |deadline| {
            let (inode, caller) = (handle.inode(), &handle.caller);
            let _turn = handle.file().writing.lock().await;
            core.write(handle, Write { inode, caller, offset, data, within, deadline }).await
        };
        core.operation("write", write).await?;
        metrics::counter!("ministry_client_bytes_total", "direction" => "write").increment(written);
        Ok(written)
    }

    /// Returns when everything written to the file, by whomever, is on stable storage. Names and
    /// rights are durable as soon as they are answered, and size and times go into the log
    /// with the bytes, so `data_only` makes no difference.
    pub async fn fsync(&self, handle: &FileHandle, _data_only: bool) -> Result<(), FsError> {
        let core = &self.core;
        core.operation("fsync", |deadline| core.sync(handle, deadline)).await
    }
}

impl Core {
    async fn write(&self, handle: &FileHandle, write: Write<'_>) -> Result<Attributes, FsError> {
        let mut backoff = Backoff::new();
        let mut known = handle.file().known();
        let mut tries = 0;
        loop {
            tries += 1;
            if tries > TRIES_WITHOUT_WAIT {
                self.wait(&mut backoff).await;
            }
            let attributes = match known.take().filter(|_| !write.within) {
                Some(attributes) => attributes,
                None => self.attributes(write.caller, write.inode).await?,
            };
            let cut = write.within.then(|| write.cut_to(attributes.size));
            let write = cut.as_ref().unwrap_or(&write);
            if write.data.is_empty() {
                return Ok(attributes);
            }
            let step = match attributes.layout {
                Layout::Inline => self.write_inline(write, &attributes).await?,
                Layout::Chunked { .. } if write.offset.is_none() => self.append(write).await?,
                Layout::Chunked { .. } => self.write_chunked(write, attributes, 0).await?,
                Layout::None if attributes.kind == FileKind::Directory => {
                    return Err(FsError::IsDirectory);
                }
                Layout::None => return Err(FsError::Invalid),
            };
            match step {
                Step::Written(attributes) => return Ok(attributes),
                Step::Again(attributes) => known = Some(attributes),
                Step::Conflict => {}
            }
        }
    }

    async fn write_inline(&self, write: &Write<'_>, known: &Attributes) -> Result<Step, FsError> {
        let &Write { inode, caller, deadline, .. } = write;
        let end = write.offset.unwrap_or(known.size).saturating_add(write.data.len() as u64);
        if end > INLINE_BYTES_MAX as u64 {
            return Ok(Step::Again(self.move_out(caller, inode, Some(known), deadline).await?));
        }
        let at = match write.offset {
            None => WriteAt::End,
            Some(offset) if write.within => WriteAt::Within(offset),
            Some(offset) => WriteAt::Offset(offset),
        };
        let operation = Operation::WriteInline { inode, at, data: write.data.clone() };
        match self.change(caller, operation).await? {
            Outcome::Written { attributes, .. } => Ok(Step::Written(self.learned(attributes))),
            Outcome::NotInline { attributes } if attributes.layout == Layout::Inline => {
                Ok(Step::Again(self.move_out(caller, inode, None, deadline).await?))
            }
            Outcome::NotInline { attributes } => Ok(Step::Again(self.learned(attributes))),
            other => Err(unexpected("write_inline", &other)),
        }
    }

    /// Makes an inline file a chunked one; answers with what it is then. `known`: what it was when
    /// this client last looked, which need not be so any more.
    pub(crate) async fn move_out(
        &self,
        caller: &Caller,
        inode: InodeId,
        known: Option<&Attributes>,
        deadline: Instant,
    ) -> Result<Attributes, FsError> {
        let mut backoff = Backoff::new();
        // A file without content has none to be asked for. If it has changed since, its times have,
        // and the minister says so.
        let mut empty = known.filter(|known| known.size == 0).cloned();
        loop {
            let (found, inline) = match empty.take() {
                Some(known) => (known, Some(Bytes::new())),
                None => self.content(caller, inode, false).await?,
            };
            let Some(content) = inline else { return Ok(found) };
            let truncates = vec![move_out_mark(found.ctime)];
            let place = Place { inode, chunk_bytes: CHUNK_BYTES, truncates, deadline };
            let allocated_bytes = match self.write_out(&place, content).await {
                Ok(allocated) => allocated,
                Err(Some(error)) => return Err(error),
                // Another client moves it, from a newer content.
                Err(None) => {
                    self.wait(&mut backoff).await;
                    continue;
                }
            };
            let operation = Operation::MoveOut {
                inode,
                mtime: found.mtime,
                ctime: found.ctime,
                chunk_bytes: CHUNK_BYTES,
                allocated_bytes,
            };
            match self.change(caller, operation).await? {
                Outcome::Attributes(attributes) => return Ok(self.learned(attributes)),
                Outcome::Conflict { attributes } | Outcome::NotInline { attributes } => {
                    let attributes = self.learned(attributes);
                    if attributes.layout.is_chunked() {
                        return Ok(attributes);
                    }
                    self.wait(&mut backoff).await;
                }
                other => return Err(unexpected("move_out", &other)),
            }
        }
    }

    /// Writes and syncs the content of a file that moves out; answers with what it takes. `None` in
    /// the error: as [`as_fs_error`].
    async fn write_out(&self, place: &Place, content: Bytes) -> Result<u64, Option<FsError>> {
        if content.is_empty() {
            return Ok(0);
        }
        let allocated = self.data.write(place, 0, content).await.map_err(as_fs_error)?;
        self.data.sync(place, 0..1).await.map_err(as_fs_error)?;
        Ok(allocated.iter().map(|(_, bytes)| bytes).sum())
    }

    /// Writes at the end of a file in chunks, when it is this client's turn.
    async fn append(&self, write: &Write<'_>) -> Result<Step, FsError> {
        let AppendTurn { turn, attributes } = self.append_turn(write.inode).await?;
        let attributes = self.learned(attributes);
        if turn == 0 {
            return Ok(Step::Again(attributes));
        }
        let step = self.write_chunked(write, attributes, turn).await;
        if !matches!(step, Ok(Step::Written(_))) {
            self.end_turn(write.inode, turn).await;
        }
        step
    }

    /// `turn`: the turn to append that the write uses, or 0.
    async fn write_chunked(
        &self,
        write: &Write<'_>,
        attributes: Attributes,
        turn: u64,
    ) -> Result<Step, FsError> {
        let &Write { inode, caller, deadline, .. } = write;
        let offset = write.offset.unwrap_or(attributes.size);
        let length = write.data.len() as u64;
        let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(FsError::FileTooLarge)?;
        if offset > attributes.size {
            let extend = Operation::Extend { inode, size: offset };
            return match self.change(caller, extend).await {
                Ok(Outcome::Attributes(attributes) | Outcome::NotInline { attributes }) => {
                    Ok(Step::Again(self.learned(attributes)))
                }
                Ok(Outcome::Conflict { .. }) | Err(TOO_MANY_CUTS) => Ok(Step::Conflict),
                Ok(other) => Err(unexpected("extend", &other)),
                Err(error) => Err(error),
            };
        }
        let truncate_sequence = attributes.layout.truncate_sequence();
        let Layout::Chunked { chunk_bytes, truncates } = attributes.layout else {
            unreachable!("only chunked files are written in chunks");
        };
        let place = Place { inode, chunk_bytes, truncates, deadline };
        let allocated = match self.data.write(&place, offset, write.data.clone()).await {
            Ok(allocated) => allocated,
            Err(failure) => return as_fs_error(failure).map_or(Ok(Step::Conflict), Err),
        };
        let report =
            Operation::ReportWrite { inode, truncate_sequence, offset, end, allocated, turn };
        match self.change(caller, report).await? {
            Outcome::Written { attributes, .. } => Ok(Step::Written(self.learned(attributes))),
            Outcome::Conflict { attributes } => Ok(Step::Again(self.learned(attributes))),
            other => Err(unexpected("report_write", &other)),
        }
    }

    /// Sets attributes; a file that has to leave its inode for its new size is moved out first.
    pub(crate) async fn set_attributes(
        &self,
        caller: &Caller,
        inode: InodeId,
        set: SetAttributes,
        deadline: Instant,
    ) -> Result<Attributes, FsError> {
        let mut backoff = Backoff::new();
        loop {
            let operation = Operation::SetAttributes { inode, set: set.clone() };
            match self.change(caller, operation).await {
                Ok(Outcome::Attributes(attributes)) => return Ok(self.learned(attributes)),
                Ok(Outcome::NotInline { .. }) => {
                    self.move_out(caller, inode, None, deadline).await?;
                }
                Ok(Outcome::Conflict { .. }) => self.wait(&mut backoff).await,
                Err(TOO_MANY_CUTS) if set.size.is_some() => self.wait(&mut backoff).await,
                Ok(other) => return Err(unexpected("setattr", &other)),
                Err(error) => return Err(error),
            }
        }
    }

    /// What was written is in the log of the minister and on the disks of the storage nodes: asked
    /// of both at once, by what this client knows of the file.
    async fn sync(&self, handle: &FileHandle, deadline: Instant) -> Result<(), FsError> {
        let inode = handle.inode();
        let mut backoff = Backoff::new();
        let mut guess = handle.file().known();
        loop {
            let settled = self.change(&handle.caller, Operation::Settle { inode });
            let (settled, synced) = match &guess {
                Some(known) => tokio::join!(settled, self.sync_chunks(known, deadline)),
                None => (settled.await, Ok(true)),
            };
            let attributes = match settled? {
                Outcome::Attributes(attributes) => self.learned(attributes),
                other => return Err(unexpected("settle", &other)),
            };
            let synced = synced?;
            let same = |known: &Attributes| {
                (known.size, &known.layout) == (attributes.size, &attributes.layout)
            };
            let nothing_to_sync = !attributes.layout.is_chunked();
            if nothing_to_sync || (synced && guess.as_ref().is_some_and(same)) {
                return Ok(());
            }
            if !synced {
                self.wait(&mut backoff).await;
            }
            guess = Some(attributes);
        }
    }

    /// `false`: the file was cut since it was as `known`.
    async fn sync_chunks(&self, known: &Attributes, deadline: Instant) -> Result<bool, FsError> {
        let Layout::Chunked { chunk_bytes, truncates } = &known.layout else { return Ok(true) };
        let chunks = 0..known.size.div_ceil(*chunk_bytes);
        let (inode, chunk_bytes) = (known.inode, *chunk_bytes);
        let place = Place { inode, chunk_bytes, truncates: truncates.clone(), deadline };
        match self.data.sync(&place, chunks).await.map_err(as_fs_error) {
            Ok(()) => Ok(true),
            Err(Some(error)) => Err(error),
            Err(None) => Ok(false),
        }
    }
}
