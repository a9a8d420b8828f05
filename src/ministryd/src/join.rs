//! `ministryd join`: a token and a new key become a node's data folder.

use std::net::SocketAddr;

use anyhow::anyhow;
use ministry_transport::join::{EnrollError, enroll};
use ministry_transport::token::TokenError;
use ministry_transport::{JoinToken, PrivateKey, Role, TcpConnector};
use ministry_types::format::FEATURE_LEVEL;
use ministry_types::government::NodeProfile;
use ministry_types::settings::NodeSettings;
use tokio::time::timeout;

use crate::cli::JoinArgs;
use crate::failure::Failure;
use crate::folder::NewFolder;
use crate::settings;

/// What a node tells about itself.
pub fn profile(settings: &NodeSettings) -> Result<NodeProfile, Failure> {
    Ok(NodeProfile {
        address: settings.address().map_err(Failure::usage)?,
        metrics_address: settings.metrics,
        failure_domain: settings::failure_domain(settings),
        offers_metadata: settings.offers_metadata,
        storage_weight: settings.storage_weight,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        feature_level: FEATURE_LEVEL,
    })
}

/// Joins. The folder is a node's when this returns, or can be joined with again.
pub async fn join(args: &JoinArgs) -> Result<(), Failure> {
    let token: JoinToken = args.token.parse().map_err(|error: TokenError| Failure::usage(error))?;
    let mut settings = NodeSettings::default();
    args.settings.apply(&mut settings);
    settings::check(&settings)?;
    let profile = profile(&settings)?;
    let folder = NewFolder::begin(&args.data)?;
    // The key is on disk before anybody signs for it: the same token can be tried again.
    let key = PrivateKey::load_or_create(&folder.identity(), Role::Node)?;
    let joining = enroll(&TcpConnector, &token, key, Role::Node, Some(profile));
    let joined = match timeout(args.timeout, joining).await {
        Ok(result) => result.map_err(explain)?,
        Err(_) => {
            return Err(anyhow!(
                "the cluster did not answer within {:?}: run the same command again",
                args.timeout
            )
            .into());
        }
    };
    let mut addresses: Vec<SocketAddr> = joined.nodes.iter().map(|node| node.address).collect();
    if addresses.is_empty() {
        addresses = token.addresses;
    }
    folder.finish(&joined.identity, &settings, &addresses)?;
    let peer = joined.identity.peer();
    println!("joined cluster {} as {}", peer.cluster, peer.subject);
    if !args.run {
        println!("next: ministryd run --data {}", args.data.display());
    }
    Ok(())
}

fn explain(error: EnrollError) -> Failure {
    match error {
        EnrollError::WrongRole { .. } => Failure::usage(error),
        other => other.into(),
    }
}
