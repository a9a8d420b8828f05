//! Where a mount differs from a local ext4, and why. Nothing else may.

/// A sentence that does not hold on ext4.
pub struct Difference {
    pub sentence: &'static str,
    /// What ext4 does.
    pub there: &'static str,
    /// Why a mount does something else.
    pub reason: &'static str,
}

const fn differs(sentence: &'static str, there: &'static str, reason: &'static str) -> Difference {
    Difference { sentence, there, reason }
}

/// All of them, in the order of the page.
pub const DIFFERENCES: &[Difference] = &[
    differs(
        "open-17",
        "makes a file without a name",
        "the crate that speaks with the kernel (fuser 0.18) has no request for it; programs fall \
         back to a name of their own and remove it",
    ),
    differs(
        "node-8",
        "obeys its mode",
        "the kernel opens fifos, sockets and devices itself, and asks a FUSE file system nothing \
         where that judges permissions by itself",
    ),
    differs(
        "ofd-3",
        "tells -1 for an open file, and the process for a process",
        "the kernel's FUSE goes by who asks, not by what was found",
    ),
    differs(
        "fallocate-3",
        "makes room behind the end",
        "whatever lies behind the end of a file counts as cut off, so that nothing of it ever \
         shows; room there is not kept",
    ),
    differs(
        "fallocate-11",
        "takes pages out and puts pages in",
        "the kernel's FUSE refuses both before a mount is asked",
    ),
    differs(
        "rename-21",
        "leaves a whiteout",
        "only overlayfs asks for it, in its upper layer, which belongs on a disk of one machine",
    ),
    differs(
        "statx-2",
        "tells the time of birth",
        "the kernel asks a mount for it in a request that fuser 0.18 does not know",
    ),
    differs(
        "statfs-2",
        "shows 0xEF53",
        "the number names the file system towards the kernel, which is FUSE",
    ),
    differs(
        "xattr-16",
        "takes no value beyond a block, about 4,000 bytes: `ENOSPC`",
        "a mount takes as much as Linux allows at all",
    ),
    differs(
        "xattr-18",
        "has room for one block of them",
        "programs that keep much in attributes, such as Samba and Ceph, find the room here",
    ),
];
