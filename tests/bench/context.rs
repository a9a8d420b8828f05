//! What one must know of the machine to compare two runs.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine and the build.
#[derive(Debug, Serialize)]
pub struct Context {
    /// What was built; `-changed` if the tree was.
    pub commit: String,
    /// When the run ended, in UTC.
    pub time: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Their name.
    pub processor: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The file system of the local folder, which the nodes use too.
    pub file_system: String,
    /// Processes that wanted to run, on average, in the minute before the run.
    pub load_before: f64,
    /// The same at its end.
    pub load_after: f64,
}

/// The load average of the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Everything but the load before.
pub fn collect(folder: &Path, load_before: f64) -> Context {
    let line = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let memory = line("/proc/meminfo", "MemTotal");
    let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    Context {
        commit: std::env::var("MINISTRY_COMMIT").unwrap_or_else(|_| "unknown".into()),
        time: output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        processor: line("/proc/cpuinfo", "model name"),
        memory_bytes: memory_kib * 1024,
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default(),
        file_system: output(Command::new("stat").args(["-f", "-c", "%T"]).arg(folder)),
        load_before,
        load_after: load(),
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "commit {}, {}, kernel {}\n{} cores ({}), {} MiB of memory, disk {}\n\
             load average {:.2} before, {:.2} after",
            self.commit,
            self.time,
            self.kernel,
            self.cores,
            self.processor,
            self.memory_bytes >> 20,
            self.file_system,
            self.load_before,
            self.load_after
        )
    }
}
