//! One data connection: a task that writes requests, a task that reads answers.
//!
//! Made and used by [`super::DataPeer`]. What must always hold: each request that was taken in is
//! answered once, by its reply or by the failure of the connection; once failed, a connection
//! takes nothing more and its stream is closed. It fails when the stream does, when the other end
//! answers nothing for [`SILENCE_MAX`] while requests wait, and when a change is given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ministry_types::NodeId;
use ministry_types::limits::DATA_REQUESTS_PER_STREAM_MAX;
use ministry_wire::data::{DataAction, DataReply, DataRequest, FrameError};
use parking_lot::Mutex;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::DataStreamError;
use super::frames::{FrameReader, FrameWriter};
use crate::stream::BoxedStream;

/// A server answers each request within 2 seconds, if only to say that it waits: after this long
/// without any answer the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// How often the silence is measured.
const SILENCE_CHECK: Duration = Duration::from_millis(500);

type Answer = Result<(DataReply, Bytes), DataStreamError>;
type Outgoing = (DataRequest, Bytes);

pub(super) struct Connection {
    generation: u64,
    queue: mpsc::Sender<Outgoing>,
    waiting: Arc<Waiting>,
    tasks: [JoinHandle<()>; 2],
}

/// The requests that wait for an answer.
struct Waiting {
    node: NodeId,
    state: Mutex<WaitingState>,
    failed: CancellationToken,
}

struct WaitingState {
    open: bool,
    next_id: u64,
    requests: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// When something was last heard, or when the first of the requests began to wait.
    heard: Instant,
}

impl Connection {
    pub(super) fn new(node: NodeId, generation: u64, stream: BoxedStream) -> Connection {
        let state = WaitingState {
            open: true,
            next_id: 1,
            requests: BTreeMap::new(),
            heard: Instant::now(),
        };
        let failed = CancellationToken::new();
        let waiting = Arc::new(Waiting { node, state: Mutex::new(state), failed });
        let (reader, writer) = tokio::io::split(stream);
        // As many places as requests may be under way: sending never has to wait for one.
        let (queue, outgoing) = mpsc::channel(DATA_REQUESTS_PER_STREAM_MAX * 2);
        let tasks = [
            tokio::spawn(run(Arc::clone(&waiting), write_all(writer, outgoing))),
            tokio::spawn(run(Arc::clone(&waiting), read_all(reader, Arc::clone(&waiting)))),
        ];
        Connection { generation, queue, waiting, tasks }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_open(&self) -> bool {
        self.waiting.state.lock().open
    }

    /// Sends a request and waits for its answer. Dropped before, a change fails the connection.
    pub(super) async fn exchange(&self, mut request: DataRequest, payload: Bytes) -> Answer {
        let is_change = !(request.action.is_question() || request.action == DataAction::Sync);
        let (sender, answer) = oneshot::channel();
        request.id = self.waiting.enter(sender)?;
        let mut guard =
            InFlight { waiting: &self.waiting, id: request.id, is_change, answered: false };
        if self.queue.try_send((request, payload)).is_err() {
            // The writing task is gone, or a peer sits on what it was sent: either way no use.
            self.waiting.fail("it takes no more requests");
        }
        let result = answer.await;
        guard.answered = true;
        result.unwrap_or_else(|_| Err(self.waiting.broken("it was closed")))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.waiting.fail("it was closed");
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A request between its sending and its answer.
struct InFlight<'a> {
    waiting: &'a Waiting,
    id: u64,
    is_change: bool,
    answered: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        self.waiting.state.lock().requests.remove(&self.id);
        if self.is_change {
            // It may still take effect; only a new generation keeps it from doing so after
            // something later.
            self.waiting.fail("a change was given up");
        }
    }
}

impl Waiting {
    fn enter(&self, sender: oneshot::Sender<Answer>) -> Result<u64, DataStreamError> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(self.broken("it was closed"));
        }
        if state.requests.is_empty() {
            state.heard = Instant::now();
        }
        let id = state.next_id;
        state.next_id += 1;
        let previous = state.requests.insert(id, sender);
        assert!(previous.is_none(), "request numbers are never used twice");
        Ok(id)
    }

    fn answer(&self, reply: DataReply, payload: Bytes) {
        let mut state = self.state.lock();
        state.heard = Instant::now();
        // Nobody waits for the answer of a read that was given up.
        if let Some(sender) = state.requests.remove(&reply.id) {
            drop(state);
            let _ = sender.send(Ok((reply, payload)));
        }
    }

    fn is_silent(&self) -> bool {
        let state = self.state.lock();
        !state.requests.is_empty() && state.heard.elapsed() > SILENCE_MAX
    }

    fn broken(&self, reason: &str) -> DataStreamError {
        DataStreamError::Broken { node: self.node, reason: reason.to_owned() }
    }

    fn fail(&self, reason: &str) {
        let requests = {
            let mut state = self.state.lock();
            state.open = false;
            std::mem::take(&mut state.requests)
        };
        self.failed.cancel();
        for sender in requests.into_values() {
            let _ = sender.send(Err(self.broken(reason)));
        }
    }
}

/// Runs one direction until it or the other one fails.
async fn run(waiting: Arc<Waiting>, direction: impl Future<Output = Result<(), FrameError>>) {
    let result = tokio::select! {
        result = direction => result,
        () = waiting.failed.cancelled() => return,
    };
    match result {
        Ok(()) => waiting.fail("the other end closed it"),
        Err(error) => {
            tracing::debug!(node = %waiting.node.short(), %error, "a data connection broke");
            waiting.fail(&error.to_string());
        }
    }
}

async fn write_all(
    stream: WriteHalf<BoxedStream>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<(), FrameError> {
    let mut writer = FrameWriter::new(stream);
    while let Some((request, payload)) = outgoing.recv().await {
        writer.put(&request, &payload).await?;
        while let Ok((request, payload)) = outgoing.try_recv() {
            writer.put(&request, &payload).await?;
        }
        writer.flush().await?;
    }
    Ok(())
}

async fn read_all(stream: ReadHalf<BoxedStream>, waiting: Arc<Waiting>) -> Result<(), FrameError> {
    let replies = async {
        let mut reader = FrameReader::new(stream);
        while let Some(lengths) = reader.lengths().await? {
            let frame = reader.frame::<DataReply>(lengths).await?;
            waiting.answer(frame.header, frame.payload);
        }
        Ok(())
    };
    let silence = async {
        while !waiting.is_silent() {
            tokio::time::sleep(SILENCE_CHECK).await;
        }
        let text = "requests wait, and nothing is answered";
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into())
    };
    tokio::select! {
        result = replies => result,
        result = silence => result,
    }
}
