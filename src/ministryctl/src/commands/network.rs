//! `network create`: the authority of a new cluster, its first node's data folder, the operator's
//! credentials. It asks nobody: there is no cluster yet.

use std::path::Path;

use anyhow::{Context, anyhow};
use ministry_transport::{Authority, Identity, PrivateKey, Role};
use ministry_types::settings::{FOUNDING_FILE, FoundingFile, NodeSettings, SETTINGS_FILE};

use super::print;
use crate::cli::{CreateArgs, Global};
use crate::credentials::{
    admin_folder, make_empty_folder, now_seconds, write_addresses, write_file,
};
use crate::failure::{Failure, Kind};
use crate::output::CredentialsOut;

/// Life of the certificates made here, as of those that the president signs.
const CERTIFICATE_LIFETIME: std::time::Duration =
    std::time::Duration::from_secs(2 * 365 * 24 * 3600);
/// Folder of the node's key and certificate inside its data folder.
const IDENTITY_FOLDER: &str = "identity";

/// `network create`.
pub fn create(global: &Global, args: &CreateArgs) -> Result<(), Failure> {
    let settings = settings(args);
    settings.check().map_err(|error| Failure::new(Kind::Usage, error))?;
    let address = settings.address().map_err(|error| Failure::new(Kind::Usage, error))?;
    let admin = admin_folder(global.admin.as_deref())?;
    if admin.join("operator.crt").exists() {
        return Err(anyhow!(
            "{} holds the credentials of another cluster: choose another folder with --admin",
            admin.display()
        )
        .into());
    }
    // Refused before anything is written.
    make_empty_folder(&args.data)?;
    let now = now_seconds();
    let authority = Authority::create(now)?;
    let node = certified(&authority, Role::Node, now)?;
    let operator = certified(&authority, Role::Operator, now)?;
    operator.save(&admin)?;
    write_addresses(&admin, &[address])?;
    node.save(&args.data.join(IDENTITY_FOLDER))?;
    write_file(&args.data.join(SETTINGS_FILE), &settings_text(&settings)?, 0o644)?;
    // Last: with it the folder is one that can be started.
    write_founding(&args.data, args.nodes, &authority)?;
    let out = CredentialsOut {
        cluster: authority.cluster().to_string(),
        role: Role::Node.to_string(),
        identity: node.node().map_or_else(String::new, |node| node.to_string()),
        folder: args.data.display().to_string(),
        admin_folder: Some(admin.display().to_string()),
    };
    print(global, &out, |out| {
        format!(
            "made cluster {}\n  first node          {} in {}\n  operator's folder   {}\n\
             next: ministryd run --data {}\n",
            out.cluster,
            crate::table::short(&out.identity),
            out.folder,
            admin.display(),
            out.folder
        )
    })
}

fn settings(args: &CreateArgs) -> NodeSettings {
    let default = NodeSettings::default();
    NodeSettings {
        listen: args.listen,
        advertise: args.advertise,
        metrics: args.metrics,
        failure_domain: args.failure_domain.clone().unwrap_or(default.failure_domain.clone()),
        storage_weight: args.weight.unwrap_or(default.storage_weight),
        ..default
    }
}

/// What differs from the defaults, as `ministryd join` writes it too.
fn settings_text(settings: &NodeSettings) -> anyhow::Result<String> {
    let mut differing = toml::Table::try_from(settings)?;
    for (name, default) in toml::Table::try_from(NodeSettings::default())? {
        if differing.get(&name) == Some(&default) {
            differing.remove(&name);
        }
    }
    let note = "# What differs from the defaults; every setting: deploy/config/ministryd.toml\n";
    Ok(format!("{note}{}", toml::to_string(&differing)?))
}

fn certified(authority: &Authority, role: Role, now: u64) -> anyhow::Result<Identity> {
    let key = PrivateKey::generate()?;
    let signed = authority.sign(key.public(), role, now, CERTIFICATE_LIFETIME)?;
    Ok(Identity::new(key, &signed.pem, &authority.certificate_pem())?)
}

fn write_founding(data: &Path, nodes: u32, authority: &Authority) -> anyhow::Result<()> {
    let founding = FoundingFile { initial_nodes: nodes, authority: authority.to_pem() };
    let text = format!(
        "# The authority of the cluster. The first start of this node puts it into the cluster\n\
         # log and removes this file. Whoever reads it can sign for the cluster.\n{}",
        toml::to_string(&founding).context("the founding file")?
    );
    write_file(&data.join(FOUNDING_FILE), &text, 0o600)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::{Cli, Command, NetworkCommand};

    fn run(folder: &Path, more: &[&str]) -> Result<(), Failure> {
        use clap::Parser;
        let (data, admin) = (folder.join("data"), folder.join("admin"));
        let mut line = vec!["ministryctl", "--json", "--admin", admin.to_str().unwrap()];
        line.extend(["network", "create", "--data", data.to_str().unwrap()]);
        line.extend(more);
        let cli = Cli::try_parse_from(line).unwrap();
        let Command::Network(NetworkCommand::Create(args)) = &cli.command else { panic!() };
        create(&cli.global, args)
    }

    #[test]
    fn a_new_cluster_has_a_folder_that_can_be_started_and_an_operator() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &["--listen", "127.0.0.1:7401", "--nodes", "5"]).unwrap();
        let data = folder.path().join("data");
        let node = Identity::load(&data.join(IDENTITY_FOLDER), Role::Node).unwrap();
        let operator = Identity::load(&folder.path().join("admin"), Role::Operator).unwrap();
        assert_eq!(node.peer().cluster, operator.peer().cluster);
        let path = data.join(FOUNDING_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let founding: FoundingFile = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(founding.initial_nodes, 5);
        let authority = Authority::from_pem(&founding.authority).unwrap();
        assert_eq!(authority.cluster(), node.peer().cluster);
        let text = fs::read_to_string(data.join(SETTINGS_FILE)).unwrap();
        let settings: NodeSettings = toml::from_str(&text).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7401");
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let flags = ["--listen", "127.0.0.1:7401"];
        run(folder.path(), &flags).unwrap();
        let failure = run(folder.path(), &flags).unwrap_err();
        assert!(failure.to_string().contains("another cluster"), "{failure}");
        fs::remove_dir_all(folder.path().join("admin")).unwrap();
        let failure = run(folder.path(), &flags).unwrap_err();
        assert!(failure.to_string().contains("not empty"), "{failure}");
    }

    #[test]
    fn an_address_that_nobody_could_call_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let failure = run(folder.path(), &["--listen", "0.0.0.0:7400"]).unwrap_err();
        assert_eq!(failure.kind, Kind::Usage);
        assert!(!folder.path().join("data").exists(), "nothing was written");
    }
}
