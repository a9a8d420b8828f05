//! Whole files in one call.
//!
//! A small file fits into its inode, so it can be made with its content in one message and one
//! commit, and read by its name in one message: for programs that keep many small files.
//!
//! What must always hold: whoever finds a name that [`Client::put`] made new finds all of its
//! content. A file that was there, and one beyond [`INLINE_BYTES_MAX`], is written in several steps,
//! which others may see.

use bytes::Bytes;
use ministry_types::limits::INLINE_BYTES_MAX;
use ministry_types::operations::{Answer, Operation, Outcome, Query};
use ministry_types::{Attributes, Caller, FsError, InodeId};

use crate::Client;
use crate::calls::unexpected;
use crate::names::NewMode;
use crate::open_files::OpenFlags;

/// Bytes of one read of a large file.
const READ_BYTES: usize = 8 << 20;

impl Client {
    /// Makes an ordinary file that holds `data`, or gives one that is there this content. A new one
    /// of at most [`INLINE_BYTES_MAX`] bytes costs one message and is durable when this returns;
    /// anything else is written as by [`Client::write`] and [`Client::fsync`].
    pub async fn put(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
        mode: impl Into<NewMode>,
        data: Bytes,
    ) -> Result<Attributes, FsError> {
        let mode = mode.into();
        if data.len() <= INLINE_BYTES_MAX {
            let NewMode { permissions, umask } = mode;
            let operation = Operation::Put {
                parent,
                name: name.to_vec(),
                permissions,
                umask,
                data: data.clone(),
            };
            let put = self.core.operation("put", |_| self.core.change(caller, operation));
            match put.await {
                Ok(Outcome::Attributes(attributes)) => return Ok(self.core.learned(attributes)),
                Ok(other) => return Err(unexpected("put", &other)),
                Err(FsError::Exists) => {}
                Err(error) => return Err(error),
            }
        }
        let flags = OpenFlags { truncate: true, ..OpenFlags::READ_WRITE };
        let (_, file) = self.create_and_open(caller, parent, name, mode, flags, false).await?;
        self.write(&file, 0, data).await?;
        self.fsync(&file, false).await?;
        let attributes = self.getattr(caller, file.inode()).await;
        self.close(file).await;
        attributes
    }

    /// Attributes and content of an ordinary file. A small one costs one message.
    pub async fn get(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
    ) -> Result<(Attributes, Bytes), FsError> {
        let query = Query::Get { parent, name: name.to_vec() };
        let inode = match self.core.operation("get", |_| self.core.query(caller, query)).await? {
            Answer::Content { attributes, inline: Some(content) } => {
                return Ok((self.core.learned(attributes), content));
            }
            Answer::Content { attributes, inline: None } => attributes.inode,
            Answer::Entry { inode, .. } => inode,
            other => return Err(unexpected("get", &other)),
        };
        let file = self.open(caller, inode, OpenFlags::READ).await?;
        let mut content = Vec::new();
        loop {
            let part = self.read(&file, content.len() as u64, READ_BYTES).await?;
            content.extend_from_slice(&part);
            if part.len() < READ_BYTES {
                break;
            }
        }
        let attributes = self.getattr(caller, inode).await?;
        self.close(file).await;
        Ok((attributes, content.into()))
    }
}
