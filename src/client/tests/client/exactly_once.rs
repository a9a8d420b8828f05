//! A change happens once, whatever is lost.

use std::time::Duration;

use ministry_client::NewObject;
use ministry_types::limits::{OPERATION_TIMEOUT, SLOTS_PER_SESSION};
use ministry_types::operations::RenameMode;
use ministry_types::{FsError, InodeId};
use tokio::time::Instant;

use crate::cluster::{Cluster, Fault, root};

const ROOT: InodeId = InodeId::ROOT;

#[tokio::test(start_paused = true)]
async fn a_create_whose_replies_are_lost_happens_once_and_succeeds() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    cluster.inject(&[Fault::RequestLost, Fault::ReplyLost, Fault::ReplyLost]);
    let made = client.create(&root(), ROOT, b"a", NewObject::file(0o644)).await.unwrap();
    assert_eq!(cluster.applied("create"), 3, "one real, two answered from the slot");
    assert_eq!(client.lookup(&root(), ROOT, b"a").await.unwrap().inode, made.inode);
    let listing = client.list(&root(), ROOT, 0, 100, true).await.unwrap();
    assert_eq!(listing.entries.len(), 1);
    assert_eq!(cluster.faults_left(), 0);
}

#[tokio::test(start_paused = true)]
async fn busy_and_unknown_are_tried_again_under_the_same_identity() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    client.create(&root(), ROOT, b"a", NewObject::directory(0o755)).await.unwrap();
    cluster.inject(&[Fault::Busy, Fault::DoneButUnknown, Fault::Busy]);
    client.rename(&root(), (ROOT, b"a"), (ROOT, b"b"), RenameMode::NoReplace).await.unwrap();
    cluster.inject(&[Fault::DoneButUnknown]);
    client.rmdir(&root(), ROOT, b"b").await.unwrap();
    assert_eq!(client.lookup(&root(), ROOT, b"b").await.unwrap_err(), FsError::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_replaced_without_a_word_when_nothing_was_in_doubt() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    cluster.inject(&[Fault::SessionEnds]);
    client.create(&root(), ROOT, b"a", NewObject::file(0o644)).await.unwrap();
    cluster.end_sessions();
    client.getattr(&root(), ROOT).await.unwrap();
    assert_eq!(cluster.applied("create"), 1);
    assert_eq!(cluster.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_in_doubt_is_not_repeated_when_its_session_has_ended() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    cluster.inject(&[Fault::ReplyLost, Fault::SessionEnds]);
    let error = client.unlink(&root(), ROOT, b"none").await.unwrap_err();
    assert_eq!(error, FsError::TimedOut);
    cluster.inject(&[Fault::ReplyLost, Fault::SessionEnds]);
    let created = client.create(&root(), ROOT, b"a", NewObject::file(0o644)).await;
    assert_eq!(created.unwrap_err(), FsError::TimedOut, "unknown, never a false EEXIST");
    client.create(&root(), ROOT, b"b", NewObject::file(0o644)).await.unwrap();
    assert_eq!(cluster.applied("create"), 2);
}

#[tokio::test(start_paused = true)]
async fn more_changes_than_slots_wait_for_each_other_and_all_are_done() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let count = 3 * SLOTS_PER_SESSION as usize;
    cluster.inject(&[Fault::ReplyLost; 5]);
    let creates = (0..count).map(|number| {
        let client = client.clone();
        async move {
            let name = format!("file{number}");
            client.create(&root(), ROOT, name.as_bytes(), NewObject::file(0o600)).await
        }
    });
    for created in futures::future::join_all(creates).await {
        created.unwrap();
    }
    let listing = client.list(&root(), ROOT, 0, 1000, false).await.unwrap();
    assert_eq!(listing.entries.len(), count);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_given_up_does_not_disturb_the_next_one() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    cluster.inject(&[Fault::ReplyLost]);
    let caller = root();
    let create = client.create(&caller, ROOT, b"a", NewObject::file(0o644));
    assert!(tokio::time::timeout(Duration::from_millis(500), create).await.is_err());
    let error = client.create(&root(), ROOT, b"a", NewObject::file(0o644)).await.unwrap_err();
    assert_eq!(error, FsError::Exists, "another change, not a repetition");
    client.unlink(&root(), ROOT, b"a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_operation_ends_when_nobody_answers() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    client.getattr(&root(), ROOT).await.unwrap();
    cluster.inject(&[Fault::RequestLost; 100]);
    let began = Instant::now();
    let created = client.create(&root(), ROOT, b"a", NewObject::file(0o644)).await;
    assert_eq!(created.unwrap_err(), FsError::TimedOut);
    let took = began.elapsed();
    assert!(took >= OPERATION_TIMEOUT && took < OPERATION_TIMEOUT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_sessions() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    client.getattr(&root(), ROOT).await.unwrap();
    assert_eq!(cluster.sessions(), 1);
    client.shutdown().await;
    assert_eq!(cluster.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_task_outlives_its_client() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let cluster = Cluster::start();
    let before = alive();
    let (client, _) = cluster.client().await;
    client.getattr(&root(), ROOT).await.unwrap();
    let clone = client.clone();
    drop(client);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(alive() > before);
    drop(clone);
    // The servers notice that the connections are gone.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(alive(), before);
}
