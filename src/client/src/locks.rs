//! Advisory locks: taking them, waiting for them, and giving them back at close.
//!
//! The mount calls this for `flock` and `fcntl`; the rules are the ministry's. This client keeps a
//! table of the owners that hold or asked for anything ([`LockBook`]), so that the close of a file
//! without locks costs nothing, and so that nothing is forgotten whose outcome is not known.
//!
//! What must always hold:
//!
//! * An owner is in the table before its first request is sent, and leaves it only when the
//!   ministry has said that it holds nothing.
//! * What must be given back or cancelled is done by a task that nobody can end but the end of the
//!   client ([`LockTasks`]); who asked for it waits for the task, but not for ever.
//! * Requests of an owner that come after such a task wait for it, so that it takes away nothing
//!   that was granted later.
//!
//! When a session ends, its locks are gone while programs believe to hold them. The handles by
//! which they were taken are then *lost*: reading and writing through them fails
//! ([`Client::locks_lost`]), as with NFS, since another one may have the lock by now.

mod book;

use std::sync::Arc;
use std::time::Duration;

use ministry_types::limits::{ATTEMPT_TIMEOUT, LOCK_TURN_TIMEOUT};
use ministry_types::locks::{HeldLock, LockMode, LockOwner, LockProgress, LockRange};
use ministry_types::operations::{Answer, LockWait, Operation, Outcome, Query};
use ministry_types::{Caller, FsError, InodeId, SessionId};
use ministry_wire::minister::AwaitLockRequest;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Client;
use crate::calls::{Core, unexpected};
use crate::retry::{Attempt, Backoff, Refused};
use book::{Key, UnderWay};

pub(crate) use book::LockBook;

/// How long the minister may hold back the answer that a request still waits: less than an attempt.
const AWAIT_LOCK: Duration = Duration::from_millis(1500);

/// A lock that a program wants.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// The file.
    pub inode: InodeId,
    /// The caller's number of the open file by which the lock is asked for.
    pub handle: u64,
    /// For whom.
    pub owner: LockOwner,
    /// Process, for others that ask who holds the lock.
    pub pid: u32,
    /// Which bytes.
    pub range: LockRange,
    /// Shared or exclusive.
    pub mode: LockMode,
    /// What to do while another one is in the way.
    pub wait: WaitFor,
}

/// What a request does while another one is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// Fails with [`FsError::Locked`].
    Nothing,
    /// Waits, however long that takes.
    Lock {
        /// Fails with [`FsError::Deadlock`] where the wait would never end.
        find_deadlock: bool,
    },
}

/// The tasks that give back and cancel. They end with the client.
#[derive(Debug, Default)]
pub(crate) struct LockTasks {
    running: Mutex<JoinSet<()>>,
}

impl LockTasks {
    /// Runs a task to its end, whatever becomes of the one who waits for it.
    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::sync::oneshot::Receiver<T> {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let mut running = self.running.lock();
        while running.try_join_next().is_some() {}
        running.spawn(async move {
            // Nobody may be waiting for it any more.
            let _ = done.send(work.await);
        });
        outcome
    }
}

/// How the wait for a lock ended.
enum Waited {
    /// The lock is the owner's.
    Granted,
    /// The session ended, and the request with it.
    SessionEnded,
}

impl Client {
    /// Takes a lock. Waiting for it has no deadline; `interrupted` ends it with
    /// [`FsError::Interrupted`].
    ///
    /// Cancel safety: a future that is dropped leaves the outcome unknown; the lock is given back
    /// at close at the latest.
    pub async fn lock(
        &self,
        caller: &Caller,
        request: &LockRequest,
        interrupted: &CancellationToken,
    ) -> Result<(), FsError> {
        let number = self.core.locks.next_request();
        {
            let under_way = self.core.locks.begin((request.inode, request.owner));
            let taking = Taking { client: self, caller, request, number, under_way: &under_way };
            tokio::select! {
                biased;
                result = taking.take() => return result,
                () = interrupted.cancelled() => {}
            }
        }
        // Nothing of it is under way any more: what the ministry has of it is nobody's.
        self.cancel(caller, request, number).await
    }

    /// Gives a range back.
    pub async fn unlock(
        &self,
        caller: &Caller,
        inode: InodeId,
        owner: LockOwner,
        range: LockRange,
    ) -> Result<(), FsError> {
        let Some(under_way) = self.core.locks.begin_known((inode, owner)) else { return Ok(()) };
        let (core, caller) = (Arc::clone(&self.core), caller.clone());
        self.within("unlock", async move {
            let _turn = Arc::clone(&under_way.order).lock_owned().await;
            core.give_back(&caller, &under_way, range, false).await
        })
        .await
    }

    /// Who is in the way of a lock. The process is told for locks of this client alone (else 0): a
    /// number of another machine would mean another process here.
    pub async fn test_lock(
        &self,
        caller: &Caller,
        request: &LockRequest,
    ) -> Result<Option<HeldLock>, FsError> {
        let LockRequest { inode, owner, range, mode, .. } = *request;
        self.core
            .operation("test_lock", async |_| {
                let asked = |session| Query::TestLock { inode, session, owner, range, mode };
                match self.core.query_in(caller, inode, asked).await? {
                    (session, Answer::Lock(held)) => Ok(held.map(|held| HeldLock {
                        pid: if held.session == session { held.pid } else { 0 },
                        ..held
                    })),
                    (_, other) => Err(unexpected("test_lock", &other)),
                }
            })
            .await
    }

    /// A process has closed one of its descriptors of the file: POSIX takes all its locks there.
    pub async fn release_owner(
        &self,
        caller: &Caller,
        inode: InodeId,
        number: u64,
    ) -> Result<(), FsError> {
        let mut result = Ok(());
        for key in self.core.locks.owners(inode, number) {
            result = result.and(self.release(caller, key, None).await);
        }
        result
    }

    /// An open file is closed by its last user: its locks go, and those of processes too that
    /// could not be given back before.
    pub async fn release_handle(&self, caller: &Caller, inode: InodeId, handle: u64) {
        for key in self.core.locks.owners_by_handle(inode, handle) {
            // The task goes on when the time is over.
            let _ = self.release(caller, key, Some(handle)).await;
        }
        self.core.locks.forget_handle(handle);
    }

    /// Whether a lock that was taken by this handle was lost with a session.
    pub fn locks_lost(&self, handle: u64) -> bool {
        self.core.locks.is_lost(handle)
    }

    async fn release(
        &self,
        caller: &Caller,
        key: Key,
        by_handle: Option<u64>,
    ) -> Result<(), FsError> {
        let Some(under_way) = self.core.locks.begin_known(key) else { return Ok(()) };
        let (core, caller) = (Arc::clone(&self.core), caller.clone());
        self.within("release_locks", async move {
            let _turn = Arc::clone(&under_way.order).lock_owned().await;
            // Given back in the meantime, and perhaps taken anew by another handle.
            if by_handle.is_some_and(|handle| !under_way.asked_by(handle)) {
                return Ok(());
            }
            let waiting_too = under_way.is_alone();
            core.give_back(&caller, &under_way, LockRange::WHOLE, waiting_too).await
        })
        .await
    }

    /// Ends a request that was interrupted. Where that takes longer than an attempt, a task goes on
    /// with it, and gives the lock back if it was granted and nobody knows.
    async fn cancel(
        &self,
        caller: &Caller,
        request: &LockRequest,
        number: u64,
    ) -> Result<(), FsError> {
        let key = (request.inode, request.owner);
        let under_way = self.core.locks.begin(key);
        under_way.asks(request.handle, number);
        let (core, caller, inode) = (Arc::clone(&self.core), caller.clone(), request.inode);
        let ended = self.lock_tasks.run(async move {
            let _turn = Arc::clone(&under_way.order).lock_owned().await;
            let cancel = Operation::CancelLock { inode, request: number };
            let cancelled = core.change(&caller, cancel).await;
            under_way.refused(number);
            // Granted in the meantime, or perhaps still on its way: nobody is told.
            if cancelled != Ok(Outcome::LockCancelled) && under_way.has_nothing() {
                let all = LockRange::WHOLE;
                if let Err(error) = core.give_back(&caller, &under_way, all, true).await {
                    tracing::debug!(%inode, %error, "an interrupted lock was not given back");
                }
            }
            tracing::trace!(%inode, number, ?cancelled, "a wait for a lock was interrupted");
        });
        // In time or not: the program is to handle its signal now.
        let _ = tokio::time::timeout(ATTEMPT_TIMEOUT, ended).await;
        Err(FsError::Interrupted)
    }

    /// Waits for a task that gives something back, as long as an operation may take.
    async fn within(
        &self,
        word: &'static str,
        work: impl Future<Output = Result<(), FsError>> + Send + 'static,
    ) -> Result<(), FsError> {
        let done = self.lock_tasks.run(work);
        let done = async |_: Instant| done.await.unwrap_or(Err(FsError::TimedOut));
        self.core.operation(word, done).await
    }
}

/// One request for a lock under way.
struct Taking<'a> {
    client: &'a Client,
    caller: &'a Caller,
    request: &'a LockRequest,
    number: u64,
    under_way: &'a UnderWay,
}

impl Taking<'_> {
    async fn take(&self) -> Result<(), FsError> {
        let began = Instant::now();
        loop {
            let (session, outcome) = self.ask().await?;
            match outcome {
                Outcome::Done => {
                    self.under_way.granted(self.number, session);
                    return Ok(());
                }
                Outcome::LockDenied => {
                    self.under_way.refused(self.number);
                    return Err(FsError::Locked);
                }
                Outcome::LockWaiting => {}
                other => return Err(unexpected("lock", &other)),
            }
            let waited = self.client.core.await_lock(self, session).await;
            metrics::histogram!("ministry_client_lock_wait_seconds")
                .record(began.elapsed().as_secs_f64());
            match waited {
                Waited::Granted => {
                    self.under_way.granted(self.number, session);
                    return Ok(());
                }
                // Under the next session it waits anew.
                Waited::SessionEnded => {}
            }
        }
    }

    async fn ask(&self) -> Result<(SessionId, Outcome), FsError> {
        let LockRequest { inode, handle, owner, pid, range, mode, wait } = *self.request;
        let wait = match wait {
            WaitFor::Nothing => LockWait::No,
            WaitFor::Lock { find_deadlock } => {
                LockWait::Yes { request: self.number, find_deadlock }
            }
        };
        let operation = Operation::Lock { inode, owner, pid, range, mode, wait };
        let core = &self.client.core;
        core.operation("lock", async |_| {
            // Whatever is being given back goes first; it must not take this lock along.
            drop(self.under_way.order.lock().await);
            self.under_way.asks(handle, self.number);
            let changed = core.change_in(self.caller, operation).await;
            if changed.as_ref().is_err_and(|error| *error != FsError::TimedOut) {
                self.under_way.refused(self.number);
            }
            changed
        })
        .await
    }
}

impl Core {
    /// Gives locks back, and forgets the owner when it holds nothing more.
    async fn give_back(
        &self,
        caller: &Caller,
        under_way: &UnderWay,
        range: LockRange,
        waiting_too: bool,
    ) -> Result<(), FsError> {
        let (inode, owner) = under_way.key;
        let operation = Operation::Unlock { inode, owner, range, waiting_too };
        match self.change(caller, operation).await {
            Ok(Outcome::Unlocked { left }) => {
                if !left && under_way.is_alone() {
                    under_way.gave_back();
                }
                Ok(())
            }
            Ok(other) => Err(unexpected("unlock", &other)),
            Err(error) => Err(error),
        }
    }

    /// Waits until a request is granted, however long that takes, over every change of minister.
    async fn await_lock(&self, taking: &Taking<'_>, session: SessionId) -> Waited {
        let (inode, number) = (taking.request.inode, taking.number);
        let mut backoff = Backoff::new();
        let mut turn_since = None;
        loop {
            let Some(ministry) = self.ministries.owner(inode) else {
                self.ministries.after_refusal(Refused::NobodyKnown, &mut backoff).await;
                continue;
            };
            let wait = if turn_since.is_some() { LOCK_TURN_TIMEOUT } else { AWAIT_LOCK };
            let request = AwaitLockRequest { ministry, session, inode, request: number, wait };
            let attempt = self.ministries.attempt(ministry, |client, context| async move {
                client.await_lock(context, request).await
            });
            match attempt.await {
                Attempt::Done(LockProgress::Settled) => return Waited::Granted,
                Attempt::Done(LockProgress::Waiting) => {
                    turn_since = None;
                    backoff = Backoff::new();
                }
                Attempt::Done(LockProgress::WaitingForTurn) => {
                    let since = *turn_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= LOCK_TURN_TIMEOUT {
                        self.insist(taking, session).await;
                        turn_since = None;
                    }
                }
                Attempt::NotDone(refused) => {
                    self.ministries.after_refusal(refused, &mut backoff).await;
                    if self.ministries.is_end(ministry, refused) {
                        return Waited::SessionEnded;
                    }
                }
                Attempt::Unknown(doubt) => self.ministries.after_doubt(doubt, &mut backoff).await,
            }
        }
    }

    /// The request has let others pass for long enough. What comes of it the next question tells.
    async fn insist(&self, taking: &Taking<'_>, session: SessionId) {
        let (inode, request) = (taking.request.inode, taking.number);
        let insist = Operation::InsistLock { inode, request };
        let insisted =
            timeout_at(Instant::now() + ATTEMPT_TIMEOUT, self.change_in(taking.caller, insist));
        match insisted.await {
            Ok(Ok((under, _))) if under == session => {}
            other => tracing::debug!(%inode, ?other, "insisted in vain"),
        }
    }
}
