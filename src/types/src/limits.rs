//! Every bound of the system, with the reason beside it.

use std::time::Duration;

/// Bytes of one name; what Linux file systems have.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a symbolic link's target (`PATH_MAX` less the closing zero).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Names of one inode that is not a directory; as ext4.
pub const LINKS_MAX: u32 = 65_000;
/// Bytes of one file: the kernel's own limit for file offsets.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Files up to this size live in their inode: one message and one commit for a small file.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Bytes of an extended attribute's name (`XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Bytes of an extended attribute's value (`XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// Bytes of all names and values of one inode's extended attributes: they are one record.
pub const XATTRS_BYTES_MAX: usize = 131_072;
/// Further groups of a caller; Linux allows 65,536, NFS 16. Sent with every request.
pub const CALLER_GROUPS_MAX: usize = 1024;

/// Bytes of a block under one checksum.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a chunk unless a layout says otherwise.
pub const CHUNK_BYTES: u64 = 64 << 20;
/// Cuts of one file that storage has not confirmed; a further one waits for a confirmation.
pub const TRUNCATE_MARKS_MAX: usize = 64;
/// Bytes of file data in one frame: the most that FUSE hands over in one request.
pub const DATA_FRAME_BYTES_MAX: usize = 1 << 20;
/// Data requests under way on one data stream; bounds what a node buffers for a client.
pub const DATA_REQUESTS_PER_STREAM_MAX: usize = 64;
/// Data streams from one process to one node.
pub const DATA_STREAMS_PER_PEER: usize = 2;

/// Bytes of one frame of control traffic.
pub const CONTROL_FRAME_BYTES_MAX: usize = 8 << 20;
/// Requests under way on one control connection; more are refused as busy.
pub const CONTROL_REQUESTS_PER_CONNECTION_MAX: usize = 1024;
/// Bytes of one command of a log; below the frame, so that an entry always fits one.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// Bytes of commands in one append of a log.
pub const APPEND_BYTES_MAX: usize = 4 << 20;
/// Bytes of one block of a snapshot in transit.
pub const SNAPSHOT_BLOCK_BYTES: usize = 1 << 20;

/// One attempt of a call.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// One operation of a program with all its attempts; then it ends in an errno.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Connecting with the handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Handshakes under way at once on one node: they cost time before the caller is known.
pub const HANDSHAKES_MAX: usize = 256;
/// Connections to one node at once.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections from one process to others at once.
pub const PEER_CONNECTIONS_MAX: usize = 4_096;

/// Changes of one session under way at once: the replay slots a ministry keeps for it.
pub const SLOTS_PER_SESSION: u32 = 64;
/// Sessions of one ministry.
pub const SESSIONS_PER_MINISTRY_MAX: usize = 100_000;
/// A session ends when nothing was heard of its client for this long.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a client renews its sessions.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Locks and waiting requests of one inode: they are one record, written with each change of one of
/// them.
pub const LOCKS_PER_INODE_MAX: usize = 4096;
/// Locks and waiting requests of one session: its end frees all of them in one entry of the log.
pub const LOCKS_PER_SESSION_MAX: u64 = 100_000;
/// Steps of the search for a deadlock; a longer chain of waiting processes is not found.
pub const DEADLOCK_STEPS_MAX: usize = 256;
/// A request for a lock lets those pass that wait for longer, but not for longer than this when no
/// holder is in its way.
pub const LOCK_TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// Entries in one answer to a listing.
pub const LISTING_ENTRIES_MAX: usize = 1024;
/// Bytes of names in one answer to a listing.
pub const LISTING_BYTES_MAX: usize = 256 << 10;

/// Inode numbers that a directory takes at a time, so that children are neighbours.
pub const INODE_BLOCK: u64 = 256;
/// Inode numbers of one range that the president gives to a ministry.
pub const INODE_RANGE: u64 = 1 << 40;
/// Unused ranges a ministry holds, so that it creates without a president.
pub const INODE_RANGES_AHEAD: usize = 2;

/// Members of a ministry; never fewer, so that one may fail.
pub const MINISTRY_MEMBERS: usize = 3;
/// Electors of the cluster log; the other nodes learn.
pub const ELECTORS_MAX: usize = 5;
/// Replicas of each placement group.
pub const REPLICAS: usize = 3;
/// Placement groups of a new cluster; a power of two, doubled by splitting.
pub const PLACEMENT_GROUPS: u32 = 64;
/// Orders that the history keeps.
pub const HISTORY_MAX: usize = 10_000;
/// Join tokens that are open at the same time.
pub const JOIN_TOKENS_MAX: usize = 1_000;

/// Between two questions of the president to one node.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// A node that has not answered for this long is suspected.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// Upper bound of a group's election time-out, and the length of a leader's lease.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(400);
