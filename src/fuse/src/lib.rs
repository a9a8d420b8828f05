//! The mount: a thin adapter between the kernel and the client library.
//!
//! A request of the kernel becomes one call of [`ministry_client::Client`], its error an errno.
//! There is no policy here. `ministryctl mount` starts a [`Mount`].
//!
//! What must always hold:
//!
//! * **The server is the only judge.** The kernel checks no permissions (`default_permissions` is
//!   never set); user, group and supplementary groups of the process go along with each request.
//! * **Mounts are coherent without leases.** Names and attributes are never kept (time-outs of 0);
//!   reads and writes bypass the kernel's pages, which serve mappings alone and are kept over an open
//!   only while ctime stays ([`page_cache`]). Inode numbers are Ministry's own and never come back, so the generation is
//!   always 0, and nothing has to be remembered between look-up and forget but for the page cache.
//! * **A mount never hangs for ever.** Each request has a deadline and ends in an errno; a handler
//!   that panics answers `EIO` and the mount lives on. Only the wait for a lock has no deadline:
//!   a signal ends it. Signals are not passed on to other requests (fuser has no way for it), so
//!   `Ctrl-C` waits for the answer or the deadline there.
//! * **Locks hold over all mounts** (`locks`), and are freed at close, at the end of a process, of a
//!   mount, and of the session of a machine that is gone.
//! * **The process that serves a mount never touches it** ([`mount_table`], [`mount`]).
//!
//! Known limits. Locks on directories hold within one machine only: the kernel keeps them.
//! `fallocate` does not move bytes (`COLLAPSE_RANGE`, `INSERT_RANGE`: `EOPNOTSUPP`) and keeps no
//! room behind the end of a file; `SEEK_DATA` and `SEEK_HOLE` do not see pages of a mapping that
//! were not written back. No `O_TMPFILE`, no birth time in
//! `statx`. While a file is open and another client changes it in place *and* sets mtime
//! back to what it was, pages read before can be seen until the next open.

mod adapter;
pub mod busy;
mod capabilities;
mod convert;
mod directory;
mod failure;
mod filesystem;
mod fusermount;
mod handles;
mod locks;
pub mod mount;
pub mod mount_table;
pub mod options;
mod overdue;
mod page_cache;
mod requester;
mod service;
mod view;
mod waiting_thread;

pub use mount::{Mount, MountError, Unmount, remount, unmount_path};
pub use options::{AccessTimes, MountOptions};
