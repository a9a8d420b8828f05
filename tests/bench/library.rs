//! Changes of names through the client library, without a mount.
//!
//! Called by the measures of commits, which compare it with etcd: here as there a program talks to
//! the servers itself, with many callers on one connection.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ministry_client::{Client, ClientConfig, NewObject};
use ministry_transport::{Identity, Role, Security, TcpConnector};
use ministry_types::{Caller, InodeId};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::figures::Side;

/// A client with the runtime it lives on.
pub struct Library {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Library {
    /// Connects with the credentials in a folder.
    pub fn connect(identity: &Path) -> Result<Library> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let addresses = std::fs::read_to_string(identity.join("addresses"))?;
        let addresses = addresses.lines().filter_map(|line| line.parse::<SocketAddr>().ok());
        let config = ClientConfig {
            security: Arc::new(Security::tls(Identity::load(identity, Role::Client)?)?),
            connector: Arc::new(TcpConnector),
            addresses: addresses.collect(),
            rng: SmallRng::from_os_rng(),
        };
        let client = runtime.block_on(Client::connect(config))?;
        Ok(Library { runtime, client })
    }

    /// Creates `count` empty files by so many callers at once, each in a folder of its own below
    /// the new folder `name` of the root.
    pub fn creates(&self, name: &str, callers: usize, count: usize) -> Result<Side> {
        let each = count / callers;
        self.runtime.block_on(async {
            let top = self.folder(InodeId::ROOT, name).await?;
            let mut folders = Vec::new();
            for caller in 0..callers {
                folders.push(self.folder(top, &caller.to_string()).await?);
            }
            let began = Instant::now();
            let tasks = folders.into_iter().map(|folder| {
                let client = self.client.clone();
                tokio::spawn(create_all(client, folder, 0..each))
            });
            let mut times = Vec::with_capacity(count);
            for task in tasks.collect::<Vec<_>>() {
                times.extend(task.await??);
            }
            Ok(Side::new((each * callers) as f64, began.elapsed(), &times))
        })
    }

    /// Fills one new folder of the root with `count` empty files, by many callers at once.
    pub fn fill(&self, name: &str, count: usize, callers: usize) -> Result<()> {
        self.runtime.block_on(async {
            let folder = self.folder(InodeId::ROOT, name).await?;
            let each = count / callers;
            let tasks = (0..callers).map(|caller| {
                let client = self.client.clone();
                tokio::spawn(create_all(client, folder, caller * each..(caller + 1) * each))
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await??;
            }
            Ok(())
        })
    }

    /// Removes what [`Library::fill`] made.
    pub fn empty(&self, name: &str, count: usize, callers: usize) -> Result<()> {
        self.runtime.block_on(async {
            let root = Caller::root();
            let folder = self.client.lookup(&root, InodeId::ROOT, name.as_bytes()).await;
            let folder = folder.map_err(|error| anyhow::anyhow!("{name}: {error}"))?.inode;
            let each = count / callers;
            let tasks = (0..callers).map(|caller| {
                let client = self.client.clone();
                tokio::spawn(async move {
                    for number in caller * each..(caller + 1) * each {
                        let name = format!("file-{number}");
                        client.unlink(&Caller::root(), folder, name.as_bytes()).await?;
                    }
                    Ok::<(), ministry_types::FsError>(())
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await??;
            }
            Ok(self.client.rmdir(&root, InodeId::ROOT, name.as_bytes()).await?)
        })
    }

    async fn folder(&self, parent: InodeId, name: &str) -> Result<InodeId> {
        let new = NewObject::directory(0o755);
        let made = self.client.create(&Caller::root(), parent, name.as_bytes(), new).await;
        Ok(made.with_context(|| format!("the folder {name}"))?.inode)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.runtime.block_on(self.client.shutdown());
    }
}

async fn create_all(
    client: Client,
    folder: InodeId,
    numbers: std::ops::Range<usize>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(numbers.len());
    for number in numbers {
        let name = format!("file-{number}");
        let began = Instant::now();
        let new = NewObject::file(0o644);
        client.create(&Caller::root(), folder, name.as_bytes(), new).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}
