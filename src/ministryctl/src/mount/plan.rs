//! What is to be mounted, where and how: made of a command line, whichever way it was written.
//!
//! `ministryctl mount` has flags of its own and `-o`; the mount helper has `-o` only. Both end
//! here, and everything behind reads a [`Plan`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ministry_fuse::MountOptions;

use crate::cli::Global;
use crate::failure::Failure;
use crate::mount::MountArgs;
use crate::mount::options::Options;
use crate::mount::source::Source;

/// What is to be mounted, where and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What.
    pub source: Source,
    /// Where.
    pub directory: PathBuf,
    /// How.
    pub options: Options,
    /// The folder with the client's credentials.
    pub credentials: PathBuf,
    /// Nodes to ask, instead of those named in the folder.
    pub addresses: Vec<SocketAddr>,
    /// How long the cluster is waited for.
    pub timeout: Duration,
    /// Stay in the foreground.
    pub foreground: bool,
}

impl Plan {
    /// From the words of `ministryctl mount`. What stands in `-o` goes before the flags.
    pub fn of_arguments(args: &MountArgs, global: &Global) -> Result<Plan, Failure> {
        let mut options = Options::parse(&args.options.join(","), false)?;
        options.read_only |= args.read_only;
        options.suid |= args.suid;
        options.dev |= args.dev;
        options.metrics = options.metrics.or(args.metrics);
        options.log = options.log.or_else(|| args.log.clone());
        options.credentials = options.credentials.or_else(|| args.identity.clone());
        let source = args.source.as_deref().map_or_else(|| Ok(Source::default()), Source::parse)?;
        let plan = Plan::new(source, args.directory.clone(), options, global.timeout)?;
        let addresses = match global.address.is_empty() {
            true => plan.addresses,
            false => global.address.clone(),
        };
        Ok(Plan { addresses, foreground: args.foreground, ..plan })
    }

    /// From what the options and the source say; `timeout` where the options name none.
    pub fn new(
        source: Source,
        directory: PathBuf,
        options: Options,
        timeout: Duration,
    ) -> Result<Plan, Failure> {
        let mut source = source;
        if let Some(path) = &options.subdir {
            source = source.with_subdirectory(path)?;
        }
        if let Some(name) = &options.name {
            source = source.with_name(name);
        }
        let credentials = options.credentials.clone().unwrap_or_else(|| source.credentials());
        Ok(Plan {
            addresses: source.nodes().to_vec(),
            timeout: options.timeout.unwrap_or(timeout),
            foreground: false,
            source,
            directory,
            options,
            credentials,
        })
    }

    /// What the mount is told, at this place. The root is not known yet.
    pub fn mount_options(&self, place: PathBuf) -> MountOptions {
        self.options.for_mount(place, self.source.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn plan(source: &str, options: &str) -> Plan {
        let options = Options::parse(options, false).unwrap();
        Plan::new(Source::parse(source).unwrap(), "/m".into(), options, TIMEOUT).unwrap()
    }

    #[test]
    fn options_change_what_the_source_says_and_shows() {
        let plain = plan("10.0.0.1:7400:/a", "credentials=/c");
        assert_eq!(plain.addresses.len(), 1);
        assert_eq!((plain.credentials.as_path(), plain.timeout), (Path::new("/c"), TIMEOUT));
        let shown = plain.mount_options("/m".into()).name;
        assert_eq!(shown, "10.0.0.1:7400:/a");
        let named = plan("home:", "name=mine,subdir=/a,timeout=1s");
        assert_eq!(named.mount_options("/m".into()).name, "mine:/a");
        assert_eq!((named.source.path.as_str(), named.timeout.as_secs()), ("/a", 1));
        assert_eq!(named.credentials, Path::new("/etc/ministry/home"));
    }
}
