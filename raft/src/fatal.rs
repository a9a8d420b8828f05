//! The one way in which the end of the process is asked for.

use std::sync::Arc;

use tokio::sync::watch;

/// Says that this node's storage can no longer be trusted. The first reason stays. Clones share
/// it.
///
/// `ministryd` waits on [`Fatal::wait`] and ends the process; simulation ends the node.
#[derive(Debug, Clone)]
pub struct Fatal {
    reason: Arc<watch::Sender<Option<String>>>,
}

impl Default for Fatal {
    fn default() -> Fatal {
        Fatal { reason: Arc::new(watch::Sender::new(None)) }
    }
}

impl Fatal {
    /// Nothing has happened yet.
    pub fn new() -> Fatal {
        Fatal::default()
    }

    /// Reports a reason to end the process.
    pub fn report(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.reason.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            tracing::error!(reason, "storage failed: this process must end");
            *first = Some(reason);
            true
        });
    }

    /// The reason, if there is one.
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits for a reason.
    pub async fn wait(&self) -> String {
        let mut receiver = self.reason.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => unreachable!("the sender lives as long as self"),
        }
    }
}
