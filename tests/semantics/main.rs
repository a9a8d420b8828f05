//! docs/semantics.md, sentence by sentence: on a mount, and on a local ext4 for comparison.
//!
//! Each sentence is a case in `cases/`, run in a fresh folder by root and by plain users. Needs
//! root. `MINISTRY_CASES=rename` runs the sentences whose names begin so.

mod actor;
mod cases;
mod did;
mod differences;
mod errno;
mod page;
mod place;
mod raw;
mod run;
mod scene;

use ministry_tests::Cluster;

#[test]
fn every_sentence_holds_on_a_local_disk_but_for_the_listed_differences() {
    raw::signals_interrupt();
    let local = place::Local::new();
    run::run_all(run::Place::Local, local.path(), local.path());
}

#[test]
fn every_sentence_holds_on_the_mounts() {
    raw::signals_interrupt();
    let mut cluster = Cluster::with_two_mounts();
    run::run_all(run::Place::Mount, cluster.mount(0), cluster.mount(1));
    cluster.assert_all_run();
}
