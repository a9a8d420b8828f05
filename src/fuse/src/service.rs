//! Carrying a request out: a task of its own, a deadline, an answer in every case, and measures.
//!
//! [`crate::filesystem`] takes requests apart and hands them here. The thread that has read a
//! request begins it at once: what need not wait (a `flush` without locks, a `release`) is answered
//! without waking another thread, and what asks a minister is on its way before the task begins.
//!
//! What must always hold: every request is answered, once. One that panics or is dropped drops
//! its reply, which answers `EIO`; one that takes too long is ended with `ETIMEDOUT`, but for the
//! wait for a lock, which ends with the lock or by a signal.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::{
    Errno, FileHandle, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};
use ministry_types::operations::Entry;
use ministry_types::{Attributes, FileKind, FsError, InodeId, limits};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::adapter::Adapter;
use crate::capabilities::Tuning;
use crate::convert;
use crate::failure::Failure;
use crate::locks::Asked;

/// How long the kernel may take names and attributes for true without asking. Nothing tells us yet
/// when another client changes them, so not at all: that is what makes mounts coherent.
pub(crate) const TIME_TO_LIVE: Duration = Duration::ZERO;

/// Inode numbers never come back, so none needs a generation.
pub(crate) const GENERATION: Generation = Generation(0);

/// The second net below the client's own deadline: a program never waits longer.
const REQUEST_TIMEOUT: Duration = limits::OPERATION_TIMEOUT.saturating_add(Duration::from_secs(5));

/// Answers a request with an error.
pub(crate) trait Refuse: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLock,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// One request counts as under way for as long as this lives.
struct UnderWay {
    operation: &'static str,
    began: Instant,
}

impl UnderWay {
    fn begin(operation: &'static str) -> UnderWay {
        metrics::gauge!("ministry_fuse_inflight").increment(1.0);
        UnderWay { operation, began: Instant::now() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        metrics::gauge!("ministry_fuse_inflight").decrement(1.0);
        metrics::histogram!("ministry_fuse_operation_seconds", "operation" => self.operation)
            .record(self.began.elapsed().as_secs_f64());
    }
}

/// Carries `work` as far as it comes without waiting. Whoever goes on with it polls it again, and is
/// woken from then on. A panic ends the request, as it would in a task, and not the mount.
fn begin<T>(
    runtime: &Handle,
    work: Pin<&mut impl Future<Output = Result<T, Failure>>>,
) -> Poll<Result<T, Failure>> {
    let _timers_and_tasks = runtime.enter();
    let mut nobody = Context::from_waker(Waker::noop());
    let begun = catch_unwind(AssertUnwindSafe(|| work.poll(&mut nobody)));
    begun.unwrap_or(Poll::Ready(Err(Failure::Fs(FsError::Damaged))))
}

/// What fuser serves.
#[derive(Debug)]
pub(crate) struct MinistryFilesystem {
    pub(crate) adapter: Arc<Adapter>,
    runtime: Handle,
    pub(crate) tuning: Tuning,
}

impl MinistryFilesystem {
    pub(crate) fn new(adapter: Arc<Adapter>, runtime: Handle, tuning: Tuning) -> Self {
        MinistryFilesystem { adapter, runtime, tuning }
    }

    /// The inode that the kernel means.
    pub(crate) fn inode(&self, number: INodeNo) -> InodeId {
        self.adapter.view.inode(number)
    }

    /// Carries a request out, in a task of its own once it has to wait, under the deadline, and
    /// answers it.
    pub(crate) fn serve<R, T, F>(
        &self,
        operation: &'static str,
        reply: R,
        work: impl FnOnce(Arc<Adapter>) -> F + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) where
        R: Refuse,
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let under_way = UnderWay::begin(operation);
        let finish = move |result: Result<T, Failure>| {
            match result {
                Ok(value) => answer(reply, value),
                Err(failure) => {
                    failure.log(operation);
                    reply.refuse(failure.errno());
                }
            }
            drop(under_way);
        };
        // In a box: what is spawned is moved, and its work may be large.
        let mut work = Box::pin(work(Arc::clone(&self.adapter)));
        match begin(&self.runtime, work.as_mut()) {
            Poll::Ready(result) => {
                drop(work);
                finish(result);
            }
            Poll::Pending => {
                self.runtime.spawn(async move {
                    let result = timeout(REQUEST_TIMEOUT, work).await;
                    finish(result.unwrap_or(Err(Failure::Fs(FsError::TimedOut))));
                });
            }
        }
    }

    /// As [`MinistryFilesystem::serve`], for what answers a name with its object.
    pub(crate) fn serve_entry<F>(
        &self,
        operation: &'static str,
        reply: ReplyEntry,
        work: impl FnOnce(Arc<Adapter>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Attributes, FsError>> + Send + 'static,
    {
        let show = Arc::clone(&self.adapter);
        let work = |adapter| async move {
            let attributes = work(adapter).await?;
            Ok(show.show(&attributes))
        };
        self.serve(operation, reply, work, |reply, shown| {
            reply.entry(&TIME_TO_LIVE, &shown, GENERATION);
        });
    }

    /// As [`MinistryFilesystem::serve`], for what answers with nothing.
    pub(crate) fn serve_empty<F, E>(
        &self,
        operation: &'static str,
        reply: ReplyEmpty,
        work: impl FnOnce(Arc<Adapter>) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        let work = |adapter| async move { work(adapter).await.map_err(Into::into) };
        self.serve(operation, reply, work, |reply: ReplyEmpty, ()| reply.ok());
    }

    /// Carries out a request for a lock. It has no deadline here: a wait for a lock may last for
    /// hours, and the client has a deadline for everything else.
    pub(crate) fn serve_lock(&self, asked: Asked, reply: ReplyEmpty) {
        let operation = if asked.sleeps { "setlkw" } else { "setlk" };
        let adapter = Arc::clone(&self.adapter);
        self.runtime.spawn(async move {
            let under_way = UnderWay::begin(operation);
            match adapter.set_lock(asked).await {
                Ok(()) => reply.ok(),
                Err(failure) => {
                    failure.log(operation);
                    reply.refuse(failure.errno());
                }
            }
            drop(under_way);
        });
    }

    /// Lists names into the reply's buffer.
    pub(crate) fn serve_listing(&self, number: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let adapter = Arc::clone(&self.adapter);
        self.runtime.spawn(async move {
            let under_way = UnderWay::begin("readdir");
            let put = |inode, cookie, name: &[u8], entry: Option<&Entry>| {
                let kind = entry.map_or(FileKind::Directory, |entry| entry.kind);
                let (inode, kind) = (convert::inode_number(inode), convert::file_type(kind));
                reply.add(inode, cookie, kind, OsStr::from_bytes(name))
            };
            let result = timeout(REQUEST_TIMEOUT, adapter.list(number, offset, put)).await;
            match result.unwrap_or(Err(Failure::Fs(FsError::TimedOut))) {
                Ok(()) => reply.ok(),
                Err(failure) => {
                    failure.log("readdir");
                    reply.refuse(failure.errno());
                }
            }
            drop(under_way);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::oneshot;
    use tokio::time::sleep;

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    type Begun = Poll<Result<u32, Failure>>;

    #[test]
    fn what_need_not_wait_is_done_on_the_thread_that_begins_it() {
        let runtime = runtime();
        let mut work = Box::pin(async { Ok(std::thread::current().id()) });
        let here = Poll::Ready(Ok(std::thread::current().id()));
        assert_eq!(begin(runtime.handle(), work.as_mut()), here);
    }

    #[test]
    fn what_waits_for_time_or_others_is_gone_on_with_in_a_task() {
        let runtime = runtime();
        let (send, receive) = oneshot::channel();
        let mut work = Box::pin(async {
            sleep(Duration::from_millis(1)).await;
            tokio::spawn(async { send.send(7).unwrap() }).await.unwrap();
            Ok(receive.await.unwrap())
        });
        let begun: Begun = begin(runtime.handle(), work.as_mut());
        assert_eq!(begun, Poll::Pending);
        assert_eq!(runtime.block_on(runtime.spawn(work)).unwrap(), Ok(7));
    }

    #[test]
    fn a_panic_ends_the_request_and_not_the_thread_that_reads_them() {
        let runtime = runtime();
        let mut work = Box::pin(async { panic!("on purpose") });
        let begun: Begun = begin(runtime.handle(), work.as_mut());
        assert_eq!(begun, Poll::Ready(Err(Failure::Fs(FsError::Damaged))));
    }
}
