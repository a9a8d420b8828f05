//! One ministry in memory, with a short way to ask it.

use std::ops::ControlFlow;

use bytes::Bytes;
use ministry_types::kv::{Kv, KvRead, MemoryKv};
use ministry_types::operations::{
    Answer, ChangeResult, Entry, Operation, Outcome, Query, SetAttributes, WriteAt,
};
use ministry_types::{
    Attributes, Caller, ClientId, Epoch, FileKind, FsError, InodeId, MinistryId, NodeId, SessionId,
    Timestamp,
};

use crate::{Command, CommandReply, Namespace, Overlay, QueryRefusal};

pub(super) const ROOT: InodeId = InodeId::ROOT;
pub(super) const SESSION: SessionId = SessionId([1; 16]);

pub(super) struct World {
    pub(super) kv: MemoryKv,
    pub(super) rules: Namespace,
    pub(super) epoch: Epoch,
    pub(super) sequence: u64,
    pub(super) time: Timestamp,
}

pub(super) fn user(uid: u32, gid: u32, groups: &[u32]) -> Caller {
    Caller { uid, gid, groups: groups.to_vec() }
}

pub(super) fn create(parent: InodeId, name: &str, kind: FileKind, permissions: u32) -> Operation {
    let target = if kind == FileKind::Symlink { b"target".to_vec() } else { Vec::new() };
    let name = name.as_bytes().to_vec();
    Operation::Create { parent, name, kind, permissions, umask: 0, device: 0, target }
}

impl World {
    /// A founded root ministry with one session.
    pub(super) fn new() -> World {
        let mut world = World::bare(MinistryId::ROOT);
        world.must(&Command::Found { epoch: Epoch(1), time: Timestamp(1) });
        world.must(&Command::AddRanges {
            epoch: Epoch(1),
            ranges: vec![(InodeId(1), InodeId(1 << 40)), (InodeId(1 << 41), InodeId(1 << 42))],
        });
        world.open_session(SESSION);
        world
    }

    /// A ministry under its first reign, without anything.
    pub(super) fn bare(ministry: MinistryId) -> World {
        let mut world = World {
            kv: MemoryKv::default(),
            rules: Namespace::new(ministry.0, ministry),
            epoch: Epoch(1),
            sequence: 0,
            time: Timestamp(1_000),
        };
        let (epoch, time) = (Epoch(1), Timestamp(0));
        world.must(&Command::Reign { epoch, node: NodeId([9; 32]), time });
        world
    }

    pub(super) fn apply(&mut self, command: &Command) -> CommandReply {
        let command = Command::decode(&command.encode()).unwrap();
        let view = self.kv.view();
        let mut overlay = Overlay::remembering(&*view);
        let reply = self.rules.apply(&mut overlay, &command).unwrap();
        let batch = overlay.into_batch();
        self.kv.write(batch).unwrap();
        reply
    }

    pub(super) fn must(&mut self, command: &Command) {
        assert_eq!(self.apply(command), CommandReply::Done, "{command:?}");
    }

    pub(super) fn open_session(&mut self, session: SessionId) {
        let (epoch, client) = (self.epoch, ClientId([5; 16]));
        self.must(&Command::OpenSession { epoch, session, client });
    }

    /// The next change of the session, in its slot 0.
    pub(super) fn command(&mut self, caller: &Caller, operation: Operation) -> Command {
        self.sequence += 1;
        self.time.0 += 10;
        Command::Change {
            epoch: self.epoch,
            session: SESSION,
            slot: 0,
            sequence: self.sequence,
            caller: caller.clone(),
            time: self.time,
            operation,
        }
    }

    pub(super) fn change(&mut self, caller: &Caller, operation: Operation) -> ChangeResult {
        let command = self.command(caller, operation);
        match self.apply(&command) {
            CommandReply::Change(result) => result,
            other => panic!("{command:?} answered {other:?}"),
        }
    }

    pub(super) fn root(&mut self, operation: Operation) -> ChangeResult {
        self.change(&Caller::root(), operation)
    }

    pub(super) fn made(&mut self, caller: &Caller, operation: Operation) -> Attributes {
        match self.change(caller, operation) {
            Ok(Outcome::Attributes(attributes)) => attributes,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn file(&mut self, parent: InodeId, name: &str) -> InodeId {
        self.made(&Caller::root(), create(parent, name, FileKind::Regular, 0o644)).inode
    }

    pub(super) fn directory(&mut self, parent: InodeId, name: &str) -> InodeId {
        self.made(&Caller::root(), create(parent, name, FileKind::Directory, 0o755)).inode
    }

    pub(super) fn set(&mut self, inode: InodeId, set: SetAttributes) -> ChangeResult {
        self.root(Operation::SetAttributes { inode, set })
    }

    pub(super) fn mode(&mut self, inode: InodeId, permissions: u32) {
        let set = SetAttributes { permissions: Some(permissions), ..Default::default() };
        self.set(inode, set).unwrap();
    }

    pub(super) fn write(&mut self, inode: InodeId, at: WriteAt, data: &[u8]) -> ChangeResult {
        let data = Bytes::copy_from_slice(data);
        self.root(Operation::WriteInline { inode, at, data })
    }

    pub(super) fn query(&self, caller: &Caller, query: &Query) -> Result<Answer, QueryRefusal> {
        self.rules.query(&*self.kv.view(), caller, query).unwrap()
    }

    pub(super) fn stat(&self, inode: InodeId) -> Attributes {
        match self.query(&Caller::root(), &Query::GetAttributes { inode }) {
            Ok(Answer::Attributes(attributes)) => attributes,
            other => panic!("{inode}: {other:?}"),
        }
    }

    pub(super) fn content(&self, inode: InodeId) -> Option<Vec<u8>> {
        match self.query(&Caller::root(), &Query::Read { inode, access: false }) {
            Ok(Answer::Content { inline, .. }) => inline.map(|bytes| bytes.to_vec()),
            other => panic!("{inode}: {other:?}"),
        }
    }

    pub(super) fn lookup(&self, caller: &Caller, parent: InodeId, name: &str) -> Lookup {
        let query = Query::Lookup { parent, name: name.as_bytes().to_vec() };
        match self.query(caller, &query) {
            Ok(Answer::Entry { inode, .. }) => Ok(inode),
            Err(QueryRefusal::Fs(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn list(&self, inode: InodeId, after: u64, most: u32) -> (Vec<Entry>, bool) {
        let query = Query::List { inode, after, entries_max: most, attributes: true };
        match self.query(&Caller::root(), &query) {
            Ok(Answer::Listing { entries, end, .. }) => (entries, end),
            other => panic!("{inode}: {other:?}"),
        }
    }

    /// Every record, to compare states.
    pub(super) fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        dump(&self.kv, &self.rules)
    }
}

pub(super) type Lookup = Result<InodeId, FsError>;

pub(super) fn dump(kv: &MemoryKv, rules: &Namespace) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (from, to) = rules.keyspace_range();
    let mut records = Vec::new();
    kv.scan(&from, &to, &mut |key, value| {
        records.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    records
}
