//! A cluster of ministers that really keep the rules, without consensus: each ministry is one
//! [`Namespace`] over a map in memory, served by whichever node is its minister now. Faults are put
//! into a queue and meet the next changes.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ministry_client::{Client, ClientConfig};
use ministry_namespace::{Command, CommandReply, Namespace, Overlay, QueryRefusal};
use ministry_transport::{
    Door, Incoming, PeerIdentity, Revocations, Security, Server, Subject, serve,
};
use ministry_types::government::{
    ClusterMap, MinistryCondition, MinistryEntry, NodeCondition, NodeEntry, NodeProfile,
};
use ministry_types::kv::{Kv, MemoryKv};
use ministry_types::limits::KEEP_ALIVE_INTERVAL;
use ministry_types::locks::LockProgress;
use ministry_types::{
    Caller, ClientId, ClusterId, Epoch, FsError, InodeId, LogIndex, MapVersion, MinistryId, NodeId,
    SessionId, Timestamp,
};
use ministry_wire::minister::{
    AppendTurn, AwaitLockRequest, ChangeReply, ChangeRequest, FsUsage, KeepAliveReply,
    KeepAliveRequest, Ministry, QueryReply, QueryRequest, ReclaimRequest, Refusal, ReignId,
};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tarpc::context::Context;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::network::Network;
use crate::storage::{MemoryPath, Storage};

const CLUSTER: ClusterId = ClusterId([9; 16]);

/// What befalls one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It never arrives.
    RequestLost,
    /// It is carried out, but nobody hears of it.
    ReplyLost,
    /// Refused as busy.
    Busy,
    /// Carried out, but the minister answers that it does not know.
    DoneButUnknown,
    /// The session has ended just before it arrived.
    SessionEnds,
}

/// One ministry.
struct Office {
    rules: Namespace,
    state: MemoryKv,
    minister: NodeId,
    epoch: Epoch,
    index: u64,
    /// Changes that were answered with success, now or again from their slot, in order.
    applied: Vec<String>,
    /// What sessions said to be closed.
    confirmed: Vec<(SessionId, InodeId)>,
}

/// The cluster.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    network: Network,
    storage: Storage,
    map: watch::Sender<ClusterMap>,
    offices: Mutex<BTreeMap<MinistryId, Office>>,
    faults: Mutex<VecDeque<Fault>>,
    clock: Mutex<i64>,
    servers: Mutex<Vec<AbortOnDropHandle<()>>>,
    clients: Mutex<u64>,
}

pub fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7000 + u16::from(number)))
}

impl Cluster {
    /// Three nodes; the first is minister of the root ministry.
    pub fn start() -> Cluster {
        let mut map = ClusterMap { cluster: CLUSTER, version: MapVersion(1), ..Default::default() };
        for number in 1..=3 {
            map.nodes.insert(node(number), node_entry(address(number)));
        }
        let inner = Inner {
            network: Network::default(),
            storage: Storage::default(),
            map: watch::Sender::new(map),
            offices: Mutex::default(),
            faults: Mutex::default(),
            clock: Mutex::new(1_000),
            servers: Mutex::default(),
            clients: Mutex::default(),
        };
        let cluster = Cluster { inner: Arc::new(inner) };
        for number in 1..=3 {
            cluster.serve(number);
        }
        cluster.form(MinistryId::ROOT, InodeId(1), InodeId(1 << 40));
        let time = cluster.now();
        cluster.command(MinistryId::ROOT, |epoch| Command::Found { epoch, time });
        cluster
    }

    fn serve(&self, number: u8) {
        let identity = PeerIdentity { cluster: CLUSTER, subject: Subject::Node(node(number)) };
        let security = Arc::new(Security::plain_for_simulation(identity));
        let answering = Node { cluster: self.clone(), id: node(number) };
        let handler = move |incoming: Incoming| {
            let answering = answering.clone();
            async move {
                assert_eq!(incoming.door, Door::Client);
                serve(incoming.stream, answering.serve(), |service, context, request| {
                    tarpc::server::Serve::serve(service, context, request)
                })
                .await;
            }
            .boxed()
        };
        let port = self.inner.network.listen(address(number));
        let server = Server::new(port, security, Revocations::default(), Arc::new(handler));
        let task = tokio::spawn(async move {
            server.run().await;
        });
        self.inner.servers.lock().push(AbortOnDropHandle::new(task));
    }

    /// Makes a ministry that owns a range of inodes.
    pub fn form(&self, ministry: MinistryId, first: InodeId, end: InodeId) {
        let office = Office {
            rules: Namespace::new(ministry.0, ministry),
            state: MemoryKv::default(),
            minister: node(1),
            epoch: Epoch(0),
            index: 0,
            applied: Vec::new(),
            confirmed: Vec::new(),
        };
        self.inner.offices.lock().insert(ministry, office);
        self.change_map(|map| {
            map.ownership.assign(first, end, ministry);
            let entry = MinistryEntry {
                epoch: Epoch(0),
                minister: None,
                members: (1..=3).map(node).collect(),
                condition: MinistryCondition::Governed,
                root: first,
                path: String::new(),
            };
            map.ministries.insert(ministry, entry);
        });
        self.appoint(ministry, node(1));
        self.publish_minister(ministry);
        let ranges = vec![(InodeId(first.0.max(256)), end)];
        self.command(ministry, |epoch| Command::AddRanges { epoch, ranges });
    }

    /// Gives a directory to another ministry, in their logs alone.
    pub fn give_away(&self, inode: InodeId, from: MinistryId, to: MinistryId) {
        let given =
            self.command(from, |epoch| Command::GiveAway { epoch, inode, to, generation: 7 });
        let CommandReply::GivenAway(Ok(record)) = given else { panic!("{given:?}") };
        self.command(to, |epoch| Command::Adopt { epoch, record, generation: 7 });
    }

    /// Tells of a new owner.
    pub fn publish_owner(&self, inode: InodeId, owner: MinistryId) {
        self.change_map(|map| {
            map.ownership.assign(inode, InodeId(inode.0 + 1), owner);
        });
    }

    /// Another minister begins to reign; nobody is told yet.
    pub fn appoint(&self, ministry: MinistryId, minister: NodeId) {
        let mut offices = self.inner.offices.lock();
        let office = offices.get_mut(&ministry).unwrap();
        office.minister = minister;
        office.epoch = office.epoch.next();
        drop(offices);
        let time = self.now();
        self.command(ministry, |epoch| Command::Reign { epoch, node: minister, time });
    }

    /// Tells all of the minister.
    pub fn publish_minister(&self, ministry: MinistryId) {
        let offices = self.inner.offices.lock();
        let (epoch, minister) = (offices[&ministry].epoch, offices[&ministry].minister);
        drop(offices);
        self.change_map(|map| {
            let entry = map.ministries.get_mut(&ministry).unwrap();
            (entry.epoch, entry.minister) = (epoch, Some(minister));
        });
    }

    fn change_map(&self, change: impl FnOnce(&mut ClusterMap)) {
        self.inner.map.send_modify(|map| {
            change(map);
            map.version = map.version.next();
        });
    }

    /// The next changes meet these.
    pub fn inject(&self, faults: &[Fault]) {
        self.inner.faults.lock().extend(faults);
    }

    /// Faults that have not met a change yet.
    pub fn faults_left(&self) -> usize {
        self.inner.faults.lock().len()
    }

    /// How often a change of this kind was answered with success, now or again from its slot.
    pub fn applied(&self, word: &str) -> usize {
        let offices = self.inner.offices.lock();
        offices.values().flat_map(|office| &office.applied).filter(|done| *done == word).count()
    }

    /// How many sessions said that this inode is closed at theirs.
    pub fn confirmed(&self, inode: InodeId) -> usize {
        let offices = self.inner.offices.lock();
        let said = offices.values().flat_map(|office| &office.confirmed);
        said.filter(|(_, said)| *said == inode).count()
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        let offices = self.inner.offices.lock();
        let open = |office: &Office| office.rules.sessions(&office.state).unwrap().len();
        offices.values().map(open).sum()
    }

    /// Ends all sessions.
    pub fn end_sessions(&self) {
        let offices = self.inner.offices.lock();
        let open: Vec<_> = offices
            .iter()
            .flat_map(|(ministry, office)| {
                let sessions = office.rules.sessions(&office.state).unwrap();
                sessions.into_iter().map(|(session, _)| (*ministry, session))
            })
            .collect();
        drop(offices);
        for (ministry, session) in open {
            self.command(ministry, |epoch| Command::EndSession { epoch, session });
        }
    }

    /// Whether the object still exists in some ministry.
    pub fn exists(&self, inode: InodeId) -> bool {
        let offices = self.inner.offices.lock();
        offices.values().any(|office| office.rules.exists(&office.state, inode).unwrap())
    }

    /// What storage holds.
    pub fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    /// A client, and its way to the storage.
    pub async fn client(&self) -> (Client, MemoryPath) {
        let number = {
            let mut clients = self.inner.clients.lock();
            *clients += 1;
            *clients
        };
        let mut id = ClientId::default();
        id.0[0] = number as u8;
        let identity = PeerIdentity { cluster: CLUSTER, subject: Subject::Client(id) };
        let config = ClientConfig {
            security: Arc::new(Security::plain_for_simulation(identity)),
            connector: Arc::new(self.inner.network.clone()),
            addresses: vec![address(9), address(2)],
            rng: SmallRng::seed_from_u64(number),
        };
        let path = self.inner.storage.path();
        let given = path.clone();
        let client = Client::connect_with_data(config, move |_| Arc::new(given)).await;
        (client.expect("a node answers"), path)
    }

    fn now(&self) -> Timestamp {
        let mut clock = self.inner.clock.lock();
        *clock += 1;
        Timestamp(*clock)
    }

    fn command(
        &self,
        ministry: MinistryId,
        command: impl FnOnce(Epoch) -> Command,
    ) -> CommandReply {
        let mut offices = self.inner.offices.lock();
        let office = offices.get_mut(&ministry).expect("the ministry exists");
        let command = command(office.epoch);
        office.index += 1;
        office.apply(&command)
    }
}

impl Office {
    fn apply(&mut self, command: &Command) -> CommandReply {
        let mut overlay = Overlay::new(&self.state);
        let reply = self.rules.apply(&mut overlay, command).expect("memory does not fail");
        let batch = overlay.into_batch();
        self.state.write(batch).expect("memory does not fail");
        reply
    }
}

fn node_entry(address: SocketAddr) -> NodeEntry {
    let profile = NodeProfile {
        address,
        metrics_address: None,
        failure_domain: String::new(),
        offers_metadata: true,
        storage_weight: 1.0,
        version: String::new(),
        feature_level: 1,
    };
    NodeEntry { profile, condition: NodeCondition::Alive, elector: true }
}

/// One node, answering.
#[derive(Clone)]
struct Node {
    cluster: Cluster,
    id: NodeId,
}

impl Node {
    /// Refuses unless this node is the minister.
    fn office(&self, ministry: MinistryId) -> Result<(), Refusal> {
        let offices = self.cluster.inner.offices.lock();
        let office = offices.get(&ministry);
        match office {
            Some(office) if office.minister == self.id => Ok(()),
            Some(office) => Err(Refusal::NotMinister {
                ministry,
                epoch: office.epoch,
                hint: Some(office.minister),
            }),
            None => Err(Refusal::NotMinister { ministry, epoch: Epoch(0), hint: None }),
        }
    }

    fn reply(&self, ministry: MinistryId, session: SessionId) -> KeepAliveReply {
        let offices = self.cluster.inner.offices.lock();
        let office = &offices[&ministry];
        let orphans = office.rules.orphans_awaiting(&office.state, session, 100).unwrap();
        KeepAliveReply {
            epoch: office.epoch,
            orphans,
            lives_for: 5 * KEEP_ALIVE_INTERVAL,
            reign: ReignId { epoch: office.epoch, incarnation: 0 },
            logged_until: Timestamp(0),
        }
    }

    fn wrong_ministry(&self, owner: MinistryId) -> Refusal {
        let map_version = self.cluster.inner.map.borrow().version.next();
        Refusal::WrongMinistry { owner, map_version }
    }

    fn carry_out(&self, request: ChangeRequest) -> Result<ChangeReply, Refusal> {
        let ChangeRequest { ministry, id, caller, operation } = request;
        let time = self.cluster.now();
        let word = operation.word();
        let reply = self.cluster.command(ministry, |epoch| Command::Change {
            epoch,
            session: id.session,
            slot: id.slot,
            sequence: id.sequence,
            caller,
            time,
            operation,
        });
        let mut offices = self.cluster.inner.offices.lock();
        let office = offices.get_mut(&ministry).unwrap();
        let index = LogIndex(office.index);
        match reply {
            CommandReply::Change(result) => {
                if result.is_ok() {
                    office.applied.push(word.to_owned());
                }
                let reign = ReignId { epoch: office.epoch, incarnation: 0 };
                Ok(ChangeReply { index, result, reign, soft: None, logged_until: Timestamp(0) })
            }
            CommandReply::Elsewhere { owner } => Err(self.wrong_ministry(owner)),
            CommandReply::UnknownSession => Err(Refusal::UnknownSession),
            CommandReply::StaleSequence => Err(Refusal::StaleRequest),
            other => panic!("{other:?}"),
        }
    }
}

impl Ministry for Node {
    async fn map(self, _: Context, known: MapVersion, wait: Duration) -> Option<ClusterMap> {
        let mut map = self.cluster.inner.map.subscribe();
        let newer = map.wait_for(|map| map.version > known);
        let newer = tokio::time::timeout(wait, newer).await.ok()?.ok()?;
        Some(newer.clone())
    }

    async fn open_session(
        self,
        _: Context,
        ministry: MinistryId,
        session: SessionId,
    ) -> Result<KeepAliveReply, Refusal> {
        self.office(ministry)?;
        let client = ClientId::default();
        self.cluster.command(ministry, |epoch| Command::OpenSession { epoch, session, client });
        Ok(self.reply(ministry, session))
    }

    async fn close_session(
        self,
        _: Context,
        ministry: MinistryId,
        session: SessionId,
    ) -> Result<(), Refusal> {
        self.office(ministry)?;
        self.cluster.command(ministry, |epoch| Command::EndSession { epoch, session });
        Ok(())
    }

    async fn keep_alive(
        self,
        _: Context,
        request: KeepAliveRequest,
    ) -> Result<KeepAliveReply, Refusal> {
        let KeepAliveRequest { ministry, session, closed } = request;
        self.office(ministry)?;
        let said = closed.iter().map(|inode| (session, *inode));
        let mut offices = self.cluster.inner.offices.lock();
        offices.get_mut(&ministry).unwrap().confirmed.extend(said);
        drop(offices);
        let inodes = closed.clone();
        let reply = self.cluster.command(ministry, |epoch| Command::ConfirmClosed {
            epoch,
            session,
            inodes,
        });
        match reply {
            CommandReply::Done => Ok(self.reply(ministry, session)),
            CommandReply::UnknownSession => Err(Refusal::UnknownSession),
            other => panic!("{other:?}"),
        }
    }

    async fn change(self, _: Context, request: ChangeRequest) -> Result<ChangeReply, Refusal> {
        self.office(request.ministry)?;
        let fault = self.cluster.inner.faults.lock().pop_front();
        match fault {
            None => self.carry_out(request),
            Some(Fault::RequestLost) => std::future::pending().await,
            Some(Fault::ReplyLost) => {
                let _ = self.carry_out(request);
                std::future::pending().await
            }
            Some(Fault::Busy) => Err(Refusal::Busy { retry_after: Duration::from_millis(5) }),
            Some(Fault::DoneButUnknown) => {
                let _ = self.carry_out(request);
                Err(Refusal::Unknown)
            }
            Some(Fault::SessionEnds) => {
                self.cluster.end_sessions();
                self.carry_out(request)
            }
        }
    }

    async fn query(self, _: Context, request: QueryRequest) -> Result<QueryReply, Refusal> {
        self.office(request.ministry)?;
        let offices = self.cluster.inner.offices.lock();
        let office = &offices[&request.ministry];
        assert!(request.seen.0 <= office.index, "nothing was seen that never was");
        let sessions = office.rules.sessions(&office.state).unwrap();
        if sessions.iter().all(|(session, _)| *session != request.session) {
            return Err(Refusal::UnknownSession);
        }
        let index = LogIndex(office.index);
        let answer = office.rules.query(&office.state, &request.caller, &request.query);
        match answer.expect("memory does not fail") {
            Ok(answer) => Ok(QueryReply { index, result: Ok(answer) }),
            Err(QueryRefusal::Fs(error)) => Ok(QueryReply { index, result: Err(error) }),
            Err(QueryRefusal::Elsewhere { owner }) => Err(self.wrong_ministry(owner)),
        }
    }

    async fn usage(self, _: Context) -> Option<FsUsage> {
        (self.id == node(3)).then(|| FsUsage { total_bytes: 42, ..FsUsage::default() })
    }

    async fn reclaim(self, _: Context, request: ReclaimRequest) -> Result<(), Refusal> {
        self.office(request.ministry)?;
        let offices = self.cluster.inner.offices.lock();
        let epoch = offices[&request.ministry].epoch;
        let reign = ReignId { epoch, incarnation: 0 };
        if request.reign == reign { Ok(()) } else { Err(Refusal::ReclaimFirst { reign }) }
    }

    async fn append_turn(
        self,
        _: Context,
        ministry: MinistryId,
        _: SessionId,
        inode: InodeId,
    ) -> Result<Result<AppendTurn, FsError>, Refusal> {
        self.office(ministry)?;
        let offices = self.cluster.inner.offices.lock();
        let office = &offices[&ministry];
        let found = office.rules.attributes(&office.state, inode).unwrap();
        Ok(found.map(|attributes| AppendTurn { turn: 1, attributes }).ok_or(FsError::Stale))
    }

    async fn end_turn(
        self,
        _: Context,
        ministry: MinistryId,
        _: SessionId,
        _: InodeId,
        _: u64,
    ) -> Result<(), Refusal> {
        self.office(ministry)
    }

    /// Looks again every few moments: the tests are about the client.
    async fn await_lock(
        self,
        _: Context,
        request: AwaitLockRequest,
    ) -> Result<LockProgress, Refusal> {
        let AwaitLockRequest { ministry, session, inode, request, wait } = request;
        let until = tokio::time::Instant::now() + wait;
        loop {
            self.office(ministry)?;
            let (lives, progress) = {
                let offices = self.cluster.inner.offices.lock();
                let office = offices.get(&ministry).unwrap();
                let sessions = office.rules.sessions(&office.state).unwrap();
                let lives = sessions.iter().any(|(living, _)| *living == session);
                let state = &office.state;
                (lives, office.rules.lock_progress(state, session, inode, request).unwrap())
            };
            if !lives {
                return Err(Refusal::UnknownSession);
            }
            if progress == LockProgress::Settled || tokio::time::Instant::now() >= until {
                return Ok(progress);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Who acts in most tests.
pub fn root() -> Caller {
    Caller::root()
}
