//! The number of the last synced write of the log, kept beside it.
//!
//! A database that recovers from its own log stops at the first damaged record and opens with what
//! came before: a log cut short looks like a log that ends there. A member with such a log has
//! forgotten entries and votes that others count on. So the number is written here after each
//! sync, before the sync is reported, and compared at the next start.
//!
//! The number itself is not synced: the kernel keeps it when the process ends, and after a loss of
//! power it may be an older one, never one ahead of what was synced.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Number, its checksum.
const BYTES: usize = 12;

/// The open file.
#[derive(Debug)]
pub(crate) struct Watermark {
    file: File,
}

fn encode(number: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&crc32c::crc32c(&number.to_le_bytes()).to_le_bytes());
    bytes
}

impl Watermark {
    /// Makes the file with 0 in it, durably.
    pub fn create(path: &Path) -> io::Result<Watermark> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.write_all_at(&encode(0), 0)?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Watermark { file })
    }

    /// Opens the file; none if there is no such file.
    pub fn open(path: &Path) -> io::Result<Option<Watermark>> {
        match File::options().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(Watermark { file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number; none if the file is damaged.
    pub fn read(&self) -> io::Result<Option<u64>> {
        let mut bytes = [0; BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[..8]);
        let number = u64::from_le_bytes(number);
        Ok((bytes == encode(number)).then_some(number))
    }

    /// Sets the number.
    pub fn write(&self, number: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(number), 0)
    }
}
