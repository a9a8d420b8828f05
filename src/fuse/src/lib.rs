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
//!   pages are kept while mtime and size stay, and over an open only while ctime stays
//!   ([`page_cache`]). Inode numbers are Ministry's own and never come back, so the generation is
//!   always 0, and nothing has to be remembered between look-up and forget but for the page cache.
//! * **A mount never hangs for ever.** Each request has a deadline and ends in an errno; a handler
//!   that panics answers `EIO` and the mount lives on. The interrupt of a program is not passed on
//!   (fuser has no way for it), so `Ctrl-C` waits for the answer or the deadline.
//! * **The process that serves a mount never touches it** ([`mount_table`], [`mount`]).
//!
//! Known limits. `flock` and `fcntl` locks hold within one machine only: the kernel keeps them.
//! `fallocate` does not move bytes (`COLLAPSE_RANGE`, `INSERT_RANGE`: `EOPNOTSUPP`) and keeps no
//! room behind the end of a file; `SEEK_DATA` and `SEEK_HOLE` do not see pages of a mapping that
//! were not written back. No `O_TMPFILE`, no birth time in
//! `statx`, no ACLs. While a file is open and another client changes it in place *and* sets mtime
//! back to what it was, pages read before can be seen until the next open.

mod adapter;
mod capabilities;
mod convert;
mod directory;
mod failure;
mod filesystem;
mod handles;
pub mod mount;
pub mod mount_table;
mod overdue;
mod page_cache;
mod requester;
mod service;

pub use mount::{Mount, MountError, MountOptions, Unmount, unmount_path};
