//! Holds news of commits back, until there is something to send them with.
//!
//! For each commit openraft would send every member one more message, without entries, that only
//! says how far the log is committed. A busy leader would so send two messages for each entry, and
//! between the two no entry could follow. The next message says the same, so such news wait for it
//! a moment. [`crate::network`] lets the requests to a member go through here.
//!
//! What must always hold: requests leave in their order; one with entries, and the first of a
//! stream, which finds out how far the member's log goes, never waits. A request that is left out
//! is answered by the answer to the next: openraft takes every answer to be one to all requests up
//! to its position, at the time at which the latest of them was sent, which here is no earlier than
//! when it really was.
//!
//! What it costs: a follower of a leader that has fallen silent applies the last entries so much
//! later.

use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, timeout_at};

use crate::type_config::{LogId, TypeConfig};

type Request = AppendEntriesRequest<TypeConfig>;

/// The position up to which a member has the log when it has taken the request.
fn last(request: &Request) -> Option<LogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}

/// The requests, with news of commits held back for at most `patience`.
pub(crate) fn held_back<S>(
    requests: S,
    patience: Duration,
) -> impl Stream<Item = Request> + Send + Unpin + 'static
where
    S: Stream<Item = Request> + Send + Unpin + 'static,
{
    let step = move |(mut requests, sent): (stream::Fuse<S>, Option<LogId>)| async move {
        let mut request = requests.next().await?;
        let until = Instant::now() + patience;
        let is_news = |request: &Request| {
            request.entries.is_empty() && sent.is_some() && last(request) == sent
        };
        while !patience.is_zero() && is_news(&request) {
            match timeout_at(until, requests.next()).await {
                Ok(Some(next)) => request = next,
                Ok(None) | Err(_) => break,
            }
        }
        let sent = last(&request);
        Some((request, (requests, sent)))
    };
    Box::pin(stream::unfold((requests.fuse(), None), step))
}

#[cfg(test)]
mod tests {
    use ministry_types::{LogIndex, LogPosition, NodeId, Term};
    use ministry_wire::raft::{Body, Entry, Vote};
    use tokio::sync::mpsc;

    use super::*;
    use crate::convert;

    const PATIENCE: Duration = Duration::from_millis(20);

    fn position(index: u64) -> LogPosition {
        LogPosition { term: Term(1), leader: NodeId([1; 32]), index: LogIndex(index) }
    }

    /// Entries behind `previous`, with what is committed.
    fn request(previous: u64, entries: u64, committed: u64) -> Request {
        let vote = Vote { term: Term(1), node: NodeId([1; 32]), committed: true };
        let entry = |index| {
            let body = Body::Blank;
            convert::raft_entry(Entry { position: position(index), body }).unwrap()
        };
        Request {
            vote: convert::raft_vote(&vote),
            prev_log_id: Some(convert::log_id(&position(previous))),
            entries: (previous + 1..=previous + entries).map(entry).collect(),
            leader_commit: Some(convert::log_id(&position(committed))),
        }
    }

    /// What came through: previous index, number of entries, committed index.
    fn seen(request: &Request) -> (u64, usize, u64) {
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        (index(&request.prev_log_id), request.entries.len(), index(&request.leader_commit))
    }

    fn channel() -> (mpsc::UnboundedSender<Request>, impl Stream<Item = Request> + Unpin) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let requests = stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        (sender, held_back(Box::pin(requests), PATIENCE))
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_a_commit_go_with_the_next_entries() {
        let (sender, mut requests) = channel();
        sender.send(request(4, 1, 4)).unwrap();
        sender.send(request(5, 0, 5)).unwrap();
        sender.send(request(5, 2, 5)).unwrap();
        let began = Instant::now();
        assert_eq!(seen(&requests.next().await.unwrap()), (4, 1, 4));
        assert_eq!(seen(&requests.next().await.unwrap()), (5, 2, 5));
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing that has entries waits");
    }

    #[tokio::test(start_paused = true)]
    async fn news_that_nothing_follows_go_alone_once_and_no_later_than_promised() {
        let (sender, mut requests) = channel();
        sender.send(request(4, 2, 4)).unwrap();
        sender.send(request(6, 0, 5)).unwrap();
        sender.send(request(6, 0, 6)).unwrap();
        requests.next().await.unwrap();
        let began = Instant::now();
        assert_eq!(seen(&requests.next().await.unwrap()), (6, 0, 6), "the newest");
        assert_eq!(began.elapsed(), PATIENCE);
        drop(sender);
        assert!(requests.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_question_how_far_a_log_goes_does_not_wait() {
        let (sender, mut requests) = channel();
        sender.send(request(9, 0, 5)).unwrap();
        sender.send(request(3, 0, 5)).unwrap();
        let began = Instant::now();
        assert_eq!(seen(&requests.next().await.unwrap()), (9, 0, 5));
        assert_eq!(seen(&requests.next().await.unwrap()), (3, 0, 5));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn news_are_told_when_the_stream_ends() {
        let (sender, mut requests) = channel();
        sender.send(request(4, 1, 4)).unwrap();
        sender.send(request(5, 0, 5)).unwrap();
        drop(sender);
        requests.next().await.unwrap();
        assert_eq!(seen(&requests.next().await.unwrap()), (5, 0, 5));
        assert!(requests.next().await.is_none());
    }
}
