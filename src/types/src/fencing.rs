//! Fencing numbers, and the only comparisons that are allowed between them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

macro_rules! ordinal {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            pub fn next(self) -> $name {
                $name(self.0.checked_add(1).expect("fencing numbers do not run out"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

ordinal!(
    /// The number of an appointment, given by the president alone; larger wins. The fencing
    /// number of ministries and of placement groups.
    Epoch
);
ordinal!(
    /// Raft's word, within one group only. Never compared across groups.
    Term
);
ordinal!(
    /// A position in one group's log.
    LogIndex
);
ordinal!(
    /// Version of the map of ownership and placement that clients cache: the index in the cluster
    /// log of the last order that changed it.
    MapVersion
);
ordinal!(
    /// The era of a cluster: raised when a cluster is restored from outside, so that tokens and
    /// caches from before end.
    Era
);

/// Where an entry stands in one group's log. The order is that of succession: members compare the
/// *last* position they hold, by term, then leader, then index. Choosing by what is known to be
/// committed would lose acknowledged changes, since that knowledge lags.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct LogPosition {
    /// Term of the leader that wrote the entry.
    pub term: Term,
    /// The leader that wrote it.
    pub leader: NodeId,
    /// Index in the log.
    pub index: LogIndex,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}
