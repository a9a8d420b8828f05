//! Checksums of blocks: how they are made, written down and cut.
//!
//! What must always hold: a written-down checksum of 0 means that the block is a hole, and a hole
//! is all zeros. A block whose true CRC-32C is 0 is written down with another constant.

use ministry_types::format::CHECKSUM_FORMAT;
use ministry_types::limits::BLOCK_BYTES;

/// Bytes of a block, as an offset.
pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;
/// Bytes of the header before the checksums: a block, so that checksums keep aligned pages.
pub(super) const HEADER_BYTES: u64 = 4096;
/// Bytes of one written-down checksum.
pub(super) const SUM_BYTES: u64 = 4;
/// What is written down for a block that is not there.
pub(super) const HOLE: u32 = 0;

const MAGIC: &[u8; 8] = b"MINSUMS\0";
/// Magic, format, truncate sequence, checksum of these.
pub(super) const HEADER_USED: usize = 24;
/// Written down for a block whose CRC-32C is 0, since 0 says "hole".
const ZERO_CRC: u32 = 0xffff_ffff;

/// What is written down for a block with this CRC-32C.
pub(super) fn written_down(crc: u32) -> u32 {
    if crc == HOLE { ZERO_CRC } else { crc }
}

/// What is written down for a block of zeros that has room.
pub(super) fn zero_sum() -> u32 {
    written_down(crc_padded(&[]))
}

/// Whether a block is what its written-down checksum says. `block` may be shorter than a block
/// where the file ends; the rest counts as zeros.
pub(super) fn fits(block: &[u8], sum: u32) -> Option<u32> {
    if sum == HOLE {
        return is_zero(block).then(|| crc_padded(&[]));
    }
    let crc = crc_padded(block);
    (written_down(crc) == sum).then_some(crc)
}

/// The CRC-32C of a block of which only the beginning may be given; the rest are zeros.
pub(super) fn crc_padded(block: &[u8]) -> u32 {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    let crc = crc32c::crc32c(block);
    match ZEROS.get(block.len()..) {
        Some([]) | None => crc,
        Some(rest) => crc32c::crc32c_append(crc, rest),
    }
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Word by word: sixteen bytes at a time are compared in registers.
    let mut chunks = bytes.chunks_exact(16);
    let whole = chunks.by_ref().all(|chunk| chunk == [0; 16]);
    whole && chunks.remainder().iter().all(|byte| *byte == 0)
}

/// The parts of `data`, which begins at `offset` of its file, cut at multiples of a block.
pub(super) fn parts(offset: u64, data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first = BLOCK_BYTES - (offset % BLOCK) as usize;
    let (head, rest) = data.split_at(first.min(data.len()));
    std::iter::once(head).filter(|head| !head.is_empty()).chain(rest.chunks(BLOCK_BYTES))
}

/// Where the checksum of a block is written down.
pub(super) fn sum_offset(block: u64) -> u64 {
    HEADER_BYTES + block * SUM_BYTES
}

/// Checksums as they are written down.
pub(super) fn encode_sums(sums: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sums.len() * SUM_BYTES as usize);
    for sum in sums {
        bytes.extend_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// Reads `count` checksums from what was written down; what is missing at the end are holes.
pub(super) fn decode_sums(bytes: &[u8], count: usize) -> Vec<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    let mut sums: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    sums.resize(count, HOLE);
    sums
}

/// The header of a checksum file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    /// Number of the newest cut that was made.
    pub(super) truncate_sequence: u64,
}

/// A header that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    /// Made by a later version.
    #[error("its format {0} is newer than {CHECKSUM_FORMAT}: start a newer version of ministryd")]
    Newer(u32),
    /// Not a header.
    #[error("its header is damaged")]
    Damaged,
}

impl Header {
    /// As it is written down. All of it lies in one sector, so that it is replaced as a whole.
    pub(super) fn encode(&self) -> [u8; HEADER_USED] {
        let mut bytes = [0; HEADER_USED];
        let (body, check) = bytes.split_at_mut(HEADER_USED - 4);
        body[..8].copy_from_slice(MAGIC);
        body[8..12].copy_from_slice(&CHECKSUM_FORMAT.to_le_bytes());
        body[12..20].copy_from_slice(&self.truncate_sequence.to_le_bytes());
        check.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        bytes
    }

    /// Reads one back. An empty or zero header is the one of a file whose making was cut short.
    pub(super) fn decode(bytes: &[u8]) -> Result<Header, HeaderError> {
        if is_zero(bytes) {
            return Ok(Header::default());
        }
        let bytes: &[u8; HEADER_USED] = bytes.first_chunk().ok_or(HeaderError::Damaged)?;
        let (body, check) = bytes.split_at(HEADER_USED - 4);
        if body.get(..8) != Some(MAGIC) || check != crc32c::crc32c(body).to_le_bytes() {
            return Err(HeaderError::Damaged);
        }
        let (Some(format), Some(sequence)) = (
            body.get(8..12).and_then(|part| part.first_chunk()),
            body.get(12..20).and_then(|part| part.first_chunk()),
        ) else {
            return Err(HeaderError::Damaged);
        };
        let format = u32::from_le_bytes(*format);
        if format > CHECKSUM_FORMAT {
            return Err(HeaderError::Newer(format));
        }
        Ok(Header { truncate_sequence: u64::from_le_bytes(*sequence) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_a_flipped_bit_is_noticed() {
        let header = Header { truncate_sequence: 77 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!(Header::decode(&[]), Ok(Header::default()));
        for bit in 0..HEADER_USED * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged), Err(HeaderError::Damaged));
        }
    }

    #[test]
    fn a_short_block_counts_as_filled_with_zeros() {
        let mut whole = vec![3; BLOCK_BYTES];
        whole[100..].fill(0);
        assert_eq!(crc_padded(&whole[..100]), crc32c::crc32c(&whole));
        assert!(fits(&whole[..100], written_down(crc32c::crc32c(&whole))).is_some());
        assert!(fits(&[], HOLE).is_some() && fits(&[0; 17], HOLE).is_some());
        assert!(fits(&[0, 1], HOLE).is_none());
    }
}
