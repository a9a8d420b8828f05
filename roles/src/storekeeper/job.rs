//! One request, from its place in the queue to its answer.
//!
//! Master and slave differ in one thing: the members to which a master sends the request while it
//! carries it out itself. [`super::connection`] makes a [`Job`] of each request that
//! [`super::arrival`] let through.
//!
//! What must always hold: a job that has begun keeps its place until all members are through,
//! whatever was answered meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use ministry_types::NodeId;
use ministry_wire::data::{DataAction, DataError, DataOutcome, DataReply, DataRequest};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::arrival::{check_office, claim};
use super::connection::Answer;
use super::forward::{Missing, forward};
use super::ranges::Place;
use super::sources::Caller;
use super::{ANSWER_WITHIN, Office, copy};

/// A request on its way.
pub(super) struct Job {
    pub(super) request: DataRequest,
    pub(super) payload: Bytes,
    pub(super) caller: Arc<Caller>,
    pub(super) place: Option<Place>,
    pub(super) answer: Answer,
    /// Its share of the memory for changes; given back when the job is through.
    pub(super) _room: OwnedSemaphorePermit,
}

/// What a request gives: an answer and the bytes behind it.
type Done = Result<(DataOutcome, Bytes), DataError>;

impl Job {
    /// Carries the request out and answers it.
    pub(super) async fn run(mut self, office: Arc<Office>) {
        let begun = Instant::now();
        let until = begun + ANSWER_WITHIN;
        let turn = async {
            let copied = self.fetch(&office, until).await?;
            Ok((copied, self.turn(&office, until).await?))
        };
        let (_copied, members) = match turn.await {
            Ok((copied, Some(members))) => (copied, members),
            // Its sender has given it up and may have sent it anew: no effect, no answer.
            Ok((_, None)) => return,
            Err(error) => return self.finish(begun, Err(error)),
        };
        let missing = Missing::new(&members);
        let done = {
            let work = carry_out(&office, &self.request, &self.payload, &members, &missing);
            let mut work = std::pin::pin!(work);
            match timeout_at(until, &mut work).await {
                Ok(done) => done,
                Err(_) => {
                    let waiting = DataError::Waiting(missing.text());
                    let reply = DataReply { id: self.request.id, result: Err(waiting) };
                    self.answer.send(reply, Bytes::new());
                    let _counted = Counted::new("ministry_storekeeper_waiting");
                    // Begun is begun: the members must not stay different.
                    work.await
                }
            }
        };
        self.finish(begun, done);
    }

    /// Makes a write of a copy: its bytes are here now, and it has its place. Gives the memory
    /// they take. Until then the request has no effect and is in nobody's way.
    async fn fetch(
        &mut self,
        office: &Office,
        until: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, DataError> {
        let Some(fetched) = copy::fetch(office, &self.request, until).await? else {
            return Ok(None);
        };
        self.request.action = fetched.action;
        self.payload = fetched.payload;
        let key = (self.request.pg, self.request.inode);
        let claim = claim(&self.request, self.payload.len());
        self.place = claim.map(|claim| office.ranges.enter(key, claim)).transpose()?;
        Ok(Some(fetched.room))
    }

    /// Waits for the turn of the request, and for memory. Says to which members it has to go;
    /// `None`: the request counts no more.
    async fn turn(
        &mut self,
        office: &Office,
        until: Instant,
    ) -> Result<Option<Vec<NodeId>>, DataError> {
        if let Some(place) = &mut self.place
            && timeout_at(until, place.granted()).await.is_err()
        {
            let text = "an earlier request for the same bytes is not through yet";
            return Err(DataError::Waiting(text.to_owned()));
        }
        if let DataAction::Read { length, .. } = self.request.action {
            let room = Arc::clone(&office.read_room).acquire_many_owned(length);
            let room = timeout_at(until, room).await.map_err(|_| DataError::Busy)?;
            self.answer.keep(room.expect("the room stays open"));
        }
        if !self.caller.admit(self.request.source, self.request.forwarded) {
            return Ok(None);
        }
        let members = check_office(&office.map(), office.me, self.caller.peer(), &self.request)?;
        if self.request.action.is_question() {
            return Ok(Some(Vec::new()));
        }
        if let Some(node) = office.backlogs.full(&members) {
            let text = format!("node {} has much to catch up with", node.short());
            return Err(DataError::Waiting(text));
        }
        Ok(Some(members))
    }

    /// Answers, unless that was done before.
    fn finish(&mut self, begun: Instant, done: Done) {
        self.observe(begun, &done);
        let (result, bytes) = match done {
            Ok((outcome, bytes)) => (Ok(outcome), bytes),
            Err(error) => (Err(error), Bytes::new()),
        };
        self.answer.send(DataReply { id: self.request.id, result }, bytes);
    }

    fn observe(&self, begun: Instant, done: &Done) {
        let action = self.request.action.word();
        metrics::histogram!("ministry_storekeeper_request_seconds", "action" => action)
            .record(begun.elapsed().as_secs_f64());
        match done {
            Ok((DataOutcome::Written { .. }, _)) => {
                metrics::counter!("ministry_storekeeper_bytes_total", "direction" => "in")
                    .increment(self.payload.len() as u64);
            }
            Ok((_, bytes)) if !bytes.is_empty() => {
                metrics::counter!("ministry_storekeeper_bytes_total", "direction" => "out")
                    .increment(bytes.len() as u64);
            }
            Ok(_) => {}
            Err(error @ (DataError::Damaged { .. } | DataError::Disk(_))) => {
                tracing::error!(inode = %self.request.inode, action, %error, "a data request failed");
            }
            Err(error) => {
                tracing::debug!(inode = %self.request.inode, action, %error, "not done");
            }
        }
    }
}

/// Carries the request out here and at the other members at the same time.
async fn carry_out(
    office: &Office,
    request: &DataRequest,
    payload: &Bytes,
    members: &[NodeId],
    missing: &Missing,
) -> Done {
    match &request.action {
        DataAction::Read { .. } => return office.local.read(request).await,
        DataAction::Seek { .. } => {
            let outcome = office.local.seek(request, office.map()).await?;
            return Ok((outcome, Bytes::new()));
        }
        _ => {}
    }
    let here = office.local.change(request, payload);
    let there = members.iter().map(|node| forward(office, *node, request, payload, missing));
    let (here, there) = tokio::join!(here, join_all(there));
    let outcome = here?;
    for result in there {
        result?;
    }
    Ok((outcome, Bytes::new()))
}

/// One more in a gauge, until it is dropped.
pub(super) struct Counted(&'static str);

impl Counted {
    pub(super) fn new(gauge: &'static str) -> Counted {
        metrics::gauge!(gauge).increment(1.0);
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}
