//! Locks of two clients: taken, waited for, given back, and lost with a session.

use std::time::Duration;

use ministry_client::{Client, LockRequest, NewObject, WaitFor};
use ministry_types::locks::{LockKind, LockMode, LockOwner, LockRange};
use ministry_types::{FsError, InodeId};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Fault, root};

const ROOT: InodeId = InodeId::ROOT;
const WAIT: WaitFor = WaitFor::Lock { find_deadlock: true };

async fn file(client: &Client) -> InodeId {
    client.create(&root(), ROOT, b"f", NewObject::file(0o644)).await.unwrap().inode
}

/// A wish for an exclusive lock of the whole file by the owner and handle of this number.
fn wish(inode: InodeId, number: u64, wait: WaitFor) -> LockRequest {
    LockRequest {
        inode,
        handle: number,
        owner: LockOwner { number, kind: LockKind::Posix },
        pid: 1,
        range: LockRange::WHOLE,
        mode: LockMode::Exclusive,
        wait,
    }
}

async fn lock(client: &Client, request: &LockRequest) -> Result<(), FsError> {
    client.lock(&root(), request, &CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn a_close_of_a_file_without_locks_asks_nobody() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let (other, _) = cluster.client().await;
    let inode = file(&client).await;
    client.release_owner(&root(), inode, 1).await.unwrap();
    client.release_handle(&root(), inode, 1).await;
    lock(&other, &wish(inode, 5, WaitFor::Nothing)).await.unwrap();
    let denied = lock(&client, &wish(inode, 1, WaitFor::Nothing)).await;
    assert_eq!(denied, Err(FsError::Locked));
    client.release_owner(&root(), inode, 1).await.unwrap();
    client.release_handle(&root(), inode, 1).await;
    assert_eq!(cluster.applied("unlock"), 0);
    other.release_owner(&root(), inode, 5).await.unwrap();
    other.release_handle(&root(), inode, 5).await;
    assert_eq!(cluster.applied("unlock"), 1);
    lock(&client, &wish(inode, 1, WaitFor::Nothing)).await.unwrap();
    assert_eq!(cluster.applied("lock"), 3, "one message each");
}

#[tokio::test(start_paused = true)]
async fn a_wait_outlasts_every_deadline_and_ends_with_the_lock() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let (other, _) = cluster.client().await;
    let inode = file(&client).await;
    lock(&client, &wish(inode, 1, WAIT)).await.unwrap();
    let (waiting, request) = (other.clone(), wish(inode, 1, WAIT));
    let waiter = tokio::spawn(async move { lock(&waiting, &request).await });
    sleep(Duration::from_secs(1000)).await;
    assert!(!waiter.is_finished());
    client.unlock(&root(), inode, wish(inode, 1, WAIT).owner, LockRange::WHOLE).await.unwrap();
    timeout(Duration::from_secs(1), waiter).await.unwrap().unwrap().unwrap();
    let denied = lock(&client, &wish(inode, 1, WaitFor::Nothing)).await;
    assert_eq!(denied, Err(FsError::Locked));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_wait_leaves_nothing_behind() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let (other, _) = cluster.client().await;
    let inode = file(&client).await;
    lock(&client, &wish(inode, 1, WAIT)).await.unwrap();
    let interrupted = CancellationToken::new();
    let began = Instant::now();
    let (caller, request) = (root(), wish(inode, 2, WAIT));
    let (result, ()) = tokio::join!(other.lock(&caller, &request, &interrupted), async {
        sleep(Duration::from_secs(5)).await;
        interrupted.cancel();
    });
    assert_eq!(result, Err(FsError::Interrupted));
    assert!(began.elapsed() < Duration::from_secs(6));
    client.release_owner(&root(), inode, 1).await.unwrap();
    lock(&client, &wish(inode, 3, WaitFor::Nothing)).await.unwrap();
    other.release_handle(&root(), inode, 2).await;
    assert_eq!(cluster.applied("unlock"), 1, "the other had nothing to give back");
}

#[tokio::test(start_paused = true)]
async fn lost_replies_neither_double_nor_lose_a_lock() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let (other, _) = cluster.client().await;
    let inode = file(&client).await;
    cluster.inject(&[Fault::ReplyLost, Fault::RequestLost]);
    lock(&client, &wish(inode, 1, WaitFor::Nothing)).await.unwrap();
    cluster.inject(&[Fault::ReplyLost, Fault::DoneButUnknown]);
    client.release_owner(&root(), inode, 1).await.unwrap();
    lock(&other, &wish(inode, 1, WaitFor::Nothing)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn handles_fail_whose_locks_went_with_the_session() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let inode = file(&client).await;
    lock(&client, &wish(inode, 1, WaitFor::Nothing)).await.unwrap();
    assert!(!client.locks_lost(1));
    cluster.end_sessions();
    client.getattr(&root(), inode).await.unwrap();
    assert!(client.locks_lost(1) && !client.locks_lost(2));
    client.release_handle(&root(), inode, 1).await;
    assert!(!client.locks_lost(1), "closed");
    lock(&client, &wish(inode, 1, WaitFor::Nothing)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_when_its_session_ends_waits_anew() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let (other, _) = cluster.client().await;
    let inode = file(&client).await;
    lock(&client, &wish(inode, 1, WAIT)).await.unwrap();
    let (waiting, request) = (other.clone(), wish(inode, 9, WAIT));
    let waiter = tokio::spawn(async move { lock(&waiting, &request).await });
    sleep(Duration::from_secs(3)).await;
    cluster.end_sessions();
    // The lock of the first went too: the second gets it.
    timeout(Duration::from_secs(10), waiter).await.unwrap().unwrap().unwrap();
    let denied = lock(&client, &wish(inode, 1, WaitFor::Nothing)).await;
    assert_eq!(denied, Err(FsError::Locked));
}

#[tokio::test(start_paused = true)]
async fn a_test_tells_the_process_for_locks_of_this_client_alone() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let (other, _) = cluster.client().await;
    let inode = file(&client).await;
    lock(&client, &wish(inode, 1, WaitFor::Nothing)).await.unwrap();
    let ask = wish(inode, 2, WaitFor::Nothing);
    assert_eq!(client.test_lock(&root(), &ask).await.unwrap().unwrap().pid, 1);
    assert_eq!(other.test_lock(&root(), &ask).await.unwrap().unwrap().pid, 0);
    let own = wish(inode, 1, WaitFor::Nothing);
    assert_eq!(client.test_lock(&root(), &own).await.unwrap(), None);
}
