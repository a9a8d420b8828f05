//! Records of the state store as blocks of a snapshot, and back.
//!
//! Used by both state machines. A block is a postcard list of (key, value), so that the receiver
//! needs no more memory than a block; the `raft` crate adds header and checksums.

use std::ops::ControlFlow;

use bytes::Bytes;
use ministry_raft::{Blocks, StateError};
use ministry_types::kv::{Batch, Kv, KvRead};
use ministry_types::limits::SNAPSHOT_BLOCK_BYTES;

use crate::government::kv_failed;

type Record = (Vec<u8>, Vec<u8>);

/// Room for a record's lengths in the encoding.
const RECORD_OVERHEAD: usize = 16;

/// Reads the records from `from` to `to` of an unchanging view, block by block.
pub(crate) fn blocks(view: Box<dyn KvRead + Send>, from: Vec<u8>, to: Vec<u8>) -> Blocks {
    let mut next = Some(from);
    Box::new(std::iter::from_fn(move || {
        let from = next.take()?;
        match one_block(&*view, &from, &to) {
            Ok((records, _)) if records.is_empty() => None,
            Ok((records, rest)) => {
                next = rest;
                let bytes = postcard::to_stdvec(&records).expect("plain data always encodes");
                Some(Ok(Bytes::from(bytes)))
            }
            Err(error) => Some(Err(error)),
        }
    }))
}

/// Records of one block, and the key to go on from.
fn one_block(
    view: &dyn KvRead,
    from: &[u8],
    to: &[u8],
) -> Result<(Vec<Record>, Option<Vec<u8>>), StateError> {
    let mut records: Vec<Record> = Vec::new();
    let mut rest = None;
    let mut size = RECORD_OVERHEAD;
    view.scan(from, to, &mut |key, value| {
        size += key.len() + value.len() + RECORD_OVERHEAD;
        if size > SNAPSHOT_BLOCK_BYTES && !records.is_empty() {
            rest = Some(key.to_vec());
            return ControlFlow::Break(());
        }
        records.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .map_err(kv_failed)?;
    Ok((records, rest))
}

/// Replaces the records from `from` to `to` by those of the blocks, with `last` written in the end:
/// while it is absent, the store is known to be incomplete.
pub(crate) fn install(
    kv: &dyn Kv,
    from: Vec<u8>,
    to: Vec<u8>,
    blocks: Blocks,
    last: Record,
) -> Result<(), StateError> {
    let mut batch = Batch::default();
    batch.delete_range(from.clone(), to.clone());
    kv.write(batch).map_err(kv_failed)?;
    for block in blocks {
        let records: Vec<Record> = postcard::from_bytes(&block?)
            .map_err(|error| StateError(format!("a snapshot does not decode: {error}")))?;
        let mut batch = Batch::default();
        for (key, value) in records {
            if key < from || key >= to {
                return Err(StateError("a snapshot holds records of another group".to_owned()));
            }
            if key != last.0 {
                batch.put(key, value);
            }
        }
        kv.write(batch).map_err(kv_failed)?;
    }
    let mut batch = Batch::default();
    batch.put(last.0, last.1);
    kv.write(batch).map_err(kv_failed)
}
