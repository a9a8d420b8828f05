//! Numbers of the formats on disk and on the wire.
//!
//! A record on disk begins with the number of its format; a node that finds a larger number than
//! it knows stops and says so, it never guesses.

/// Version of the wire: the handshake refuses every other.
pub const WIRE_VERSION: u32 = 2;
/// Format of a node's data folder as a whole, written into its marker.
pub const DATA_FOLDER_FORMAT: u32 = 1;
/// Format of one record of the log.
pub const LOG_RECORD_FORMAT: u8 = 2;
/// Format of the ministries' state.
pub const NAMESPACE_FORMAT: u8 = 5;
/// Format of the cluster log's commands and state.
pub const GOVERNMENT_FORMAT: u8 = 1;
/// Format of a snapshot.
pub const SNAPSHOT_FORMAT: u8 = 1;
/// Format of a chunk file's checksums.
pub const CHECKSUM_FORMAT: u32 = 1;
/// Feature level: commands of a higher level are proposed only when all members have it.
pub const FEATURE_LEVEL: u32 = 1;
