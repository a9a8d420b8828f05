//! On whose behalf a request is made.

use serde::{Deserialize, Serialize};

/// The user, group and further groups of the process that made a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Caller {
    /// Effective user of the process.
    pub uid: u32,
    /// Effective group of the process.
    pub gid: u32,
    /// Supplementary groups; at most [`crate::limits::CALLER_GROUPS_MAX`].
    pub groups: Vec<u32>,
}

impl Caller {
    /// The super-user.
    pub fn root() -> Caller {
        Caller::default()
    }

    /// Whether this is the super-user, who passes permission checks.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether the process belongs to `gid`, as its own or a further group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}
