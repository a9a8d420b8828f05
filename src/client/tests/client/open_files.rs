//! A removed file lives as long as a client has it open, and not longer.

use std::time::Duration;

use bytes::Bytes;
use ministry_client::{Client, FileHandle, NewObject, OpenFlags};
use ministry_types::operations::RenameMode;
use ministry_types::{FsError, InodeId};

use crate::cluster::{Cluster, Fault, root};

const ROOT: InodeId = InodeId::ROOT;

async fn make(client: &Client, name: &[u8]) -> FileHandle {
    let flags = OpenFlags::READ_WRITE;
    client.create_and_open(&root(), ROOT, name, 0o644, flags, true).await.unwrap().1
}

#[tokio::test(start_paused = true)]
async fn a_file_unlinked_elsewhere_stays_readable_until_it_is_closed() {
    let cluster = Cluster::start();
    let (one, _) = cluster.client().await;
    let (two, _) = cluster.client().await;
    let file = make(&one, b"a").await;
    one.write(&file, 0, Bytes::from_static(b"still here")).await.unwrap();
    two.unlink(&root(), ROOT, b"a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(one.read(&file, 0, 100).await.unwrap(), "still here");
    assert_eq!(cluster.confirmed(file.inode()), 1, "the second client has it not open");
    let inode = file.inode();
    one.close(file).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.confirmed(inode), 2, "told soon after it was closed");
    assert!(!cluster.exists(inode));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_open_is_gone_soon_after_its_last_name() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let (displaced, moved) = (make(&client, b"a").await.inode(), make(&client, b"b").await);
    client.rename(&root(), (ROOT, b"b"), (ROOT, b"a"), RenameMode::Replace).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!cluster.exists(displaced));
    assert!(cluster.exists(moved.inode()));
    let error = client.open(&root(), displaced, OpenFlags::READ).await.unwrap_err();
    assert!(matches!(error, FsError::Stale | FsError::NotFound), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn confirmations_come_although_the_reply_of_the_unlink_was_lost() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let inode = make(&client, b"a").await.inode();
    cluster.inject(&[Fault::ReplyLost]);
    let caller = root();
    let unlink = client.unlink(&caller, ROOT, b"a");
    assert!(tokio::time::timeout(Duration::from_millis(100), unlink).await.is_err());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!cluster.exists(inode), "the minister asked with its answers to signs of life");
}

#[tokio::test(start_paused = true)]
async fn create_and_open_takes_what_is_there_unless_exclusive() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let file = make(&client, b"a").await;
    client.write(&file, 0, Bytes::from_static(b"old")).await.unwrap();
    let open = |flags, exclusive| {
        let client = client.clone();
        async move { client.create_and_open(&root(), ROOT, b"a", 0o600, flags, exclusive).await }
    };
    let (attributes, again) = open(OpenFlags::READ, false).await.unwrap();
    assert_eq!((attributes.inode, attributes.size), (file.inode(), 3));
    assert_eq!(client.read(&again, 0, 10).await.unwrap(), "old");
    assert_eq!(open(OpenFlags::READ, true).await.unwrap_err(), FsError::Exists);
    let cut = OpenFlags { truncate: true, ..OpenFlags::READ_WRITE };
    let (attributes, _) = open(cut, false).await.unwrap();
    assert_eq!(attributes.size, 0);
    assert_eq!(client.read(&file, 0, 10).await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn a_handle_gives_only_the_rights_it_was_opened_with() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let made = client.create(&root(), ROOT, b"a", NewObject::file(0o644)).await.unwrap();
    let file = client.open(&root(), made.inode, OpenFlags::READ).await.unwrap();
    let written = client.write(&file, 0, Bytes::from_static(b"x")).await;
    assert_eq!(written.unwrap_err(), FsError::Invalid);
    let stranger = ministry_types::Caller { uid: 7, gid: 7, groups: vec![] };
    let opened = client.open(&stranger, made.inode, OpenFlags::READ_WRITE).await;
    assert_eq!(opened.unwrap_err(), FsError::PermissionDenied);
}
