//! Asking the cluster's nodes as an administrator.
//!
//! Every command that needs the cluster opens one [`Access`]. Reads are answered by any node;
//! changes go to the president, whose address the others tell. The known addresses are tried in
//! turn until one answers or the command's time is over.
//!
//! When it fails: a [`Failure`] whose kind tells unreachable, refused and unknown apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ministry_transport::{
    CallError, ConnectError, Dialer, Door, Peers, Revocations, Role, Security, Target, TcpConnector,
};
use ministry_types::NodeId;
use ministry_types::limits::ATTEMPT_TIMEOUT;
use ministry_wire::admin::{AdminClient, AdminError, AdminRequest, AdminResponse, Status};
use tarpc::client::RpcError;
use tarpc::context::Context;
use tokio::time::{Instant, sleep};

use crate::cli::Global;
use crate::credentials::{Credentials, admin_folder, refresh_addresses};
use crate::failure::{Failure, Kind};

/// Between two rounds over the addresses.
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// Whether asking again, when the answer was lost, does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It does none.
    Harmless,
    /// It could do the thing twice.
    Never,
}

/// A way to the cluster.
#[derive(Debug)]
pub struct Access {
    /// Whose way.
    pub credentials: Credentials,
    peers: Peers,
    addresses: Vec<SocketAddr>,
    deadline: Instant,
}

impl Access {
    /// Loads the operator's credentials; connects to nobody yet.
    pub fn open(global: &Global) -> Result<Access, Failure> {
        let folder = admin_folder(global.admin.as_deref())?;
        let credentials = Credentials::load(&folder, Role::Operator, &global.address)?;
        let security = Security::tls(credentials.identity.clone())
            .map_err(|error| Failure::new(Kind::Credentials, error))?;
        let dialer =
            Dialer::new(Arc::new(TcpConnector), Arc::new(security), Revocations::default());
        let addresses = credentials.addresses.clone();
        let deadline = Instant::now() + global.timeout;
        Ok(Access { credentials, peers: Peers::new(Arc::new(dialer)), addresses, deadline })
    }

    /// When the command's time is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What the president, or failing that any node, says of the cluster.
    pub async fn status(&mut self) -> Result<Status, Failure> {
        let first =
            self.read(|client, context| async move { client.status(context).await }).await?;
        let mut best = first;
        if let Some(address) = president_address(&best).filter(|_| !speaks_for_itself(&best)) {
            let answer =
                self.call(address, |client, context| async move { client.status(context).await });
            match answer.await {
                Ok(status) => best = status,
                // The node asked first still tells what it knows.
                Err(error) => tracing::debug!(%address, %error, "the president does not answer"),
            }
        }
        let mut addresses: Vec<SocketAddr> =
            best.map.nodes.values().map(|entry| entry.profile.address).collect();
        addresses.sort();
        refresh_addresses(&self.credentials.folder, &addresses);
        for address in addresses {
            if !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
        Ok(best)
    }

    /// Asks any node.
    pub async fn read<R, F, Fut>(&mut self, request: F) -> Result<R, Failure>
    where
        F: Fn(AdminClient, Context) -> Fut,
        Fut: Future<Output = Result<R, RpcError>>,
    {
        loop {
            let mut errors = Vec::new();
            for position in 0..self.addresses.len() {
                let address = self.addresses[position];
                match self.call(address, &request).await {
                    Ok(answer) => {
                        // Who answered is asked first next time.
                        self.addresses.swap(0, position);
                        return Ok(answer);
                    }
                    Err(error) => errors.push(error),
                }
            }
            self.pause(&errors).await?;
        }
    }

    /// Asks the president, whoever it is.
    pub async fn change<R, F, Fut>(&mut self, repeat: Repeat, request: F) -> Result<R, Failure>
    where
        F: Fn(AdminClient, Context) -> Fut,
        Fut: Future<Output = Result<Result<R, AdminError>, RpcError>>,
    {
        let mut hint = None;
        loop {
            let (mut errors, mut president_missing) = (Vec::new(), false);
            // One more than there are addresses, for the address that a node may tell.
            for position in 0..=self.addresses.len() {
                let address = match hint.take() {
                    Some(address) => address,
                    None => match self.addresses.get(position) {
                        Some(address) => *address,
                        None => break,
                    },
                };
                match self.call(address, &request).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(AdminError::NotPresident { address: told, .. })) => {
                        president_missing |= told.is_none();
                        hint = told.filter(|told| *told != address);
                    }
                    Ok(Err(AdminError::NoPresident)) => president_missing = true,
                    Ok(Err(error @ AdminError::Unknown)) => {
                        return Err(Failure::new(Kind::Unknown, error));
                    }
                    Ok(Err(error @ AdminError::Refused(_))) => return Err(error.into()),
                    Err(error) if !error.was_not_done() && repeat == Repeat::Never => {
                        return Err(unknown(&error));
                    }
                    Err(error) => errors.push(error),
                }
            }
            if president_missing && Instant::now() >= self.deadline {
                return Err(Failure::new(Kind::Unreachable, AdminError::NoPresident));
            }
            self.pause(&errors).await?;
        }
    }

    async fn call<R, F, Fut>(&self, address: SocketAddr, request: F) -> Result<R, CallError>
    where
        F: FnOnce(AdminClient, Context) -> Fut,
        Fut: Future<Output = Result<R, RpcError>>,
    {
        let rest = self.deadline.saturating_duration_since(Instant::now());
        // At least a moment, so that a short time-out still gets an answer from a node that is well.
        let limit = ATTEMPT_TIMEOUT.min(rest.max(Duration::from_millis(100)));
        let target = Target::any(address);
        self.peers
            .call::<AdminClient, AdminRequest, AdminResponse, R, F, Fut>(
                target,
                Door::Admin,
                limit,
                request,
            )
            .await
    }

    /// Between two rounds: fails where another round cannot help.
    async fn pause(&self, errors: &[CallError]) -> Result<(), Failure> {
        let for_good =
            |error: &&CallError| matches!(error, CallError::Connect(error) if !error.may_pass());
        let refusal = errors.iter().find(for_good);
        if let Some(CallError::Connect(error)) = refusal
            && errors.iter().filter(for_good).count() == errors.len()
        {
            return Err(refused(error));
        }
        if Instant::now() >= self.deadline {
            return Err(self.unreachable(errors));
        }
        sleep(ROUND_PAUSE).await;
        Ok(())
    }

    fn unreachable(&self, errors: &[CallError]) -> Failure {
        let last = errors.last().map_or("no time was left".to_owned(), ToString::to_string);
        let text = match self.addresses.len() {
            1 => format!("no node answers: {last}"),
            count => format!("none of {count} nodes answers; the last one tried: {last}"),
        };
        Failure::text(Kind::Unreachable, format!("{text}; or give a node with --address"))
    }
}

fn refused(error: &ConnectError) -> Failure {
    let kind = match error {
        ConnectError::Tls { .. } | ConnectError::Refused { .. } => Kind::Credentials,
        _ => Kind::Failed,
    };
    Failure::text(kind, error.to_string())
}

fn unknown(error: &CallError) -> Failure {
    let text = format!(
        "{error}: it may or may not have been done; look at 'ministryctl events' before you try \
         again"
    );
    Failure::text(Kind::Unknown, text)
}

fn speaks_for_itself(status: &Status) -> bool {
    status.president == Some(status.node)
}

fn president_address(status: &Status) -> Option<SocketAddr> {
    status.president.and_then(|president: NodeId| status.map.address(president))
}
