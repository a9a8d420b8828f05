//! The command line of `ministryctl`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ministry_types::settings::NodeSettings;

use crate::mount::{MountArgs, UmountArgs};

const EXAMPLES: &str = "\
Examples:
  ministryctl network create --data /var/lib/ministry --listen 10.0.0.1:7400 --nodes 3
  ministryctl invite --node --count 2       tokens for two more nodes
  ministryctl status                        who governs, what is wrong
  ministryctl where /mnt/ministry/src       who is in charge of it, where its bytes lie
  ministryctl events --follow               every order of the government, with its reason

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no node or no president answers,
4 the credentials are refused, 5 the outcome is unknown or the time is over.";

/// The operator program of Ministry, a distributed POSIX file system that governs itself.
#[derive(Debug, Parser)]
#[command(name = "ministryctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Folder with the operator's credentials [default: ~/.config/ministry].
    #[arg(long, global = true, value_name = "DIR", env = "MINISTRY_ADMIN")]
    pub admin: Option<PathBuf>,
    /// Node to ask, IP:PORT; can be repeated [default: the addresses in the admin folder].
    #[arg(long, global = true, value_name = "ADDR", value_parser = address)]
    pub address: Vec<SocketAddr>,
    /// Print JSON of a stable form instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to try, for example 30s.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub timeout: Duration,
}

/// What `ministryctl` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new cluster.
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Print one-time tokens that let nodes, clients or operators join, one a line.
    Invite(InviteArgs),
    /// Credentials of a client, which mounts.
    #[command(subcommand)]
    Client(ClientCommand),
    /// Credentials of an operator, who uses ministryctl.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Show the state of the cluster, and what is wrong with it.
    Status(StatusArgs),
    /// Show which node holds which office.
    Roles,
    /// Show the orders of the government with their reasons, oldest first.
    Events(EventsArgs),
    /// Show the ministries: what they own, who governs them.
    Ministries,
    /// Make a ministry.
    #[command(subcommand)]
    Ministry(MinistryCommand),
    /// Show the placement groups: master, slaves, who is in sync.
    Pgs,
    /// Show who is in charge of a path, and where its bytes lie.
    Where(WhereArgs),
    /// Show the nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Mount the file system.
    Mount(MountArgs),
    /// Unmount it.
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
}

/// `ministryctl network`.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a cluster: its authority, the data folder of its first node, operator credentials.
    Create(CreateArgs),
}

/// `ministryctl network create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Afterwards: `ministryd run --data DIR` here; `ministryctl invite --node --count N` and
`ministryd join TOKEN …` for the others. The first ministry is made when --nodes nodes are there.
DIR holds the authority's key until the first start has put it into the cluster log.")]
pub struct CreateArgs {
    /// Data folder to make for the first node; must be empty or not there.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the first node listens, IP:PORT.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: SocketAddr,
    /// Where others reach it, IP:PORT [default: where it listens].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub advertise: Option<SocketAddr>,
    /// Where /metrics and /health are served, IP:PORT [default: nowhere].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    /// Where the node stands, for example rack1/host3 [default: the host name].
    #[arg(long, value_name = "LABEL", value_parser = label)]
    pub failure_domain: Option<String>,
    /// Its share of the file data; 0: it stores none.
    #[arg(long, value_name = "N", value_parser = weight)]
    pub weight: Option<f64>,
    /// Nodes that are waited for before the first ministry is made.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pub nodes: u32,
}

/// `ministryctl invite`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ministryctl invite --node
  ministryctl invite --client --for 1d --count 10")]
pub struct InviteArgs {
    /// What the tokens are for.
    #[command(flatten)]
    pub role: InviteRoleFlags,
    /// How long the tokens may be used, for example 30m.
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = time)]
    pub life: Duration,
    /// How many tokens.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub count: u32,
}

/// What a token is for: one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct InviteRoleFlags {
    /// For a node: `ministryd join TOKEN`.
    #[arg(long)]
    pub node: bool,
    /// For a client that mounts: `ministryctl client join TOKEN`.
    #[arg(long)]
    pub client: bool,
    /// For an operator: `ministryctl operator join TOKEN`.
    #[arg(long)]
    pub operator: bool,
}

/// `ministryctl client`.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Make a key, have it certified with a token, keep both in a folder for `ministryctl mount`.
    Join(ClientJoinArgs),
}

/// `ministryctl client join`.
#[derive(Debug, Args)]
pub struct ClientJoinArgs {
    /// The token that `ministryctl invite --client` printed.
    pub token: String,
    /// Folder to make: key, certificate, authority, addresses.
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
}

/// `ministryctl operator`.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Make a key, have it certified with a token, keep both in the admin folder.
    Join(OperatorJoinArgs),
}

/// `ministryctl operator join`.
#[derive(Debug, Args)]
pub struct OperatorJoinArgs {
    /// The token that `ministryctl invite --operator` printed.
    pub token: String,
}

/// `ministryctl status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Wait until a president is in office and every ministry serves; --timeout bounds it.
    #[arg(long)]
    pub wait: bool,
}

/// `ministryctl events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// First order to show, by its index in the cluster log.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub from: u64,
    /// Go on with new orders as they are given, until interrupted.
    #[arg(long)]
    pub follow: bool,
}

/// `ministryctl ministry`.
#[derive(Debug, Subcommand)]
pub enum MinistryCommand {
    /// Give an empty directory to a new ministry of its own.
    Create(MinistryCreateArgs),
}

/// `ministryctl ministry create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  mkdir /mnt/ministry/builds && ministryctl ministry create --subtree /builds --wait")]
pub struct MinistryCreateArgs {
    /// Path of the empty directory inside the file system.
    #[arg(long, value_name = "PATH", value_parser = fs_path)]
    pub subtree: String,
    /// Wait until the new ministry serves; --timeout bounds it.
    #[arg(long)]
    pub wait: bool,
}

/// `ministryctl where`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ministryctl where /mnt/ministry/data.bin           a path inside a mount
  ministryctl where --fs-path /data.bin              the same, seen from inside the file system")]
pub struct WhereArgs {
    /// The path; inside a mount of Ministry unless --fs-path is given.
    pub path: PathBuf,
    /// PATH is a path inside the file system, from its root on.
    #[arg(long)]
    pub fs_path: bool,
    /// Most chunks to list.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub chunks: u64,
}

/// `ministryctl node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes: address, condition, room.
    List,
}

/// Parses an address.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write it as IP:PORT, for example 10.0.0.5:7400".to_owned())
}

fn label(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("give a label, for example rack1/host3".to_owned());
    }
    let settings = NodeSettings {
        listen: ([127, 0, 0, 1], 1).into(),
        failure_domain: text.to_owned(),
        ..NodeSettings::default()
    };
    settings.check().map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn weight(text: &str) -> Result<f64, String> {
    let weight = text.parse::<f64>().ok().filter(|weight| (0.0..=1e6).contains(weight));
    weight.ok_or_else(|| "give a number from 0 to 1000000".to_owned())
}

fn fs_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("give a path inside the file system, from its root '/' on".to_owned());
    }
    if text.split('/').any(|part| part == "." || part == "..") {
        return Err("give a path without '.' and '..'".to_owned());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    match parts.is_empty() {
        true => {
            Err("the root belongs to the root ministry for good: give a directory below".into())
        }
        false => Ok(format!("/{}", parts.join("/"))),
    }
}

/// Parses a length of time: a whole number with `ms`, `s`, `m`, `h` or `d` behind it.
pub fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and a unit: 500ms, 30s, 5m, 2h, 1d".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    // A year at most: longer is a mistake, and would not fit the clocks below.
    let year_ms = 366 * 86_400_000;
    let milliseconds = number.checked_mul(factor_ms).filter(|ms| (1..=year_ms).contains(ms));
    milliseconds.map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("ministryctl").chain(line.split(' ')))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_refuses_a_wrong_value() {
        for line in [
            "status --timeout 5",
            "status --timeout 0s",
            "status --timeout 99999999999999999999s",
            "status --timeout 400d",
            "status --address 10.0.0.1",
            "status --address host:7400",
            "status --admin",
            "status --unknown",
            "network create --data d --listen 10.0.0.1",
            "network create --data d --listen 10.0.0.1:1 --nodes 2",
            "network create --data d --listen 10.0.0.1:1 --nodes x",
            "network create --data d --listen 10.0.0.1:1 --weight -1",
            "network create --data d --listen 10.0.0.1:1 --weight NaN",
            "network create --data d --listen 10.0.0.1:1 --metrics 1",
            "network create --data d --listen 10.0.0.1:1 --advertise here",
            "network create --data d --listen 10.0.0.1:1 --failure-domain a\tb",
            "network create --data d",
            "network create --listen 10.0.0.1:1",
            "invite",
            "invite --node --client",
            "invite --node --count 0",
            "invite --node --count 1001",
            "invite --node --for 1w",
            "client join",
            "client join token",
            "operator join",
            "events --from -1",
            "events --from x",
            "ministry create",
            "ministry create --subtree a/b",
            "ministry create --subtree /",
            "ministry create --subtree /a/../b",
            "where",
            "where /x --chunks -1",
            "nothing",
        ] {
            let error = parse(line).map(|_| ()).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn times_and_paths_read_as_people_write_them() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(fs_path("//a///b/"), Ok("/a/b".to_owned()));
    }

    #[test]
    fn global_options_stand_before_and_behind_the_command() {
        for line in ["--json status", "status --json"] {
            assert!(parse(line).unwrap().global.json, "{line}");
        }
    }
}
