//! The pages of a node: `/metrics` for Prometheus, `/health` for people and supervisors.
//!
//! `ministryd` binds the server before it starts the node and runs it in its own task set. The
//! health page is made by a closure that looks at what the node already knows: it asks nobody, so
//! it answers also where the cluster does not.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::recorder::PrometheusHandle;

/// How long pages that are being sent may take to end at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// An office that a node holds in a ministry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Office {
    /// Number of the ministry.
    pub ministry: u64,
    /// `minister` or `clerk`.
    pub role: String,
    /// Whether this node serves the ministry as its minister now.
    pub serving: bool,
}

/// What the health page says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the node does what it is there for.
    pub healthy: bool,
    /// Which node.
    pub node: String,
    /// Its highest office: `president`, `minister`, `clerk` or `idle`.
    pub role: String,
    /// The president known to it.
    pub president: Option<String>,
    /// Its offices in ministries.
    pub ministries: Vec<Office>,
    /// Why it is not healthy, or what a person should know.
    pub reason: Option<String>,
}

/// Makes the health page. Must not block.
pub type HealthSource = Arc<dyn Fn() -> Health + Send + Sync>;

/// Why the pages cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the metrics page: {source}; choose another address with --metrics"
)]
pub struct BindError {
    /// Where it should listen.
    pub address: SocketAddr,
    /// The reason.
    pub source: std::io::Error,
}

#[derive(Clone)]
struct Pages {
    metrics: PrometheusHandle,
    health: HealthSource,
}

/// A server that holds its port and does not answer yet.
pub struct PageServer {
    listener: TcpListener,
    address: SocketAddr,
    pages: Pages,
}

impl fmt::Debug for PageServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl PageServer {
    /// Takes the port.
    pub async fn bind(
        address: SocketAddr,
        metrics: PrometheusHandle,
        health: HealthSource,
    ) -> Result<PageServer, BindError> {
        let error = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(PageServer { listener, address, pages: Pages { metrics, health } })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready; then pages that are being sent get a moment to end.
    ///
    /// Cancel safety: safe; connections end with it.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let router = router(self.pages);
        let server = axum::serve(self.listener, router).with_graceful_shutdown(async move {
            shutdown.await;
            // The receiver is there as long as this future is polled.
            let _ = ended.send(());
        });
        let mut server = std::pin::pin!(server.into_future());
        tokio::select! {
            result = &mut server => result,
            _ = end => timeout(SHUTDOWN_TIMEOUT, server).await.unwrap_or(Ok(())),
        }
    }
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/health", get(health_page))
        .with_state(pages)
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, pages.metrics.render()).into_response()
}

async fn health_page(State(pages): State<Pages>) -> Response {
    let health = (pages.health)();
    let status = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let kind = [(header::CONTENT_TYPE, "application/json")];
    match serde_json::to_string_pretty(&health) {
        Ok(text) => (status, kind, text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::recorder;

    fn health(healthy: bool) -> Health {
        Health {
            healthy,
            node: "ab".into(),
            role: "clerk".into(),
            president: None,
            ministries: vec![Office { ministry: 1, role: "clerk".into(), serving: true }],
            reason: (!healthy).then(|| "no president is known".into()),
        }
    }

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_pages_answer_and_the_status_follows_the_health() {
        let recorder = recorder::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("ministry_president_orders_total").increment(3);
        });
        let well = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&well);
        let source: HealthSource = Arc::new(move || health(seen.load(Ordering::Relaxed)));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = PageServer::bind(any, recorder.handle(), source).await.unwrap();
        let address = server.address();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));

        assert!(fetch(address, "/metrics").await.contains("ministry_president_orders_total 3"));
        assert!(fetch(address, "/health").await.starts_with("HTTP/1.1 200"));
        well.store(false, Ordering::Relaxed);
        let ill = fetch(address, "/health").await;
        assert!(ill.starts_with("HTTP/1.1 503") && ill.contains("no president is known"), "{ill}");
        assert!(fetch(address, "/other").await.starts_with("HTTP/1.1 404"));

        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_in_the_error() {
        let recorder = recorder::recorder().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let source: HealthSource = Arc::new(|| health(true));
        let address = taken.local_addr().unwrap();
        let error = PageServer::bind(address, recorder.handle(), source).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
