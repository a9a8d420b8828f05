//! Groups of several nodes in this process, over a network and logs in memory, on paused time.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use common::{List, Switch};
use ministry_raft::{
    Compaction, Fatal, Group, GroupKind, Groups, MemoryLog, MemorySpool, NodeLog, ProposeError,
    ReadError, Settings,
};
use ministry_types::{GroupId, LogPosition, NodeId, Term};
use ministry_wire::raft::{RaftRefusal, RaftReply, RaftRequest, Vote};
use tokio::time::{Instant, sleep};

const GROUP: GroupId = GroupId(4);
const SOON: Duration = Duration::from_secs(5);

fn id(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn ids(numbers: &[u8]) -> BTreeSet<NodeId> {
    numbers.iter().copied().map(id).collect()
}

fn command(number: usize) -> Bytes {
    Bytes::from(format!("command {number}"))
}

/// What of a node outlives its process.
struct Node {
    log: MemoryLog,
    spool: MemorySpool,
    list: Arc<List>,
    groups: Option<Groups>,
}

struct Cluster {
    kind: GroupKind,
    settings: Settings,
    switch: Switch,
    nodes: BTreeMap<u8, Node>,
}

impl Cluster {
    async fn start(kind: GroupKind, numbers: &[u8]) -> Cluster {
        Cluster::with(kind, numbers, Settings::simulation(1)).await
    }

    async fn with(kind: GroupKind, numbers: &[u8], settings: Settings) -> Cluster {
        let mut switch = Switch::default();
        switch.latency = Duration::from_micros(100);
        let mut cluster = Cluster { kind, settings, switch, nodes: BTreeMap::new() };
        for number in numbers {
            let node = Node {
                log: MemoryLog::new(Duration::from_millis(1)),
                spool: MemorySpool::default(),
                list: Arc::default(),
                groups: None,
            };
            cluster.nodes.insert(*number, node);
            cluster.restart(*number).await;
        }
        cluster
    }

    /// Three members, of which the first leads.
    async fn appointed(settings: Settings, numbers: &[u8]) -> Cluster {
        let cluster = Cluster::with(GroupKind::Appointed, numbers, settings).await;
        assert!(cluster.group(1).initialize(ids(&[1, 2, 3])).await.unwrap());
        cluster.appoint(1).await;
        cluster
    }

    fn group(&self, number: u8) -> Group {
        self.nodes[&number].groups.as_ref().unwrap().get(GROUP).unwrap()
    }

    fn fatal(&self, number: u8) -> Fatal {
        self.nodes[&number].groups.as_ref().unwrap().fatal().clone()
    }

    async fn restart(&mut self, number: u8) {
        let node = self.nodes.get_mut(&number).unwrap();
        let groups = Groups::new(
            id(number),
            NodeLog::Memory(node.log.clone()),
            self.switch.from(id(number)),
            Arc::new(node.spool.clone()),
            self.settings,
            Fatal::new(),
        );
        groups.start(GROUP, self.kind, node.list.clone()).await.unwrap();
        self.switch.connect(id(number), groups.clone());
        node.groups = Some(groups);
    }

    /// Ends a node and forgets what it had not synced.
    async fn kill(&mut self, number: u8) {
        self.switch.disconnect(id(number));
        let node = self.nodes.get_mut(&number).unwrap();
        node.groups.take().unwrap().shutdown().await;
        node.log.crash();
        node.list.crash();
    }

    async fn appoint(&self, number: u8) {
        let group = self.group(number);
        let deadline = Instant::now() + SOON;
        while !group.status().is_leader {
            group.elect().await.unwrap();
            sleep(Duration::from_millis(30)).await;
            assert!(Instant::now() < deadline, "{number} does not win: {:?}", group.status());
        }
    }

    async fn leader(&self, among: &[u8]) -> u8 {
        let deadline = Instant::now() + SOON;
        loop {
            let leads = |number: &&u8| self.group(**number).status().is_leader;
            if let Some(leader) = among.iter().find(leads) {
                return *leader;
            }
            sleep(Duration::from_millis(10)).await;
            assert!(Instant::now() < deadline, "nobody leads");
        }
    }

    fn nobody_leads(&self, among: &[u8]) -> bool {
        among.iter().all(|number| !self.group(*number).status().is_leader)
    }

    async fn propose(&self, number: u8, commands: std::ops::Range<usize>) {
        for n in commands {
            let deadline = Instant::now() + SOON;
            loop {
                match self.group(number).propose(command(n)).await {
                    Ok(done) => {
                        assert_eq!(done.reply, n.to_string());
                        break;
                    }
                    Err(ProposeError::NotLeader { .. }) if Instant::now() < deadline => {
                        sleep(Duration::from_millis(10)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    async fn all_have(&self, numbers: &[u8], commands: usize) {
        let expected: Vec<Bytes> = (0..commands).map(command).collect();
        let deadline = Instant::now() + SOON;
        for number in numbers {
            while self.nodes[number].list.commands() != expected {
                sleep(Duration::from_millis(10)).await;
                let has = self.nodes[number].list.len();
                assert!(Instant::now() < deadline, "{number} has {has} of {commands}");
            }
        }
    }
}

fn small_log() -> Settings {
    Settings {
        compaction: Compaction { entries: 50, keep: 20, ..Compaction::default() },
        ..Settings::simulation(1)
    }
}

#[tokio::test(start_paused = true)]
async fn an_elected_group_elects_and_elects_again() {
    let mut cluster = Cluster::start(GroupKind::Elected, &[1, 2, 3]).await;
    assert!(cluster.group(2).initialize(ids(&[1, 2, 3])).await.unwrap());
    assert!(!cluster.group(2).initialize(ids(&[1, 2, 3])).await.unwrap());
    let first = cluster.leader(&[1, 2, 3]).await;
    cluster.propose(first, 0..20).await;
    cluster.kill(first).await;
    let rest: Vec<u8> = [1, 2, 3].into_iter().filter(|number| *number != first).collect();
    let killed = Instant::now();
    let second = cluster.leader(&rest).await;
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    cluster.propose(second, 20..40).await;
    cluster.restart(first).await;
    cluster.all_have(&[1, 2, 3], 40).await;
}

#[tokio::test(start_paused = true)]
async fn an_appointed_group_never_elects_by_itself_and_the_fullest_log_wins_after_the_lease() {
    let mut cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..10).await;
    cluster.switch.cut_off(id(3), true);
    cluster.propose(1, 10..20).await;
    cluster.kill(1).await;
    cluster.switch.cut_off(id(3), false);
    let killed = Instant::now();
    let (two, three) = (cluster.group(2).status(), cluster.group(3).status());
    assert!(two.last_log > three.last_log, "{} {}", two.last_log, three.last_log);
    sleep(Duration::from_secs(10)).await;
    assert!(cluster.nobody_leads(&[2, 3]));
    assert_eq!(cluster.group(2).status().term, two.term, "nobody stood for election");

    for _ in 0..20 {
        cluster.group(3).elect().await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(cluster.nobody_leads(&[2, 3]), "a log without what was acknowledged cannot win");
    cluster.appoint(2).await;
    cluster.propose(2, 20..30).await;
    cluster.all_have(&[2, 3], 30).await;
    assert!(killed.elapsed() > Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_successor_leads_within_a_second_of_the_leaders_end() {
    let mut cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..10).await;
    cluster.kill(1).await;
    let killed = Instant::now();
    cluster.appoint(2).await;
    cluster.propose(2, 10..11).await;
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    assert!(killed.elapsed() > Duration::from_millis(300), "not within the lease");
}

#[tokio::test(start_paused = true)]
async fn an_election_does_not_depose_a_living_leader() {
    let cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    let before = cluster.group(1).status();
    for _ in 0..50 {
        cluster.group(2).elect().await.unwrap();
        sleep(Duration::from_millis(37)).await;
    }
    let after = cluster.group(1).status();
    assert!(after.is_leader);
    assert_eq!(before.term, after.term);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_leader_does_not_resume() {
    let mut cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..10).await;
    cluster.kill(1).await;
    cluster.restart(1).await;
    for _ in 0..100 {
        sleep(Duration::from_millis(50)).await;
        assert!(cluster.nobody_leads(&[1, 2, 3]));
    }
    cluster.appoint(1).await;
    cluster.propose(1, 10..20).await;
    cluster.all_have(&[1, 2, 3], 20).await;
}

#[tokio::test(start_paused = true)]
async fn commands_lie_in_the_log_in_the_order_of_the_calls() {
    let cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..1).await;
    let group = cluster.group(1);
    let mut futures: Vec<_> = (1..2000).map(|n| group.propose(command(n))).collect();
    drop(futures.split_off(1990));
    let mut last: Option<LogPosition> = None;
    for (n, future) in futures.into_iter().enumerate().rev() {
        let done = future.await.unwrap();
        assert_eq!(done.reply, (n + 1).to_string());
        assert!(last.is_none_or(|last| last >= done.position));
        last = Some(done.position);
    }
    cluster.all_have(&[1, 2, 3], 2000).await;
}

#[tokio::test(start_paused = true)]
async fn commands_that_wait_together_share_an_entry_in_a_ministry_and_in_no_cluster_log() {
    for (kind, most) in [(GroupKind::Appointed, 300), (GroupKind::Elected, 1)] {
        let mut cluster = Cluster::start(kind, &[1, 2, 3]).await;
        cluster.group(1).initialize(ids(&[1, 2, 3])).await.unwrap();
        if kind == GroupKind::Appointed {
            cluster.appoint(1).await;
        }
        let leader = cluster.leader(&[1, 2, 3]).await;
        let group = cluster.group(leader);
        let futures: Vec<_> = (0..1000).map(|n| group.propose(command(n))).collect();
        let mut entries = BTreeMap::<LogPosition, usize>::new();
        for (n, future) in futures.into_iter().enumerate() {
            let done = future.await.unwrap();
            assert_eq!(done.reply, n.to_string(), "each is told its own");
            *entries.entry(done.position).or_default() += 1;
        }
        let shared = entries.values().max().unwrap();
        assert!((most / 2..=most).contains(shared), "{kind:?}: {entries:?}");
        cluster.kill(leader).await;
        cluster.restart(leader).await;
        if kind == GroupKind::Appointed {
            cluster.appoint(leader).await;
        }
        cluster.all_have(&[1, 2, 3], 1000).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_is_flushed_after_so_many_commands_however_few_their_entries() {
    let compaction = Compaction { entries: 1_000_000, commands: 500, keep: 20 };
    let settings = Settings { compaction, ..Settings::simulation(1) };
    let mut cluster = Cluster::appointed(settings, &[1, 2, 3]).await;
    cluster.propose(1, 0..1).await;
    for _ in 0..3 {
        let group = cluster.group(1);
        let futures: Vec<_> = (0..400).map(|_| group.propose(Bytes::new())).collect();
        for future in futures {
            future.await.unwrap();
        }
    }
    sleep(SOON).await;
    for number in [1, 2, 3] {
        assert!(cluster.group(number).status().last_log.index.0 < 100, "the entries are few");
        cluster.kill(number).await;
        let kept = cluster.nodes[&number].list.len();
        assert!(kept >= 700, "{number} has flushed {kept} of 1201");
    }
}

#[tokio::test(start_paused = true)]
async fn too_much_is_refused_before_it_is_done() {
    let cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..1).await;
    let group = cluster.group(1);
    let large = Bytes::from(vec![0; (1 << 20) + 1]);
    assert_eq!(group.propose(large).await, Err(ProposeError::TooLarge((1 << 20) + 1)));
    let futures: Vec<_> = (0..20_000).map(|_| group.propose(Bytes::new())).collect();
    let (mut done, mut busy) = (0, 0);
    for future in futures {
        match future.await {
            Ok(_) => done += 1,
            Err(ProposeError::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(done >= 8192 && busy > 0, "{done} {busy}");
    assert_eq!(cluster.nodes[&1].list.len(), done + 1);
    let refused = cluster.group(2).propose(Bytes::new()).await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(id(1)) }));
}

#[tokio::test(start_paused = true)]
async fn reads_are_answered_by_the_leader_alone_and_not_by_one_cut_off() {
    let cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..10).await;
    let index = cluster.group(1).linearize(SOON).await.unwrap();
    assert!(index.0 >= 10);
    let refused = cluster.group(2).linearize(SOON).await;
    assert_eq!(refused, Err(ReadError::NotLeader { leader: Some(id(1)) }));
    cluster.switch.cut_off(id(1), true);
    cluster.appoint(2).await;
    let cut = cluster.group(1).linearize(Duration::from_millis(500)).await;
    assert!(matches!(cut, Err(ReadError::TimedOut | ReadError::NotLeader { .. })), "{cut:?}");
    cluster.group(2).linearize(SOON).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_command_of_a_leader_that_lost_its_lead_is_never_called_done() {
    let cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..10).await;
    cluster.switch.cut_off(id(1), true);
    let lost = tokio::spawn(cluster.group(1).propose(Bytes::from_static(b"lost")));
    cluster.appoint(2).await;
    cluster.propose(2, 10..20).await;
    cluster.switch.cut_off(id(1), false);
    let lost = tokio::time::timeout(SOON, lost).await.unwrap().unwrap();
    assert_eq!(lost, Err(ProposeError::Unknown));
    cluster.all_have(&[1, 2, 3], 20).await;
}

#[tokio::test(start_paused = true)]
async fn the_lead_is_handed_over() {
    let cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..10).await;
    let started = Instant::now();
    cluster.group(1).transfer_leader(id(3), SOON).await.unwrap();
    cluster.propose(3, 10..20).await;
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    cluster.all_have(&[1, 2, 3], 20).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_handover_that_came_to_nothing_the_old_leader_can_be_appointed_again() {
    let cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..10).await;
    cluster.switch.cut_off(id(3), true);
    let failed = cluster.group(1).transfer_leader(id(3), SOON).await;
    assert_eq!(failed, Err(ministry_raft::RaftError::TimedOut));
    cluster.group(1).wait_for(SOON, |status| !status.is_leader).await.unwrap();
    cluster.appoint(1).await;
    cluster.propose(1, 10..20).await;
    cluster.switch.cut_off(id(3), false);
    cluster.all_have(&[1, 2, 3], 20).await;
}

#[tokio::test(start_paused = true)]
async fn everything_acknowledged_survives_the_crash_of_all() {
    let mut cluster = Cluster::appointed(small_log(), &[1, 2, 3]).await;
    for round in 0..5 {
        cluster.propose(1, round * 70..(round + 1) * 70).await;
        for number in [1, 2, 3] {
            cluster.kill(number).await;
        }
        for number in [1, 2, 3] {
            cluster.restart(number).await;
        }
        let last = [1, 2, 3].map(|number| cluster.group(number).status().last_log);
        let best = (0..3).max_by_key(|place| last[*place]).unwrap() as u8 + 1;
        cluster.appoint(best).await;
        cluster.all_have(&[1, 2, 3], (round + 1) * 70).await;
        if best != 1 {
            cluster.group(best).transfer_leader(id(1), SOON).await.unwrap();
        }
    }
    assert!(cluster.group(1).status().purged.0 > 200, "the log was shortened on the way");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_purged_only_below_what_is_flushed() {
    let settings = Settings {
        compaction: Compaction { entries: 1_000_000, keep: 20, ..Compaction::default() },
        ..Settings::simulation(1)
    };
    let mut cluster = Cluster::appointed(settings, &[1, 2, 3]).await;
    cluster.propose(1, 0..100).await;
    sleep(SOON).await;
    assert_eq!(cluster.group(1).status().purged.0, 0);
    cluster.group(1).snapshot_and_purge(SOON).await.unwrap();
    cluster.propose(1, 100..110).await;
    sleep(SOON).await;
    let status = cluster.group(1).status();
    assert!(status.purged.0 > 50, "{}", status.purged);
    assert!(status.purged.0 + 20 <= status.snapshot.0);
    cluster.kill(1).await;
    assert!(cluster.nodes[&1].list.len() >= 100, "flushed");
    cluster.restart(1).await;
    cluster.appoint(2).await;
    cluster.all_have(&[1, 2, 3], 110).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_late_gets_a_snapshot_and_the_rest_of_the_log() {
    let cluster = Cluster::appointed(small_log(), &[1, 2, 3, 4]).await;
    cluster.propose(1, 0..1000).await;
    assert!(cluster.group(1).status().purged.0 > 0);
    cluster.group(1).add_learner(id(4), true, SOON).await.unwrap();
    cluster.propose(1, 1000..1050).await;
    cluster.all_have(&[1, 2, 3, 4], 1050).await;
    assert_eq!(cluster.nodes[&4].list.installs.load(Ordering::SeqCst), 1);
    let status = cluster.group(1).status();
    assert_eq!(status.learners, ids(&[4]));
    assert!(status.lag(id(4)).unwrap() <= 50);
}

#[tokio::test(start_paused = true)]
async fn an_install_that_was_interrupted_is_done_again_at_the_next_start() {
    let mut cluster = Cluster::appointed(small_log(), &[1, 2, 3, 4]).await;
    cluster.propose(1, 0..1000).await;
    cluster.nodes[&4].list.fail_next_install.store(true, Ordering::SeqCst);
    let fatal = cluster.fatal(4);
    cluster.group(1).add_learner(id(4), false, SOON).await.unwrap();
    let reason = tokio::time::timeout(SOON, fatal.wait()).await.unwrap();
    assert!(reason.contains("the process ended in the middle"), "{reason}");
    cluster.kill(4).await;
    assert_eq!(cluster.nodes[&4].list.len(), 100, "half of it is there");
    cluster.switch.cut_off(id(4), true);
    cluster.restart(4).await;
    assert_eq!(cluster.nodes[&4].list.len(), 1000, "done again without anybody's help");
    cluster.switch.cut_off(id(4), false);
    cluster.propose(1, 1000..1010).await;
    cluster.all_have(&[1, 2, 3, 4], 1010).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_is_replaced_and_a_leader_that_is_removed_steps_aside_when_told() {
    let mut cluster = Cluster::appointed(small_log(), &[1, 2, 3, 4]).await;
    cluster.propose(1, 0..100).await;
    cluster.kill(3).await;
    let leader = cluster.group(1);
    let early = leader.change_members(ids(&[1, 2, 4]), false, SOON).await;
    assert!(matches!(early, Err(ministry_raft::RaftError::NotAllowed(_))), "{early:?}");
    leader.add_learner(id(4), true, SOON).await.unwrap();
    leader.change_members(ids(&[1, 2, 4]), false, SOON).await.unwrap();
    leader.wait_for(SOON, |status| !status.changing).await.unwrap();
    let status = leader.status();
    assert_eq!((status.voters, status.learners), (ids(&[1, 2, 4]), ids(&[])));
    cluster.kill(2).await;
    cluster.propose(1, 100..120).await;
    cluster.restart(2).await;
    let refused = cluster.group(2).change_members(ids(&[1, 2]), true, SOON).await;
    assert!(matches!(refused, Err(ministry_raft::RaftError::NotLeader { .. })), "{refused:?}");

    cluster.group(1).change_members(ids(&[2, 4]), true, SOON).await.unwrap();
    sleep(SOON).await;
    assert!(cluster.group(1).status().is_leader, "nobody was appointed");
    cluster.group(1).transfer_leader(id(4), SOON).await.unwrap();
    cluster.propose(4, 120..130).await;
    cluster.group(4).remove_learners(ids(&[1]), SOON).await.unwrap();
    assert_eq!(cluster.group(4).status().learners, ids(&[]));
    cluster.all_have(&[2, 4], 130).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_or_an_unknown_group_is_refused() {
    let cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    let groups = cluster.nodes[&2].groups.clone().unwrap();
    let vote = Vote { term: Term(99), node: id(1), committed: false };
    let request = RaftRequest::Vote { vote, last: None, transfer: true };
    let reply = groups.handle(id(3), GROUP, request.clone()).await;
    assert!(matches!(reply, RaftReply::Refused(RaftRefusal::NotAllowed(_))), "{reply:?}");
    let reply = groups.handle(id(1), GroupId(99), request).await;
    assert_eq!(reply, RaftReply::Refused(RaftRefusal::UnknownGroup(GroupId(99))));
    let vote = Vote { term: Term(99), node: id(3), committed: false };
    let append = RaftRequest::Append { vote, previous: None, committed: None, entries: vec![] };
    let reply = groups.handle(id(3), GROUP, append).await;
    assert!(matches!(reply, RaftReply::Refused(RaftRefusal::NotAllowed(_))), "{reply:?}");
    assert!(cluster.group(1).status().is_leader);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_just_started_keeps_the_lease_it_may_have_granted() {
    let mut cluster = Cluster::appointed(Settings::simulation(1), &[1, 2, 3]).await;
    cluster.propose(1, 0..10).await;
    cluster.kill(2).await;
    cluster.restart(2).await;
    let groups = cluster.nodes[&2].groups.clone().unwrap();
    let last = Some(cluster.group(1).status().last_log);
    let vote = Vote { term: Term(99), node: id(3), committed: false };
    let request = RaftRequest::Vote { vote, last, transfer: false };
    let reply = groups.handle(id(3), GROUP, request).await;
    assert_eq!(reply, RaftReply::Refused(RaftRefusal::JustStarted));
}

/// What happens in a cluster, with the times.
fn trace(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let started = Instant::now();
        let mut trace = Vec::new();
        let numbers = [1, 2, 3, 4, 5];
        let mut cluster =
            Cluster::with(GroupKind::Elected, &numbers, Settings::simulation(seed)).await;
        cluster.group(1).initialize(ids(&numbers)).await.unwrap();
        let mut commands = 0;
        for _ in 0..6 {
            let leader = cluster.leader(&numbers).await;
            cluster.propose(leader, commands..commands + 30).await;
            commands += 30;
            let status = cluster.group(leader).status();
            trace.push(format!("{leader} {} {:?}", status.last_log, started.elapsed()));
            cluster.kill(leader).await;
            let rest: Vec<u8> = numbers.into_iter().filter(|number| *number != leader).collect();
            cluster.leader(&rest).await;
            cluster.restart(leader).await;
            cluster.all_have(&numbers, commands).await;
        }
        trace
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
