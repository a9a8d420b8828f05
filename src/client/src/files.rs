//! Opening and closing files.
//!
//! Reading is in [`crate::read`], writing in [`crate::write`]. An open asks the minister for the
//! rights of the caller; reads and writes through the handle are not asked again, as POSIX has it.
//!
//! What must always hold: the inode is in the table of open files before the minister is asked
//! ([`crate::open_files`] says why), and leaves it when the last handle goes.

use ministry_types::operations::{Answer, Query, SetAttributes};
use ministry_types::{Attributes, Caller, FileKind, FsError, InodeId};
use tokio::time::Instant;

use crate::Client;
use crate::calls::{Core, unexpected};
use crate::names::{NewMode, NewObject};
use crate::open_files::{FileHandle, OpenFlags, Opened};
use crate::retry::Backoff;

impl Client {
    /// Opens a file, after the minister has checked the caller's rights.
    pub async fn open(
        &self,
        caller: &Caller,
        inode: InodeId,
        flags: OpenFlags,
    ) -> Result<FileHandle, FsError> {
        let core = &self.core;
        core.operation("open", |deadline| core.open(caller, inode, flags, deadline)).await
    }

    /// Makes an ordinary file and opens it; its creator has the rights asked for whatever the
    /// permissions of the new file are. A file that is there already is opened instead, unless
    /// `exclusive`.
    pub async fn create_and_open(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
        mode: impl Into<NewMode>,
        flags: OpenFlags,
        exclusive: bool,
    ) -> Result<(Attributes, FileHandle), FsError> {
        let core = &self.core;
        let NewMode { permissions, umask } = mode.into();
        let create = async |deadline| {
            let mut backoff = Backoff::new();
            loop {
                let new = NewObject { umask, ..NewObject::file(permissions) };
                let error = match core.create(caller, parent, name, new).await {
                    Ok(attributes) => return core.opened_new(caller, attributes, flags),
                    Err(FsError::Exists) if exclusive => return Err(FsError::Exists),
                    Err(FsError::Exists) => {
                        match core.open_existing(caller, parent, name, flags, deadline).await {
                            Ok(opened) => return Ok(opened),
                            Err(error) => error,
                        }
                    }
                    Err(error) => return Err(error),
                };
                // Removed between the two calls: it can be made now.
                if !matches!(error, FsError::NotFound | FsError::Stale) {
                    return Err(error);
                }
                core.wait(&mut backoff).await;
            }
        };
        core.operation("create_and_open", create).await
    }

    /// What `close` does through one descriptor: nothing. What was written has been told to the
    /// minister; the log has it a moment later, whoever lives on of the two.
    pub async fn flush(&self, _handle: &FileHandle) -> Result<(), FsError> {
        Ok(())
    }

    /// Closes the handle. The file is closed with its last handle.
    pub async fn close(&self, handle: FileHandle) {
        drop(handle);
    }
}

impl Core {
    async fn open(
        &self,
        caller: &Caller,
        inode: InodeId,
        flags: OpenFlags,
        deadline: Instant,
    ) -> Result<FileHandle, FsError> {
        let opened = self.open_files.begin(inode)?;
        let OpenFlags { read, write, execute, .. } = flags;
        let query = Query::Open { inode, read, write: write || flags.truncate, execute };
        let attributes = match self.query(caller, query).await? {
            Answer::Attributes(attributes) => self.learned(attributes),
            other => return Err(unexpected("open", &other)),
        };
        if flags.truncate && attributes.kind == FileKind::Regular {
            let set = SetAttributes { size: Some(0), size_by_handle: true, ..Default::default() };
            self.set_attributes(caller, inode, set, deadline).await?;
        }
        Ok(handle(opened, caller, flags))
    }

    async fn open_existing(
        &self,
        caller: &Caller,
        parent: InodeId,
        name: &[u8],
        flags: OpenFlags,
        deadline: Instant,
    ) -> Result<(Attributes, FileHandle), FsError> {
        let found = self.lookup(caller, parent, name).await?;
        let handle = self.open(caller, found.inode, flags, deadline).await?;
        let attributes = handle.file().known().unwrap_or(found);
        Ok((attributes, handle))
    }

    fn opened_new(
        &self,
        caller: &Caller,
        attributes: Attributes,
        flags: OpenFlags,
    ) -> Result<(Attributes, FileHandle), FsError> {
        let opened = self.open_files.begin(attributes.inode)?;
        let handle = handle(opened, caller, flags);
        handle.file().learn(&attributes);
        Ok((attributes, handle))
    }
}

fn handle(opened: Opened, caller: &Caller, flags: OpenFlags) -> FileHandle {
    FileHandle { opened: std::sync::Arc::new(opened), caller: caller.clone(), flags }
}
