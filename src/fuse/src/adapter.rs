//! What each request of the kernel becomes: a call of the client library.
//!
//! [`crate::filesystem`] takes the requests apart and calls one method here for each, in a task of
//! its own. There is no policy here: the minister judges permissions, the client retries and ends
//! in an error after its deadline.
//!
//! What must always hold: a handle that the client opened is closed again, also where its number
//! could not be given out.

use std::sync::Arc;

use bytes::Bytes;
use fuser::{FileAttr, FileHandle as Number, FopenFlags, WriteFlags};
use ministry_client::{Client, FileHandle, NewMode, OpenFlags};
use ministry_types::operations::Entry;
use ministry_types::{Attributes, Caller, FsError, InodeId, limits};

use crate::convert::{self, Opening, SetFields, StatusFlags};
use crate::directory::{self, Page, Position};
use crate::failure::{Failure, MountFailure};
use crate::handles::{Handles, OpenDirectory, OpenFile};
use crate::overdue::Overdue;
use crate::page_cache::PageCache;
use crate::requester::Requester;
use crate::view::View;

/// Entries asked for with attributes: about what fits the largest buffer of `getdents`. They
/// cannot be kept for the next request, so more would be fetched in vain.
const ENTRIES_WITH_ATTRIBUTES: usize = 192;

/// What is known of an open file when it was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) number: Number,
    pub(crate) flags: FopenFlags,
}

/// What the kernel wants written.
#[derive(Debug)]
pub(crate) struct WriteRequest {
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
    pub(crate) flags: WriteFlags,
    /// Those of the open file.
    pub(crate) status: StatusFlags,
}

/// One mount's side of the client.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) client: Client,
    pub(crate) view: View,
    pub(crate) files: Handles<OpenFile>,
    pub(crate) directories: Handles<OpenDirectory>,
    pub(crate) page_cache: PageCache,
    pub(crate) overdue: Overdue,
}

impl Adapter {
    pub(crate) fn new(client: Client, view: View) -> Adapter {
        Adapter {
            client,
            view,
            files: Handles::default(),
            directories: Handles::default(),
            page_cache: PageCache::default(),
            overdue: Overdue::default(),
        }
    }

    /// The object behind a number that a file handle has kept: the kernel asks by the name `.`,
    /// whatever the object is. One without a name has no way back to it, as on a local disk.
    pub(crate) async fn by_number(
        &self,
        caller: &Caller,
        inode: InodeId,
    ) -> Result<Attributes, FsError> {
        match self.client.getattr(caller, inode).await {
            Ok(attributes) if attributes.links > 0 => Ok(attributes),
            // The kernel makes `ESTALE` of it.
            Ok(_) | Err(FsError::Stale) => Err(FsError::NotFound),
            Err(error) => Err(error),
        }
    }

    /// What the kernel is shown of an object; the rules of the page cache learn of it.
    pub(crate) fn show(&self, attributes: &Attributes) -> FileAttr {
        self.page_cache.saw(attributes);
        self.view.attributes(attributes)
    }

    pub(crate) async fn set_attributes(
        &self,
        caller: &Caller,
        inode: InodeId,
        fields: SetFields,
        number: Option<Number>,
    ) -> Result<Attributes, Failure> {
        let open = number.and_then(|number| self.files.get(number).ok());
        let writable = open.is_some_and(|open| open.file.flags().write);
        let set = convert::set_attributes(fields, writable);
        Ok(self.client.setattr(caller, inode, set).await?)
    }

    pub(crate) async fn open(
        &self,
        caller: Caller,
        inode: InodeId,
        opening: Opening,
    ) -> Result<Opened, Failure> {
        let file = self.client.open(&caller, inode, open_flags(opening)).await?;
        self.register(file, opening.synchronous)
    }

    pub(crate) async fn create(
        &self,
        caller: Caller,
        parent: InodeId,
        name: &[u8],
        mode: NewMode,
        opening: Opening,
    ) -> Result<(FileAttr, Opened), Failure> {
        let flags = open_flags(opening);
        let (attributes, file) = self
            .client
            .create_and_open(&caller, parent, name, mode, flags, opening.exclusive)
            .await?;
        let shown = self.show(&attributes);
        Ok((shown, self.register(file, opening.synchronous)?))
    }

    /// Reads and writes bypass the kernel's pages (`FOPEN_DIRECT_IO`). Those are right only between two
    /// looks at mtime, and the kernel passes over a look that meets a write of this machine: then it
    /// shows old bytes although another mount's write has returned, or new ones of a write that has
    /// not. And of an append it does not know the place. Without leases each read asks the minister
    /// in any case. Mappings use pages; they stay over an open where nothing has happened since the
    /// last ([`PageCache`]).
    fn register(&self, file: FileHandle, synchronous: bool) -> Result<Opened, Failure> {
        let keep_pages = self.page_cache.keep_pages(file.inode());
        let mut flags = FopenFlags::FOPEN_DIRECT_IO;
        if keep_pages {
            flags |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        let number = self.files.insert(OpenFile { file, synchronous })?;
        Ok(Opened { number, flags })
    }

    pub(crate) async fn read(
        &self,
        inode: InodeId,
        number: Number,
        offset: u64,
        size: u32,
    ) -> Result<Bytes, Failure> {
        self.check_locks(number)?;
        let open = self.open_file(inode, number, false)?;
        Ok(self.client.read(&open.file, offset, size as usize).await?)
    }

    /// Writes all of `data`. `FUSE_WRITE_CACHE` marks pages of a shared mapping that the kernel
    /// writes back: they come on any handle that was once mapped, and always belong at their
    /// offset, also where that handle appends. Every other write through a handle that appends *now*
    /// (`fcntl` sets and clears `O_APPEND`) goes to the end, wherever the kernel believes that to
    /// be. One that is to be synchronous (`O_SYNC`, `O_DSYNC`, `RWF_DSYNC`, a mount with `sync`) is
    /// durable when it is answered: the kernel leaves that to us.
    ///
    /// What a write may do was judged at open; but whether the set-id bits go depends on who writes,
    /// not on who opened. The kernel says of which writer (`FUSE_WRITE_KILL_SUIDGID`).
    pub(crate) async fn write(
        &self,
        writer: Requester,
        inode: InodeId,
        number: Number,
        WriteRequest { offset, data, flags, status }: WriteRequest,
    ) -> Result<u32, Failure> {
        self.check_locks(number)?;
        let open = self.open_file(inode, number, true)?;
        let kills = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let caller = match (kills, open.file.may_have_set_ids()) {
            (false, _) => Caller::root(),
            (true, true) => writer.caller(),
            // The groups decide about those bits alone, and cost a look at the process.
            (true, false) => writer.caller_without_groups(),
        };
        let file = open.file.clone().on_behalf_of(caller).appending(status.append);
        let written = if flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            self.client.write_back(&file, offset, data).await?
        } else {
            self.client.write(&file, offset, data).await?
        };
        if status.synchronous {
            self.client.fsync(&file, true).await?;
        }
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }

    /// Refuses what goes by a handle whose locks were lost: others may have them by now.
    fn check_locks(&self, number: Number) -> Result<(), MountFailure> {
        if self.client.locks_lost(number.0) { Err(MountFailure::LocksLost) } else { Ok(()) }
    }

    pub(crate) async fn fallocate(
        &self,
        writer: Requester,
        inode: InodeId,
        number: Number,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> Result<(), Failure> {
        let (change, keep_size) = convert::space_change(mode)?;
        let open = self.open_file(inode, number, true)?;
        let file = open.file.clone().on_behalf_of(writer.caller());
        self.client.fallocate(&file, offset, length, change, keep_size).await?;
        Ok(self.sync_if_wanted(&open).await?)
    }

    /// Where data or a hole begins; `None`: nowhere, or not within the file.
    pub(crate) async fn seek(
        &self,
        inode: InodeId,
        number: Number,
        offset: i64,
        whence: i32,
    ) -> Result<Option<i64>, Failure> {
        let hole = convert::seeks_hole(whence)?;
        let Ok(offset) = u64::try_from(offset) else { return Ok(None) };
        let open = self.open_file(inode, number, false)?;
        let found = self.client.seek(&open.file, offset, hole).await?;
        Ok(found.and_then(|offset| i64::try_from(offset).ok()))
    }

    /// Copies from file to file; fewer bytes than asked for are an answer too.
    pub(crate) async fn copy_range(
        &self,
        writer: Requester,
        (source, source_number, from): (InodeId, Number, u64),
        (target, target_number, to): (InodeId, Number, u64),
        length: u64,
    ) -> Result<u32, Failure> {
        let source = self.open_file(source, source_number, false)?;
        let target = self.open_file(target, target_number, true)?;
        let file = target.file.clone().on_behalf_of(writer.caller());
        // What the answer can say.
        let length = length.min(u64::from(u32::MAX));
        let copied = self.client.copy_range((&source.file, from), (&file, to), length).await?;
        self.sync_if_wanted(&target).await?;
        Ok(u32::try_from(copied).unwrap_or(u32::MAX))
    }

    /// What changes bytes without a write is durable too where the file was opened for that. The
    /// kernel repeats the flags of the file with writes alone; these cannot change after the open.
    async fn sync_if_wanted(&self, open: &OpenFile) -> Result<(), FsError> {
        if open.synchronous { self.client.fsync(&open.file, true).await } else { Ok(()) }
    }

    /// The file behind a number; where that is closed, any other of the same inode, since the
    /// kernel only guesses which handle a page came by.
    fn open_file(
        &self,
        inode: InodeId,
        number: Number,
        to_write: bool,
    ) -> Result<Arc<OpenFile>, MountFailure> {
        self.files.get(number).or_else(|missing| {
            let will_do = |open: &OpenFile| {
                let flags = open.file.flags();
                let right = if to_write { flags.write } else { flags.read || flags.execute };
                open.file.inode() == inode && right && !flags.append
            };
            self.files.find(will_do).ok_or(missing)
        })
    }

    /// A process closes one of its descriptors: with it go all its `fcntl` locks on the file.
    pub(crate) async fn flush(&self, number: Number, owner: u64) -> Result<(), Failure> {
        let open = self.files.get(number)?;
        let flushed = self.client.flush(&open.file).await;
        // Locks that cannot be given back in time are given back later: no reason to fail.
        let _ = self.client.release_owner(&Caller::root(), open.file.inode(), owner).await;
        Ok(flushed?)
    }

    pub(crate) async fn sync(&self, number: Number, data_only: bool) -> Result<(), Failure> {
        let open = self.files.get(number)?;
        Ok(self.client.fsync(&open.file, data_only).await?)
    }

    /// The last use of a handle is over.
    pub(crate) async fn release(&self, number: Number) -> Result<(), Failure> {
        let open = self.files.remove(number)?;
        self.client.release_handle(&Caller::root(), open.file.inode(), number.0).await;
        self.client.close(open.file.clone()).await;
        Ok(())
    }

    /// Closes what the kernel left open when the mount ended.
    pub(crate) async fn close_all(&self) {
        self.directories.drain();
        for open in self.files.drain() {
            self.client.close(open.file.clone()).await;
        }
    }

    pub(crate) async fn open_directory(
        &self,
        caller: Caller,
        inode: InodeId,
    ) -> Result<Number, Failure> {
        // The super-user would pass: its answer is not worth waiting for.
        if !caller.is_root() {
            self.client.access(&caller, inode, libc::R_OK as u32).await?;
        }
        let directory = OpenDirectory { inode, opener: caller, position: Position::default() };
        Ok(self.directories.insert(directory)?)
    }

    /// Lists names from `offset` on, until `put` has no more room.
    pub(crate) async fn list(
        &self,
        number: Number,
        offset: u64,
        mut put: impl FnMut(InodeId, u64, &[u8], Option<&Entry>) -> bool + Send,
    ) -> Result<(), Failure> {
        let directory = self.directories.get(number)?;
        let mut offset = offset;
        let mut anything = false;
        let mut page = match directory.position.take(offset) {
            Some(page) => page,
            None => self.next_page(&directory, offset).await?,
        };
        loop {
            let mut counted = |inode, cookie, name: &[u8], entry: Option<&Entry>| {
                let full = put(inode, cookie, name, entry);
                anything |= !full;
                full
            };
            let room = directory::fill(offset, directory.inode, &mut page, &mut counted);
            // With something to hand over the answer does not wait for a further call.
            if !room || page.end || anything {
                directory.position.keep(page);
                return Ok(());
            }
            offset = page.after.max(directory::COOKIE_DOT_DOT);
            page = self.next_page(&directory, offset).await?;
        }
    }

    /// The page of names for the kernel's offset; the one behind it is asked for already.
    async fn next_page(&self, directory: &OpenDirectory, offset: u64) -> Result<Page, Failure> {
        let after = directory::list_after(offset);
        let page = match directory.position.take_ahead(after).await {
            // A listing that begins anew shows what is there now.
            Some(page) if offset != 0 => page,
            _ => {
                let question = Question::of(self, directory, after);
                question.ask(limits::LISTING_ENTRIES_MAX, false).await?
            }
        };
        if let Some(next) = page.next() {
            let question = Question::of(self, directory, next);
            let ask = async move { question.ask(limits::LISTING_ENTRIES_MAX, false).await.ok() };
            directory.position.ask_ahead(next, ask);
        }
        Ok(page)
    }

    /// One page with attributes, and the attributes of the directory and of its parent. What has
    /// vanished in between has none and is left out.
    pub(crate) async fn list_with_attributes(
        &self,
        number: Number,
        offset: u64,
    ) -> Result<(Page, Attributes, Attributes), Failure> {
        let directory = self.directories.get(number)?;
        let question = Question::of(self, &directory, directory::list_after(offset));
        let mut page = question.ask(ENTRIES_WITH_ATTRIBUTES, true).await?;
        let opener = &directory.opener;
        page.entries.retain(|entry| entry.attributes.is_some());
        let own = self.client.getattr(opener, directory.inode).await?;
        let parent = self.client.getattr(opener, page.parent).await?;
        Ok((page, own, parent))
    }
}

/// A question for one page of a directory.
#[derive(Debug)]
struct Question {
    client: Client,
    view: View,
    opener: Caller,
    inode: InodeId,
    after: u64,
}

impl Question {
    fn of(adapter: &Adapter, directory: &OpenDirectory, after: u64) -> Question {
        Question {
            client: adapter.client.clone(),
            view: adapter.view,
            opener: directory.opener.clone(),
            inode: directory.inode,
            after,
        }
    }

    async fn ask(&self, entries_max: usize, attributes: bool) -> Result<Page, Failure> {
        let Question { client, view, opener, inode, after } = self;
        let listing = client.list(opener, *inode, *after, entries_max, attributes).await?;
        Ok(Page {
            after: *after,
            entries: listing.entries.into(),
            end: listing.end,
            parent: view.parent(*inode, listing.parent),
        })
    }
}

fn open_flags(opening: Opening) -> OpenFlags {
    OpenFlags {
        read: opening.read,
        write: opening.write,
        execute: opening.execute,
        append: opening.append,
        truncate: opening.truncate,
        no_access_time: opening.no_access_time,
    }
}
