//! Just enough of gRPC over HTTP/2 to put keys into etcd as fast as etcd takes them.
//!
//! Called by `etcd.rs`. The JSON gateway would cost etcd a second trip through itself, and a
//! process a put (`etcdctl`) far more, so this speaks etcd's own protocol: one thread with a fixed
//! number of calls under way on one connection, each answered call followed at once by the next.
//! What is ready is written in one go, which costs less than any real client with many callers.
//!
//! What must always hold: a put counts only when the stream ended and an answer was in it (gRPC
//! sends no answer with an error). Anything unexpected ends the measure with an error.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No frame of etcd's answers is larger.
const FRAME_MAX: usize = 1 << 20;
/// What the other side takes before it says more.
const WINDOW: i64 = 65_535;
/// What we take: more than all answers of a run.
const WINDOW_GIVEN: u32 = 1 << 30;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    body: Vec<u8>,
}

struct Call {
    began: Instant,
    answered: bool,
}

/// One connection with its calls.
pub struct Connection {
    stream: TcpStream,
    address: String,
    received: Vec<u8>,
    to_send: Vec<u8>,
    window: i64,
    next_stream: u32,
    calls: HashMap<u32, Call>,
    times: Vec<Duration>,
}

impl Connection {
    /// Connects to a member's client address.
    pub fn open(address: &str) -> Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("etcd at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut connection = Connection {
            stream,
            address: address.to_owned(),
            received: Vec::new(),
            to_send: PREFACE.to_vec(),
            window: WINDOW,
            next_stream: 1,
            calls: HashMap::new(),
            times: Vec::new(),
        };
        connection.frame(SETTINGS, 0, 0, &[]);
        connection.frame(WINDOW_UPDATE, 0, 0, &WINDOW_GIVEN.to_be_bytes());
        connection.send()?;
        Ok(connection)
    }

    /// Puts `count` keys that begin with `prefix`, `under_way` at a time. Gives the time of each.
    pub fn put(
        &mut self,
        prefix: &str,
        count: usize,
        under_way: usize,
        value: &[u8],
    ) -> Result<Vec<Duration>> {
        let mut begun = 0;
        while self.times.len() < count {
            while begun < count && self.calls.len() < under_way && self.window > 2_048 {
                self.begin_put(&format!("{prefix}{begun:08}"), value);
                begun += 1;
            }
            self.send()?;
            self.receive()?;
            while let Some(frame) = self.next_frame()? {
                self.take(frame)?;
            }
        }
        Ok(std::mem::take(&mut self.times))
    }

    fn begin_put(&mut self, key: &str, value: &[u8]) {
        let mut message = Vec::with_capacity(value.len() + 64);
        for (tag, bytes) in [(0x0a, key.as_bytes()), (0x12, value)] {
            message.push(tag);
            let mut length = bytes.len();
            while length >= 0x80 {
                message.push(length as u8 | 0x80);
                length >>= 7;
            }
            message.push(length as u8);
            message.extend(bytes);
        }
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(&message);
        let stream = self.next_stream;
        let headers = self.headers();
        self.frame(HEADERS, END_HEADERS, stream, &headers);
        self.frame(DATA, END_STREAM, stream, &body);
        self.window -= body.len() as i64;
        self.next_stream += 2;
        self.calls.insert(stream, Call { began: Instant::now(), answered: false });
    }

    /// The first call spells the headers out and has the server remember them; all others name
    /// them by their places in its table.
    fn headers(&self) -> Vec<u8> {
        // POST, http.
        let mut block = vec![0x83, 0x86];
        if self.next_stream > 1 {
            block.extend([0xc1, 0xc0, 0xbf, 0xbe]);
            return block;
        }
        // Places 65 to 62, in this order: the last one added has place 62. 0x40: a name that is
        // spelled out, to be remembered.
        let fields = [
            (":path", "/etcdserverpb.KV/Put"),
            (":authority", self.address.as_str()),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for (name, value) in fields {
            block.push(0x40);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend(text.as_bytes());
            }
        }
        block
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, body: &[u8]) {
        let length = (body.len() as u32).to_be_bytes();
        self.to_send.extend(&length[1..]);
        self.to_send.extend([kind, flags]);
        self.to_send.extend(stream.to_be_bytes());
        self.to_send.extend(body);
    }

    fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.to_send)?;
        self.to_send.clear();
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 65_536];
        let length = self.stream.read(&mut buffer).context("etcd does not answer")?;
        ensure!(length > 0, "etcd ended the connection");
        self.received.extend(buffer.iter().take(length));
        Ok(())
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        let Some(&[a, b, c, kind, flags, d, e, f, g]) = self.received.first_chunk::<9>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        ensure!(length <= FRAME_MAX, "a frame of {length} bytes");
        if self.received.len() < 9 + length {
            return Ok(None);
        }
        let mut body: Vec<u8> = self.received.drain(..9 + length).collect();
        body.drain(..9);
        let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
        Ok(Some(Frame { kind, flags, stream, body }))
    }

    fn take(&mut self, frame: Frame) -> Result<()> {
        let Frame { kind, flags, stream, body } = frame;
        match kind {
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &body),
            WINDOW_UPDATE if stream == 0 => {
                let more = body.first_chunk().context("a window without a size")?;
                self.window += i64::from(u32::from_be_bytes(*more) & 0x7fff_ffff);
            }
            RST_STREAM | GOAWAY => bail!("etcd refused: {}", String::from_utf8_lossy(&body)),
            HEADERS | DATA => {
                let call = self.calls.get_mut(&stream).context("an answer to nothing")?;
                call.answered |= kind == DATA && body.len() > 5;
                if flags & END_STREAM != 0 {
                    ensure!(call.answered, "etcd refused a put");
                    self.times.push(call.began.elapsed());
                    self.calls.remove(&stream);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
