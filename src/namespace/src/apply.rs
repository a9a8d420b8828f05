//! The one way in: a command changes the state and answers.
//!
//! Called by the state machine of a ministry's group, on every member, for each entry of the log in
//! order.
//!
//! What must always hold: the answer and the new records depend on the command and the old records
//! alone. A command that is refused leaves the records as they were, but for the reply in its slot.
//! A state that cannot be read ends in an error; then nothing of the batch may be written.

use std::ops::ControlFlow;

use ministry_types::kv::KvError;
use ministry_types::operations::{Operation, Outcome};
use ministry_types::{
    Attributes, Caller, Epoch, FileKind, FsError, InodeId, Layout, MinistryId, SessionId, Timestamp,
};

use crate::Namespace;
use crate::acl_attributes::AclsKept;
use crate::command::{Command, CommandReply, encode};
use crate::create::New;
use crate::data::MovedOut;
use crate::lock_table::{Holder, Wanted};
use crate::overlay::Overlay;
use crate::ranges::Span;
use crate::records::{
    DirectoryRecord, Fault, InodeRecord, RangeRecord, ReignRecord, Ruled, Work, read_number,
    read_value,
};
use crate::rename::Target;
use crate::sessions::Turn;

/// A change of the name space with its number.
struct Change<'a> {
    session: SessionId,
    slot: u32,
    sequence: u64,
    caller: &'a Caller,
    time: Timestamp,
    operation: &'a Operation,
    /// Whether it may add to the state.
    has_room: bool,
}

/// Why nothing was done.
enum Refused {
    Fs(FsError),
    Elsewhere(MinistryId),
}

/// Splits what a rule answers: a state that cannot be read is nobody's answer.
fn settle<T>(ruled: Ruled<T>) -> Result<Result<T, Refused>, KvError> {
    match ruled {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Fs(error)) => Ok(Err(Refused::Fs(error))),
        Err(Fault::Elsewhere(owner)) => Ok(Err(Refused::Elsewhere(owner))),
        Err(Fault::Kv(error)) => Err(error),
    }
}

impl Namespace {
    /// Carries out a command. Its effects lie in `state`, where the next command sees them.
    pub fn apply(
        &self,
        state: &mut Overlay<'_>,
        command: &Command,
    ) -> Result<CommandReply, KvError> {
        let current = self.reign(state)?.map_or(Epoch(0), |(epoch, _)| epoch);
        if let Command::Reign { epoch, node, time } = command {
            if *epoch <= current {
                return Ok(CommandReply::StaleReign { current });
            }
            let reign = ReignRecord { epoch: *epoch, node: *node, since: *time };
            state.put(self.keys.reign(), encode(&reign));
            return Ok(CommandReply::Done);
        }
        if command.epoch() != current {
            return Ok(CommandReply::StaleReign { current });
        }
        if let Command::Settle { unlogged, then, .. } = command {
            self.settle(state, unlogged)?;
            return match then {
                Some(command) => self.apply(state, command),
                None => Ok(CommandReply::Done),
            };
        }
        let (change, has_room) = match command {
            Command::WithoutRoom { change, .. } => (&**change, false),
            other => (other, true),
        };
        if let Command::Change { session, slot, sequence, caller, time, operation, .. } = change {
            let (session, slot, sequence, time) = (*session, *slot, *sequence, *time);
            let change = Change { session, slot, sequence, caller, time, operation, has_room };
            return self.change(state, &change);
        }
        if let Command::WriteAgain { caller, time, operation, .. } = command {
            let again = self.attempt(state, caller, *time, |work| work.write_again(operation))?;
            return Ok(match again {
                Ok(()) => CommandReply::Done,
                Err(Refused::Fs(error)) => CommandReply::Change(Err(error)),
                Err(Refused::Elsewhere(owner)) => CommandReply::Elsewhere { owner },
            });
        }
        let root = Caller::root();
        let transfers = matches!(command, Command::GiveAway { .. } | Command::Adopt { .. });
        let attempt =
            self.attempt(state, &root, Timestamp::default(), |work| work.administer(command));
        Ok(match attempt? {
            Ok(reply) => reply,
            Err(Refused::Fs(error)) if transfers => CommandReply::GivenAway(Err(error)),
            Err(Refused::Fs(error)) => CommandReply::Change(Err(error)),
            Err(Refused::Elsewhere(owner)) => CommandReply::Elsewhere { owner },
        })
    }

    /// Carries something out over the state; what it has done stays only if it succeeds.
    fn attempt<T>(
        &self,
        state: &mut Overlay<'_>,
        caller: &Caller,
        time: Timestamp,
        carry_out: impl FnOnce(&mut Work<'_>) -> Ruled<T>,
    ) -> Result<Result<T, Refused>, KvError> {
        let mut work = Work { keys: self.keys, state: Overlay::new(state), caller, time };
        let settled = settle(carry_out(&mut work))?;
        if settled.is_ok() {
            let changes = work.state.into_changes();
            state.take(changes);
        }
        Ok(settled)
    }

    fn change(
        &self,
        state: &mut Overlay<'_>,
        change: &Change<'_>,
    ) -> Result<CommandReply, KvError> {
        let Change { session, slot, sequence, .. } = *change;
        let records = self.records(state);
        if !records.has_session(session)? {
            return Ok(CommandReply::UnknownSession);
        }
        match records.turn(session, slot, sequence)? {
            Turn::New => {}
            Turn::Again(reply) => return Ok(CommandReply::Change(reply)),
            Turn::Stale => return Ok(CommandReply::StaleSequence),
        }
        let attempt = self.attempt(state, change.caller, change.time, |work| {
            if change.has_room {
                return work.carry_out(session, change.operation);
            }
            work.carry_out_without_room(session, change.operation)
        });
        let reply = match attempt? {
            Ok(outcome) => Ok(outcome),
            Err(Refused::Fs(error)) => Err(error),
            // Not an answer to the change: it is asked again elsewhere, under another number.
            Err(Refused::Elsewhere(owner)) => return Ok(CommandReply::Elsewhere { owner }),
        };
        self.keep_reply(state, session, slot, sequence, &reply);
        Ok(CommandReply::Change(reply))
    }
}

impl Work<'_> {
    /// Everything but reigns and changes.
    fn administer(&mut self, command: &Command) -> Ruled<CommandReply> {
        match command {
            Command::Reign { .. }
            | Command::Change { .. }
            | Command::Settle { .. }
            | Command::WithoutRoom { .. }
            | Command::WriteAgain { .. } => {
                unreachable!("these have ways of their own")
            }
            Command::Found { time, .. } => self.found(*time)?,
            Command::AddRanges { ranges, .. } => self.add_ranges(ranges)?,
            Command::OpenSession { session, client, .. } => {
                if !self.open_session(*session, *client)? {
                    return Ok(CommandReply::UnknownSession);
                }
            }
            Command::EndSession { session, .. } => self.end_session(*session)?,
            Command::ConfirmClosed { session, inodes, .. } => {
                for inode in inodes {
                    self.close_orphan(*session, *inode)?;
                }
            }
            Command::TruncatesDone { done, .. } => {
                for (inode, sequence) in done {
                    self.confirm_cuts(*inode, *sequence)?;
                }
            }
            Command::PurgesDone { inodes, .. } => {
                for inode in inodes {
                    self.state.delete(self.keys.purge(*inode));
                }
            }
            Command::GiveAway { inode, to, generation, .. } => {
                let record = self.give_away(*inode, *to, *generation)?;
                return Ok(CommandReply::GivenAway(Ok(record)));
            }
            Command::Adopt { record, generation, .. } => self.adopt(record, *generation)?,
            Command::Fence { inode, .. } => self.fence(*inode)?,
        }
        Ok(CommandReply::Done)
    }

    /// Makes the root directory.
    fn found(&mut self, time: Timestamp) -> Ruled<()> {
        let inode = InodeId::ROOT;
        if self.records().inode_here(inode)?.is_some() {
            return Ok(());
        }
        self.count_objects(1)?;
        self.write_inode(&InodeRecord {
            attributes: Attributes {
                inode,
                kind: FileKind::Directory,
                permissions: 0o755,
                uid: 0,
                gid: 0,
                links: 2,
                size: 0,
                allocated_bytes: 0,
                atime: time,
                mtime: time,
                ctime: time,
                btime: time,
                device: 0,
                layout: Layout::None,
            },
            directory: Some(DirectoryRecord::new(inode, 0)),
            capability: false,
            acls: AclsKept::default(),
            data_end: 0,
            cuts_confirmed: 0,
            newest_write: Timestamp(0),
            atime_until: Timestamp(0),
            xattr_bytes: 0,
        });
        Ok(())
    }

    /// Adds inode numbers. A range that shares numbers with one that is known is that one, told
    /// again: adding it would give numbers out twice.
    fn add_ranges(&mut self, ranges: &[(InodeId, InodeId)]) -> Ruled<()> {
        for (first, end) in ranges {
            let mut known = false;
            self.records().each(&self.keys.ranges(), |key, value| {
                let range: RangeRecord = read_value(key, value)?;
                known = *end > InodeId(read_number(key)?) && *first < range.end;
                Ok(if known { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if first < end && !known {
                // 0 is no inode, and 1 is the root of everything.
                let next = RangeRecord::first_usable(*first);
                self.write(self.keys.range(*first), &RangeRecord { end: *end, next });
            }
        }
        Ok(())
    }

    /// As [`Work::carry_out`], but what adds to the state is refused. What is wrong with it in any
    /// case is said before.
    fn carry_out_without_room(
        &mut self,
        session: SessionId,
        operation: &Operation,
    ) -> Ruled<Outcome> {
        if !operation.may_add() {
            return self.carry_out(session, operation);
        }
        let before = self.held(operation.routing_inode())?;
        let outcome = self.carry_out(session, operation)?;
        let added = match operation {
            Operation::Create { .. } | Operation::Put { .. } | Operation::Link { .. } => true,
            _ => self.held(operation.routing_inode())? > before,
        };
        if added { Err(FsError::NoSpace.into()) } else { Ok(outcome) }
    }

    /// Bytes of an object beside its record: content that lies in the inode, and attributes. Lists of
    /// access are small, and setting them may be a matter of safety.
    fn held(&self, inode: InodeId) -> Ruled<u64> {
        let Some(record) = self.records().inode_here(inode)? else { return Ok(0) };
        let Attributes { layout, size, .. } = &record.attributes;
        let content = if *layout == Layout::Inline { *size } else { 0 };
        Ok(content + u64::from(record.xattr_bytes))
    }

    /// Carries out a change of the name space on behalf of a session.
    fn carry_out(&mut self, session: SessionId, operation: &Operation) -> Ruled<Outcome> {
        match operation {
            Operation::Create { parent, name, kind, permissions, umask, device, target } => {
                let (kind, permissions) = (*kind, *permissions);
                let (umask, device) = (*umask, *device);
                self.create(*parent, name, &New { kind, permissions, umask, device, target })
            }
            Operation::Put { parent, name, permissions, umask, data } => {
                self.put(*parent, name, (*permissions, *umask), data)
            }
            Operation::Link { inode, parent, name } => self.link(*inode, *parent, name),
            Operation::Unlink { parent, name } => self.unlink(*parent, name),
            Operation::RemoveDirectory { parent, name } => self.remove_directory(*parent, name),
            Operation::Rename { parent, name, new_parent, new_name, mode } => {
                let target = Target { parent: *new_parent, name: new_name, mode: *mode };
                self.rename(*parent, name, &target)
            }
            Operation::SetAttributes { inode, set } => self.set_attributes(*inode, set),
            Operation::SetXattr { inode, name, value, mode } => {
                self.set_xattr(*inode, name, value, *mode)
            }
            Operation::RemoveXattr { inode, name } => self.remove_xattr(*inode, name),
            Operation::Lock { inode, owner, pid, range, mode, wait } => {
                let holder = Holder { session, owner: *owner };
                let span = Span { range: *range, mode: *mode };
                self.lock(*inode, &Wanted { holder, pid: *pid, span }, *wait)
            }
            Operation::Unlock { inode, owner, range, waiting_too } => {
                self.unlock(*inode, session, *owner, *range, *waiting_too)
            }
            Operation::CancelLock { inode, request } => self.cancel_lock(*inode, session, *request),
            Operation::InsistLock { inode, request } => self.insist_lock(*inode, session, *request),
            Operation::WriteInline { .. } | Operation::ReportWrite { .. } => {
                self.carry_out_write(operation)
            }
            Operation::MoveOut { inode, mtime, ctime, chunk_bytes, allocated_bytes } => {
                let (chunk_bytes, allocated_bytes) = (*chunk_bytes, *allocated_bytes);
                let (mtime, ctime) = (*mtime, *ctime);
                self.move_out(*inode, &MovedOut { mtime, ctime, chunk_bytes, allocated_bytes })
            }
            Operation::Extend { inode, size } => self.extend(*inode, *size),
            Operation::Settle { inode } => {
                Ok(Outcome::Attributes(self.records().inode(*inode)?.attributes))
            }
            Operation::SpaceInline { inode, offset, length, change, keep_size } => {
                let end = offset.checked_add(*length).ok_or(FsError::FileTooLarge)?;
                self.space_inline(*inode, *offset..end, *change, *keep_size)
            }
        }
    }
}
