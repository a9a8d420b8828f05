//! Identities: newtypes, never bare integers.
//!
//! Byte identities print as lower-case hexadecimal. [`NodeId`] has a short form (its first eight
//! digits) for tables and logs; commands accept any unambiguous beginning.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text was not the hexadecimal form of an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an identity: expected {digits} hexadecimal digits")]
pub struct ParseIdError {
    /// What was given.
    pub text: String,
    /// How many digits the identity has.
    pub digits: usize,
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let error = || ParseIdError { text: text.to_owned(), digits: N * 2 };
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(error());
    }
    let mut bytes = [0u8; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| error())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
    }
    Ok(bytes)
}

macro_rules! byte_identity {
    ($(#[$doc:meta])* $name:ident, $length:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                write_hex(&self.0[..4], f)?;
                write!(f, ")")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex::<$length>(text).map($name)
            }
        }
    };
}

byte_identity!(
    /// One cluster: drawn at random when its authority is made, carried by every certificate,
    /// handshake and data folder, so that two clusters never mix.
    ClusterId,
    16
);
byte_identity!(
    /// One `ministryd`: the SHA-256 of its public key. It never comes back after a wipe, because
    /// a wiped node makes a new key.
    NodeId,
    32
);
byte_identity!(
    /// One client or operator: the first 16 bytes of the SHA-256 of its public key.
    ClientId,
    16
);
byte_identity!(
    /// One client's standing with one ministry; drawn at random by the client.
    SessionId,
    16
);

impl NodeId {
    /// The first eight digits, for tables and logs.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

macro_rules! number_identity {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

number_identity!(
    /// One ministry: a Raft group that owns a part of the name space. Numbers start at 1 (the
    /// root ministry) and are never used again.
    MinistryId,
    u64
);
number_identity!(
    /// One Raft group on the wire and in the log: 0 is the cluster log, every other number is the
    /// ministry of that number.
    GroupId,
    u64
);
number_identity!(
    /// One object of the file system. 0 is never an inode, 1 is the root; a number never returns
    /// to another object.
    InodeId,
    u64
);
number_identity!(
    /// One placement group.
    PgId,
    u32
);

impl MinistryId {
    /// The ministry that owns `/` when a cluster begins.
    pub const ROOT: MinistryId = MinistryId(1);

    /// The Raft group of this ministry.
    pub fn group(self) -> GroupId {
        GroupId(self.0)
    }
}

impl GroupId {
    /// The cluster log, whose leader is the president.
    pub const CLUSTER: GroupId = GroupId(0);

    /// The ministry whose group this is; `None` for the cluster log.
    pub fn ministry(self) -> Option<MinistryId> {
        (self != GroupId::CLUSTER).then_some(MinistryId(self.0))
    }
}

impl InodeId {
    /// The root directory of the file system.
    pub const ROOT: InodeId = InodeId(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_what_it_prints() {
        let id = NodeId(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert_eq!(id.short().len(), 8);
    }

    #[test]
    fn a_wrong_identity_is_refused_with_the_length_wanted() {
        for text in
            ["", "ab", "zz000000000000000000000000000000", "é0000000000000000000000000000000"]
        {
            let error = text.parse::<ClusterId>().unwrap_err();
            assert_eq!(error.digits, 32, "{text}");
        }
    }
}
