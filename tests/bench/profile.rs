//! CPU profiles of the minister and of the mount while a measure runs.
//!
//! Called for `--profile DIR`: Debian's `linux-perf` samples both processes; where the machine
//! has no counters for it perf takes the clock. What else the measure does (local folder, bindfs,
//! etcd) leaves them idle and out of the samples. A mount that the measure replaces is lost from
//! the profile from there on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::places::Places;

/// Odd, so as not to beat in time with what happens each millisecond.
const SAMPLES_A_SECOND: &str = "499";

/// A running perf.
pub struct Profile {
    perf: Child,
    data: PathBuf,
}

impl Profile {
    /// Starts it; its data go to a file named after the measure.
    pub fn start(folder: &Path, measure: &str, places: &mut Places) -> Result<Profile> {
        std::fs::create_dir_all(folder)?;
        let name: String =
            measure.chars().map(|one| if one.is_alphanumeric() { one } else { '-' }).collect();
        let data = folder.join(format!("{name}.data"));
        let processes = places.profiled().map(|id| id.to_string()).join(",");
        let perf = Command::new("perf")
            .args(["record", "-q", "-F", SAMPLES_A_SECOND, "-p", &processes, "-o"])
            .arg(&data)
            .stdin(Stdio::null())
            .spawn()
            .context("perf is not installed: apt-get install linux-perf")?;
        Ok(Profile { perf, data })
    }

    /// Ends it and writes the table of functions beside the data.
    pub fn stop(mut self) -> Result<()> {
        // SAFETY: no memory is involved, and the number is our child's until it is waited for.
        unsafe { libc::kill(self.perf.id() as libc::pid_t, libc::SIGINT) };
        self.perf.wait()?;
        let table = self.data.with_extension("txt");
        let status = Command::new("perf")
            .args(["report", "--stdio", "-q", "--percent-limit", "0.3"])
            .args(["--sort", "comm,dso,symbol", "-i"])
            .arg(&self.data)
            .stdout(File::create(&table)?)
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "perf report: {status}");
        eprintln!("  profile: {}", table.display());
        Ok(())
    }
}
