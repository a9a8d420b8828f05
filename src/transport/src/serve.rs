//! Answers tarpc requests on one connection.
//!
//! A [`crate::server::Handler`] calls [`serve`] for the doors that speak tarpc:
//!
//! ```ignore
//! serve(incoming.stream, my_service.serve(), |service, context, request| {
//!     service.serve(context, request)
//! })
//! .await
//! ```
//!
//! The closure is there so that the compiler sees the service's own future, which must be `Send`.
//!
//! What must always hold: a request that cannot be answered at once runs in a task of its own that
//! ends with the connection; at most [`CONTROL_REQUESTS_PER_CONNECTION_MAX`] run at once, further ones are answered as busy.
//! **A request's task is dropped when its caller gives up**: what must run to its end (a log write,
//! a change of membership) belongs into a task that its owner keeps.
//!
//! When it fails: a broken connection or a frame that does not decode ends the connection; a panic
//! in a request ends that request, and its caller runs into its time limit.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::task::Poll;

use futures::{FutureExt, StreamExt};
use ministry_types::limits::CONTROL_REQUESTS_PER_CONNECTION_MAX;
use ministry_wire::codec::control_transport;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::context::Context;
use tarpc::server::{BaseChannel, Channel, Config};
use tarpc::{ClientMessage, RequestName, Response, ServerError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::stream::BoxedStream;

/// Answers requests until the connection ends.
pub async fn serve<S, Req, Resp, F, Fut>(stream: BoxedStream, service: S, run: F)
where
    S: Clone + Send + 'static,
    Req: DeserializeOwned + RequestName + Send + 'static,
    Resp: Serialize + Send + 'static,
    F: Fn(S, Context, Req) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Resp, ServerError>> + Send + 'static,
{
    let transport = control_transport::<_, ClientMessage<Req>, Response<Resp>>(stream);
    let config = Config { pending_response_buffer: CONTROL_REQUESTS_PER_CONNECTION_MAX };
    let requests = BaseChannel::new(config, transport)
        .max_concurrent_requests(CONTROL_REQUESTS_PER_CONNECTION_MAX)
        .requests();
    let mut requests = std::pin::pin!(requests);
    let mut running = JoinSet::new();
    let mut times: BTreeMap<String, metrics::Histogram> = BTreeMap::new();
    loop {
        let request = tokio::select! {
            biased;
            Some(ended) = running.join_next() => {
                // Only a task that was cut off has no result of its own, and none is while this runs.
                ended.into_iter().for_each(report_panic);
                continue;
            }
            request = requests.next() => request,
        };
        match request {
            Some(Ok(request)) => {
                let (service, run) = (service.clone(), run.clone());
                let answer =
                    tarpc::server::serve(move |context, message| run(service, context, message));
                let time = time_of(&mut times, request.get().message.name());
                let work = async move {
                    let begun = Instant::now();
                    request.execute(answer).await;
                    time.record(begun.elapsed());
                };
                let mut work = AssertUnwindSafe(work).catch_unwind().boxed();
                // Most questions are answered from memory, at once: those need no task, and no other
                // thread to wake for it.
                match futures::poll!(&mut work) {
                    Poll::Ready(ended) => report_panic(ended),
                    Poll::Pending => drop(running.spawn(work)),
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection broke");
                return;
            }
            None => return,
        }
    }
}

/// The histogram of requests of this name; looked up once a connection.
fn time_of(times: &mut BTreeMap<String, metrics::Histogram>, name: &str) -> metrics::Histogram {
    if let Some(time) = times.get(name) {
        return time.clone();
    }
    let name = name.to_owned();
    let time = metrics::histogram!("ministry_transport_request_seconds", "request" => name.clone());
    times.entry(name).or_insert(time).clone()
}

fn report_panic(ended: std::thread::Result<()>) {
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "it says nothing".to_owned());
        tracing::error!(error = text, "the handler of a request panicked");
    }
}
