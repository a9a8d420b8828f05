//! Bytes go where they belong, however the file lies, and whoever else writes.

use bytes::Bytes;
use ministry_client::{Client, FileHandle, OpenFlags};
use ministry_types::limits::INLINE_BYTES_MAX;
use ministry_types::operations::SetAttributes;
use ministry_types::{Caller, InodeId};

use crate::cluster::{Cluster, Fault, root};

const ROOT: InodeId = InodeId::ROOT;
const LARGE: usize = 3 * INLINE_BYTES_MAX;

async fn open(client: &Client, flags: OpenFlags) -> FileHandle {
    client.create_and_open(&root(), ROOT, b"f", 0o644, flags, false).await.unwrap().1
}

async fn write(client: &Client, file: &FileHandle, offset: u64, data: impl Into<Bytes>) {
    let data = data.into();
    let length = data.len() as u64;
    assert_eq!(client.write(file, offset, data).await, Ok(length));
}

async fn size(client: &Client, file: &FileHandle) -> u64 {
    client.getattr(&root(), file.inode()).await.unwrap().size
}

async fn set_size(client: &Client, file: &FileHandle, size: u64) {
    let set = SetAttributes { size: Some(size), size_by_handle: true, ..Default::default() };
    client.setattr(&root(), file.inode(), set).await.unwrap();
}

async fn is_chunked(client: &Client, file: &FileHandle) -> bool {
    client.getattr(&root(), file.inode()).await.unwrap().layout.is_chunked()
}

#[tokio::test(start_paused = true)]
async fn a_small_file_lives_in_its_inode_and_moves_out_when_it_grows() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let (reader, _) = cluster.client().await;
    let file = open(&client, OpenFlags::READ_WRITE).await;
    write(&client, &file, 0, vec![1; INLINE_BYTES_MAX]).await;
    assert!(!is_chunked(&client, &file).await);
    assert_eq!(cluster.storage().bytes(file.inode()), []);
    write(&client, &file, INLINE_BYTES_MAX as u64 - 1, vec![2; 2]).await;
    assert!(is_chunked(&client, &file).await);
    let seen = open(&reader, OpenFlags::READ).await;
    let bytes = reader.read(&seen, 0, LARGE).await.unwrap();
    assert_eq!(bytes.len(), INLINE_BYTES_MAX + 1);
    assert!(bytes[..INLINE_BYTES_MAX - 1].iter().all(|byte| *byte == 1));
    assert_eq!(bytes[INLINE_BYTES_MAX - 1..], [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_write_behind_the_end_leaves_zeros_not_what_storage_holds() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let file = open(&client, OpenFlags::READ_WRITE).await;
    write(&client, &file, 0, vec![1; LARGE]).await;
    cluster.storage().scribble(file.inode(), LARGE, &[7; 1000]);
    write(&client, &file, LARGE as u64 + 500, vec![2; 10]).await;
    let bytes = client.read(&file, LARGE as u64, 10_000).await.unwrap();
    assert_eq!(bytes.len(), 510);
    assert!(bytes[..500].iter().all(|byte| *byte == 0), "a hole reads as zeros");
    assert_eq!(bytes[500..], [2; 10]);
}

#[tokio::test(start_paused = true)]
async fn two_clients_that_extend_do_not_cut_each_other_off() {
    let cluster = Cluster::start();
    let (one, _) = cluster.client().await;
    let (two, _) = cluster.client().await;
    let first = open(&one, OpenFlags::READ_WRITE).await;
    write(&one, &first, 0, vec![1; LARGE]).await;
    let second = open(&two, OpenFlags::READ_WRITE).await;
    // The first client knows an old size from here on.
    write(&two, &second, 100_000, vec![2; 1000]).await;
    write(&one, &first, 50_000, vec![3; 1000]).await;
    assert_eq!(size(&one, &first).await, 101_000);
    let bytes = one.read(&first, 0, 200_000).await.unwrap();
    assert_eq!(bytes[100_000..], [2; 1000]);
    assert_eq!(bytes[50_000..51_000], [3; 1000]);
    assert_eq!(bytes[LARGE..50_000], vec![0; 50_000 - LARGE]);
}

#[tokio::test(start_paused = true)]
async fn who_knows_only_an_old_cut_reads_and_writes_by_the_new_one() {
    let cluster = Cluster::start();
    let (one, _) = cluster.client().await;
    let (two, _) = cluster.client().await;
    let first = open(&one, OpenFlags::READ_WRITE).await;
    write(&one, &first, 0, vec![1; LARGE]).await;
    let second = open(&two, OpenFlags::READ_WRITE).await;
    set_size(&two, &second, 10).await;
    set_size(&two, &second, 5000).await;
    assert_eq!(
        two.read(&second, 0, LARGE).await.unwrap()[..],
        [vec![1; 10], vec![0; 4990]].concat()
    );
    assert_eq!(one.read(&first, 5, 10).await.unwrap()[..], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
    set_size(&two, &second, 20).await;
    write(&one, &first, 15, vec![4; 10]).await;
    let bytes = two.read(&second, 0, LARGE).await.unwrap();
    assert_eq!(bytes[..], [vec![1; 10], vec![0; 5], vec![4; 10]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_slow_move_never_lays_an_old_content_over_a_new_one() {
    let cluster = Cluster::start();
    let (slow, path) = cluster.client().await;
    let (fast, _) = cluster.client().await;
    let of_slow = open(&slow, OpenFlags::READ_WRITE).await;
    write(&slow, &of_slow, 0, b"old content".as_slice()).await;
    let of_fast = open(&fast, OpenFlags::READ_WRITE).await;
    path.shut();
    let moving = {
        let (slow, of_slow) = (slow.clone(), of_slow.clone());
        tokio::spawn(async move { slow.write(&of_slow, 5000, Bytes::from_static(b"tail")).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    write(&fast, &of_fast, 0, b"NEW".as_slice()).await;
    write(&fast, &of_fast, 4096, b"x".as_slice()).await;
    write(&fast, &of_fast, 4, b"CONTENT".as_slice()).await;
    path.let_through(100);
    moving.await.unwrap().unwrap();
    let bytes = fast.read(&of_fast, 0, 11).await.unwrap();
    assert_eq!(bytes, "NEW CONTENT");
    assert_eq!(size(&fast, &of_fast).await, 5004);
}

#[tokio::test(start_paused = true)]
async fn a_slow_move_is_refused_also_before_anybody_has_used_the_new_layout() {
    let cluster = Cluster::start();
    let (slow, path) = cluster.client().await;
    let (fast, _) = cluster.client().await;
    let of_slow = open(&slow, OpenFlags::READ_WRITE).await;
    write(&slow, &of_slow, 0, b"old content".as_slice()).await;
    let of_fast = open(&fast, OpenFlags::READ_WRITE).await;
    path.shut();
    let moving = {
        let (slow, of_slow) = (slow.clone(), of_slow.clone());
        tokio::spawn(async move { slow.write(&of_slow, 5000, Bytes::from_static(b"tail")).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    write(&fast, &of_fast, 0, b"NEW".as_slice()).await;
    set_size(&fast, &of_fast, 100_000).await;
    path.let_through(1);
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(cluster.storage().bytes(of_fast.inode()), b"NEW content");
    path.let_through(100);
    moving.await.unwrap().unwrap();
    assert_eq!(fast.read(&of_fast, 0, 11).await.unwrap(), "NEW content");
}

#[tokio::test(start_paused = true)]
async fn appends_find_their_place_whatever_offset_they_carry() {
    let cluster = Cluster::start();
    let append = OpenFlags { append: true, ..OpenFlags::READ_WRITE };
    let (one, _) = cluster.client().await;
    let (two, _) = cluster.client().await;
    let (first, second) = (open(&one, append).await, open(&two, append).await);
    for _ in 0..10 {
        // Inline: the minister gives the place, also between clients, also after a lost reply.
        cluster.inject(&[Fault::ReplyLost]);
        let (a, b) = tokio::join!(
            one.write(&first, 0, Bytes::from_static(b"aa")),
            two.write(&second, 0, Bytes::from_static(b"bb")),
        );
        assert_eq!((a, b), (Ok(2), Ok(2)));
    }
    let bytes = one.read(&first, 0, 1000).await.unwrap();
    assert_eq!(bytes.len(), 40);
    assert_eq!(bytes.chunks(2).filter(|pair| *pair == b"aa").count(), 10);
    // Chunked: those of one client never meet.
    write(&one, &first, 0, vec![0; LARGE]).await;
    let many = (0..20u8).map(|number| one.write(&first, 3, Bytes::from(vec![number; 100])));
    for written in futures::future::join_all(many).await {
        assert_eq!(written, Ok(100));
    }
    let bytes = one.read(&first, 40 + LARGE as u64, 10_000).await.unwrap();
    assert_eq!(bytes.len(), 2000);
    assert!(bytes.chunks(100).all(|record| record.iter().all(|byte| *byte == record[0])));
}

#[tokio::test(start_paused = true)]
async fn fsync_covers_what_others_wrote() {
    let cluster = Cluster::start();
    let (one, _) = cluster.client().await;
    let (two, _) = cluster.client().await;
    let first = open(&one, OpenFlags::READ_WRITE).await;
    write(&one, &first, 0, vec![1; LARGE]).await;
    let second = open(&two, OpenFlags::READ_WRITE).await;
    two.fsync(&second, false).await.unwrap();
    assert_eq!(cluster.storage().synced(first.inode()), vec![1; LARGE]);
}

#[tokio::test(start_paused = true)]
async fn a_small_file_that_is_made_large_without_a_write_moves_out() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let file = open(&client, OpenFlags::READ_WRITE).await;
    write(&client, &file, 0, b"head".as_slice()).await;
    set_size(&client, &file, 1 << 40).await;
    assert_eq!(size(&client, &file).await, 1 << 40);
    assert_eq!(client.read(&file, 2, 4).await.unwrap()[..], *b"ad\0\0");
    assert_eq!(client.read(&file, (1 << 40) - 1, 100).await.unwrap()[..], [0]);
}

/// Operations at random on one file by two clients, against a plain array of bytes.
#[tokio::test(start_paused = true)]
async fn two_clients_in_turn_see_what_one_file_would_show() {
    use rand::{Rng, SeedableRng};
    for seed in 0..30 {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
        let cluster = Cluster::start();
        let clients = [cluster.client().await.0, cluster.client().await.0];
        let mut files = Vec::new();
        for client in &clients {
            files.push(open(client, OpenFlags::READ_WRITE).await);
        }
        let mut model: Vec<u8> = Vec::new();
        for step in 0..60u8 {
            let who = rng.random_range(0..2usize);
            let (client, file) = (&clients[who], &files[who]);
            let offset = rng.random_range(0..8000usize);
            let length = rng.random_range(1..3000usize);
            if rng.random_bool(0.05) {
                cluster.inject(&[Fault::ReplyLost]);
            }
            match rng.random_range(0..4) {
                0 => {
                    set_size(client, file, offset as u64).await;
                    model.resize(offset, 0);
                }
                1 | 2 => {
                    write(client, file, offset as u64, vec![step + 1; length]).await;
                    model.resize(model.len().max(offset + length), 0);
                    model[offset..offset + length].fill(step + 1);
                }
                _ => {}
            }
            let read = client.read(file, offset as u64, length).await.unwrap();
            let expected: Vec<u8> = model.iter().skip(offset).take(length).copied().collect();
            assert_eq!(read[..], expected[..], "seed {seed}, step {step}");
        }
        assert_eq!(size(&clients[0], &files[0]).await, model.len() as u64, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_user_writes_through_a_handle_that_was_opened_with_the_right() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let user = Caller { uid: 5, gid: 5, groups: vec![] };
    let set = SetAttributes { permissions: Some(0o777), ..Default::default() };
    client.setattr(&root(), ROOT, set).await.unwrap();
    let flags = OpenFlags::READ_WRITE;
    let made = client.create_and_open(&user, ROOT, b"mine", 0o000, flags, true).await.unwrap();
    write(&client, &made.1, 0, vec![1; LARGE]).await;
    write(&client, &made.1, 100_000, vec![1; LARGE]).await;
    assert_eq!(client.read(&made.1, 100_000, 1).await.unwrap()[..], [1]);
}

#[tokio::test(start_paused = true)]
async fn whole_files_are_put_and_got_small_ones_in_one_change() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let small = Bytes::from(vec![1; INLINE_BYTES_MAX]);
    let made = client.put(&root(), ROOT, b"small", 0o640, small.clone()).await.unwrap();
    assert_eq!((made.size, made.permissions), (INLINE_BYTES_MAX as u64, 0o640));
    assert_eq!(cluster.applied("put"), 1);
    assert_eq!(cluster.applied("write_inline"), 0);
    assert_eq!(client.get(&root(), ROOT, b"small").await.unwrap().1, small);
    // What is there gets another content, and may leave the inode for it.
    let large = Bytes::from(vec![2; LARGE]);
    client.put(&root(), ROOT, b"small", 0o600, large.clone()).await.unwrap();
    let (attributes, content) = client.get(&root(), ROOT, b"small").await.unwrap();
    assert_eq!((attributes.permissions, content), (0o640, large));
    client.put(&root(), ROOT, b"small", 0o600, Bytes::from_static(b"short")).await.unwrap();
    assert_eq!(client.get(&root(), ROOT, b"small").await.unwrap().1, "short");
    let user = Caller { uid: 7, gid: 7, groups: vec![] };
    let refused = client.get(&user, ROOT, b"small").await;
    assert_eq!(refused.unwrap_err(), ministry_types::FsError::PermissionDenied);
}
