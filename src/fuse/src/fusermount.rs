//! Mounting and unmounting for users other than the super-user, by the program `fusermount3` of
//! the package fuse3, which may do what they may not.
//!
//! [`crate::mount`] calls this. The program gets a socket as its standard input, mounts, and sends
//! back the open device through it.
//!
//! What must always hold: what it says when it refuses reaches the person.

use std::io;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::mount::MountError;
use crate::options::MountOptions;

const PROGRAM: &str = "fusermount3";
/// Where the program looks for the number of its socket.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// Mounts, and returns the open device.
pub(crate) fn mount(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if let Some(option) = options.for_the_super_user_alone() {
        return Err(MountError::SuperUserOnly { option });
    }
    let refused = |source| MountError::Refused { path: path.to_owned(), source };
    let (ours, theirs) = UnixStream::pair().map_err(refused)?;
    let mut command = Command::new(PROGRAM);
    command.arg("-o").arg(options.for_fusermount()).arg("--").arg(path);
    command.env(SOCKET_VARIABLE, "0").stdin(OwnedFd::from(theirs));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| missing_program(path, error))?;
    // With the command goes our copy of the program's end: else its silence would never end.
    drop(command);
    let device = receive(&ours);
    let output = child.wait_with_output().map_err(refused)?;
    match device {
        Ok(Some(device)) if output.status.success() => Ok(device),
        Err(error) if output.status.success() => Err(refused(error)),
        _ => Err(explain(path, &output)),
    }
}

/// The open device out of the socket; nothing if the program ended without sending one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut into = [IoSliceMut::new(&mut byte)];
        match recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().next())
}

fn missing_program(path: &Path, error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::NoProgram,
        _ => MountError::Refused { path: path.to_owned(), source: error },
    }
}

fn explain(path: &Path, output: &Output) -> MountError {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("user_allow_other") {
        return MountError::AllowOther;
    }
    if text.contains("failed to open /dev/fuse") {
        return MountError::DeviceClosed;
    }
    let text = match text.trim() {
        "" => format!("{PROGRAM} ended without a word ({})", output.status),
        text => text.replace('\n', "; "),
    };
    MountError::Refused { path: path.to_owned(), source: io::Error::other(text) }
}

/// Unmounts. Other users than the super-user may unmount only what the program mounted for them.
pub(crate) fn unmount(path: &Path, lazily: bool) -> io::Result<()> {
    let mut program = Command::new(PROGRAM);
    program.arg("-u").args(lazily.then_some("-z")).arg("--").arg(path);
    let output = program
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run {PROGRAM}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let busy = text.to_ascii_lowercase().contains("busy");
    let kind = if busy { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn output(stderr: &str) -> Output {
        let stderr = stderr.as_bytes().to_vec();
        Output { status: ExitStatus::from_raw(1 << 8), stdout: Vec::new(), stderr }
    }

    #[test]
    fn what_the_program_says_reaches_the_person() {
        let said = "fusermount3: user has no write access to mountpoint /mnt\n";
        let text = explain(Path::new("/mnt"), &output(said)).to_string();
        assert!(text.contains("no write access to mountpoint /mnt"), "{text}");
        let silent = explain(Path::new("/mnt"), &output("")).to_string();
        assert!(silent.contains("exit status: 1"), "{silent}");
    }

    #[test]
    fn that_others_may_not_enter_says_what_to_do() {
        let said = "fusermount3: option allow_other only allowed if 'user_allow_other' is set in \
                    /etc/fuse.conf\n";
        let error = explain(Path::new("/mnt"), &output(said));
        assert!(matches!(error, MountError::AllowOther), "{error}");
        assert!(error.to_string().contains("/etc/fuse.conf"), "{error}");
    }

    #[test]
    fn a_device_that_users_may_not_open_says_what_to_do() {
        let said = "fusermount3: failed to open /dev/fuse: Permission denied\n";
        let error = explain(Path::new("/mnt"), &output(said));
        assert!(matches!(error, MountError::DeviceClosed), "{error}");
        assert!(error.to_string().contains("chmod 666"), "{error}");
    }

    #[test]
    fn a_program_that_ends_without_sending_the_device_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }
}
