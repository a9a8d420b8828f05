//! `fio --verify`: what was written by each way into the kernel is what is read back.

use std::path::Path;

use ministry_tests::{Cluster, Program};

use crate::{MINUTE, healthy, knob, text};

/// Every block carries a sum of itself and its place; the first wrong one ends the run.
fn fio(folder: &Path, name: &str, words: &[&str]) {
    let size = format!("--size={}m", knob("MINISTRY_FIO_MIB", 48));
    let out = Program::new("fio")
        .args(["--name", name, "--directory", text(folder), &size, "--randseed=7"])
        .args(["--verify=crc32c", "--verify_fatal=1", "--verify_dump=0", "--do_verify=1"])
        .args(["--output-format=terse", "--terse-version=3"])
        .args(words)
        .dir(folder)
        .within(10 * MINUTE)
        .ok();
    // Version; fio; name of the job; group; error.
    let fields: Vec<&str> = out.lines().last().unwrap_or_default().split(';').collect();
    assert_eq!(fields.get(4), Some(&"0"), "{out}");
}

/// Random overwrites with several in flight, sequential large ones, and small ones with syncs:
/// each verified after all of it is written, and a last time by the other mount.
fn engine(engine: &str, further: &[&str]) {
    let mut cluster = Cluster::with_two_mounts();
    let engine = format!("--ioengine={engine}");
    let jobs: [(&str, &[&str]); 3] = [
        ("random", &["--rw=randwrite", "--bsrange=4k-64k", "--iodepth=16"]),
        ("large", &["--rw=write", "--bs=1m", "--iodepth=4", "--numjobs=2"]),
        ("synced", &["--rw=randrw", "--bs=4k", "--iodepth=4", "--fsync=64", "--io_size=8m"]),
    ];
    for (name, words) in jobs {
        let began = std::time::Instant::now();
        let words: Vec<&str> =
            [engine.as_str()].iter().chain(words).chain(further).copied().collect();
        fio(cluster.mount(0), name, &words);
        println!("{engine} {name}: {:.1} s", began.elapsed().as_secs_f64());
    }
    // Only verifies: the same job on the other mount, whose kernel has nothing of it.
    let words = ["--rw=randwrite", "--bsrange=4k-64k", "--verify_only=1", engine.as_str()];
    fio(cluster.mount(1), "random", &words);
    healthy(&mut cluster);
}

#[test]
fn fio_verifies_what_psync_wrote() {
    engine("psync", &[]);
}

#[test]
fn fio_verifies_what_libaio_wrote() {
    engine("libaio", &["--direct=1"]);
}

#[test]
fn fio_verifies_what_io_uring_wrote() {
    engine("io_uring", &[]);
}

#[test]
fn fio_verifies_what_a_mapping_wrote() {
    engine("mmap", &[]);
}
