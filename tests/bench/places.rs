//! The places that are compared: a local folder, bindfs, the mount of a cluster, etcd.
//!
//! All lie on the same disk. Everything is ended and removed when this is dropped.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ministry_tests::process::Spawner;
use ministry_tests::{Cluster, Plan};

use crate::bindfs::Bindfs;
use crate::etcd::Etcd;
use crate::figures::Side;
use crate::library::Library;

/// All places.
pub struct Places {
    /// What the mount belongs to.
    pub cluster: Cluster,
    mounts: [usize; 2],
    local: PathBuf,
    // In the order of their end: mounts before the thread that started them.
    bindfs: Vec<Bindfs>,
    spawner: Spawner,
    library: Option<Library>,
    // What etcd did, by the number of callers.
    puts: Vec<(usize, Side)>,
}

impl Places {
    /// A cluster of five nodes with two mounts, and bindfs twice over one folder.
    pub fn new() -> Places {
        let cluster = Cluster::with(Plan { mounts: 2, ..Plan::default() });
        let local = cluster.scratch().join("local");
        for folder in [local.clone(), cluster.scratch().join("below")] {
            std::fs::create_dir(folder).expect("a folder");
        }
        let mut places = Places {
            cluster,
            mounts: [0, 1],
            local,
            bindfs: Vec::new(),
            spawner: Spawner::new(),
            library: None,
            puts: Vec::new(),
        };
        places.start_bindfs();
        places
    }

    fn start_bindfs(&mut self) {
        let scratch = self.cluster.scratch();
        self.bindfs.clear();
        for number in 0..2 {
            let path = scratch.join(format!("bindfs-{number}"));
            let log = scratch.join(format!("bindfs-{number}.log"));
            let one = Bindfs::start(&self.spawner, &self.below(), &path, &log);
            self.bindfs.push(one);
        }
    }

    /// The local folder.
    pub fn local(&self) -> &Path {
        &self.local
    }

    /// The folder that bindfs shows.
    pub fn below(&self) -> PathBuf {
        self.cluster.scratch().join("below")
    }

    /// Local folder, bindfs, mount.
    pub fn all(&self) -> [PathBuf; 3] {
        [self.local.clone(), self.bindfs[0].path().into(), self.mount().into()]
    }

    /// The same as seen by two programs: for bindfs and Ministry by two mounts.
    pub fn twice(&self) -> [[PathBuf; 2]; 3] {
        let bindfs = [0, 1].map(|number: usize| self.bindfs[number].path().to_owned());
        let mounts = self.mounts.map(|number| self.cluster.mount(number).to_owned());
        [[self.local.clone(), self.local.clone()], bindfs, mounts]
    }

    /// The first mount.
    pub fn mount(&self) -> &Path {
        self.cluster.mount(self.mounts[0])
    }

    /// Nothing that was written is in memory any more: not in the kernel's caches of the mounts,
    /// for these are new, nor in those of what lies below the nodes, bindfs, and the local folder.
    pub fn forget(&mut self) -> Result<()> {
        for place in 0..self.mounts.len() {
            self.cluster.mount_process(self.mounts[place]).kill();
            self.mounts[place] = self.cluster.add_mount();
        }
        self.start_bindfs();
        // SAFETY: no memory is involved.
        unsafe { libc::sync() };
        std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the caches needs root")
    }

    /// A client without a mount.
    pub fn library(&mut self) -> Result<&Library> {
        if self.library.is_none() {
            let identity = self.cluster.new_client("library");
            self.library = Some(Library::connect(&identity)?);
        }
        self.library.as_ref().context("it was just made")
    }

    /// What etcd does with so many callers: measured once a run. It lives only meanwhile.
    pub fn etcd(&mut self, callers: usize, count: usize) -> Result<Side> {
        if let Some((_, side)) = self.puts.iter().find(|(by, _)| *by == callers) {
            return Ok(side.clone());
        }
        let folder = self.cluster.scratch().join("etcd");
        std::fs::create_dir_all(&folder)?;
        let etcd = Etcd::start(&folder)?;
        let side = etcd.puts(callers, count)?;
        drop(etcd);
        std::fs::remove_dir_all(&folder)?;
        self.puts.push((callers, side.clone()));
        Ok(side)
    }

    /// The processes worth a profile: the minister and the first mount.
    pub fn profiled(&mut self) -> [u32; 2] {
        let minister = self.cluster.minister(1);
        let minister = self.cluster.running(minister).id();
        [minister, self.cluster.mount_process(self.mounts[0]).process().id()]
    }
}
