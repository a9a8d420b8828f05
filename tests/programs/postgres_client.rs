//! A connection to PostgreSQL: its simple query protocol over a Unix socket.
//!
//! Called by the writers of `postgres.rs`, who must know exactly which commits were acknowledged:
//! [`Connection::run`] returns success only after the server's "command complete" and "ready",
//! which it sends after the commit is on disk. When the server ends, every call is an error, and
//! whether the last command happened is unknown.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No answer of the server is longer.
const MESSAGE_MAX: usize = 16 << 20;

/// One connection.
pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Connects as `postgres` to the data base of the same name, without a password.
    pub fn open(socket: &Path) -> io::Result<Connection> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut connection = Connection { stream };
        let mut words = 196_608_u32.to_be_bytes().to_vec();
        words.extend(b"user\0postgres\0database\0postgres\0\0");
        let length = (words.len() + 4) as u32;
        connection.stream.write_all(&length.to_be_bytes())?;
        connection.stream.write_all(&words)?;
        connection.until_ready()?;
        Ok(connection)
    }

    /// Runs one command; gives the first column of each row, as text.
    pub fn run(&mut self, command: &str) -> io::Result<Vec<String>> {
        let mut message = vec![b'Q'];
        message.extend((command.len() as u32 + 5).to_be_bytes());
        message.extend(command.as_bytes());
        message.push(0);
        self.stream.write_all(&message)?;
        self.until_ready()
    }

    /// Reads messages up to "ready for query". An error message of the server is an error.
    fn until_ready(&mut self) -> io::Result<Vec<String>> {
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'Z' => break,
                b'D' => rows.push(first_column(&body)?),
                b'E' => failure = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
                // Authentication other than "ok".
                b'R' if body != [0; 4] => return Err(io::Error::other("a password is wanted")),
                _ => {}
            }
        }
        failure.map_or(Ok(rows), |failure| Err(io::Error::other(failure)))
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, a, b, c, d] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=MESSAGE_MAX).contains(&length) {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

fn first_column(row: &[u8]) -> io::Result<String> {
    let wrong = || io::Error::other("a row without a column");
    let length = row.get(2..6).ok_or_else(wrong)?;
    let length = i32::from_be_bytes(length.try_into().map_err(|_| wrong())?);
    if length < 0 {
        return Ok("NULL".into());
    }
    let value = row.get(6..6 + length as usize).ok_or_else(wrong)?;
    Ok(String::from_utf8_lossy(value).into_owned())
}
