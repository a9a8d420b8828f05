//! When the minister last heard of each client: soft state of a reign.
//!
//! Which sessions exist is replicated; how long ago they gave a sign of life is not. A new
//! minister gives each of them a full life from the beginning of its reign, since it cannot know
//! better.
//!
//! What must always hold: a session that the log may have is known here, living or ending, until
//! the log has its end. Otherwise its locks and open files would stay for the rest of the reign.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ministry_types::limits::SESSIONS_PER_MINISTRY_MAX;
use ministry_types::{ClientId, SessionId};
use parking_lot::Mutex;
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
struct Standing {
    client: ClientId,
    heard: Instant,
}

/// The sessions of a reign.
#[derive(Debug, Default)]
pub struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    living: BTreeMap<SessionId, Standing>,
    /// Served no more; the log does not have their end yet.
    ending: BTreeSet<SessionId>,
    /// The minister is out of reach: nobody is silent for that.
    out_of_reach: bool,
}

impl Sessions {
    /// Begins a reign with the sessions that the replicated state knows.
    pub fn begin(&self, known: impl IntoIterator<Item = (SessionId, ClientId)>, now: Instant) {
        let fresh = known.into_iter().map(|(id, client)| (id, Standing { client, heard: now }));
        *self.inner.lock() = Inner { living: fresh.collect(), ..Inner::default() };
    }

    /// Adds a session that is about to be opened.
    pub fn add(&self, session: SessionId, client: ClientId, now: Instant) {
        let mut inner = self.inner.lock();
        inner.ending.remove(&session);
        inner.living.insert(session, Standing { client, heard: now });
    }

    /// Forgets a session: the log has its end, or never had its beginning.
    pub fn remove(&self, session: SessionId) {
        let mut inner = self.inner.lock();
        inner.living.remove(&session);
        inner.ending.remove(&session);
    }

    /// Takes a request as a sign of life. `false`: the session is not known, or belongs to another
    /// client.
    pub fn heard(&self, session: SessionId, client: ClientId, now: Instant) -> bool {
        match self.inner.lock().living.get_mut(&session) {
            Some(standing) if standing.client == client => {
                standing.heard = now;
                true
            }
            _ => false,
        }
    }

    /// Whether a further session fits.
    pub fn has_room(&self) -> bool {
        self.count() < SESSIONS_PER_MINISTRY_MAX
    }

    /// How many live.
    pub fn count(&self) -> usize {
        self.inner.lock().living.len()
    }

    /// The minister cannot be reached. When it can again, everybody has a full life.
    pub fn out_of_reach(&self) {
        self.inner.lock().out_of_reach = true;
    }

    /// Ends the sessions that were silent for longer than `timeout`; answers which those are. From
    /// now on they are not served.
    pub fn end_silent(&self, timeout: Duration, now: Instant) -> Vec<SessionId> {
        let mut inner = self.inner.lock();
        if std::mem::take(&mut inner.out_of_reach) {
            inner.living.values_mut().for_each(|standing| standing.heard = now);
        }
        let silent = inner.living.iter().filter(|(_, s)| now.duration_since(s.heard) > timeout);
        let silent: Vec<SessionId> = silent.map(|(id, _)| *id).collect();
        for session in &silent {
            inner.living.remove(session);
            inner.ending.insert(*session);
        }
        silent
    }

    /// Sessions whose end has to be logged; until [`Sessions::remove`].
    pub fn ending(&self) -> Vec<SessionId> {
        self.inner.lock().ending.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_lives_by_its_signs_of_life_and_belongs_to_one_client() {
        let (sessions, begin) = (Sessions::default(), Instant::now());
        let (session, owner, other) = (SessionId([1; 16]), ClientId([1; 16]), ClientId([2; 16]));
        sessions.add(session, owner, begin);
        let timeout = Duration::from_secs(5);
        assert!(sessions.heard(session, owner, begin + Duration::from_secs(4)));
        assert!(!sessions.heard(session, other, begin + Duration::from_secs(6)));
        assert!(sessions.end_silent(timeout, begin + Duration::from_secs(9)).is_empty());
        assert_eq!(sessions.end_silent(timeout, begin + Duration::from_secs(10)), [session]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_ending_until_the_log_has_its_end() {
        let (sessions, begin) = (Sessions::default(), Instant::now());
        let (session, owner) = (SessionId([1; 16]), ClientId([1; 16]));
        sessions.add(session, owner, begin);
        sessions.end_silent(Duration::ZERO, begin + Duration::from_secs(1));
        assert!(!sessions.heard(session, owner, begin), "it is served no more");
        assert_eq!((sessions.count(), sessions.ending()), (0, vec![session]));
        assert_eq!(sessions.ending(), [session], "and again, as often as it takes");
        sessions.remove(session);
        assert_eq!(sessions.ending(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_opened_anew_does_not_end() {
        let (sessions, begin) = (Sessions::default(), Instant::now());
        let (session, owner) = (SessionId([1; 16]), ClientId([1; 16]));
        sessions.add(session, owner, begin);
        sessions.end_silent(Duration::ZERO, begin + Duration::from_secs(1));
        sessions.add(session, owner, begin);
        assert!(sessions.heard(session, owner, begin));
        assert_eq!(sessions.ending(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_silent_while_the_minister_is_out_of_reach() {
        let (sessions, begin) = (Sessions::default(), Instant::now());
        let (session, timeout) = (SessionId([1; 16]), Duration::from_secs(5));
        sessions.add(session, ClientId([1; 16]), begin);
        sessions.out_of_reach();
        let again = begin + Duration::from_secs(60);
        assert_eq!(sessions.end_silent(timeout, again), []);
        assert_eq!(sessions.end_silent(timeout, again + timeout), []);
        let later = again + timeout + Duration::from_millis(1);
        assert_eq!(sessions.end_silent(timeout, later), [session]);
    }
}
