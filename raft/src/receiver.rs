//! Takes up a snapshot that another node sends, block by block.
//!
//! One transfer a group at a time: a new one of the same or a higher vote takes the place of the
//! one before. A block that is not the next one, or damaged, ends the transfer; the sender begins
//! anew.

use std::sync::Arc;

use bytes::Bytes;
use ministry_types::{GroupId, NodeId, limits};
use ministry_wire::raft::{Applied, Vote};
use parking_lot::Mutex;

use crate::machine::run_blocking;
use crate::spool::{FinishedSpool, SnapshotSpool, SpoolWriter};

/// A transfer under way.
struct Transfer {
    from: NodeId,
    number: u64,
    vote: Vote,
    applied: Applied,
    next: u64,
    checksum: u32,
    writer: Box<dyn SpoolWriter>,
}

/// A complete snapshot, ready to be installed.
pub(crate) struct Received {
    pub applied: Applied,
    pub finished: Box<dyn FinishedSpool>,
}

/// The receiving end of one group.
pub(crate) struct Receiver {
    group: GroupId,
    spool: Arc<dyn SnapshotSpool>,
    blocking_threads: bool,
    transfer: Mutex<Option<Transfer>>,
}

/// Why the sender must begin anew.
pub(crate) type Again = String;

impl Receiver {
    pub fn new(group: GroupId, spool: Arc<dyn SnapshotSpool>, blocking_threads: bool) -> Receiver {
        Receiver { group, spool, blocking_threads, transfer: Mutex::new(None) }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Again> {
        let result = run_blocking(self.blocking_threads, work).await;
        result.and_then(|result| result).map_err(|error| error.to_string())
    }

    /// Begins a transfer.
    pub async fn begin(
        &self,
        from: NodeId,
        number: u64,
        vote: Vote,
        applied: Applied,
    ) -> Result<(), Again> {
        let newer = |transfer: &Transfer| transfer.vote.term > vote.term;
        if self.transfer.lock().as_ref().is_some_and(newer) {
            return Err("a newer leader sends one".to_owned());
        }
        let (spool, group, header) = (Arc::clone(&self.spool), self.group, applied.clone());
        let writer = self.run(move || spool.begin(group, &header)).await?;
        let transfer = Transfer { from, number, vote, applied, next: 0, checksum: 0, writer };
        *self.transfer.lock() = Some(transfer);
        Ok(())
    }

    /// Takes the transfer out, so that no lock is held while its file is written.
    fn take(&self, from: NodeId, number: u64) -> Result<Transfer, Again> {
        let mut slot = self.transfer.lock();
        match &*slot {
            Some(transfer) if transfer.from == from && transfer.number == number => {}
            _ => return Err("no such transfer is under way".to_owned()),
        }
        slot.take().ok_or_else(|| "no transfer is under way".to_owned())
    }

    /// Takes a block.
    pub async fn block(
        &self,
        from: NodeId,
        number: u64,
        block: u64,
        checksum: u32,
        bytes: Bytes,
    ) -> Result<(), Again> {
        if bytes.is_empty() || bytes.len() > limits::SNAPSHOT_BLOCK_BYTES {
            return Err(format!("a block of {} bytes", bytes.len()));
        }
        let mut transfer = self.take(from, number)?;
        if transfer.next != block {
            return Err(format!("block {block} in place of {}", transfer.next));
        }
        if crc32c::crc32c(&bytes) != checksum {
            return Err(format!("block {block} does not fit its checksum"));
        }
        transfer.next += 1;
        transfer.checksum = crc32c::crc32c_append(transfer.checksum, &bytes);
        let transfer = self
            .run(move || {
                transfer.writer.write(&bytes)?;
                Ok(transfer)
            })
            .await?;
        let mut slot = self.transfer.lock();
        if slot.is_some() {
            return Err("another transfer has begun".to_owned());
        }
        *slot = Some(transfer);
        Ok(())
    }

    /// Ends a transfer: everything is verified and durable.
    pub async fn finish(
        &self,
        from: NodeId,
        number: u64,
        blocks: u64,
        checksum: u32,
    ) -> Result<Received, Again> {
        let transfer = self.take(from, number)?;
        if (transfer.next, transfer.checksum) != (blocks, checksum) {
            return Err("the snapshot does not fit its checksum".to_owned());
        }
        let Transfer { applied, writer, .. } = transfer;
        let finished = self.run(move || writer.finish()).await?;
        Ok(Received { applied, finished })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::MemorySpool;

    const GROUP: GroupId = GroupId(2);
    const FROM: NodeId = NodeId([1; 32]);

    fn vote(term: u64) -> Vote {
        Vote { term: ministry_types::Term(term), node: FROM, committed: true }
    }

    async fn begun() -> (Receiver, MemorySpool) {
        let spool = MemorySpool::default();
        let receiver = Receiver::new(GROUP, Arc::new(spool.clone()), false);
        receiver.begin(FROM, 7, vote(2), Applied::default()).await.unwrap();
        (receiver, spool)
    }

    async fn send(receiver: &Receiver, number: u64, bytes: &'static [u8]) -> Result<(), Again> {
        let checksum = crc32c::crc32c(bytes);
        receiver.block(FROM, 7, number, checksum, Bytes::from_static(bytes)).await
    }

    #[tokio::test]
    async fn only_a_snapshot_that_fits_its_checksum_is_complete() {
        let (receiver, spool) = begun().await;
        send(&receiver, 0, b"one").await.unwrap();
        send(&receiver, 1, b"two").await.unwrap();
        let received = receiver.finish(FROM, 7, 2, crc32c::crc32c(b"onetwo")).await.unwrap();
        received.finished.mark().unwrap();
        assert!(spool.marked(GROUP).unwrap().is_some());

        let (receiver, _) = begun().await;
        send(&receiver, 0, b"one").await.unwrap();
        assert!(receiver.finish(FROM, 7, 1, 99).await.is_err());
    }

    #[tokio::test]
    async fn a_lost_repeated_or_damaged_block_ends_the_transfer() {
        let (receiver, _) = begun().await;
        assert!(send(&receiver, 1, b"two").await.is_err());
        assert!(send(&receiver, 0, b"one").await.is_err(), "it has ended");

        let (receiver, _) = begun().await;
        let damaged = Bytes::from_static(b"one");
        assert!(receiver.block(FROM, 7, 0, 99, damaged).await.is_err());
    }

    #[tokio::test]
    async fn an_older_leader_does_not_disturb_the_transfer_of_a_newer_one() {
        let (receiver, _) = begun().await;
        assert!(receiver.begin(FROM, 8, vote(1), Applied::default()).await.is_err());
        send(&receiver, 0, b"one").await.unwrap();
    }
}
