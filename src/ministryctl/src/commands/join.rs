//! `client join` and `operator join`: a token and a new key become credentials in a folder.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::anyhow;
use ministry_transport::join::{EnrollError, enroll};
use ministry_transport::token::TokenError;
use ministry_transport::{JoinToken, PrivateKey, Role, TcpConnector};
use tokio::time::timeout;

use super::print;
use crate::cli::{ClientJoinArgs, Global, OperatorJoinArgs};
use crate::credentials::{admin_folder, write_addresses};
use crate::failure::{Failure, Kind};
use crate::output::CredentialsOut;

/// `client join`.
pub async fn client(global: &Global, args: &ClientJoinArgs) -> Result<(), Failure> {
    join(global, &args.token, &args.identity, Role::Client).await
}

/// `operator join`.
pub async fn operator(global: &Global, args: &OperatorJoinArgs) -> Result<(), Failure> {
    let folder = admin_folder(global.admin.as_deref())?;
    join(global, &args.token, &folder, Role::Operator).await
}

async fn join(global: &Global, token: &str, folder: &Path, role: Role) -> Result<(), Failure> {
    let mut token: JoinToken =
        token.parse().map_err(|error: TokenError| Failure::new(Kind::Usage, error))?;
    if !global.address.is_empty() {
        token.addresses.clone_from(&global.address);
    }
    let certificate = folder.join(format!("{role}.crt"));
    if certificate.exists() {
        return Err(anyhow!(
            "{} holds {role} credentials already: choose another folder, or remove them",
            folder.display()
        )
        .into());
    }
    make_private(folder)?;
    // The key is on disk before anybody signs for it: the same token can be tried again.
    let key = PrivateKey::load_or_create(folder, role)?;
    let joining = enroll(&TcpConnector, &token, key, role, None);
    let joined = match timeout(global.timeout, joining).await {
        Ok(result) => result.map_err(explain)?,
        Err(_) => {
            let text = format!(
                "no answer within {:?}: run the same command again, or allow more with --timeout",
                global.timeout
            );
            return Err(Failure::text(Kind::Unknown, text));
        }
    };
    let mut addresses: Vec<SocketAddr> = joined.nodes.iter().map(|node| node.address).collect();
    if addresses.is_empty() {
        addresses = token.addresses;
    }
    write_addresses(folder, &addresses)?;
    joined.identity.save(folder)?;
    let peer = joined.identity.peer();
    let identity = peer.client().map_or_else(|| peer.subject.to_string(), |id| id.to_string());
    let out = CredentialsOut {
        cluster: peer.cluster.to_string(),
        role: role.to_string(),
        identity,
        folder: folder.display().to_string(),
        admin_folder: None,
    };
    print(global, &out, |out| {
        format!("joined cluster {} as {} {}: {}\n", out.cluster, out.role, out.identity, out.folder)
    })
}

fn explain(error: EnrollError) -> Failure {
    let kind = match &error {
        EnrollError::NobodyAnswers { .. } => Kind::Unreachable,
        EnrollError::Refused(_) => Kind::Credentials,
        EnrollError::WrongRole { .. } => Kind::Usage,
        _ => Kind::Failed,
    };
    Failure::new(kind, error)
}

/// Makes the folder, open to its owner alone, if it is not there.
fn make_private(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    Ok(made.map_err(|error| anyhow!("cannot make the folder {}: {error}", folder.display()))?)
}
