//! The kernel's side: takes each request apart, hands it to the runtime, and answers from there.
//!
//! fuser calls these methods in its threads, one request after the other for each thread; so a
//! method only copies what it needs and spawns a task. The kernel bounds how many there are: one
//! for each waiting thread of a program, and `max_background` read-aheads and write-backs.
//!
//! What must always hold: every request is answered, once. A task that panics or is dropped drops
//! its reply, which answers `EIO`; one that takes too long is ended with `ETIMEDOUT`. Nothing here
//! panics, since that would end the mount.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use ministry_client::{NewMode, NewObject};
use ministry_types::locks::{HeldLock, LockRange};
use ministry_types::operations::Entry;
use ministry_types::{Caller, FileKind, FsError, InodeId, limits};

use crate::adapter::{Adapter, WriteRequest};
use crate::capabilities;
use crate::convert::{self, SetFields, XattrReply};
use crate::directory::{COOKIE_DOT, COOKIE_DOT_DOT, fill};
use crate::failure::Failure;
use crate::locks::{self, Asked};
use crate::requester::Requester;
use crate::service::{GENERATION, MinistryFilesystem, TIME_TO_LIVE};

impl MinistryFilesystem {
    fn make(
        &self,
        operation: &'static str,
        req: &Request,
        (parent, name): (INodeNo, &OsStr),
        new: NewObject,
        reply: ReplyEntry,
    ) {
        let (who, parent, name) = (Requester::of(req), self.inode(parent), owned(name));
        self.serve_entry(operation, reply, move |adapter| async move {
            adapter.client.create(&who.caller(), parent, &name, new).await
        });
    }
}

fn owned(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

impl Filesystem for MinistryFilesystem {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        capabilities::negotiate(config, &self.tuning);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (who, parent, name) = (Requester::of(req), self.inode(parent), owned(name));
        self.serve_entry("lookup", reply, move |adapter| async move {
            if name == b"." {
                return adapter.by_number(&who.caller(), parent).await;
            }
            if adapter.overdue.repeats(who.thread(), parent, &name) {
                return Err(FsError::TimedOut);
            }
            let found = adapter.client.lookup(&who.caller(), parent, &name).await;
            if found == Err(FsError::TimedOut) {
                adapter.overdue.ended(who.thread(), parent, name);
            }
            found
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, _nlookup: u64) {
        self.adapter.page_cache.forget(self.inode(ino));
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        let work = move |adapter: Arc<Adapter>| async move {
            let attributes = adapter.client.getattr(&who.caller(), inode).await?;
            Ok(adapter.show(&attributes))
        };
        self.serve("getattr", reply, work, |reply, shown| {
            reply.attr(&TIME_TO_LIVE, &shown);
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        let fields = SetFields { mode, uid, gid, size, atime, mtime };
        let work = move |adapter: Arc<Adapter>| async move {
            let attributes = adapter.set_attributes(&who.caller(), inode, fields, fh).await?;
            Ok(adapter.show(&attributes))
        };
        self.serve("setattr", reply, work, |reply, shown| {
            reply.attr(&TIME_TO_LIVE, &shown);
        });
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        let work = move |adapter: Arc<Adapter>| async move {
            Ok(adapter.client.readlink(&who.caller(), inode).await?)
        };
        self.serve("readlink", reply, work, |reply, target: Vec<u8>| reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let kind = FileKind::from_mode(mode)
            .filter(|kind| !matches!(kind, FileKind::Directory | FileKind::Symlink));
        let Some(kind) = kind else { return reply.error(Errno::EINVAL) };
        let device = u64::from(rdev);
        let NewMode { permissions, umask } = convert::new_mode(mode, umask);
        let new = NewObject { kind, device, umask, ..NewObject::file(permissions) };
        self.make("mknod", req, (parent, name), new, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let NewMode { permissions, umask } = convert::new_mode(mode, umask);
        let new = NewObject { umask, ..NewObject::directory(permissions) };
        self.make("mkdir", req, (parent, name), new, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let new = NewObject::symlink(target.as_os_str().as_bytes());
        self.make("symlink", req, (parent, link_name), new, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, parent, name) = (Requester::of(req), self.inode(parent), owned(name));
        self.serve_empty("unlink", reply, move |adapter| async move {
            adapter.client.unlink(&who.caller(), parent, &name).await
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, parent, name) = (Requester::of(req), self.inode(parent), owned(name));
        self.serve_empty("rmdir", reply, move |adapter| async move {
            adapter.client.rmdir(&who.caller(), parent, &name).await
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let who = Requester::of(req);
        let (parent, name) = (self.inode(parent), owned(name));
        let (new_parent, new_name) = (self.inode(newparent), owned(newname));
        self.serve_empty("rename", reply, move |adapter| async move {
            let mode = convert::rename_mode(flags)?;
            let (from, to) = ((parent, name.as_slice()), (new_parent, new_name.as_slice()));
            adapter.client.rename(&who.caller(), from, to, mode).await
        });
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        let (parent, name) = (self.inode(newparent), owned(newname));
        self.serve_entry("link", reply, move |adapter| async move {
            adapter.client.link(&who.caller(), inode, parent, &name).await
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        let opening = convert::opening(flags.0);
        let work = move |adapter: Arc<Adapter>| async move {
            adapter.open(who.caller(), inode, opening).await
        };
        self.serve("open", reply, work, |reply, opened| reply.opened(opened.number, opened.flags));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (who, parent, name) = (Requester::of(req), self.inode(parent), owned(name));
        let mode = convert::new_mode(mode, umask);
        let opening = convert::opening(flags);
        let work = move |adapter: Arc<Adapter>| async move {
            adapter.create(who.caller(), parent, &name, mode, opening).await
        };
        self.serve("create", reply, work, |reply, (shown, opened)| {
            reply.created(&TIME_TO_LIVE, &shown, GENERATION, opened.number, opened.flags);
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let inode = self.inode(ino);
        let work =
            move |adapter: Arc<Adapter>| async move { adapter.read(inode, fh, offset, size).await };
        self.serve("read", reply, work, |reply, data: Bytes| reply.data(&data));
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        // The buffer belongs to fuser, which reads the next request into it.
        let data = Bytes::copy_from_slice(data);
        let status = convert::status_flags(flags.0);
        let write = WriteRequest { offset, data, flags: write_flags, status };
        let work =
            move |adapter: Arc<Adapter>| async move { adapter.write(who, inode, fh, write).await };
        self.serve("write", reply, work, |reply, written| reply.written(written));
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.serve_empty("flush", reply, move |adapter| async move {
            adapter.flush(fh, lock_owner.0).await
        });
    }

    fn getlk(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let asked =
            asked_lock(req, (self.inode(ino), fh, lock_owner), (start, end), (typ, pid, false));
        let work = move |adapter: Arc<Adapter>| async move { adapter.test_lock(asked).await };
        self.serve("getlk", reply, work, |reply, held| match held {
            None => reply.locked(0, 0, libc::F_UNLCK, 0),
            Some(HeldLock { pid, mode, range, .. }) => {
                reply.locked(range.first, range.last, locks::word_of(mode), pid);
            }
        });
    }

    fn setlk(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let asked =
            asked_lock(req, (self.inode(ino), fh, lock_owner), (start, end), (typ, pid, sleep));
        self.serve_lock(asked, reply);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.serve_empty("release", reply, move |adapter| async move { adapter.release(fh).await });
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.serve_empty(
            "fsync",
            reply,
            move |adapter| async move { adapter.sync(fh, datasync).await },
        );
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        let work = move |adapter: Arc<Adapter>| async move {
            adapter.open_directory(who.caller(), inode).await
        };
        self.serve("opendir", reply, work, |reply, number| {
            reply.opened(number, fuser::FopenFlags::empty());
        });
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.serve_listing(fh, offset, reply);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let work = move |adapter: Arc<Adapter>| async move {
            adapter.list_with_attributes(fh, offset).await
        };
        let view = self.adapter.view;
        self.serve("readdirplus", reply, work, move |mut reply, (mut page, own, parent)| {
            let directory = own.inode;
            let mut put = |_, cookie, name: &[u8], entry: Option<&Entry>| {
                let attributes = match (cookie, entry) {
                    (COOKIE_DOT, _) => Some(&own),
                    (COOKIE_DOT_DOT, _) => Some(&parent),
                    (_, entry) => entry.and_then(|entry| entry.attributes.as_ref()),
                };
                // The adapter has left out what has none.
                let Some(attributes) = attributes else { return false };
                let (shown, name) = (view.attributes(attributes), OsStr::from_bytes(name));
                reply.add(shown.ino, cookie, name, &TIME_TO_LIVE, &shown, GENERATION)
            };
            fill(offset, directory, &mut page, &mut put);
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        match self.adapter.directories.remove(fh) {
            Ok(_) => reply.ok(),
            Err(failure) => reply.error(Failure::from(failure).errno()),
        }
    }

    /// Every change of a directory is on the disks of a majority before it is answered.
    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let work = |adapter: Arc<Adapter>| async move { Ok(adapter.client.statfs().await?) };
        self.serve("statfs", reply, work, |reply, usage| {
            let room = convert::room(&usage);
            let (block, name) = (convert::STATFS_BLOCK_BYTES, limits::NAME_BYTES_MAX as u32);
            let (files, files_free) = (room.files, room.files_free);
            reply.statfs(
                room.blocks,
                room.free,
                room.available,
                files,
                files_free,
                block,
                name,
                block,
            );
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (who, inode, name) = (Requester::of(req), self.inode(ino), owned(name));
        let value = Bytes::copy_from_slice(value);
        self.serve_empty("setxattr", reply, move |adapter| async move {
            let mode = convert::xattr_mode(flags)?;
            adapter.client.setxattr(&who.caller(), inode, &name, value, mode).await
        });
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (who, inode, name) = (Requester::of(req), self.inode(ino), owned(name));
        let work = move |adapter: Arc<Adapter>| async move {
            let value = adapter.client.getxattr(&who.caller(), inode, &name).await?;
            Ok(convert::xattr_reply(value, size)?)
        };
        self.serve("getxattr", reply, work, answer_xattr);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        let work = move |adapter: Arc<Adapter>| async move {
            let names = adapter.client.listxattr(&who.caller(), inode).await?;
            Ok(convert::xattr_reply(convert::xattr_list(&names), size)?)
        };
        self.serve("listxattr", reply, work, answer_xattr);
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, inode, name) = (Requester::of(req), self.inode(ino), owned(name));
        self.serve_empty("removexattr", reply, move |adapter| async move {
            adapter.client.removexattr(&who.caller(), inode, &name).await
        });
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        let mask = mask.bits() as u32;
        self.serve_empty("access", reply, move |adapter| async move {
            adapter.client.access(&who.caller(), inode, mask).await
        });
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// `ENOSYS` tells the kernel not to ask again: files are always ready.
    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (who, inode) = (Requester::of(req), self.inode(ino));
        self.serve_empty("fallocate", reply, move |adapter| async move {
            adapter.fallocate(who, inode, fh, offset, length, mode).await
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let inode = self.inode(ino);
        let work = move |adapter: Arc<Adapter>| async move {
            adapter.seek(inode, fh, offset, whence).await
        };
        self.serve("lseek", reply, work, |reply, found| match found {
            Some(offset) => reply.offset(offset),
            None => reply.error(Errno::ENXIO),
        });
    }

    /// The kernel asks only where both files lie in this mount, and reads and writes by itself
    /// where they do not.
    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let who = Requester::of(req);
        let from = (self.inode(ino_in), fh_in, offset_in);
        let to = (self.inode(ino_out), fh_out, offset_out);
        let work = move |adapter: Arc<Adapter>| async move {
            adapter.copy_range(who, from, to, len).await
        };
        self.serve("copy_file_range", reply, work, |reply, copied| reply.written(copied));
    }
}

fn asked_lock(
    req: &Request,
    (inode, handle, owner): (InodeId, FileHandle, LockOwner),
    (first, last): (u64, u64),
    (word, pid, sleeps): (i32, u32, bool),
) -> Asked {
    let who = Requester::of(req);
    Asked {
        // Locks ask for no permission: that was done at open.
        caller: Caller::root(),
        thread: who.thread(),
        inode,
        handle,
        owner: owner.0,
        range: LockRange { first, last },
        word,
        pid,
        sleeps,
    }
}

fn answer_xattr<T: AsRef<[u8]>>(reply: ReplyXattr, value: XattrReply<T>) {
    match value {
        XattrReply::Size(size) => reply.size(size),
        XattrReply::Bytes(bytes) => reply.data(bytes.as_ref()),
    }
}
