//! An etcd of three members on the same disk: what a replicated commit costs elsewhere.
//!
//! Called by the measures of commits. As Debian ships it: every put is in the logs of two members,
//! synced, before it is acknowledged, as every change here is. What is in etcd's favour: no TLS,
//! and its clients talk to the leader directly. Ended and removed when dropped.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ministry_tests::ports::Ports;
use ministry_tests::process::{Process, Spawner};
use ministry_tests::{Program, wait};
use serde_json::Value;

use crate::figures::Side;
use crate::grpc::Connection;

const MEMBERS: usize = 3;
/// As in etcd's own benchmarks.
const VALUE: [u8; 256] = [b'e'; 256];

/// A running etcd.
pub struct Etcd {
    members: Vec<Process>,
    _spawner: Spawner,
    _ports: Ports,
    leader: String,
}

impl Etcd {
    /// Starts it in a folder and waits for its leader.
    pub fn start(folder: &Path) -> Result<Etcd> {
        let spawner = Spawner::new();
        let ports = Ports::reserve();
        let client = |member: usize| format!("http://{}", ports.spare(member));
        let peer = |member: usize| format!("http://{}", ports.spare(8 + member));
        let names = (0..MEMBERS).map(|member| format!("m{member}={}", peer(member)));
        let cluster = names.collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for member in 0..MEMBERS {
            let name = format!("m{member}");
            let data = folder.join(&name);
            std::fs::create_dir_all(&data)?;
            let mut command = Command::new("etcd");
            command.args(["--name", &name, "--data-dir"]).arg(&data);
            command.args(["--listen-client-urls", &client(member)]);
            command.args(["--advertise-client-urls", &client(member)]);
            command.args(["--listen-peer-urls", &peer(member)]);
            command.args(["--initial-advertise-peer-urls", &peer(member)]);
            command.args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"]);
            command.args(["--log-level", "error"]);
            members.push(spawner.start(command, &folder.join(format!("{name}.log"))));
        }
        let all = (0..MEMBERS).map(client).collect::<Vec<_>>().join(",");
        let found = wait::until(Duration::from_secs(60), "etcd has a leader", || leader(&all));
        let leader = found.trim_start_matches("http://").to_owned();
        Ok(Etcd { members, _spawner: spawner, _ports: ports, leader })
    }

    /// Puts by so many callers, each waiting for its answer before the next. All share one
    /// connection: of 1, 2, 8 and 64 connections etcd was fastest with one for 64 callers.
    pub fn puts(&self, callers: usize, count: usize) -> Result<Side> {
        let mut connection = Connection::open(&self.leader)?;
        // Not counted: the connection's beginning.
        connection.put("first-", 16, 1, &VALUE)?;
        let began = Instant::now();
        let times = connection.put("put-", count, callers, &VALUE)?;
        Ok(Side::new(count as f64, began.elapsed(), &times))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
    }
}

/// The leader's client address, once all members answer and agree.
fn leader(endpoints: &str) -> Option<String> {
    let ended = Program::new("etcdctl")
        .args(["endpoint", "status", "-w", "json", "--endpoints", endpoints])
        .env("ETCDCTL_API", "3")
        .run();
    let answer: Value = serde_json::from_str(&ended.out).ok()?;
    let members = answer.as_array().filter(|members| members.len() == MEMBERS)?;
    let found = members.iter().find(|member| {
        let status = &member["Status"];
        status["leader"].as_u64() != Some(0) && status["leader"] == status["header"]["member_id"]
    })?;
    found["Endpoint"].as_str().map(str::to_owned)
}

/// Whether the programs are there.
pub fn check() -> Result<()> {
    for program in ["etcd", "etcdctl", "bindfs", "tar"] {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(program).exists()));
        found.then_some(()).with_context(|| format!("{program} is not installed"))?;
    }
    Ok(())
}
