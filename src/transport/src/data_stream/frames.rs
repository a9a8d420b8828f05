//! Frames of file data on a byte stream, without copying payloads more than the stream itself does.
//!
//! Used by both ends: [`super::DataStreams`] and the storekeeper. A receiver learns the lengths
//! first ([`FrameReader::lengths`]), so that it can make room, or refuse, before a byte of the
//! payload is in memory.
//!
//! What must always hold: lengths are within the limits before memory is taken (`wire` checks
//! them); a header and its payload are never separated by another frame. When a call fails or is
//! dropped halfway, the stream is out of step and must be closed.

use bytes::{Bytes, BytesMut};
use ministry_wire::data::{
    Frame, FrameError, FrameLengths, PREFIX_BYTES, decode_prefix, encode_head,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Small reads come from a buffer of this size; payloads go around it.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// Payloads up to this size travel with their header, in one write.
const COPIED_PAYLOAD_BYTES_MAX: usize = 16 << 10;
/// Small frames are gathered up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Takes frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: BufReader<R>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from `reader`.
    pub fn new(reader: R) -> FrameReader<R> {
        FrameReader { reader: BufReader::with_capacity(READ_BUFFER_BYTES, reader) }
    }

    /// The lengths of the next frame; `None` when the other end closed the stream between frames.
    pub async fn lengths(&mut self) -> Result<Option<FrameLengths>, FrameError> {
        let mut prefix = [0; PREFIX_BYTES];
        let first = self.reader.read(&mut prefix).await?;
        if first == 0 {
            return Ok(None);
        }
        let (_, rest) = prefix.split_at_mut(first);
        self.reader.read_exact(rest).await?;
        decode_prefix(&prefix).map(Some)
    }

    /// The frame whose lengths were read just before.
    pub async fn frame<H: DeserializeOwned>(
        &mut self,
        lengths: FrameLengths,
    ) -> Result<Frame<H>, FrameError> {
        let header = postcard::from_bytes(&self.exactly(lengths.header).await?)?;
        let payload = self.exactly(lengths.payload).await?.freeze();
        Ok(Frame { header, payload })
    }

    /// The header of that frame; its payload is thrown away as it comes.
    pub async fn header_only<H: DeserializeOwned>(
        &mut self,
        lengths: FrameLengths,
    ) -> Result<H, FrameError> {
        let header = postcard::from_bytes(&self.exactly(lengths.header).await?)?;
        let mut payload = (&mut self.reader).take(lengths.payload as u64);
        let thrown = tokio::io::copy_buf(&mut payload, &mut tokio::io::sink()).await?;
        if thrown != lengths.payload as u64 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        Ok(header)
    }

    async fn exactly(&mut self, length: usize) -> Result<BytesMut, FrameError> {
        let mut bytes = BytesMut::with_capacity(length);
        let mut rest = (&mut self.reader).take(length as u64);
        while bytes.len() < length {
            if rest.read_buf(&mut bytes).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(bytes)
    }
}

/// Puts frames on a stream: small ones together, large payloads from where they lie.
#[derive(Debug)]
pub struct FrameWriter<W> {
    writer: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames to `writer`.
    pub fn new(writer: W) -> FrameWriter<W> {
        FrameWriter { writer, buffer: BytesMut::new() }
    }

    /// Puts a frame on the stream; it may stay in the buffer until [`FrameWriter::flush`].
    pub async fn put<H: Serialize>(
        &mut self,
        header: &H,
        payload: &Bytes,
    ) -> Result<(), FrameError> {
        encode_head(header, payload.len(), &mut self.buffer)?;
        if payload.len() <= COPIED_PAYLOAD_BYTES_MAX {
            self.buffer.extend_from_slice(payload);
            if self.buffer.len() >= WRITE_BUFFER_BYTES {
                self.empty_buffer().await?;
            }
            return Ok(());
        }
        self.empty_buffer().await?;
        self.writer.write_all(payload).await?;
        Ok(())
    }

    /// Sends everything on its way.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.empty_buffer().await?;
        self.writer.flush().await?;
        Ok(())
    }

    async fn empty_buffer(&mut self) -> Result<(), FrameError> {
        if !self.buffer.is_empty() {
            self.writer.write_all(&self.buffer).await?;
            self.buffer.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ministry_wire::data::{DataOutcome, DataReply};

    fn reply(id: u64) -> DataReply {
        DataReply { id, result: Ok(DataOutcome::Data { checksums: vec![1, 2, 3] }) }
    }

    #[tokio::test]
    async fn frames_of_every_size_arrive_in_order_and_whole() {
        let sizes = [0, 1, 5_000, COPIED_PAYLOAD_BYTES_MAX + 1, 1 << 20, 7];
        let (near, far) = tokio::io::duplex(10_000);
        let sender = tokio::spawn(async move {
            let mut writer = FrameWriter::new(near);
            for (id, size) in sizes.iter().enumerate() {
                let payload = Bytes::from(vec![id as u8; *size]);
                writer.put(&reply(id as u64), &payload).await.unwrap();
            }
            writer.flush().await.unwrap();
        });
        let mut reader = FrameReader::new(far);
        for (id, size) in sizes.iter().enumerate() {
            let lengths = reader.lengths().await.unwrap().unwrap();
            assert_eq!(lengths.payload, *size);
            if id == 3 {
                let header: DataReply = reader.header_only(lengths).await.unwrap();
                assert_eq!(header.id, 3);
                continue;
            }
            let frame: Frame<DataReply> = reader.frame(lengths).await.unwrap();
            assert_eq!(frame.header, reply(id as u64));
            assert_eq!(frame.payload, vec![id as u8; *size]);
        }
        assert!(reader.lengths().await.unwrap().is_none());
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_frame_is_an_error() {
        let (near, far) = tokio::io::duplex(10_000);
        let mut writer = FrameWriter::new(near);
        writer.put(&reply(1), &Bytes::from_static(b"0123456789")).await.unwrap();
        writer.buffer.truncate(writer.buffer.len() - 1);
        writer.flush().await.unwrap();
        drop(writer);
        let mut reader = FrameReader::new(far);
        let lengths = reader.lengths().await.unwrap().unwrap();
        assert!(reader.frame::<DataReply>(lengths).await.is_err());
    }
}
