//! One data connection, the answering end.
//!
//! A loop takes requests, gives each its memory and its place in the queue of its bytes in the
//! order of arrival, and lets a task of its own carry it out; another loop sends the answers.
//!
//! What must always hold: at most [`DATA_REQUESTS_PER_STREAM_MAX`] requests of a connection are
//! between arrival and the end of the sending of their answer; the next is not read before. A
//! payload for which there is no memory is thrown away and answered as busy. A peer that does not
//! take its answers for [`SEND_TIMEOUT`] loses the connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ministry_transport::data_stream::frames::{FrameReader, FrameWriter};
use ministry_transport::{BoxedStream, PeerIdentity};
use ministry_types::limits::DATA_REQUESTS_PER_STREAM_MAX;
use ministry_wire::data::{DataError, DataReply, DataRequest, Frame, FrameError, FrameLengths};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::Office;
use super::arrival::{check_office, check_sense, claim};
use super::job::{Counted, Job};
use super::ranges::Place;
use super::sources::Caller;

/// How long an answer may take to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without requests for so long is closed: its peer may be gone without a word, and
/// one that is not connects anew when it needs to.
const IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a request waits for memory before it is refused as busy.
const ROOM_PATIENCE: Duration = Duration::from_millis(200);
/// What a request takes beside its payload.
const REQUEST_BYTES: usize = 4096;

type Reader = FrameReader<ReadHalf<BoxedStream>>;

/// An answer on its way out.
struct Outgoing {
    reply: DataReply,
    payload: Bytes,
    /// Given back when the answer was sent.
    _slot: Slot,
}

/// A request's place among those of the connection.
struct Slot {
    _permit: OwnedSemaphorePermit,
    /// The memory of the answer's payload.
    room: Option<OwnedSemaphorePermit>,
    _depth: Counted,
}

/// Where the one answer to a request goes.
pub(super) struct Answer {
    queue: mpsc::Sender<Outgoing>,
    slot: Option<Slot>,
}

impl Answer {
    /// The memory that the answer's payload takes, kept until it was sent.
    pub(super) fn keep(&mut self, room: OwnedSemaphorePermit) {
        if let Some(slot) = &mut self.slot {
            slot.room = Some(room);
        }
    }

    /// Answers; the first time counts.
    pub(super) fn send(&mut self, reply: DataReply, payload: Bytes) {
        if let Some(slot) = self.slot.take() {
            // There are as many places as slots: it fails only when the connection is gone.
            let _ = self.queue.try_send(Outgoing { reply, payload, _slot: slot });
        }
    }
}

/// Answers requests until the connection ends or breaks.
pub(super) async fn serve(office: &Arc<Office>, peer: PeerIdentity, stream: BoxedStream) {
    let (reader, writer) = tokio::io::split(stream);
    let (queue, outgoing) = mpsc::channel(DATA_REQUESTS_PER_STREAM_MAX);
    let caller = office.sources.accept(peer);
    let result = tokio::select! {
        biased;
        result = send_answers(writer, outgoing) => result,
        result = take_requests(office, caller, FrameReader::new(reader), queue) => result,
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a data connection ended");
    }
}

async fn take_requests(
    office: &Arc<Office>,
    caller: Arc<Caller>,
    mut reader: Reader,
    queue: mpsc::Sender<Outgoing>,
) -> Result<(), FrameError> {
    let slots = Arc::new(Semaphore::new(DATA_REQUESTS_PER_STREAM_MAX));
    while let Ok(next) = timeout(IDLE_MAX, reader.lengths()).await {
        let Some(lengths) = next? else { return Ok(()) };
        let permit = Arc::clone(&slots).acquire_owned().await.expect("the slots stay open");
        let depth = Counted::new("ministry_storekeeper_queue_depth");
        let slot = Slot { _permit: permit, room: None, _depth: depth };
        let mut answer = Answer { queue: queue.clone(), slot: Some(slot) };
        let Some(room) = room_for(office, lengths).await else {
            let header: DataRequest = reader.header_only(lengths).await?;
            let reply = DataReply { id: header.id, result: Err(DataError::Busy) };
            answer.send(reply, Bytes::new());
            continue;
        };
        let frame = reader.frame(lengths).await?;
        if !begin(office, &caller, frame, answer, room) {
            // A newer connection has taken over: this one is of no use to anybody.
            return Ok(());
        }
    }
    Ok(())
}

/// Memory for a payload; `None`: there is none, nor soon.
async fn room_for(office: &Office, lengths: FrameLengths) -> Option<OwnedSemaphorePermit> {
    let bytes = match lengths.payload {
        // The number of these is bounded by the connections; they pass where writes wait.
        0 => 0,
        payload => payload + REQUEST_BYTES,
    };
    let room = Arc::clone(&office.write_room).acquire_many_owned(bytes as u32);
    timeout(ROOM_PATIENCE, room).await.ok().map(|room| room.expect("the room stays open"))
}

/// Gives a request its place and its task, or its refusal. `false`: it counts no more.
fn begin(
    office: &Arc<Office>,
    caller: &Arc<Caller>,
    frame: Frame<DataRequest>,
    mut answer: Answer,
    room: OwnedSemaphorePermit,
) -> bool {
    let Frame { header: request, payload } = frame;
    if !caller.admit(request.source, request.forwarded) {
        return false;
    }
    match place(office, caller, &request, payload.len()) {
        Ok(place) => {
            let caller = Arc::clone(caller);
            let job = Job { request, payload, caller, place, answer, _room: room };
            office.spawn(job.run(Arc::clone(office)));
        }
        Err(error) => {
            tracing::debug!(inode = %request.inode, action = request.action.word(), %error,
                "a data request was refused");
            answer.send(DataReply { id: request.id, result: Err(error) }, Bytes::new());
        }
    }
    true
}

/// Checks a request and queues it.
fn place(
    office: &Office,
    caller: &Caller,
    request: &DataRequest,
    payload: usize,
) -> Result<Option<Place>, DataError> {
    let map = office.map();
    check_office(&map, office.me, caller.peer(), request)?;
    check_sense(&map, caller.peer(), request, payload)?;
    let claim = claim(request, payload);
    claim.map(|claim| office.ranges.enter((request.pg, request.inode), claim)).transpose()
}

async fn send_answers(
    stream: WriteHalf<BoxedStream>,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> Result<(), FrameError> {
    let mut writer = FrameWriter::new(stream);
    while let Some(first) = outgoing.recv().await {
        let sending = async {
            writer.put(&first.reply, &first.payload).await?;
            drop(first);
            while let Ok(next) = outgoing.try_recv() {
                writer.put(&next.reply, &next.payload).await?;
            }
            writer.flush().await
        };
        match timeout(SEND_TIMEOUT, sending).await {
            Ok(result) => result?,
            Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
    Ok(())
}
