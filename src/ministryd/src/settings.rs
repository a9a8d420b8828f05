//! Reading and writing `ministryd.toml`.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ministry_types::settings::{NodeSettings, SETTINGS_FILE};

use crate::cli::SettingFlags;
use crate::failure::Failure;

/// The settings of a node: the defaults, under the file, under the flags.
pub fn load(
    data: &Path,
    config: Option<&Path>,
    flags: &SettingFlags,
) -> Result<NodeSettings, Failure> {
    let path = config.map_or_else(|| data.join(SETTINGS_FILE), PathBuf::from);
    let mut settings = match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text)
            .with_context(|| format!("the settings file {} is refused", path.display()))
            .map_err(Failure::usage)?,
        // Every setting has a default or can come from a flag.
        Err(error) if error.kind() == io::ErrorKind::NotFound && config.is_none() => {
            NodeSettings::default()
        }
        Err(error) => {
            let error = anyhow!("cannot read the settings file {}: {error}", path.display());
            return Err(Failure::usage(error));
        }
    };
    flags.apply(&mut settings);
    check(&settings)?;
    Ok(settings)
}

/// Checks what no type can.
pub fn check(settings: &NodeSettings) -> Result<(), Failure> {
    settings.check().map_err(Failure::usage)?;
    ministry_telemetry::logging::check_filter(&settings.log).map_err(Failure::usage)
}

/// Parses a settings file; what is wrong comes as one line with its place.
pub fn parse(text: &str) -> anyhow::Result<NodeSettings> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map_or(String::new(), |span| {
            let before = text.get(..span.start).unwrap_or(text);
            format!("line {}: ", before.matches('\n').count() + 1)
        });
        anyhow!("{place}{}", error.message().lines().collect::<Vec<_>>().join(" "))
    })
}

/// The text of a settings file: what differs from the defaults.
pub fn write(settings: &NodeSettings) -> anyhow::Result<String> {
    let table = |settings: &NodeSettings| toml::Table::try_from(settings);
    let mut differing = table(settings)?;
    for (name, default) in table(&NodeSettings::default())? {
        if differing.get(&name) == Some(&default) {
            differing.remove(&name);
        }
    }
    let note = "# What differs from the defaults; every setting: deploy/config/ministryd.toml\n";
    Ok(format!("{note}{}", toml::to_string(&differing)?))
}

/// Where the node stands: the label that is set, or the host name of the machine.
pub fn failure_domain(settings: &NodeSettings) -> String {
    if settings.failure_domain.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        settings.failure_domain.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = include_str!("../../../deploy/config/ministryd.toml");

    /// The documented text with the settings that have no default put in.
    fn uncommented() -> String {
        let names = ["# advertise =", "# metrics =", "# log_file ="];
        let line = |line: &'static str| match names.iter().any(|name| line.starts_with(name)) {
            true => line.trim_start_matches("# "),
            false => line,
        };
        DOCUMENTED.lines().map(|text| line(text).to_owned() + "\n").collect()
    }

    #[test]
    fn the_documented_file_is_the_defaults() {
        assert_eq!(parse(DOCUMENTED).unwrap(), NodeSettings::default());
    }

    #[test]
    fn every_setting_is_documented() {
        let all = parse(&uncommented()).unwrap();
        let names: Vec<String> = toml::Table::try_from(&all).unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 8, "a new setting belongs into the documented file: {names:?}");
        all.check().unwrap();
        let absent = toml::Table::try_from(NodeSettings::default()).unwrap().len();
        assert_eq!(absent, 5, "settings with a default stand without '#'");
    }

    #[test]
    fn what_is_written_reads_back() {
        let settings = parse(&uncommented()).unwrap();
        assert_eq!(parse(&write(&settings).unwrap()).unwrap(), settings);
        let default = write(&NodeSettings::default()).unwrap();
        assert_eq!(default.lines().count(), 1, "only what differs: {default}");
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_line() {
        for (text, line) in [
            ("listen = 5\n", "line 1"),
            ("log = \"info\"\nlistn = \"10.0.0.1:7400\"\n", "line 2"),
            ("\n\nstorage_weight = \"much\"\n", "line 3"),
            ("log = \"info\nmetrics = 5\n", "line 1"),
            ("\u{0}\u{1}\u{2}", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(line), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
