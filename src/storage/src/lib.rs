//! Bytes on one machine.
//!
//! * [`marker`]: whose data folder this is, written once and checked at each start, with the lock
//!   that keeps a second process out.
//! * [`meta_store`]: the state of the ministries, in RocksDB.
//! * [`chunk_store`]: the data of files, in ordinary sparse files with a checksum for each block.
//! * [`disk`]: what the chunk store stands on: a real disk, or one in memory that forgets what was
//!   not synced.
//!
//! Everything here blocks: callers come from threads that may. Nothing here knows the network,
//! Raft or the rules of the name space.
//!
//! What must always hold: what was synced is there after a loss of power; bytes that do not fit
//! their checksum are never served; a failed sync is final ([`chunk_store::ChunkError::Fatal`]),
//! it is never tried again, since the kernel may have dropped what it could not write.

pub mod chunk_store;
pub mod disk;
pub mod marker;
pub mod memory_disk;
pub mod meta_store;

pub use chunk_store::{ChunkError, ChunkStore, ChunkStoreOptions, ReadOut, Searched, Written};
pub use disk::{Disk, DiskFile, RealDisk, RoomClaim, Usage};
pub use marker::{FolderError, FolderLock, Marker};
pub use memory_disk::MemoryDisk;
pub use meta_store::RocksKv;
