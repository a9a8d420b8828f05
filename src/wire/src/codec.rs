//! How a message of control traffic becomes bytes: postcard inside length-delimited frames.
//!
//! Used by `transport` on both ends of every tarpc connection. One frame is one message, and no
//! frame is larger than [`CONTROL_FRAME_BYTES_MAX`], in either direction.
//!
//! What must always hold: a length is checked before memory is taken for it, and a frame holds
//! exactly one message, to its last byte. Fields that carry bulk are [`bytes::Bytes`], which are
//! copied as a whole; a `Vec<u8>` field goes byte by byte and is ten times slower.
//!
//! When it fails: a message that is too large for a frame fails that one call at its sender; a
//! frame that is too large or does not decode ends the connection at its receiver.

use std::io;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use ministry_types::limits::CONTROL_FRAME_BYTES_MAX;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::serde_transport;
use tokio_serde::{Deserializer, Serializer};
use tokio_util::codec::length_delimited::LengthDelimitedCodec;

/// Room reserved for a message of unknown size: most control messages fit, so that the buffer
/// does not grow while it is filled.
const MESSAGE_BYTES_USUAL: usize = 256;

/// Bytes collected before a connection writes: many small answers leave in one write.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Why a message could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The message does not fit one frame.
    #[error(
        "the message is larger than a frame may be ({CONTROL_FRAME_BYTES_MAX} bytes): send it in \
         parts"
    )]
    TooLarge,
    /// The bytes are not a message of the type expected here.
    #[error("the bytes are not a message of the kind expected here: {0}")]
    Malformed(#[from] postcard::Error),
    /// The message ended before the frame did.
    #[error("{bytes} bytes follow the message in its frame: the other end speaks otherwise")]
    TrailingBytes {
        /// How many bytes are left.
        bytes: usize,
    },
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Where postcard puts the bytes of a message: it stops at the bound, instead of taking memory
/// for a message that cannot be sent.
struct FrameBuffer(Vec<u8>);

impl Flavor for FrameBuffer {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.0.len() + bytes.len() > CONTROL_FRAME_BYTES_MAX {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Encodes one message.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Bytes, CodecError> {
    let buffer = FrameBuffer(Vec::with_capacity(MESSAGE_BYTES_USUAL));
    match postcard::serialize_with_flavor(message, buffer) {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(postcard::Error::SerializeBufferFull) => Err(CodecError::TooLarge),
        Err(error) => Err(CodecError::Malformed(error)),
    }
}

/// Decodes one message that fills `bytes` to the end.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (message, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() { Ok(message) } else { Err(CodecError::TrailingBytes { bytes: rest.len() }) }
}

/// Postcard for `tokio_serde`, and with it for tarpc.
#[derive(Debug, Clone, Copy, Default)]
pub struct PostcardCodec;

impl<T: Serialize> Serializer<T> for PostcardCodec {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, item: &T) -> io::Result<Bytes> {
        Ok(encode(item)?)
    }
}

impl<T: DeserializeOwned> Deserializer<T> for PostcardCodec {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<T> {
        Ok(decode(bytes)?)
    }
}

/// A byte stream that carries messages: what tarpc calls a transport.
pub type ControlTransport<Io, Item, SinkItem> =
    serde_transport::Transport<Io, Item, SinkItem, PostcardCodec>;

/// Wraps a byte stream so that tarpc can use it, with the frame bound of control traffic.
pub fn control_transport<Io, Item, SinkItem>(io: Io) -> ControlTransport<Io, Item, SinkItem>
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite,
    Item: DeserializeOwned,
    SinkItem: Serialize,
{
    let mut framed = LengthDelimitedCodec::builder()
        .max_frame_length(CONTROL_FRAME_BYTES_MAX)
        .length_field_type::<u32>()
        .new_framed(io);
    framed.set_backpressure_boundary(WRITE_BUFFER_BYTES);
    serde_transport::new(framed, PostcardCodec)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Message {
        number: u64,
        payload: Bytes,
    }

    #[test]
    fn a_message_reads_back() {
        let message = Message { number: 7, payload: Bytes::from(vec![9; 1 << 20]) };
        let bytes = encode(&message).unwrap();
        assert_eq!(decode::<Message>(&bytes).unwrap(), message);
    }

    #[test]
    fn a_message_larger_than_a_frame_is_refused_before_it_is_sent() {
        let message = Message { number: 7, payload: vec![0; CONTROL_FRAME_BYTES_MAX].into() };
        assert!(matches!(encode(&message), Err(CodecError::TooLarge)));
    }

    #[test]
    fn damaged_bytes_are_an_error_never_a_panic() {
        let bytes = encode(&Message { number: 300, payload: Bytes::from_static(b"abc") }).unwrap();
        for cut in 0..bytes.len() {
            assert!(decode::<Message>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(matches!(decode::<Message>(&longer), Err(CodecError::TrailingBytes { bytes: 1 })));
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        // Number 1, then a payload that claims 2^60 bytes.
        let mut bytes = vec![1];
        bytes.extend(postcard::to_stdvec(&(1u64 << 60)).unwrap());
        assert!(decode::<Message>(&bytes).is_err());
    }
}
