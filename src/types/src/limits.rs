//! Every bound of the system, with the reason beside it.
//!
//! `docs/reference/limits.md` is made of this file: the first paragraph above a constant says what
//! it bounds and why, a line that begins with "When met:" what a program or another node sees then.

use std::time::Duration;

/// Bytes of one name; what Linux file systems have.
///
/// When met: `ENAMETOOLONG`.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a symbolic link's target (`PATH_MAX` less the closing zero).
///
/// When met: `ENAMETOOLONG`.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Names of one inode that is not a directory; as ext4.
///
/// When met: `EMLINK`. Directories have as many subdirectories as they like.
pub const LINKS_MAX: u32 = 65_000;
/// Bytes of one file: a storage node keeps all chunks of a file in one sparse file, and this is what
/// ext4 can hold in one.
///
/// When met: `EFBIG`.
pub const FILE_BYTES_MAX: u64 = 17_592_186_040_320;
/// Files up to this size live in their inode: one message and one commit for a small file.
///
/// When met: the content moves out to storage nodes; no error.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Bytes of an extended attribute's name (`XATTR_NAME_MAX`).
///
/// When met: `ERANGE`.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Bytes of an extended attribute's value (`XATTR_SIZE_MAX`).
///
/// When met: `E2BIG`.
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// Bytes of all names and values of one inode's extended attributes: its record keeps the total.
///
/// When met: `ENOSPC`.
pub const XATTRS_BYTES_MAX: usize = 131_072;
/// Entries of an access control list: the kernel hands over one page of them (`PAGE_SIZE`).
///
/// When met: `E2BIG`.
pub const ACL_ENTRIES_MAX: usize = 511;
/// Further groups of a caller; Linux allows 65,536, NFS 16. Sent with every request.
///
/// When met: the groups behind these count for nothing.
pub const CALLER_GROUPS_MAX: usize = 1024;

/// Bytes of a block under one checksum.
pub const BLOCK_BYTES: usize = 4096;
/// Part of a node's disk that file data leaves free, so that the logs and the state of the node have
/// room where files have filled it; see [`DISK_RESERVE_BYTES_MAX`].
///
/// When met: `ENOSPC` for what takes new blocks. Below half of it a minister on the node answers
/// `ENOSPC` to new names, and to longer small files and attributes; removing goes on.
pub const DISK_RESERVE_PART: u64 = 10;
/// The most that file data leaves free on a disk, however large that is: logs and state of a node do
/// not grow with it.
///
/// When met: a larger disk keeps no more than this.
pub const DISK_RESERVE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a chunk unless a layout says otherwise.
pub const CHUNK_BYTES: u64 = 64 << 20;
/// Cuts of one file that storage has not confirmed; a further one waits for a confirmation.
///
/// When met: the cut is tried again until storage has confirmed an earlier one, up to the time of an
/// operation, then `EAGAIN`.
pub const TRUNCATE_MARKS_MAX: usize = 64;
/// Bytes of file data in one frame: the most that FUSE hands over in one request.
///
/// When met: a larger read or write goes in several; a larger frame ends the connection.
pub const DATA_FRAME_BYTES_MAX: usize = 1 << 20;
/// Data requests under way on one data stream; bounds what a node buffers for a client.
///
/// When met: the next is not read from the connection before one was answered.
pub const DATA_REQUESTS_PER_STREAM_MAX: usize = 64;
/// Data streams from one process to one node.
pub const DATA_STREAMS_PER_PEER: usize = 2;

/// Bytes of one frame of control traffic.
///
/// When met: the connection ends at the header.
pub const CONTROL_FRAME_BYTES_MAX: usize = 8 << 20;
/// Requests under way on one control connection; more are refused as busy.
///
/// When met: busy; the caller tries again after a pause.
pub const CONTROL_REQUESTS_PER_CONNECTION_MAX: usize = 1024;
/// Requests of clients under way on one node, of all connections together. What a request holds in
/// memory is bounded by this, however many clients there are.
///
/// When met: busy; the client tries again after a pause, up to the time of an operation.
pub const CLIENT_REQUESTS_PER_NODE_MAX: usize = 4096;
/// Bytes that the requests of clients under way on one node may hold, with their answers.
///
/// When met: busy, as above.
pub const CLIENT_REQUEST_BYTES_PER_NODE_MAX: usize = 256 << 20;
/// Bytes of one command of a log; below the frame, so that an entry always fits one.
///
/// When met: the change is refused.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// Commands that share one entry of a ministry's log.
pub const ENTRY_COMMANDS_MAX: usize = 256;
/// Bytes of the commands that share one entry of a log; a larger one has an entry of its own.
pub const ENTRY_BYTES_MAX: usize = 256 << 10;
/// Bytes of commands in one append of a log.
pub const APPEND_BYTES_MAX: usize = 4 << 20;
/// Bytes of one block of a snapshot in transit.
pub const SNAPSHOT_BLOCK_BYTES: usize = 1 << 20;

/// One attempt of a call.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// One operation of a program with all its attempts; then it ends in an errno.
///
/// When met: `ETIMEDOUT`; a change may or may not have happened.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Connecting with the handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Handshakes under way at once on one node: they cost time before the caller is known.
///
/// When met: further callers wait in the queue of the listening socket.
pub const HANDSHAKES_MAX: usize = 256;
/// Connections to one node at once.
///
/// When met: a new connection is closed; the caller tries again after a pause.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections from one process to others at once.
///
/// When met: connections that ended are forgotten; with none of these the call fails and is tried again.
pub const PEER_CONNECTIONS_MAX: usize = 4_096;

/// Changes of one session under way at once: the replay slots a ministry keeps for it.
///
/// When met: further changes of the client wait for a slot.
pub const SLOTS_PER_SESSION: u32 = 64;
/// Questions of one session under way at once. A client with more of them waits on its own side:
/// asked all at once they would be refused, and come again, and so keep a busy node busier.
///
/// When met: further questions of the client wait for the answer to another.
pub const QUESTIONS_PER_SESSION: usize = 256;
/// Sessions of one ministry.
///
/// When met: busy; a mount waits, then fails with a message.
pub const SESSIONS_PER_MINISTRY_MAX: usize = 100_000;
/// A session ends when nothing was heard of its client for this long.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a client renews its sessions.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Between two rounds in which a minister logs what writes have made of files. Longer: fewer
/// entries; shorter: less that clients keep.
///
/// When met: nothing; it is a rhythm.
pub const SETTLE_INTERVAL: Duration = Duration::from_millis(100);
/// Times of access that nothing else brings into the log wait this long.
///
/// When met: nothing; it is a rhythm.
pub const ACCESS_SETTLE_INTERVAL: Duration = Duration::from_secs(10);
/// Files of one ministry of which something is not logged; beyond, writes are logged at once.
///
/// When met: each write waits for the log; no error.
pub const UNLOGGED_FILES_MAX: usize = 65_536;
/// Bytes of all that, in the minister's memory.
///
/// When met: each write waits for the log; no error.
pub const UNLOGGED_BYTES_MAX: usize = 64 << 20;
/// Bytes of writes to one ministry that a client keeps until they are logged; beyond, writes wait.
///
/// When met: writes wait until the minister has logged some; no error.
pub const UNLOGGED_BYTES_PER_SESSION_MAX: usize = 16 << 20;
/// A new minister waits this long for sessions of which it hears nothing: as long as they live. The
/// others tell at once what the one before had not logged.
///
/// When met: the minister serves the others; what the silent session had not synced may be lost.
pub const RECLAIM_GRACE: Duration = SESSION_TIMEOUT;
/// A turn to append that is not given back by then is taken away.
///
/// When met: the next writer gets the turn; the former writes its bytes anew, behind them.
pub const APPEND_TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Locks and waiting requests of one inode: they are one record, written with each change of one of
/// them.
///
/// When met: `ENOLCK`.
pub const LOCKS_PER_INODE_MAX: usize = 4096;
/// Locks and waiting requests of one session: its end frees all of them in one entry of the log.
///
/// When met: `ENOLCK`.
pub const LOCKS_PER_SESSION_MAX: u64 = 100_000;
/// Steps of the search for a deadlock; a longer chain of waiting processes is not found.
///
/// When met: the wait goes on until one of the others gives up; no error.
pub const DEADLOCK_STEPS_MAX: usize = 256;
/// A request for a lock lets those pass that wait for longer, but not for longer than this when no
/// holder is in its way.
pub const LOCK_TURN_TIMEOUT: Duration = Duration::from_secs(1);
/// Entries in one answer to a listing.
///
/// When met: the listing goes on in a further answer; no error.
pub const LISTING_ENTRIES_MAX: usize = 1024;
/// Bytes of names in one answer to a listing.
///
/// When met: the listing goes on in a further answer; no error.
pub const LISTING_BYTES_MAX: usize = 256 << 10;

/// Files that are open at one client at the same time, and files or directories open in one mount.
///
/// When met: `ENFILE`. A single program meets its own limit before, as `EMFILE`, in the kernel.
pub const OPEN_FILES_MAX: usize = 1 << 20;
/// Steps of a path that the library walks from an object to the root; deeper is taken for damage.
/// A path in a system call is shorter: `PATH_MAX` is the kernel's (4096 bytes, `ENAMETOOLONG`), as
/// are the 40 symbolic links in one (`ELOOP`). Trees may be deeper.
///
/// When met: `ENAMETOOLONG`, from the library alone.
pub const PATH_STEPS_MAX: usize = 1 << 20;

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
///
/// When met: the oldest is forgotten.
pub const HISTORY_MAX: usize = 10_000;
/// Join tokens that are open at the same time.
///
/// When met: `ministryctl invite` is refused.
pub const JOIN_TOKENS_MAX: usize = 1_000;

/// Between two questions of the president to one node.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// A node that has not answered for this long is suspected.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// Upper bound of a group's election time-out, and the length of a leader's lease.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(400);
