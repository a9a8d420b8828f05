//! Measures a mount of a five-node cluster, and beside it what people compare it with, in one run:
//! a local folder, bindfs, and for commits an etcd of three members. All on the same disk.
//!
//! Called by tests/bench/run, which builds first. Every figure comes as a rate and, where single
//! calls are timed, with their median and 99th percentile; ratios say what Ministry costs. Nothing
//! fails because it is slow. docs/benchmarks.md says what each line means.

mod bindfs;
mod commits;
mod content;
mod context;
mod etcd;
mod figures;
mod grpc;
mod library;
mod measures;
mod names;
mod places;
mod profile;
mod targets;
mod trees;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::figures::{Figure, Report};
use crate::measures::Sizes;
use crate::places::Places;
use crate::profile::Profile;

const USAGE: &str = "Usage: tests/bench/run [OPTIONS]

Measures a mount of a five-node cluster on this machine, and beside it a local folder, bindfs, and
an etcd of three members, all on the same disk.

Options:
  --quick         small sizes: shows that it works, the figures mean little
  --json          print JSON instead of a table
  --only WORD     only the measures whose name contains WORD
  --profile DIR   CPU profiles of minister and mount during each measure, by perf
  -h, --help      this text

Folders are made where TMPDIR says [default: /tmp].";

#[derive(Default)]
struct Options {
    quick: bool,
    json: bool,
    only: Option<String>,
    profile: Option<PathBuf>,
}

fn options() -> Result<Option<Options>> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--only" => options.only = Some(words.next().context("--only needs a word")?),
            "--profile" => {
                options.profile = Some(words.next().context("--profile needs a folder")?.into());
            }
            "-h" | "--help" => return Ok(None),
            other => bail!("'{other}' is not an option; see --help"),
        }
    }
    Ok(Some(options))
}

fn main() -> Result<()> {
    let Some(options) = options()? else {
        println!("{USAGE}");
        return Ok(());
    };
    if std::env::var_os("MINISTRY_BIN").is_none() {
        bail!("use tests/bench/run, which builds the programs and says where they are");
    }
    etcd::check()?;
    let sizes = if options.quick { Sizes::QUICK } else { Sizes::FULL };
    let before = context::load();
    let mut places = Places::new();
    let mut figures: Vec<Figure> = Vec::new();
    for measure in measures::ALL {
        if options.only.as_ref().is_some_and(|word| !measure.name.contains(word.as_str())) {
            continue;
        }
        eprintln!("{} ...", measure.name);
        let folder = options.profile.as_deref();
        let profile = folder.map(|folder| Profile::start(folder, measure.name, &mut places));
        let profile = profile.transpose()?;
        let found = (measure.run)(&mut places, &sizes)?;
        found.iter().for_each(|figure| eprint!("  {figure}"));
        figures.extend(found);
        if let Some(profile) = profile {
            profile.stop()?;
        }
    }
    let context = context::collect(places.local(), before);
    let targets = targets::reached(&figures);
    let report = Report { schema: 2, quick: options.quick, context, figures, targets };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
