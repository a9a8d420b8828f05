//! Room, holes and copies, however the files lie.

use bytes::Bytes;
use ministry_client::{Client, FileHandle, OpenFlags};
use ministry_types::limits::INLINE_BYTES_MAX;
use ministry_types::operations::SetAttributes;
use ministry_types::{Attributes, FsError, InodeId, SpaceChange};

use crate::cluster::{Cluster, Fault, root};

const ROOT: InodeId = InodeId::ROOT;

async fn open(client: &Client, name: &[u8]) -> FileHandle {
    let flags = OpenFlags::READ_WRITE;
    client.create_and_open(&root(), ROOT, name, 0o644, flags, false).await.unwrap().1
}

async fn attributes(client: &Client, file: &FileHandle) -> Attributes {
    client.getattr(&root(), file.inode()).await.unwrap()
}

async fn content(client: &Client, file: &FileHandle) -> Bytes {
    client.read(file, 0, 1 << 20).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_small_file_stays_in_its_inode_while_it_fits() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let file = open(&client, b"f").await;
    client.write(&file, 0, Bytes::from_static(b"0123456789")).await.unwrap();
    let before = attributes(&client, &file).await;
    client.fallocate(&file, 2, 3, SpaceChange::Zero, false).await.unwrap();
    client.fallocate(&file, 8, 100, SpaceChange::Punch, true).await.unwrap();
    client.fallocate(&file, 0, 1 << 30, SpaceChange::Allocate, true).await.unwrap();
    assert_eq!(content(&client, &file).await[..], *b"01\0\0\x0056\x37\0\0");
    client.fallocate(&file, 0, 12, SpaceChange::Allocate, false).await.unwrap();
    let after = attributes(&client, &file).await;
    assert_eq!(after.size, 12);
    assert!(!after.layout.is_chunked() && after.mtime > before.mtime);
    assert_eq!(client.seek(&file, 3, false).await, Ok(Some(3)));
    assert_eq!(client.seek(&file, 3, true).await, Ok(Some(12)));
    assert_eq!(client.seek(&file, 12, true).await, Ok(None));
    client.fallocate(&file, 4_000, 1_000, SpaceChange::Allocate, false).await.unwrap();
    let after = attributes(&client, &file).await;
    assert!(after.layout.is_chunked());
    assert_eq!(after.size, 5_000);
    assert_eq!(content(&client, &file).await[..8], *b"01\0\0\x0056\x37");
}

#[tokio::test(start_paused = true)]
async fn room_behind_the_end_shows_zeros_not_what_storage_holds() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let file = open(&client, b"f").await;
    client.write(&file, 0, vec![1; 10_000].into()).await.unwrap();
    cluster.storage().scribble(file.inode(), 10_000, &[7; 5_000]);
    client.fallocate(&file, 12_000, 8_000, SpaceChange::Allocate, false).await.unwrap();
    let bytes = content(&client, &file).await;
    assert_eq!(bytes.len(), 20_000);
    assert!(bytes[10_000..].iter().all(|byte| *byte == 0));
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused() {
    let cluster = Cluster::start();
    let (client, _) = cluster.client().await;
    let file = open(&client, b"f").await;
    let zero = client.fallocate(&file, 0, 0, SpaceChange::Allocate, false).await;
    assert_eq!(zero, Err(FsError::Invalid));
    let wide = client.fallocate(&file, 1, i64::MAX as u64, SpaceChange::Allocate, false).await;
    assert_eq!(wide, Err(FsError::FileTooLarge));
    let grows = client.fallocate(&file, 0, 10, SpaceChange::Punch, false).await;
    assert_eq!(grows, Err(FsError::Invalid));
    let flags = OpenFlags::READ;
    let to_read = client.open(&root(), file.inode(), flags).await.unwrap();
    let reading = client.fallocate(&to_read, 0, 10, SpaceChange::Zero, false).await;
    assert_eq!(reading, Err(FsError::Invalid));
    client.write(&file, 0, vec![1; 100].into()).await.unwrap();
    let onto_itself = client.copy_range((&file, 0), (&file, 50), 51).await;
    assert_eq!(onto_itself, Err(FsError::Invalid));
    assert_eq!(client.copy_range((&file, 0), (&file, 100), 100).await, Ok(100));
    assert_eq!(client.copy_range((&file, 200), (&file, 0), 100).await, Ok(0));
    assert_eq!(client.copy_range((&file, 150), (&file, 0), 100).await, Ok(50));
}

#[tokio::test(start_paused = true)]
async fn a_copy_works_from_and_to_inodes_and_chunks_and_ends_with_its_source() {
    let sizes = [10, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 50_000];
    for (from_size, to_size) in sizes.iter().flat_map(|from| sizes.map(|to| (*from, to))) {
        let cluster = Cluster::start();
        let (client, _) = cluster.client().await;
        let (from, to) = (open(&client, b"from").await, open(&client, b"to").await);
        client.write(&from, 0, vec![3; from_size].into()).await.unwrap();
        client.write(&to, 0, vec![4; to_size].into()).await.unwrap();
        cluster.storage().scribble(to.inode(), to_size, &[7; 9_000]);
        // Behind the end of the target, with a gap.
        let place = to_size as u64 + 1_000;
        let copied = client.copy_range((&from, 5), (&to, place), 1 << 40).await;
        assert_eq!(copied, Ok(from_size as u64 - 5), "{from_size} {to_size}");
        let expected = [vec![4; to_size], vec![0; 1_000], vec![3; from_size - 5]].concat();
        assert!(content(&client, &to).await == expected, "{from_size} {to_size}");
    }
}

/// Operations at random on two files by two clients, against plain arrays of bytes.
#[tokio::test(start_paused = true)]
async fn two_clients_in_turn_see_what_local_files_would_show() {
    use rand::{Rng, SeedableRng};
    for seed in 0..25 {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
        let cluster = Cluster::start();
        let clients = [cluster.client().await.0, cluster.client().await.0];
        let mut files = Vec::new();
        for client in &clients {
            files.push([open(client, b"a").await, open(client, b"b").await]);
        }
        let mut models: [Vec<u8>; 2] = Default::default();
        for step in 0..60u8 {
            let (who, file) = (rng.random_range(0..2usize), rng.random_range(0..2usize));
            let (client, handle) = (&clients[who], &files[who][file]);
            let offset = rng.random_range(0..9_000usize);
            let length = rng.random_range(1..6_000usize);
            let (from, to) = (offset as u64, (offset + length) as u64);
            let keep_size = rng.random_bool(0.5);
            if rng.random_bool(0.05) {
                cluster.inject(&[Fault::ReplyLost]);
            }
            let model = &mut models[file];
            match rng.random_range(0..6) {
                0 => {
                    let size = Some(from);
                    let set = SetAttributes { size, size_by_handle: true, ..Default::default() };
                    client.setattr(&root(), handle.inode(), set).await.unwrap();
                    model.resize(offset, 0);
                }
                1 => {
                    let data = vec![step + 1; length].into();
                    client.write(handle, from, data).await.unwrap();
                    model.resize(model.len().max(to as usize), 0);
                    model[offset..offset + length].fill(step + 1);
                }
                2..=4 => {
                    let change = [SpaceChange::Allocate, SpaceChange::Zero, SpaceChange::Punch]
                        [rng.random_range(0..3usize)];
                    let keep_size = keep_size || change == SpaceChange::Punch;
                    client.fallocate(handle, from, to - from, change, keep_size).await.unwrap();
                    let size = model.len();
                    if !keep_size {
                        model.resize(size.max(to as usize), 0);
                    }
                    if change != SpaceChange::Allocate {
                        let end = model.len();
                        model[offset.min(end)..(to as usize).min(end)].fill(0);
                    }
                }
                _ => {
                    let other = &files[who][1 - file];
                    let target = rng.random_range(0..9_000usize);
                    let asked = (to - from).min(5_000);
                    let copied =
                        client.copy_range((handle, from), (other, target as u64), asked).await;
                    let end = (offset + asked as usize).min(model.len());
                    let data = model[offset.min(end)..end].to_vec();
                    assert_eq!(copied, Ok(data.len() as u64), "seed {seed}, step {step}");
                    if !data.is_empty() {
                        let target_model = &mut models[1 - file];
                        let size = target_model.len().max(target + data.len());
                        target_model.resize(size, 0);
                        target_model[target..target + data.len()].copy_from_slice(&data);
                    }
                }
            }
            for (number, model) in models.iter().enumerate() {
                let (client, handle) = (&clients[1 - who], &files[1 - who][number]);
                let place = format!("seed {seed}, step {step}, file {number}");
                assert_eq!(attributes(client, handle).await.size, model.len() as u64, "{place}");
                assert!(content(client, handle).await == model[..], "{place}");
            }
        }
    }
}
