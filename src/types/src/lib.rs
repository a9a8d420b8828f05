//! The numbers, names and limits that every crate of Ministry shares.
//!
//! Every other crate uses this one; it uses none of them. It does no I/O, reads no clock, knows no
//! async. One word of the glossary (`docs/glossary.md`) is one type here, so that an [`Epoch`] can
//! never be taken for a [`Term`], nor an inode number for a size.
//!
//! What must always hold: a type that is written to disk or sent over the wire is encoded by
//! `serde` with its fields in the order of declaration; changing one is a change of format and
//! needs a new format number where it is stored (see [`format`]).

pub mod caller;
pub mod errors;
pub mod fencing;
pub mod format;
pub mod government;
pub mod ids;
pub mod inode;
pub mod kv;
pub mod layout;
pub mod limits;
pub mod locks;
pub mod operations;
pub mod ownership;
pub mod placement;
pub mod settings;

pub use caller::Caller;
pub use errors::{Errno, FsError};
pub use fencing::{Epoch, Era, LogIndex, LogPosition, MapVersion, Term};
pub use ids::{ClientId, ClusterId, GroupId, InodeId, MinistryId, NodeId, PgId, SessionId};
pub use inode::{Attributes, FileKind, Timestamp};
pub use layout::{ChunkNumber, Layout, SpaceChange, TruncateMark};
