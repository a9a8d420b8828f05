//! The settings of a node, and what its first start consumes: the text files that `ministryctl`
//! and `ministryd` write for each other.
//!
//! Only the fields and their meaning live here, as data; the programs read and write the files.
//! Every setting is documented in `deploy/config/ministryd.toml`, which a test keeps equal to
//! [`NodeSettings::default`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Name of the settings' file in a data folder.
pub const SETTINGS_FILE: &str = "ministryd.toml";
/// Name of the founding file in the data folder of a cluster's first node.
pub const FOUNDING_FILE: &str = "founding.toml";
/// Name of the file that lists addresses of nodes, one a line; `#` begins a comment.
pub const ADDRESSES_FILE: &str = "addresses";
/// The port where nodes listen.
pub const PORT: u16 = 7400;

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// Nobody could reach the node.
    #[error(
        "'listen' is {listen}, every address of the machine, which others cannot call: set \
         'advertise' to the address and port where they reach this node"
    )]
    AdvertiseMissing {
        /// What is set.
        listen: SocketAddr,
    },
    /// Others could not reach the node there.
    #[error("'advertise' is {advertise}: give an address of this machine and a port that is not 0")]
    AdvertiseUseless {
        /// What is set.
        advertise: SocketAddr,
    },
    /// A share of the data below nothing.
    #[error("'storage_weight' is {weight}: give a number from 0 (no data) to 1000000")]
    Weight {
        /// What is set.
        weight: f64,
    },
    /// A label that tables and maps cannot carry.
    #[error(
        "'failure_domain' is '{label}': give at most 255 printable characters without blanks, for \
         example 'rack1/host3'"
    )]
    FailureDomain {
        /// What is set.
        label: String,
    },
}

/// The settings of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// Where the node listens.
    pub listen: SocketAddr,
    /// Where others reach it; without it, where it listens.
    pub advertise: Option<SocketAddr>,
    /// Where the pages `/metrics` and `/health` are served; without it, nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where the node stands: nodes of one label fail together. Empty: the machine's host name.
    pub failure_domain: String,
    /// Whether it takes metadata offices.
    pub offers_metadata: bool,
    /// Its share of the data; 0: none.
    pub storage_weight: f64,
    /// What is logged, where `MINISTRY_LOG` does not say otherwise.
    pub log: String,
    /// File of the log; without it, standard error.
    pub log_file: Option<PathBuf>,
}

impl Default for NodeSettings {
    fn default() -> Self {
        NodeSettings {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT),
            advertise: None,
            metrics: None,
            failure_domain: String::new(),
            offers_metadata: true,
            storage_weight: 1.0,
            log: "info".to_owned(),
            log_file: None,
        }
    }
}

impl NodeSettings {
    /// Where others reach the node.
    pub fn address(&self) -> Result<SocketAddr, SettingsError> {
        match self.advertise {
            Some(advertise) if advertise.ip().is_unspecified() || advertise.port() == 0 => {
                Err(SettingsError::AdvertiseUseless { advertise })
            }
            Some(advertise) => Ok(advertise),
            None if self.listen.ip().is_unspecified() => {
                Err(SettingsError::AdvertiseMissing { listen: self.listen })
            }
            None if self.listen.port() == 0 => {
                Err(SettingsError::AdvertiseUseless { advertise: self.listen })
            }
            None => Ok(self.listen),
        }
    }

    /// Checks what no type can.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.address()?;
        if !(0.0..=1e6).contains(&self.storage_weight) {
            return Err(SettingsError::Weight { weight: self.storage_weight });
        }
        let label = &self.failure_domain;
        if label.len() > 255 || label.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(SettingsError::FailureDomain { label: label.clone() });
        }
        Ok(())
    }
}

/// What the first start of a cluster's first node consumes: the authority, until the cluster log
/// holds it. Whoever reads it can sign for the cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundingFile {
    /// Nodes that are waited for before the first ministry is made.
    pub initial_nodes: u32,
    /// Key and certificate of the authority, PEM.
    pub authority: String,
}

impl std::fmt::Debug for FoundingFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundingFile")
            .field("initial_nodes", &self.initial_nodes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut NodeSettings)) -> Result<(), SettingsError> {
        let mut settings =
            NodeSettings { listen: ([10, 0, 0, 1], PORT).into(), ..Default::default() };
        change(&mut settings);
        settings.check()
    }

    #[test]
    fn a_node_that_nobody_could_reach_is_refused() {
        assert_eq!(with(|_| {}), Ok(()));
        let any = SocketAddr::from(([0, 0, 0, 0], PORT));
        let error = with(|s| s.listen = any).unwrap_err();
        assert_eq!(error, SettingsError::AdvertiseMissing { listen: any });
        assert!(with(|s| s.advertise = Some(any)).is_err());
        assert!(with(|s| s.advertise = Some(([10, 0, 0, 1], 0).into())).is_err());
        assert!(with(|s| s.listen = ([10, 0, 0, 1], 0).into()).is_err());
    }

    #[test]
    fn a_share_or_a_label_without_sense_is_refused() {
        for weight in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(with(|s| s.storage_weight = weight).is_err(), "{weight}");
        }
        assert_eq!(with(|s| s.storage_weight = 0.0), Ok(()));
        for label in ["rack 1", "rack\n1"] {
            assert!(with(|s| s.failure_domain = label.to_owned()).is_err(), "{label}");
        }
    }

    #[test]
    fn the_authority_of_a_founding_file_never_prints() {
        let file = FoundingFile { initial_nodes: 5, authority: "SECRET".to_owned() };
        assert!(!format!("{file:?}").contains("SECRET"));
    }
}
