//! What the mount and the kernel agree on when a mount begins.
//!
//! The kernel offers capabilities, we choose. What is chosen, and why:
//!
//! * Pages, which serve mappings, with automatic invalidation by mtime and size
//!   (`FUSE_AUTO_INVAL_DATA`), never the kernel's write-back cache: that one keeps size and mtime on the kernel's side, so what other
//!   clients append would not be seen.
//! * Parallel look-ups and listings in one directory, parallel direct reads and writes.
//! * Targets of symbolic links are kept: an inode number never comes back and a target never
//!   changes.
//! * Shared mappings also of files opened for append, which bypass the page cache.
//! * The setuid and setgid bits are taken off by the minister when a file is written, cut or given
//!   away (`FUSE_HANDLE_KILLPRIV_V2`): else the kernel asks for the attribute
//!   `security.capability` before each single write.
//! * The umask is left to the minister (`FUSE_DONT_MASK`): a directory's default access control list
//!   sets it aside.
//! * File handles (`open_by_handle_at`, NFS export) of inodes that the kernel has forgotten
//!   (`FUSE_EXPORT_SUPPORT`): it then looks up `.` of the number.
//! * Locks (`FUSE_POSIX_LOCKS`, `FUSE_FLOCK_LOCKS`): they hold over all mounts, so the ministry has
//!   them and not the kernel.
//! * `readdirplus` only where it is asked for: with time-outs of 0 the kernel asks again for
//!   everything it was told.
//!
//! What is not chosen: `O_TRUNC` together with the open (the kernel sends a `setattr` after it),
//! `FUSE_POSIX_ACL` (the kernel would then judge by mode bits and lists of its own; without it both
//! names of lists pass through to the minister, who judges: docs/decisions/0009).

use fuser::{InitFlags, KernelConfig};

/// Bytes of one write: what one frame of the data path carries.
const WRITE_BYTES_MAX: u32 = ministry_types::limits::DATA_FRAME_BYTES_MAX as u32;

/// What a mount may change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// Read-aheads and write-backs under way at once.
    pub(crate) max_background: u16,
    /// Listings with attributes.
    pub(crate) readdirplus: bool,
}

fn wanted(tuning: &Tuning) -> InitFlags {
    let mut flags = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_MAX_PAGES
        | InitFlags::FUSE_AUTO_INVAL_DATA
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
        | InitFlags::FUSE_POSIX_LOCKS
        | InitFlags::FUSE_FLOCK_LOCKS
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_EXPORT_SUPPORT;
    if tuning.readdirplus {
        flags |= InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
    }
    flags
}

/// Chooses from what the kernel offers. What an older kernel does not know is left out.
pub(crate) fn negotiate(config: &mut KernelConfig, tuning: &Tuning) {
    for flag in wanted(tuning).iter() {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!(?flag, "the kernel does not offer this");
        }
    }
    // Each of these answers with the nearest value that it would take.
    if let Err(nearest) = config.set_max_write(WRITE_BYTES_MAX) {
        let _ = config.set_max_write(nearest);
    }
    if let Err(nearest) = config.set_max_readahead(WRITE_BYTES_MAX) {
        let _ = config.set_max_readahead(nearest);
    }
    if let Err(nearest) = config.set_max_background(tuning.max_background) {
        let _ = config.set_max_background(nearest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_would_hide_the_changes_of_other_clients_is_chosen() {
        let flags = wanted(&Tuning { max_background: 64, readdirplus: true });
        assert!(flags.contains(InitFlags::FUSE_AUTO_INVAL_DATA));
        let never = InitFlags::FUSE_WRITEBACK_CACHE
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        assert!((flags & never).is_empty());
    }

    #[test]
    fn umask_and_lists_are_left_to_the_minister_and_handles_are_found_again() {
        let flags = wanted(&Tuning { max_background: 64, readdirplus: true });
        assert!(flags.contains(InitFlags::FUSE_DONT_MASK | InitFlags::FUSE_EXPORT_SUPPORT));
        assert!(!flags.contains(InitFlags::FUSE_POSIX_ACL), "the kernel would judge");
    }

    #[test]
    fn the_kernel_keeps_no_locks_to_itself() {
        let flags = wanted(&Tuning { max_background: 64, readdirplus: true });
        assert!(flags.contains(InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS));
    }

    #[test]
    fn listings_with_attributes_are_asked_for_only_where_wanted() {
        let flags = wanted(&Tuning { max_background: 64, readdirplus: false });
        assert!(!flags.contains(InitFlags::FUSE_DO_READDIRPLUS));
    }
}
