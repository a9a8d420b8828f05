//! The recorder that collects what the macros of `metrics` count.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
pub use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};
use tokio::time::{MissedTickBehavior, interval};

use crate::names;

/// Upper bounds of the buckets of every duration: from what one call over a warm connection takes
/// to the deadline of an operation.
pub const SECONDS_BUCKETS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Upper bounds of the buckets of every size: from a block of a disk to the largest frame.
pub const BYTES_BUCKETS: [f64; 9] = [
    512.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    8_388_608.0,
    16_777_216.0,
];

/// Upper bounds of the buckets of whatever else is counted in batches.
pub const COUNT_BUCKETS: [f64; 12] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0];

/// How often the recorder folds what was counted into its buckets, so that memory stays bounded
/// also where nobody fetches the page.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why metrics cannot be collected.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the collection of metrics: {0}")]
pub struct RecorderError(#[from] BuildError);

fn builder() -> Result<PrometheusBuilder, RecorderError> {
    let suffix = |text: &str| Matcher::Suffix(text.to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(suffix("_seconds"), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(suffix("_bytes"), &BYTES_BUCKETS)?
        .set_buckets(&COUNT_BUCKETS)?)
}

/// A recorder for a test or an embedding program that installs it itself.
pub fn recorder() -> Result<PrometheusRecorder, RecorderError> {
    Ok(builder()?.build_recorder())
}

/// Installs the recorder of this process and describes every metric. Once in a process.
pub fn install() -> Result<PrometheusHandle, RecorderError> {
    let handle = builder()?.install_recorder()?;
    names::describe_all();
    Ok(handle)
}

/// Keeps the recorder's memory bounded, for as long as the process runs.
///
/// Cancel safety: safe; owned by the program's main task set.
pub async fn run_upkeep(handle: PrometheusHandle) {
    let mut ticks = interval(UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_reach_from_fifty_microseconds_to_a_minute() {
        assert_eq!(SECONDS_BUCKETS.first(), Some(&0.000_05));
        assert_eq!(SECONDS_BUCKETS.last(), Some(&60.0));
        for buckets in [&SECONDS_BUCKETS[..], &BYTES_BUCKETS, &COUNT_BUCKETS] {
            assert!(buckets.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_duration_lands_in_the_bucket_it_belongs_to() {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            names::describe_all();
            metrics::histogram!("ministry_client_operation_seconds").record(0.003);
        });
        let page = handle.render();
        assert!(
            page.contains("ministry_client_operation_seconds_bucket{le=\"0.0025\"} 0"),
            "{page}"
        );
        assert!(
            page.contains("ministry_client_operation_seconds_bucket{le=\"0.005\"} 1"),
            "{page}"
        );
    }
}
