//! Measures a mount of a five-node cluster and a local folder on the same disk, in one run.
//!
//! Called by tests/bench/run, which builds first. Every figure comes as a rate and, where single
//! calls are timed, with their median and 99th percentile; the ratio says what the mount costs.
//! Nothing is asserted about speed. docs/benchmarks.md says what each line means.

mod context;
mod figures;
mod measures;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ministry_tests::Cluster;

use crate::figures::{Figure, Report};
use crate::measures::Sizes;

const USAGE: &str = "Usage: tests/bench/run [OPTIONS]

Measures a mount of a five-node cluster on this machine, and a local folder on the same disk.

Options:
  --quick         small sizes: shows that it works, the figures mean little
  --json          print JSON instead of a table
  --only WORD     only the measures whose name contains WORD
  -h, --help      this text

Folders are made where TMPDIR says [default: /tmp].";

struct Options {
    quick: bool,
    json: bool,
    only: Option<String>,
}

fn options() -> Result<Option<Options>> {
    let mut options = Options { quick: false, json: false, only: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--only" => options.only = Some(words.next().context("--only needs a word")?),
            "-h" | "--help" => return Ok(None),
            other => bail!("'{other}' is not an option; see --help"),
        }
    }
    Ok(Some(options))
}

/// The two places that are compared.
struct Places {
    cluster: Cluster,
    mount: usize,
    local: PathBuf,
}

impl Places {
    fn new() -> Places {
        let cluster = Cluster::start();
        let local = cluster.scratch().join("local");
        std::fs::create_dir(&local).expect("a folder");
        Places { cluster, mount: 0, local }
    }

    fn mount(&self) -> &Path {
        self.cluster.mount(self.mount)
    }

    /// Nothing that was written is in memory any more: not in the kernel that mounted, for that is
    /// a new mount, nor in the one that the nodes and the local folder use.
    fn forget(&mut self) -> Result<()> {
        self.cluster.mount_process(self.mount).kill();
        self.mount = self.cluster.add_mount();
        // SAFETY: no memory is involved.
        unsafe { libc::sync() };
        std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the caches needs root")
    }
}

fn main() -> Result<()> {
    let Some(options) = options()? else {
        println!("{USAGE}");
        return Ok(());
    };
    if std::env::var_os("MINISTRY_BIN").is_none() {
        bail!("use tests/bench/run, which builds the programs and says where they are");
    }
    let sizes = if options.quick { Sizes::QUICK } else { Sizes::FULL };
    let before = context::load();
    let mut places = Places::new();
    let mut figures: Vec<Figure> = Vec::new();
    for measure in measures::ALL {
        if options.only.as_ref().is_none_or(|word| measure.name.contains(word.as_str())) {
            eprintln!("{} ...", measure.name);
            figures.extend((measure.run)(&mut places, &sizes)?);
        }
    }
    let context = context::collect(&places.local, before);
    let report = Report { schema: 1, quick: options.quick, context, figures };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
