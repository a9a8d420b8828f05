//! The frames of file data.
//!
//! A data connection carries frames in both directions: a small header in postcard, behind its
//! length, then the raw bytes. Requests are numbered by their sender and answered in any order, so
//! that many are under way at once; requests about one placement group keep the order in which
//! they were sent on a connection. The client sends to the master of a placement group; the master
//! sends the same requests, marked [`DataRequest::forwarded`], to the slaves.
//!
//! ```text
//! u32 header length | u32 payload length | header (postcard) | payload
//! ```
//!
//! What must always hold: both lengths are checked against the limits before anything is
//! allocated; checksums are made by the client and verified by every node that stores the bytes,
//! and on the way back by the client.

use bytes::{Bytes, BytesMut};
use ministry_types::limits::{BLOCK_BYTES, DATA_FRAME_BYTES_MAX};
use ministry_types::{ChunkNumber, Epoch, InodeId, PgId, SpaceChange, TruncateMark};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

/// Most bytes of a header: checksums of a whole frame and the marks of a file fit.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// Which of its sender's connections a request came over.
///
/// A sender that gives up on a connection sends everything of that lane over a new one, with a
/// larger generation; from then on the receiver refuses what is left of the older ones. So a
/// request that was sent twice never takes effect after a later one, however late the first copy
/// arrives. Requests about one inode always take the same lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct DataSource {
    /// Drawn by the sending process at its start.
    pub incarnation: u64,
    /// Below [`ministry_types::limits::DATA_STREAMS_PER_PEER`].
    pub lane: u32,
    /// Number of the connection; grows within an incarnation.
    pub generation: u64,
}

/// One request; the payload follows it in the frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRequest {
    /// Numbered by the sender.
    pub id: u64,
    /// The connection it is sent over; filled in by the sending end of the stream.
    pub source: DataSource,
    /// The placement group that is meant.
    pub pg: PgId,
    /// Its epoch as known to the sender.
    pub epoch: Epoch,
    /// The inode.
    pub inode: InodeId,
    /// The cuts that the sender knows and storage has not confirmed.
    pub truncates: Vec<TruncateMark>,
    /// From the master to a slave: carry it out, do not send it on.
    pub forwarded: bool,
    /// What to do.
    pub action: DataAction,
}

/// What a data request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataAction {
    /// Write the payload. It does not cross a chunk.
    Write {
        /// First byte in the file.
        offset: u64,
        /// The chunk, and its size, for the allocation that is reported back.
        chunk: ChunkNumber,
        /// Bytes of a chunk.
        chunk_bytes: u64,
        /// CRC-32C of each part of the payload, cut at multiples of 4 KiB of the file.
        checksums: Vec<u32>,
    },
    /// Read into the payload of the reply. Does not cross a chunk.
    Read {
        /// First byte in the file.
        offset: u64,
        /// How many bytes; at most a frame.
        length: u32,
    },
    /// Everything acknowledged of this inode is on stable storage at every in-sync member.
    Sync,
    /// Make the cuts that `truncates` names, durably.
    Truncate {
        /// The chunk of this placement group whose allocation is asked for afterwards.
        chunk: ChunkNumber,
        /// Bytes of a chunk.
        chunk_bytes: u64,
    },
    /// Remove the inode's data for good, and refuse writes to it from now on.
    Purge,
    /// Change the space of a range. It does not cross a chunk.
    Space {
        /// First byte in the file.
        offset: u64,
        /// Bytes; at least one.
        length: u64,
        /// The chunk, and its size, for the allocation that is reported back.
        chunk: ChunkNumber,
        /// Bytes of a chunk.
        chunk_bytes: u64,
        /// What to do.
        change: SpaceChange,
    },
    /// Find the first data, or the first hole, in those chunks of the range that belong to this
    /// placement group.
    Seek {
        /// Where to begin.
        offset: u64,
        /// Behind the last byte that counts.
        end: u64,
        /// Bytes of a chunk.
        chunk_bytes: u64,
        /// A hole is looked for, else data.
        hole: bool,
    },
    /// Fetch bytes of a file from the master that has them, and write them as
    /// [`DataAction::Write`] does: from node to node. Slaves get them as a write.
    Copy {
        /// First byte in this file.
        offset: u64,
        /// How many bytes; at most a frame, within one chunk here and one there.
        length: u32,
        /// The chunk, and its size, for the allocation that is reported back.
        chunk: ChunkNumber,
        /// Bytes of a chunk.
        chunk_bytes: u64,
        /// Where they come from.
        source: CopySource,
    },
}

/// Where copied bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySource {
    /// The file; may be the same one.
    pub inode: InodeId,
    /// First byte in it.
    pub offset: u64,
    /// Bytes of one of its chunks.
    pub chunk_bytes: u64,
    /// The cuts of that file that the sender knows and storage has not confirmed. When they are
    /// old the answer is [`DataError::StaleTruncate`], as for those of the file written to.
    pub truncates: Vec<TruncateMark>,
}

impl DataAction {
    /// The word that metrics and traces use.
    pub fn word(&self) -> &'static str {
        match self {
            DataAction::Write { .. } => "write",
            DataAction::Read { .. } => "read",
            DataAction::Sync => "sync",
            DataAction::Truncate { .. } => "truncate",
            DataAction::Purge => "purge",
            DataAction::Space { change, .. } => change.word(),
            DataAction::Seek { .. } => "seek",
            DataAction::Copy { .. } => "copy",
        }
    }

    /// Whether it leaves everything as it is.
    pub fn is_question(&self) -> bool {
        matches!(self, DataAction::Read { .. } | DataAction::Seek { .. })
    }
}

/// The answer to the request of the same number; the payload of a read follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataReply {
    /// Number of the request.
    pub id: u64,
    /// What came of it.
    pub result: Result<DataOutcome, DataError>,
}

/// A data request was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataOutcome {
    /// Every in-sync member has it.
    Written {
        /// Bytes now allocated in the chunk.
        allocated_bytes: u64,
    },
    /// The payload holds the bytes; holes are zeros.
    Data {
        /// CRC-32C of each part of the payload, cut at multiples of 4 KiB of the file.
        checksums: Vec<u32>,
    },
    /// Done at every in-sync member.
    Done,
    /// How far a search came. Its work is bounded: where it ended without having found anything
    /// before the end of the range, it is to be asked again from there.
    Searched {
        /// What was looked for begins here; or nothing of it lies before this byte.
        at: u64,
        /// It begins here.
        found: bool,
    },
}

/// Why a data request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DataError {
    /// The sender's map of placement groups is older, or this node is not the master.
    #[error("the placement group has epoch {current} here: take a new map")]
    WrongEpoch {
        /// The epoch known here.
        current: Epoch,
    },
    /// The file was cut since: take its attributes anew.
    #[error("the file was cut since (cut {current})")]
    StaleTruncate {
        /// Newest cut known here.
        current: u64,
    },
    /// The inode was removed.
    #[error("the inode was removed")]
    Purged,
    /// The bytes and their checksums differ: damaged on the way. Send again.
    #[error("the payload does not fit its checksums")]
    ChecksumMismatch,
    /// The stored bytes and their checksum differ: never served.
    #[error("block {block} of the file is damaged on this node")]
    Damaged {
        /// Number of the 4 KiB block.
        block: u64,
    },
    /// A member of the placement group does not answer: the write waits for it. Send again.
    #[error("a member of the placement group does not answer: {0}")]
    Waiting(String),
    /// No room on a member's disk.
    #[error("no space left on a storage node")]
    NoSpace,
    /// A member's disk refuses to work. Nothing is known of what was asked.
    #[error("a storage node's disk failed: {0}")]
    Disk(String),
    /// Too much under way. Send again.
    #[error("too many requests under way")]
    Busy,
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// A header with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<H> {
    /// Request or reply.
    pub header: H,
    /// File data; empty for most.
    pub payload: Bytes,
}

/// A frame that cannot be: the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length is over its limit.
    #[error("a frame of {header} + {payload} bytes is over the limit")]
    TooLarge {
        /// Bytes of the header.
        header: usize,
        /// Bytes of the payload.
        payload: usize,
    },
    /// The header does not decode.
    #[error("a header does not decode: {0}")]
    Header(#[from] postcard::Error),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Cuts a byte stream into frames. `I` is what comes in, `O` what goes out.
#[derive(Debug)]
pub struct FrameCodec<I, O> {
    wanted: Option<(usize, usize)>,
    direction: std::marker::PhantomData<fn(O) -> I>,
}

impl<I, O> Default for FrameCodec<I, O> {
    fn default() -> Self {
        FrameCodec { wanted: None, direction: std::marker::PhantomData }
    }
}

/// Bytes before a header: its length and that of the payload.
pub const PREFIX_BYTES: usize = 8;

/// What the first bytes of a frame say about the rest; within the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLengths {
    /// Bytes of the header.
    pub header: usize,
    /// Bytes of the payload.
    pub payload: usize,
}

/// Reads the first bytes of a frame; refuses lengths over the limits.
pub fn decode_prefix(prefix: &[u8; PREFIX_BYTES]) -> Result<FrameLengths, FrameError> {
    let [a, b, c, d, e, f, g, h] = *prefix;
    let header = u32::from_le_bytes([a, b, c, d]) as usize;
    let payload = u32::from_le_bytes([e, f, g, h]) as usize;
    let (header, payload) = checked(header, payload)?;
    Ok(FrameLengths { header, payload })
}

/// Appends everything of a frame but its payload, which the caller sends behind it uncopied.
pub fn encode_head<O: Serialize>(
    header: &O,
    payload: usize,
    target: &mut BytesMut,
) -> Result<(), FrameError> {
    let header = postcard::to_stdvec(header)?;
    checked(header.len(), payload)?;
    target.reserve(PREFIX_BYTES + header.len());
    target.extend_from_slice(&(header.len() as u32).to_le_bytes());
    target.extend_from_slice(&(payload as u32).to_le_bytes());
    target.extend_from_slice(&header);
    Ok(())
}

fn checked(header: usize, payload: usize) -> Result<(usize, usize), FrameError> {
    if header > HEADER_BYTES_MAX || payload > DATA_FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { header, payload });
    }
    Ok((header, payload))
}

impl<I: DeserializeOwned, O> Decoder for FrameCodec<I, O> {
    type Item = Frame<I>;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame<I>>, FrameError> {
        let (header, payload) = match self.wanted {
            Some(wanted) => wanted,
            None => {
                let Some(prefix) = source.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
                let FrameLengths { header, payload } = decode_prefix(prefix)?;
                let wanted = (header, payload);
                let _prefix = source.split_to(PREFIX_BYTES);
                self.wanted = Some(wanted);
                wanted
            }
        };
        if source.len() < header + payload {
            source.reserve(header + payload - source.len());
            return Ok(None);
        }
        self.wanted = None;
        let header = postcard::from_bytes(&source.split_to(header))?;
        let payload = source.split_to(payload).freeze();
        Ok(Some(Frame { header, payload }))
    }
}

impl<I, O: Serialize> Encoder<Frame<O>> for FrameCodec<I, O> {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame<O>, target: &mut BytesMut) -> Result<(), FrameError> {
        encode_head(&frame.header, frame.payload.len(), target)?;
        target.extend_from_slice(&frame.payload);
        Ok(())
    }
}

/// CRC-32C of each part of `data`, which begins at `offset` of its file, cut at multiples of 4 KiB
/// of the file: a whole block's part is what storage keeps.
pub fn checksums(offset: u64, data: &[u8]) -> Vec<u32> {
    parts(offset, data).map(crc32c::crc32c).collect()
}

/// The parts of `data` that [`checksums`] covers.
pub fn parts(offset: u64, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first = BLOCK_BYTES - (offset % BLOCK_BYTES as u64) as usize;
    let (head, rest) = data.split_at(first.min(data.len()));
    std::iter::once(head).filter(|head| !head.is_empty()).chain(rest.chunks(BLOCK_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Codec = FrameCodec<DataRequest, DataRequest>;

    fn request(length: usize) -> Frame<DataRequest> {
        let payload = Bytes::from(vec![7u8; length]);
        let action = DataAction::Write {
            offset: 100,
            chunk: 0,
            chunk_bytes: 1 << 26,
            checksums: checksums(100, &payload),
        };
        let header = DataRequest {
            id: 9,
            source: DataSource::default(),
            pg: PgId(3),
            epoch: Epoch(4),
            inode: InodeId(5),
            truncates: vec![TruncateMark { sequence: 1, size: 2 }],
            forwarded: false,
            action,
        };
        Frame { header, payload }
    }

    #[test]
    fn a_frame_arrives_whole_however_it_is_cut() {
        let mut bytes = BytesMut::new();
        for length in [0, 1, 5_000, DATA_FRAME_BYTES_MAX] {
            Codec::default().encode(request(length), &mut bytes).unwrap();
        }
        let (mut codec, mut arrived, mut frames) = (Codec::default(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(1_000) {
            arrived.extend_from_slice(piece);
            while let Some(frame) = codec.decode(&mut arrived).unwrap() {
                frames.push(frame);
            }
        }
        let lengths: Vec<_> = frames.iter().map(|frame| frame.payload.len()).collect();
        assert_eq!(lengths, [0, 1, 5_000, DATA_FRAME_BYTES_MAX]);
        assert_eq!(frames[3], request(DATA_FRAME_BYTES_MAX));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
        let mut bytes = BytesMut::from(&[255u8; 8][..]);
        let error = Codec::default().decode(&mut bytes).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }));
        let mut target = BytesMut::new();
        let oversized = request(DATA_FRAME_BYTES_MAX + 1);
        assert!(Codec::default().encode(oversized, &mut target).is_err());
    }

    #[test]
    fn parts_are_cut_at_blocks_of_the_file() {
        let data = vec![1u8; 10_000];
        let lengths = |offset| parts(offset, &data).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(0), [4096, 4096, 1808]);
        assert_eq!(lengths(4095), [1, 4096, 4096, 1807]);
        assert_eq!(parts(0, &[]).count(), 0);
    }
}
