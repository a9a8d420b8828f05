//! The command line of `ministryd`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ministry_types::settings::NodeSettings;

const EXAMPLES: &str = "\
Examples:
  Make a cluster (on its first machine), then start its first node:
    ministryctl network create --data /var/lib/ministry --listen 10.0.0.1:7400 --nodes 3
    ministryd run --data /var/lib/ministry
  Add a node (the token comes from `ministryctl invite --node`):
    ministryd join TOKEN --data /var/lib/ministry --listen 10.0.0.2:7400 --run

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 data folder refused.";

/// The node program of Ministry, a distributed POSIX file system that governs itself.
#[derive(Debug, Parser)]
#[command(name = "ministryd", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `ministryd` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node of a data folder until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Join a cluster with a one-time token: make a key, have it certified, write a data folder.
    Join(JoinArgs),
    /// Check a data folder and its settings, change nothing.
    Check(CheckArgs),
}

/// `ministryd run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Data folder of the node.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Settings file [default: ministryd.toml in the data folder].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Settings that go before the file.
    #[command(flatten)]
    pub settings: SettingFlags,
}

/// `ministryd join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The token that `ministryctl invite --node` printed.
    pub token: String,
    /// Data folder to make; must be empty or not there.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Settings of the node, kept in its ministryd.toml.
    #[command(flatten)]
    pub settings: SettingFlags,
    /// How long to try, for example 30s.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    pub timeout: std::time::Duration,
    /// Run the node at once.
    #[arg(long)]
    pub run: bool,
}

/// `ministryd check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Data folder of the node.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Settings file [default: ministryd.toml in the data folder].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The settings that flags can give.
#[derive(Debug, Default, Args)]
pub struct SettingFlags {
    /// Where the node listens, IP:PORT.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// Where others reach it, IP:PORT [default: where it listens].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub advertise: Option<SocketAddr>,
    /// Where /metrics and /health are served, IP:PORT [default: nowhere].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    /// Where the node stands, for example rack1/host3: nodes of one label fail together.
    #[arg(long, value_name = "LABEL", value_parser = label)]
    pub failure_domain: Option<String>,
    /// Its share of the file data; 0: it stores none.
    #[arg(long, value_name = "N", value_parser = weight)]
    pub weight: Option<f64>,
    /// Whether it takes metadata offices.
    #[arg(long, value_name = "true|false")]
    pub metadata: Option<bool>,
    /// File of the log [default: standard error].
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

impl SettingFlags {
    /// Puts the flags that were given over the settings.
    pub fn apply(&self, settings: &mut NodeSettings) {
        fn set<T: Clone>(target: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                *target = value.clone();
            }
        }
        set(&mut settings.listen, &self.listen);
        set(&mut settings.failure_domain, &self.failure_domain);
        set(&mut settings.storage_weight, &self.weight);
        set(&mut settings.offers_metadata, &self.metadata);
        settings.advertise = self.advertise.or(settings.advertise);
        settings.metrics = self.metrics.or(settings.metrics);
        if self.log_file.is_some() {
            settings.log_file.clone_from(&self.log_file);
        }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write it as IP:PORT, for example 10.0.0.5:7400".to_owned())
}

fn label(text: &str) -> Result<String, String> {
    let settings = NodeSettings {
        listen: ([127, 0, 0, 1], 1).into(),
        failure_domain: text.to_owned(),
        ..NodeSettings::default()
    };
    if text.is_empty() {
        return Err("give a label, for example rack1/host3".to_owned());
    }
    settings.check().map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn weight(text: &str) -> Result<f64, String> {
    let weight = text.parse::<f64>().ok().filter(|weight| (0.0..=1e6).contains(weight));
    weight.ok_or_else(|| "give a number from 0 to 1000000".to_owned())
}

/// A length of time: a whole number with `ms`, `s`, `m`, `h` or `d` behind it.
fn time(text: &str) -> Result<std::time::Duration, String> {
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
    let milliseconds = number.checked_mul(factor_ms).filter(|ms| *ms > 0).ok_or_else(wrong)?;
    Ok(std::time::Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_refuses_a_wrong_value() {
        let wrong: &[&[&str]] = &[
            &["--listen", "10.0.0.1"],
            &["--listen", "host:7400"],
            &["--listen", "10.0.0.1:70000"],
            &["--advertise", "nowhere"],
            &["--metrics", "7500"],
            &["--failure-domain", "rack 1"],
            &["--failure-domain", ""],
            &["--weight", "-1"],
            &["--weight", "much"],
            &["--weight", "NaN"],
            &["--metadata", "perhaps"],
            &["--config"],
            &["--unknown", "1"],
        ];
        for flags in wrong {
            let line = ["ministryd", "run", "--data", "d"].iter().chain(*flags);
            let error = Cli::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{flags:?}");
        }
        for time in ["5", "s", "5 s", "0s", "99999999999999999999d", "5w"] {
            let line = ["ministryd", "join", "t", "--data", "d", "--timeout", time];
            let error = Cli::try_parse_from(line).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{time}");
        }
        let missing = Cli::try_parse_from(["ministryd", "run"]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn a_flag_goes_before_the_file() {
        let line = ["ministryd", "run", "--data", "d", "--weight", "2", "--listen", "[::1]:9"];
        let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else { panic!() };
        let mut settings = NodeSettings { failure_domain: "r".into(), ..Default::default() };
        run.settings.apply(&mut settings);
        assert_eq!(settings.storage_weight, 2.0);
        assert_eq!(settings.listen.to_string(), "[::1]:9");
        assert_eq!(settings.failure_domain, "r", "what no flag names stays");
    }
}
