//! Keys and records of the log on disk.
//!
//! Key: group (8 bytes, big endian), kind (1 byte), and for entries the index (8 bytes, big
//! endian), so that a group's entries lie in order, one after the other. Record: number of the
//! format, CRC-32C of the rest, the rest in postcard.

use ministry_types::{GroupId, LogPosition, format::LOG_RECORD_FORMAT};
use ministry_wire::raft as mirror;
use serde::{Serialize, de::DeserializeOwned};

use crate::convert;
use crate::errors::LogError;
use crate::type_config::{Entry, LogId, Vote};

/// Format and checksum before the content.
const HEADER_BYTES: usize = 5;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Vote = 0,
    Purged = 1,
    Committed = 2,
    Entry = 3,
}

/// Key of a record of which a group has one.
pub(crate) fn key(group: GroupId, kind: Kind) -> [u8; 9] {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8] = kind as u8;
    key
}

/// Key of an entry.
pub(crate) fn entry_key(group: GroupId, index: u64) -> [u8; 17] {
    let mut bytes = [0; 17];
    bytes[..9].copy_from_slice(&key(group, Kind::Entry));
    bytes[9..].copy_from_slice(&index.to_be_bytes());
    bytes
}

/// Index in the key of an entry.
pub(crate) fn entry_index(key: &[u8]) -> Option<u64> {
    let index = key.get(9..)?;
    Some(u64::from_be_bytes(index.try_into().ok()?))
}

fn seal<T: Serialize>(content: &T, room: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + room);
    record.extend_from_slice(&[LOG_RECORD_FORMAT, 0, 0, 0, 0]);
    let mut record =
        postcard::to_extend(content, record).expect("memory and plain data cannot fail");
    let checksum = crc32c::crc32c(&record[HEADER_BYTES..]);
    record[1..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    record
}

fn open<T: DeserializeOwned>(record: &[u8]) -> Result<T, LogError> {
    let damaged = |what: &str| LogError::Damaged(what.to_owned());
    let (header, content) =
        record.split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("a record is too short"))?;
    let (format, checksum) = header.split_at(1);
    if format != [LOG_RECORD_FORMAT] {
        return Err(LogError::Damaged(format!("a record has the unknown format {format:?}")));
    }
    if checksum != crc32c::crc32c(content).to_le_bytes() {
        return Err(damaged("a record does not fit its checksum"));
    }
    postcard::from_bytes(content).map_err(|error| LogError::Damaged(error.to_string()))
}

pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let entry = convert::entry(entry);
    let room = match &entry.body {
        mirror::Body::Commands(commands) => {
            64 + commands.iter().map(|command| command.len() + 4).sum::<usize>()
        }
        mirror::Body::Blank | mirror::Body::Membership(_) => 256,
    };
    seal(&entry, room)
}

pub(crate) fn decode_entry(record: &[u8]) -> Result<Entry, LogError> {
    let entry: mirror::Entry = open(record)?;
    convert::raft_entry(entry).map_err(|error| LogError::Damaged(error.to_string()))
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    seal(&convert::vote(vote), 64)
}

pub(crate) fn decode_vote(record: &[u8]) -> Result<Vote, LogError> {
    Ok(convert::raft_vote(&open(record)?))
}

pub(crate) fn encode_position(id: &LogId) -> Vec<u8> {
    seal(&convert::position(id), 64)
}

pub(crate) fn decode_position(record: &[u8]) -> Result<LogId, LogError> {
    Ok(convert::log_id(&open::<LogPosition>(record)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_config::{Commands, LeaderId, Peer};

    fn sample() -> Entry {
        Entry {
            log_id: LogId { leader_id: LeaderId { term: 4, node_id: Peer::from(9) }, index: 300 },
            payload: openraft::EntryPayload::Normal(Commands(vec!["one".into(), "another".into()])),
        }
    }

    #[test]
    fn an_entry_reads_back_and_every_flipped_bit_is_noticed() {
        let record = encode_entry(&sample());
        assert_eq!(decode_entry(&record).unwrap(), sample());
        for byte in 0..record.len() {
            for bit in 0..8 {
                let mut damaged = record.clone();
                damaged[byte] ^= 1 << bit;
                assert!(decode_entry(&damaged).is_err(), "byte {byte} bit {bit}");
            }
        }
        for length in 0..record.len() {
            assert!(decode_entry(&record[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn entries_lie_in_the_order_of_their_groups_and_indexes() {
        let keys = [(1, 9), (1, 10), (1, 300), (2, 0)].map(|(g, i)| entry_key(GroupId(g), i));
        assert!(keys.is_sorted());
        assert_eq!(entry_index(&keys[2]), Some(300));
        assert!(key(GroupId(1), Kind::Committed).as_slice() < keys[0].as_slice());
    }
}
