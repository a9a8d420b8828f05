//! Three nodes in this process with logs on disk, threads and the real clock.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{List, Switch};
use futures::future::join_all;
use ministry_raft::{
    Fatal, FileSpool, Group, GroupKind, Groups, NodeLog, RocksLog, Settings, StateMachine,
};
use ministry_types::{GroupId, NodeId};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

fn id(number: u8) -> NodeId {
    NodeId([number; 32])
}

struct Node {
    folder: TempDir,
    lists: Vec<Arc<List>>,
    groups: Option<Groups>,
}

impl Node {
    fn new(groups: u64) -> Node {
        let lists = (0..groups).map(|_| Arc::default()).collect();
        Node {
            folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            lists,
            groups: None,
        }
    }

    async fn start(&mut self, number: u8, switch: &Switch) {
        let fatal = Fatal::new();
        let log = RocksLog::open(&self.folder.path().join("log"), fatal.clone()).unwrap();
        let spool = FileSpool::open(&self.folder.path().join("spool")).unwrap();
        let groups = Groups::new(
            id(number),
            NodeLog::Rocks(log),
            switch.from(id(number)),
            Arc::new(spool),
            Settings::new(u64::from(number)),
            fatal,
        );
        for (group, list) in self.lists.iter().enumerate() {
            let list: Arc<dyn StateMachine> = list.clone();
            groups.start(GroupId(group as u64), GroupKind::Appointed, list).await.unwrap();
        }
        switch.connect(id(number), groups.clone());
        self.groups = Some(groups);
    }

    async fn stop(&mut self, number: u8, switch: &Switch) {
        switch.disconnect(id(number));
        self.groups.take().unwrap().shutdown().await;
        for list in &self.lists {
            list.crash();
        }
    }

    fn group(&self, group: u64) -> Group {
        self.groups.as_ref().unwrap().get(GroupId(group)).unwrap()
    }
}

async fn appoint(group: &Group) {
    let deadline = Instant::now() + SOON;
    while !group.status().is_leader {
        group.elect().await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(Instant::now() < deadline, "{:?}", group.status());
    }
    group.linearize(SOON).await.unwrap();
}

async fn three_nodes(groups: u64) -> (Switch, [Node; 3]) {
    let switch = Switch::default();
    let mut nodes = [Node::new(groups), Node::new(groups), Node::new(groups)];
    for (number, node) in (1..).zip(&mut nodes) {
        node.start(number, &switch).await;
    }
    let members: BTreeSet<NodeId> = [1, 2, 3].map(id).into();
    for group in 0..groups {
        let leader = nodes[0].group(group);
        leader.initialize(members.clone()).await.unwrap();
        appoint(&leader).await;
    }
    (switch, nodes)
}

async fn propose_in_parallel(group: &Group, tasks: usize, each: usize) {
    let work = (0..tasks).map(|task| {
        let group = group.clone();
        tokio::spawn(async move {
            for n in 0..each {
                let command = Bytes::from(format!("{task} {n} {}", "x".repeat(180)));
                group.propose(command).await.unwrap();
            }
        })
    });
    for done in join_all(work).await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_on_disk_keep_what_was_acknowledged_over_a_restart() {
    let (switch, mut nodes) = three_nodes(3).await;
    for group in 0..3 {
        propose_in_parallel(&nodes[0].group(group), 20, 20).await;
    }
    for (number, node) in (1..).zip(&mut nodes) {
        node.stop(number, &switch).await;
        assert_eq!(node.lists[0].len(), 0, "nothing was flushed");
    }
    for (number, node) in (1..).zip(&mut nodes) {
        node.start(number, &switch).await;
    }
    for group in 0..3 {
        let leader = nodes[1].group(group);
        appoint(&leader).await;
        assert_eq!(nodes[1].lists[group as usize].len(), 400);
    }
}

/// Run with `--ignored --nocapture` and look.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn throughput_of_three_replicas_on_one_disk() {
    for groups in [1, 4] {
        let (_switch, nodes) = three_nodes(groups).await;
        for (tasks, each) in [(1, 300), (64, 60), (1024, 10)] {
            let started = Instant::now();
            let work = (0..groups).map(|group| {
                let group = nodes[0].group(group);
                async move { propose_in_parallel(&group, tasks, each).await }
            });
            join_all(work).await;
            let commands = tasks * each * groups as usize;
            let rate = commands as f64 / started.elapsed().as_secs_f64();
            println!("{groups} groups, {tasks} tasks each: {rate:.0} commands/s");
        }
    }
}
