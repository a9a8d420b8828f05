//! The process and its machine: threads for its tasks; gauges of CPU, memory, open files.
//!
//! A task of the program samples the gauges every few seconds. It never asks for disks: listing them touches
//! every mount, ours too, and a mount that does not answer would hang the node with it.

use std::time::Duration;

use metrics::gauge;
use sysinfo::{
    CpuRefreshKind, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System,
};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

/// The runtime of a program that serves requests: one thread for every two cores.
///
/// A request takes microseconds of one thread in each process on its way. A further thread is woken
/// to look for work whenever there is some, and with as many as there are cores that costs more than
/// it helps (measured: half as many calls again with one thread of two). The other cores are not
/// idle: the kernel, the writer of the log, RocksDB and calls that block have threads of their own.
/// `TOKIO_WORKER_THREADS` sets another number.
pub fn runtime() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        builder.worker_threads(cores.div_ceil(2));
    }
    builder
}

/// How often the gauges are taken.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(3);

/// One look at the process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// CPU in units of one core since the last look: 1.5 is one and a half cores.
    pub cpu_cores: f64,
    /// Memory that is resident.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Open files and sockets.
    pub open_files: u64,
    /// How long the process has run.
    pub uptime_seconds: u64,
    /// CPU of the whole machine since the last look, 0 to 1.
    pub machine_cpu_ratio: f64,
    /// Memory of the machine.
    pub machine_memory_bytes: u64,
    /// Memory of the machine that programs may still take.
    pub machine_available_bytes: u64,
}

/// Looks at the process; keeps the last look, since CPU is a difference.
#[derive(Debug)]
pub struct Sampler {
    system: System,
    pid: Pid,
}

impl Sampler {
    /// Takes the first look. Fails where the operating system shows no processes.
    pub fn new() -> Result<Sampler, sysinfo::Error> {
        let mut sampler =
            Sampler { system: System::new()?, pid: Pid::from_u32(std::process::id()) };
        sampler.refresh();
        Ok(sampler)
    }

    fn refresh(&mut self) {
        let wanted = ProcessRefreshKind::nothing().with_cpu().with_memory();
        self.system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[self.pid]),
            false,
            wanted,
        );
        self.system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    }

    /// Looks. `None` where the operating system does not show the process.
    pub fn sample(&mut self) -> Option<Sample> {
        self.refresh();
        let process = self.system.process(self.pid)?;
        Some(Sample {
            cpu_cores: f64::from(process.cpu_usage()) / 100.0,
            resident_bytes: process.memory(),
            virtual_bytes: process.virtual_memory(),
            open_files: open_files(),
            uptime_seconds: process.run_time(),
            machine_cpu_ratio: f64::from(self.system.global_cpu_usage()) / 100.0,
            machine_memory_bytes: self.system.total_memory(),
            machine_available_bytes: self.system.available_memory(),
        })
    }
}

/// Entries below `/proc/self/fd`, one of which is the listing itself.
fn open_files() -> u64 {
    let entries = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
    entries.saturating_sub(1) as u64
}

/// Writes a sample into the gauges.
pub fn record(sample: &Sample) {
    gauge!("ministry_process_cpu_cores").set(sample.cpu_cores);
    gauge!("ministry_process_resident_bytes").set(sample.resident_bytes as f64);
    gauge!("ministry_process_virtual_bytes").set(sample.virtual_bytes as f64);
    gauge!("ministry_process_open_files").set(sample.open_files as f64);
    gauge!("ministry_process_uptime_seconds").set(sample.uptime_seconds as f64);
    gauge!("ministry_machine_cpu_ratio").set(sample.machine_cpu_ratio);
    gauge!("ministry_machine_memory_bytes").set(sample.machine_memory_bytes as f64);
    gauge!("ministry_machine_memory_available_bytes").set(sample.machine_available_bytes as f64);
}

/// Samples until it is dropped.
///
/// Cancel safety: safe; owned by the program's main task set. A look that fails is skipped.
pub async fn run_sampler() {
    let mut sampler = match Sampler::new() {
        Ok(sampler) => sampler,
        Err(error) => return tracing::warn!(%error, "no gauges of CPU and memory"),
    };
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once: the difference to the look just taken would be noise.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        // A look reads some files of /proc: microseconds as a rule, but not on a machine in need.
        let looked = spawn_blocking(move || {
            let sample = sampler.sample();
            (sampler, sample)
        });
        let Ok((back, sample)) = looked.await else { return };
        sampler = back;
        if let Some(sample) = sample {
            record(&sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_sees_this_process() {
        let mut sampler = Sampler::new().unwrap();
        let sample = sampler.sample().unwrap();
        assert!(sample.resident_bytes > 1 << 20, "{sample:?}");
        assert!(sample.virtual_bytes >= sample.resident_bytes, "{sample:?}");
        assert!(sample.machine_memory_bytes > sample.resident_bytes, "{sample:?}");
        assert!(sample.open_files >= 3, "{sample:?}");
    }
}
