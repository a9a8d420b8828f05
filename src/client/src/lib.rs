//! The client library: every access to a Ministry file system goes through it.
//!
//! The mount is built on it, and so may be any other program:
//!
//! ```no_run
//! # async fn example(config: ministry_client::ClientConfig) -> Result<(), Box<dyn std::error::Error>> {
//! use ministry_client::{Client, OpenFlags};
//! use ministry_types::{Caller, InodeId};
//!
//! let client = Client::connect(config).await?;
//! let caller = Caller { uid: 1000, gid: 1000, groups: vec![] };
//! let (_, file) = client
//!     .create_and_open(&caller, InodeId::ROOT, b"hello", 0o644, OpenFlags::READ_WRITE, false)
//!     .await?;
//! client.write(&file, 0, b"world".as_slice().into()).await?;
//! client.fsync(&file, false).await?;
//! client.close(file).await;
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Whose word goes where:
//!
//! | file | what it does |
//! |---|---|
//! | [`client`] | connecting, the map, the end |
//! | [`names`] | calls about names and attributes |
//! | [`files`], [`read`], [`write`], [`space`] | open files |
//! | [`locks`] | advisory locks, and which of them to give back at close |
//! | [`whole`] | whole files in one call |
//! | [`open_files`] | which inodes are open here, and what is known of them |
//! | `calls` | one change or question, until it is answered |
//! | `sessions`, `slots` | what makes a change happen exactly once |
//! | `routing`, `maps` | from an inode to the minister who answers for it |
//! | `unlogged` | writes that the minister has not logged yet |
//! | `retry` | outcomes of an attempt, and waits between them |
//! | [`data`], [`file_data`] | the chunks of files, on storage nodes |
//!
//! What must always hold: every call ends, within
//! [`ministry_types::limits::OPERATION_TIMEOUT`], in an answer or in an
//! [`ministry_types::FsError`]; a change happens once, whatever is lost on the way. When a minister
//! or a storage node fails, calls wait for its successor. Dropping the future of a call is always
//! safe; the change it was about may then happen or not.

pub mod client;
pub mod data;
pub mod file_data;
pub mod files;
pub mod locks;
pub mod names;
pub mod open_files;
pub mod read;
pub mod space;
pub mod whole;
pub mod write;

mod calls;
mod maps;
mod retry;
mod routing;
mod sessions;
mod slots;
mod unlogged;

pub use client::{Client, ClientConfig, ConnectError, DataSetup};
pub use file_data::FileData;
pub use locks::{LockRequest, WaitFor};
pub use names::{Listing, NewMode, NewObject};
pub use open_files::{FileHandle, OpenFlags};
