//! Reading files.
//!
//! The minister says how large the file is, which cuts storage may not know, and, while the file is
//! inline, what is in it. A chunked file's bytes come from the storage nodes; they are asked for at
//! the same time as the attributes, by the attributes last known, and asked for again when those
//! turn out to be old.
//!
//! What must always hold: a read that begins after another client's write returned sees it. Bytes
//! behind the end of the file are never given out, whatever storage holds there.

use bytes::{Bytes, BytesMut};
use ministry_types::operations::{Answer, Query};
use ministry_types::{Attributes, Caller, FileKind, FsError, InodeId, Layout};
use tokio::time::Instant;

use crate::Client;
use crate::calls::{Core, unexpected};
use crate::data::DataFailure;
use crate::file_data::{Place, as_fs_error};
use crate::open_files::FileHandle;
use crate::retry::Backoff;

/// A read of chunks, as some attributes ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    offset: u64,
    length: u64,
    layout: Layout,
}

impl Client {
    /// Reads up to `length` bytes from `offset`; fewer only where the file ends.
    pub async fn read(
        &self,
        handle: &FileHandle,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, FsError> {
        let core = &self.core;
        let read = |deadline| core.read(handle, offset, length as u64, deadline);
        let bytes = core.operation("read", read).await?;
        metrics::counter!("ministry_client_bytes_total", "direction" => "read")
            .increment(bytes.len() as u64);
        Ok(bytes)
    }
}

impl Core {
    async fn read(
        &self,
        handle: &FileHandle,
        offset: u64,
        length: u64,
        deadline: Instant,
    ) -> Result<Bytes, FsError> {
        if !handle.flags.read && !handle.flags.execute {
            // The kernel refuses such calls itself, with EBADF.
            return Err(FsError::Invalid);
        }
        let (inode, caller) = (handle.inode(), &handle.caller);
        let mut backoff = Backoff::new();
        let mut guess = handle.file().known().and_then(|known| part(&known, offset, length));
        loop {
            let contents = self.content(caller, inode, !handle.flags.no_access_time);
            let (content, mut bytes) = match guess.take() {
                Some(guess) => {
                    let reading = self.read_part(inode, &guess, deadline);
                    let (content, bytes) = tokio::join!(biased; contents, reading);
                    (content?, Some((guess, bytes)))
                }
                None => (contents.await?, None),
            };
            let (attributes, inline) = content;
            if attributes.kind == FileKind::Directory {
                return Err(FsError::IsDirectory);
            }
            if let Some(inline) = inline {
                return Ok(slice(&inline, offset, length));
            }
            let Some(wanted) = part(&attributes, offset, length) else { return Ok(Bytes::new()) };
            if let Some((_, bytes)) = bytes.take_if(|(guess, _)| *guess == wanted) {
                match bytes.map_err(as_fs_error) {
                    Ok(bytes) => return Ok(bytes),
                    Err(Some(error)) => return Err(error),
                    // Cut since those attributes were answered.
                    Err(None) => self.wait(&mut backoff).await,
                }
            }
            guess = Some(wanted);
        }
    }

    /// Attributes of a file, and its content while it is inline. `access`: a program reads it.
    pub(crate) async fn content(
        &self,
        caller: &Caller,
        inode: InodeId,
        access: bool,
    ) -> Result<(Attributes, Option<Bytes>), FsError> {
        match self.query(caller, Query::Read { inode, access }).await? {
            Answer::Content { attributes, inline } => Ok((self.learned(attributes), inline)),
            other => Err(unexpected("read", &other)),
        }
    }

    async fn read_part(
        &self,
        inode: InodeId,
        part: &Part,
        deadline: Instant,
    ) -> Result<Bytes, DataFailure> {
        let Layout::Chunked { chunk_bytes, truncates } = &part.layout else {
            unreachable!("only chunked files are read in parts");
        };
        let (chunk_bytes, truncates) = (*chunk_bytes, truncates.clone());
        let place = Place { inode, chunk_bytes, truncates, deadline };
        let bytes = self.data.read(&place, part.offset, part.length).await?;
        assert!(bytes.len() as u64 <= part.length, "more bytes than were asked for");
        if (bytes.len() as u64) < part.length {
            let mut padded = BytesMut::from(bytes);
            padded.resize(part.length as usize, 0);
            return Ok(padded.freeze());
        }
        Ok(bytes)
    }
}

/// What there is to read of the chunks; `None`: nothing.
fn part(attributes: &Attributes, offset: u64, length: u64) -> Option<Part> {
    let length = length.min(attributes.size.saturating_sub(offset));
    let layout = attributes.layout.clone();
    (length > 0 && layout.is_chunked()).then_some(Part { offset, length, layout })
}

/// The part of an inline content from `offset`, at most `length` bytes.
fn slice(inline: &Bytes, offset: u64, length: u64) -> Bytes {
    let size = inline.len() as u64;
    let from = offset.min(size);
    let to = from.saturating_add(length).min(size);
    inline.slice(from as usize..to as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_behind_the_end_is_given_out() {
        let inline = Bytes::from_static(b"hello");
        assert_eq!(slice(&inline, 0, 100), "hello");
        assert_eq!(slice(&inline, 3, 1), "l");
        assert_eq!(slice(&inline, 3, u64::MAX), "lo");
        assert_eq!(slice(&inline, 5, 1), "");
        assert_eq!(slice(&inline, u64::MAX, u64::MAX), "");
    }
}
