//! When the minister last heard of each client: soft state of a reign.
//!
//! Which sessions exist is replicated; how long ago they gave a sign of life is not. A new
//! minister gives each of them a full life from the beginning of its reign, since it cannot know
//! better.

use std::collections::BTreeMap;
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

/// The living sessions of a reign.
#[derive(Debug, Default)]
pub struct Sessions {
    inner: Mutex<BTreeMap<SessionId, Standing>>,
}

impl Sessions {
    /// Begins a reign with the sessions that the replicated state knows.
    pub fn begin(&self, known: impl IntoIterator<Item = (SessionId, ClientId)>, now: Instant) {
        let fresh = known.into_iter().map(|(id, client)| (id, Standing { client, heard: now }));
        *self.inner.lock() = fresh.collect();
    }

    /// Adds a session that was opened.
    pub fn add(&self, session: SessionId, client: ClientId, now: Instant) {
        self.inner.lock().insert(session, Standing { client, heard: now });
    }

    /// Removes a session that has ended.
    pub fn remove(&self, session: SessionId) {
        self.inner.lock().remove(&session);
    }

    /// Takes a request as a sign of life. `false`: the session is not known, or belongs to another
    /// client.
    pub fn heard(&self, session: SessionId, client: ClientId, now: Instant) -> bool {
        match self.inner.lock().get_mut(&session) {
            Some(standing) if standing.client == client => {
                standing.heard = now;
                true
            }
            _ => false,
        }
    }

    /// Whether a further session fits.
    pub fn has_room(&self) -> bool {
        self.inner.lock().len() < SESSIONS_PER_MINISTRY_MAX
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inner.lock().len()
    }

    /// Sessions that were silent for longer than `timeout`.
    pub fn silent(&self, timeout: Duration, now: Instant) -> Vec<SessionId> {
        let inner = self.inner.lock();
        let silent = inner.iter().filter(|(_, s)| now.duration_since(s.heard) > timeout);
        silent.map(|(id, _)| *id).collect()
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
        assert!(sessions.silent(timeout, begin + Duration::from_secs(9)).is_empty());
        assert_eq!(sessions.silent(timeout, begin + Duration::from_secs(10)), [session]);
    }
}
