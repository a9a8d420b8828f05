//! Locks, between the words of the kernel and those of the client.
//!
//! What must always hold: whether a lock is `flock`'s or `fcntl`'s is read from the call of the
//! thread that waits ([`crate::waiting_thread`]). Where that cannot be told, a lock of the whole
//! file is taken for one of `fcntl`, as NFS does with all of them: locks of the two kinds then
//! exclude each other, which they do not on a local file system; they are freed at the same moments
//! as ever. A lock of a part of a file is always `fcntl`'s.
//!
//! A wait for a lock has no deadline. It ends when the lock is granted or a signal comes for the
//! waiting thread: the request is then cancelled at the ministry, and the kernel hears `EINTR`,
//! which it turns into a restart of the call where the program wants that.

use std::time::Duration;

use fuser::FileHandle as Number;
use ministry_client::{LockRequest, WaitFor};
use ministry_types::locks::{HeldLock, LockKind, LockMode, LockOwner, LockRange};
use ministry_types::{Caller, FsError, InodeId};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::adapter::Adapter;
use crate::failure::Failure;
use crate::waiting_thread::{self, LockCall};

/// How often is looked for a signal at the beginning of a wait, and later on.
const LOOK_FOR_SIGNALS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(100)];
/// How long the beginning is.
const BEGINNING: Duration = Duration::from_secs(2);

/// What the kernel asks about locks.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) caller: Caller,
    /// The thread that waits for the answer.
    pub(crate) thread: u32,
    pub(crate) inode: InodeId,
    pub(crate) handle: Number,
    /// The kernel's number of the open file or of the process.
    pub(crate) owner: u64,
    pub(crate) range: LockRange,
    /// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
    pub(crate) word: i32,
    pub(crate) pid: u32,
    /// It waits while another one is in the way.
    pub(crate) sleeps: bool,
}

/// The kernel's word for a mode.
pub(crate) fn word_of(mode: LockMode) -> i32 {
    match mode {
        LockMode::Shared => libc::F_RDLCK,
        LockMode::Exclusive => libc::F_WRLCK,
    }
}

fn mode_of(word: i32) -> Result<Option<LockMode>, Failure> {
    match word {
        libc::F_RDLCK => Ok(Some(LockMode::Shared)),
        libc::F_WRLCK => Ok(Some(LockMode::Exclusive)),
        libc::F_UNLCK => Ok(None),
        _ => Err(FsError::Invalid.into()),
    }
}

impl Asked {
    /// By which call. Nothing depends on it for a part of a file, but whether deadlocks are found.
    async fn call(&self) -> Option<LockCall> {
        if self.range != LockRange::WHOLE && !self.sleeps {
            return Some(LockCall::Process);
        }
        let thread = self.thread;
        // It waits until the thread rests in its call.
        spawn_blocking(move || waiting_thread::lock_call(thread)).await.ok().flatten()
    }

    fn owner(&self, call: Option<LockCall>) -> LockOwner {
        let whole = self.range == LockRange::WHOLE;
        let kind = match call {
            Some(LockCall::Flock) if whole => LockKind::Flock,
            _ => LockKind::Posix,
        };
        LockOwner { number: self.owner, kind }
    }

    fn request(&self, owner: LockOwner, mode: LockMode, wait: WaitFor) -> LockRequest {
        LockRequest {
            inode: self.inode,
            handle: self.handle.0,
            owner,
            pid: self.pid,
            range: self.range,
            mode,
            wait,
        }
    }
}

impl Adapter {
    /// Takes a lock, changes one, or gives some back.
    pub(crate) async fn set_lock(&self, asked: Asked) -> Result<(), Failure> {
        let mode = mode_of(asked.word)?;
        let call = asked.call().await;
        let Some(mode) = mode else { return self.unlock(&asked, call).await };
        let wait = match (asked.sleeps, call) {
            (false, _) => WaitFor::Nothing,
            (true, Some(LockCall::Process)) => WaitFor::Lock { find_deadlock: true },
            (true, _) => WaitFor::Lock { find_deadlock: false },
        };
        let request = asked.request(asked.owner(call), mode, wait);
        let interrupted = CancellationToken::new();
        let lock = self.client.lock(&asked.caller, &request, &interrupted);
        if wait == WaitFor::Nothing {
            return Ok(lock.await?);
        }
        tokio::pin!(lock);
        tokio::select! {
            biased;
            result = &mut lock => return Ok(result?),
            () = signalled(asked.thread) => interrupted.cancel(),
        }
        Ok(lock.await?)
    }

    async fn unlock(&self, asked: &Asked, call: Option<LockCall>) -> Result<(), Failure> {
        let Asked { caller, inode, range, .. } = asked;
        let owner = asked.owner(call);
        self.client.unlock(caller, *inode, owner, *range).await?;
        if call.is_none() && *range == LockRange::WHOLE {
            // It may be of either kind; it was not told when the lock was taken, or is not now.
            let other = LockOwner { kind: LockKind::Flock, ..owner };
            self.client.unlock(caller, *inode, other, *range).await?;
        }
        Ok(())
    }

    /// Who is in the way of a lock; `flock` has no such question.
    pub(crate) async fn test_lock(&self, asked: Asked) -> Result<Option<HeldLock>, Failure> {
        let mode = mode_of(asked.word)?.ok_or(FsError::Invalid)?;
        let owner = LockOwner { number: asked.owner, kind: LockKind::Posix };
        let request = asked.request(owner, mode, WaitFor::Nothing);
        Ok(self.client.test_lock(&asked.caller, &request).await?)
    }
}

/// Waits until a signal has come for a thread that waits for our answer.
///
/// Cancel safety: safe.
async fn signalled(thread: u32) {
    let began = Instant::now();
    loop {
        let [soon, later] = LOOK_FOR_SIGNALS;
        sleep(if began.elapsed() < BEGINNING { soon } else { later }).await;
        if waiting_thread::is_signalled(thread) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: LockRange) -> Asked {
        Asked {
            caller: Caller::root(),
            thread: 0,
            inode: InodeId(5),
            handle: Number(1),
            owner: 99,
            range,
            word: libc::F_WRLCK,
            pid: 7,
            sleeps: true,
        }
    }

    #[test]
    fn only_a_lock_of_the_whole_file_that_flock_asked_for_is_of_flock() {
        let whole = asked(LockRange::WHOLE);
        assert_eq!(whole.owner(Some(LockCall::Flock)).kind, LockKind::Flock);
        assert_eq!(whole.owner(Some(LockCall::OpenFile)).kind, LockKind::Posix);
        assert_eq!(whole.owner(None).kind, LockKind::Posix, "as NFS does");
        let part = asked(LockRange { first: 0, last: 9 });
        assert_eq!(part.owner(Some(LockCall::Flock)).kind, LockKind::Posix);
    }

    #[test]
    fn the_words_of_the_kernel_are_translated_both_ways() {
        for mode in [LockMode::Shared, LockMode::Exclusive] {
            assert_eq!(mode_of(word_of(mode)), Ok(Some(mode)));
        }
        assert_eq!(mode_of(libc::F_UNLCK), Ok(None));
        assert!(mode_of(77).is_err());
    }
}
