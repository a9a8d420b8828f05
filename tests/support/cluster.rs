//! A whole cluster on this machine: real processes, real folders, real mounts.
//!
//! Founded and joined by the programs themselves, as deploy/local/up does. Ends with all it made
//! when dropped, also when the test panics; then the ends of all logs are shown. With
//! `MINISTRY_KEEP=1` the folder stays.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::mount::Mount;
use crate::ports::Ports;
use crate::process::{Process, Spawner};
use crate::{Ended, Program, sandbox, wait};

/// How long a cluster may take to serve. It takes under a second; a busy machine more.
const SERVING: Duration = Duration::from_secs(60);
/// Lines of each log shown when a test fails.
const LINES_SHOWN: usize = 40;

/// What a cluster consists of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Nodes, three or more.
    pub nodes: usize,
    /// Mounts, each with credentials of its own.
    pub mounts: usize,
    /// Each node has a disk of its own of so many bytes, instead of a folder of the common one.
    pub disk_bytes: Option<u64>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { nodes: 5, mounts: 1, disk_bytes: None }
    }
}

#[derive(Debug, Default)]
struct Node {
    id: OnceLock<String>,
    process: Option<Process>,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // In the order of their end: mounts, nodes, the spawner, the folder.
    mounts: Vec<Mount>,
    nodes: Vec<Node>,
    spawner: Spawner,
    ports: Ports,
    folder: Option<TempDir>,
    top: PathBuf,
    binaries: PathBuf,
}

/// Where `ministryd` and `ministryctl` lie: beside the folder of the test's own program, or in
/// `MINISTRY_BIN`.
pub fn binaries() -> PathBuf {
    if let Some(folder) = std::env::var_os("MINISTRY_BIN") {
        return PathBuf::from(folder);
    }
    let own = std::env::current_exe().expect("a program knows where it lies");
    let folder = own.parent().and_then(Path::parent).expect("target/release/deps/test").to_owned();
    for name in ["ministryd", "ministryctl"] {
        assert!(
            folder.join(name).exists(),
            "there is no {name} in {folder:?}: cargo build --release -p ministryd -p ministryctl"
        );
    }
    folder
}

impl Cluster {
    /// Five nodes, one mount.
    pub fn start() -> Cluster {
        Cluster::with(Plan::default())
    }

    /// Five nodes, two mounts.
    pub fn with_two_mounts() -> Cluster {
        Cluster::with(Plan { mounts: 2, ..Plan::default() })
    }

    /// Any cluster: when this returns, every ministry serves and the mounts are there.
    pub fn with(plan: Plan) -> Cluster {
        let began = Instant::now();
        let mut cluster = Cluster::bare();
        if let Some(bytes) = plan.disk_bytes {
            (0..plan.nodes).for_each(|node| sandbox::small_disk(&cluster.data(node), bytes));
        }
        cluster.found(plan.nodes);
        cluster.join_nodes(plan.nodes);
        cluster.wait_until_serving();
        for _ in 0..plan.mounts {
            cluster.add_mount();
        }
        // Standard output belongs to whoever measures.
        eprintln!(
            "{} nodes and {} mounts serve after {:.2} s",
            plan.nodes,
            plan.mounts,
            began.elapsed().as_secs_f64()
        );
        cluster
    }

    /// Folders and ports, no node yet.
    pub fn bare() -> Cluster {
        sandbox::enter_mount_namespace();
        let folder = sandbox::folder();
        let top = folder.path().to_owned();
        for name in ["nodes", "clients", "mounts", "log", "scratch"] {
            std::fs::create_dir(top.join(name)).expect("a folder");
        }
        // Ordinary users get to the mounts.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(&top, mode).expect("our folder");
        Cluster {
            mounts: Vec::new(),
            nodes: Vec::new(),
            spawner: Spawner::new(),
            ports: Ports::reserve(),
            folder: Some(folder),
            top,
            binaries: binaries(),
        }
    }

    fn found(&mut self, nodes: usize) {
        let flags = self.node_flags(0);
        self.ctl(&["network", "create"]).args(flags).args(["--nodes", &nodes.to_string()]).ok();
        self.start_node(0);
    }

    fn join_nodes(&mut self, nodes: usize) {
        if nodes < 2 {
            return;
        }
        let count = (nodes - 1).to_string();
        let tokens = self.ctl(&["--timeout", "60s", "invite", "--node", "--count", &count]).ok();
        let tokens: Vec<&str> = tokens.lines().collect();
        assert_eq!(tokens.len(), nodes - 1, "{tokens:?}");
        let joins: Vec<Program> = tokens
            .iter()
            .enumerate()
            .map(|(number, token)| {
                self.ministryd(&["join", token]).args(self.node_flags(number + 1))
            })
            .collect();
        std::thread::scope(|scope| {
            for join in &joins {
                scope.spawn(|| join.ok());
            }
        });
        for node in 1..nodes {
            self.start_node(node);
        }
    }

    fn node_flags(&self, node: usize) -> Vec<String> {
        [
            "--data",
            self.data(node).to_str().expect("a plain path"),
            "--listen",
            &self.ports.node(node),
            "--metrics",
            &self.ports.metrics(node),
            "--failure-domain",
            &format!("test/node{node}"),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Waits until there is a president and every ministry serves.
    pub fn wait_until_serving(&self) {
        let timeout = format!("{}s", SERVING.as_secs());
        self.ctl(&["--timeout", &timeout, "status", "--wait"]).ok();
    }

    /// One more mount; gives its number. Its credentials are new, but those of the mount that had
    /// this number before everything was killed.
    pub fn add_mount(&mut self) -> usize {
        let number = self.mounts.len();
        let name = format!("client-{number}");
        let kept = self.top.join("clients").join(&name);
        let identity = if kept.exists() { kept } else { self.new_client(&name) };
        let mount = Mount::start(
            &self.spawner,
            &self.binaries.join("ministryctl"),
            &self.top.join("mounts").join(number.to_string()),
            &identity,
            &self.top.join("log").join(format!("mount-{number}.log")),
        );
        self.mounts.push(mount);
        number
    }

    /// Credentials of a new client.
    pub fn new_client(&self, name: &str) -> PathBuf {
        let identity = self.top.join("clients").join(name);
        let token = self.ctl(&["--timeout", "60s", "invite", "--client"]).ok();
        self.ctl(&["client", "join", token.trim(), "--identity"]).arg(&identity).ok();
        identity
    }

    /// Where mount `number` is.
    pub fn mount(&self, number: usize) -> &Path {
        self.mounts[number].path()
    }

    /// Mount `number` itself, for killing and stopping it.
    pub fn mount_process(&mut self, number: usize) -> &mut Mount {
        &mut self.mounts[number]
    }

    /// A folder beside the cluster, on the local disk.
    pub fn scratch(&self) -> PathBuf {
        self.top.join("scratch")
    }

    /// The top folder of all that belongs to the cluster.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The ports of the cluster.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The data folder of a node, by its number from 0.
    pub fn data(&self, node: usize) -> PathBuf {
        self.top.join("nodes").join(node.to_string())
    }

    /// The log of a node.
    pub fn log_of(&self, node: usize) -> String {
        std::fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    fn log_path(&self, node: usize) -> PathBuf {
        self.top.join("log").join(format!("node-{node}.log"))
    }

    /// The id of a node, from the marker that its first start writes.
    pub fn id(&self, node: usize) -> &str {
        self.nodes[node].id.get_or_init(|| {
            let marker = self.data(node).join("ministry.toml");
            let marker = wait::until(SERVING, "the folder of the node has a marker", || {
                std::fs::read_to_string(&marker).ok()
            });
            let line = marker.lines().find_map(|line| line.strip_prefix("node = "));
            line.expect("the marker names the node").trim_matches('"').to_owned()
        })
    }

    /// The number of the node with this id.
    pub fn node_of(&self, id: &str) -> usize {
        let found = (0..self.nodes.len()).find(|node| self.id(*node) == id);
        found.unwrap_or_else(|| panic!("no node has the id {id}"))
    }

    /// The number of the president.
    pub fn president(&self) -> usize {
        let status = self.json(&["status"]);
        self.node_of(status["president"].as_str().expect("a president"))
    }

    /// The number of the minister of a ministry.
    pub fn minister(&self, ministry: u64) -> usize {
        let answer = self.json(&["ministries"]);
        let ministries = answer["ministries"].as_array().expect("a list");
        let wanted = ministries.iter().find(|one| one["ministry"] == ministry).expect("it exists");
        self.node_of(wanted["minister"].as_str().expect("it has a minister"))
    }

    /// The numbers of all members of a ministry, the minister first.
    pub fn members(&self, ministry: u64) -> Vec<usize> {
        let answer = self.json(&["ministries"]);
        let ministries = answer["ministries"].as_array().expect("a list");
        let wanted = ministries.iter().find(|one| one["ministry"] == ministry).expect("it exists");
        let clerks = wanted["clerks"].as_array().expect("a list");
        std::iter::once(&wanted["minister"])
            .chain(clerks)
            .map(|id| self.node_of(id.as_str().expect("an id")))
            .collect()
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, node: usize) {
        let mut command = Command::new(self.binaries.join("ministryd"));
        command.arg("run").arg("--data").arg(self.data(node));
        let process = self.spawner.start(command, &self.log_path(node));
        if node == self.nodes.len() {
            self.nodes.push(Node::default());
        }
        let place = &mut self.nodes[node].process;
        assert!(place.is_none(), "node {node} runs already");
        *place = Some(process);
    }

    /// `kill -9` of a node.
    pub fn kill_node(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill();
        }
    }

    /// Stops a node in order.
    pub fn stop_node(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            let status = process.stop(Duration::from_secs(20));
            let status = status.unwrap_or_else(|| panic!("node {node} does not stop"));
            assert!(status.success(), "node {node}: {status}");
        }
    }

    /// SIGSTOP: the node stands still, its connections stay.
    pub fn pause_node(&mut self, node: usize) {
        self.running(node).signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume_node(&mut self, node: usize) {
        self.running(node).signal(libc::SIGCONT);
    }

    /// The process of a node that runs.
    pub fn running(&mut self, node: usize) -> &mut Process {
        let process = self.nodes[node].process.as_mut();
        process.unwrap_or_else(|| panic!("node {node} does not run"))
    }

    /// Whether the process of a node runs.
    pub fn runs(&mut self, node: usize) -> bool {
        self.nodes[node].process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// `kill -9` of all nodes at once, and of the mounts if asked.
    pub fn kill_all(&mut self, mounts_too: bool) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.signal(libc::SIGKILL);
            }
        }
        if mounts_too {
            self.mounts.clear();
        }
        for node in 0..self.nodes.len() {
            self.kill_node(node);
        }
    }

    /// Starts every node that does not run, and waits until all is served.
    pub fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_none() {
                self.start_node(node);
            }
        }
        self.wait_until_serving();
    }

    /// `ministryctl` with the operator's credentials.
    pub fn ctl(&self, arguments: &[&str]) -> Program {
        self.plain_ctl().arg("--admin").arg(self.top.join("admin")).args(arguments)
    }

    /// `ministryctl` without credentials.
    pub fn plain_ctl(&self) -> Program {
        Program::new(self.binaries.join("ministryctl")).env("HOME", self.top.join("nobody"))
    }

    /// `ministryd`.
    pub fn ministryd(&self, arguments: &[&str]) -> Program {
        Program::new(self.binaries.join("ministryd")).args(arguments)
    }

    /// What `ministryctl --json` answers.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let out = self.ctl(&["--json", "--timeout", "30s"]).args(arguments).ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{out}"))
    }

    /// Gives an empty folder of the mounts to a ministry of its own and waits until that serves.
    pub fn create_ministry(&self, subtree: &str) -> Ended {
        self.ctl(&["--timeout", "60s", "ministry", "create", "--subtree", subtree, "--wait"]).run()
    }

    /// Resident memory of all nodes and the mounts, in bytes.
    pub fn memory(&self) -> u64 {
        let nodes = self.nodes.iter().filter_map(|node| node.process.as_ref()).map(Process::memory);
        nodes.chain(self.mounts.iter().map(Mount::memory)).sum()
    }

    /// Every process that ended without being told to.
    pub fn assert_all_run(&mut self) {
        for number in 0..self.nodes.len() {
            if let Some(process) = &mut self.nodes[number].process {
                let ended = process.ended();
                assert!(ended.is_none(), "node {number} ended by itself: {ended:?}");
            }
        }
        for mount in &mut self.mounts {
            let path = mount.path().to_owned();
            let ended = mount.process().ended();
            assert!(ended.is_none(), "the mount at {path:?} ended by itself: {ended:?}");
        }
    }

    /// Names of files with the data of inodes, over all nodes.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let folders = (0..self.nodes.len()).map(|node| self.data(node).join("chunks/objects"));
        let mut todo: Vec<PathBuf> = folders.collect();
        while let Some(folder) = todo.pop() {
            // A folder may go while it is read.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match path.extension() {
                    Some(extension) if extension == "data" => found.push(path),
                    Some(_) => {}
                    None => todo.push(path),
                }
            }
        }
        found
    }

    /// The data files of one inode, over all nodes.
    pub fn objects_of(&self, inode: u64) -> Vec<PathBuf> {
        let name = format!("{inode:016x}.data");
        let named = |path: &PathBuf| path.file_name().is_some_and(|found| found == name.as_str());
        self.objects().into_iter().filter(named).collect()
    }

    /// Waits until no node has data of this inode.
    pub fn wait_until_purged(&self, inode: u64, within: Duration) {
        wait::until_true(within, "the data of the removed file is gone from every node", || {
            self.objects_of(inode).is_empty()
        });
    }

    fn show_logs(&self) {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(self.top.join("log"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        logs.sort();
        for log in logs {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("== {} ({} lines)", log.display(), lines.len());
            for line in lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)) {
                println!("{line}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        if std::env::var_os("MINISTRY_KEEP").is_some()
            && let Some(folder) = self.folder.take()
        {
            println!("kept: {}", folder.keep().display());
        }
        self.mounts.clear();
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.signal(libc::SIGKILL);
            }
        }
        self.nodes.clear();
        let disks = sandbox::mounts().into_iter().filter(|(at, _)| at.starts_with(&self.top));
        disks.for_each(|(at, _)| sandbox::detach(&at));
    }
}
