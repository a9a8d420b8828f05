//! What the suites share: a whole cluster of real processes, programs run with a deadline, waiting
//! for conditions.
//!
//! Who uses it: the suites in the folders beside this one. Everything here blocks and panics: it is
//! for tests only. What must always hold: when a test ends, however it ends, no process, no mount
//! and no folder of it is left.

pub mod cluster;
pub mod load;
pub mod mount;
pub mod ports;
pub mod process;
pub mod program;
pub mod sandbox;
pub mod tree;
pub mod wait;

pub use cluster::{Cluster, Plan};
pub use program::{Ended, Program};
