//! Names that move.
//!
//! Called by `apply` for [`Operation::Rename`]. The checks come in the order of Linux's
//! `do_renameat2` and `vfs_rename`, so that of several errors a program sees the same one.
//!
//! What must always hold: a directory never comes to lie in itself. The numbers of objects do not
//! change. A directory that another ministry owns keeps its name.
//!
//! [`Operation::Rename`]: ministry_types::operations::Operation::Rename

use ministry_types::kv::KvError;
use ministry_types::operations::{Outcome, RenameMode};
use ministry_types::{FileKind, FsError, InodeId};

use crate::permissions::{EXECUTE, WRITE};
use crate::records::{DentryRecord, Fault, Found, InodeRecord, Ruled, Work};
use crate::remove::{Child, check_empty};

/// Where a rename leads.
pub(crate) struct Target<'a> {
    pub(crate) parent: InodeId,
    pub(crate) name: &'a [u8],
    pub(crate) mode: RenameMode,
}

/// Everything a rename concerns.
struct Move {
    from: InodeRecord,
    to: InodeRecord,
    source: Child,
    displaced: Option<Child>,
}

impl Work<'_> {
    /// Moves a name.
    pub(crate) fn rename(
        &mut self,
        parent: InodeId,
        name: &[u8],
        target: &Target<'_>,
    ) -> Ruled<Outcome> {
        let it = self.find_move(parent, name, target)?;
        self.check_loops(&it, target.mode)?;
        if it.displaced.as_ref().is_some_and(|child| child.found.inode == it.source.found.inode) {
            // Two names of one object, or twice the same: POSIX wants that nothing happens.
            return Ok(Outcome::Renamed { displaced: None, orphan: false });
        }
        self.check_move(&it, target.mode)?;
        match (&it.displaced, target.mode) {
            (Some(displaced), RenameMode::Exchange) => {
                self.exchange(&it, displaced)?;
                Ok(Outcome::Renamed { displaced: None, orphan: false })
            }
            (displaced, _) => {
                let orphan = self.replace(&it, displaced.as_ref(), target.name)?;
                let displaced = displaced.as_ref().map(|child| child.found.inode);
                Ok(Outcome::Renamed { displaced, orphan })
            }
        }
    }

    fn find_move(&self, parent: InodeId, name: &[u8], target: &Target<'_>) -> Ruled<Move> {
        let records = self.records();
        let (from, _) = records.directory(parent)?;
        records.check(self.caller, &from, EXECUTE)?;
        if records.inode_here(target.parent)?.is_none() {
            let elsewhere = records.is_elsewhere(target.parent)?;
            return Err(if elsewhere { FsError::CrossMinistry } else { FsError::NotFound }.into());
        }
        let (to, _) = records.directory(target.parent)?;
        records.check(self.caller, &to, EXECUTE)?;
        let source = self.find_child(&from, name)?;
        let displaced = self.find_any(&to, target.name)?;
        match (target.mode, &displaced) {
            (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists.into()),
            (RenameMode::Exchange, None) => Err(FsError::NotFound.into()),
            _ => Ok(Move { from, to, source, displaced }),
        }
    }

    /// Neither may the source hold its target, nor the target its source.
    fn check_loops(&self, it: &Move, mode: RenameMode) -> Ruled<()> {
        let (from, to) = (it.from.attributes.inode, it.to.attributes.inode);
        if from == to {
            return Ok(());
        }
        if it.source.is_directory() && self.holds(it.source.found.inode, to)? {
            return Err(FsError::Invalid.into());
        }
        if let Some(displaced) = &it.displaced
            && displaced.is_directory()
            && self.holds(displaced.found.inode, from)?
        {
            let exchange = mode == RenameMode::Exchange;
            return Err(if exchange { FsError::Invalid } else { FsError::NotEmpty }.into());
        }
        Ok(())
    }

    /// Whether `below` is `directory` or lies below it. The way up ends at the root of the
    /// ministry: what lies above belongs to others, and is not moved here.
    fn holds(&self, directory: InodeId, below: InodeId) -> Ruled<bool> {
        let mut at = below;
        loop {
            if at == directory {
                return Ok(true);
            }
            let Some(record) = self.records().inode_here(at)? else {
                return Ok(false);
            };
            let Some(here) = record.directory else {
                let damage = format!("inode {at} holds names and is no directory");
                return Err(Fault::Kv(KvError(damage)));
            };
            if here.ministry_root || here.parent == at {
                return Ok(false);
            }
            at = here.parent;
        }
    }

    fn check_move(&self, it: &Move, mode: RenameMode) -> Ruled<()> {
        let source_is_directory = it.source.is_directory();
        self.check_may_remove(&it.from, &it.source, source_is_directory)?;
        match &it.displaced {
            None => self.check_may_add(&it.to)?,
            Some(displaced) => {
                let as_directory = match mode {
                    RenameMode::Exchange => displaced.is_directory(),
                    RenameMode::Replace | RenameMode::NoReplace => source_is_directory,
                };
                self.check_may_remove(&it.to, displaced, as_directory)?;
            }
        }
        // A directory that changes its parent is written to: its `..` is another.
        if it.from.attributes.inode != it.to.attributes.inode {
            self.check_may_turn(&it.source)?;
            if let (Some(displaced), RenameMode::Exchange) = (&it.displaced, mode) {
                self.check_may_turn(displaced)?;
            }
        }
        let displaced_record = match &it.displaced {
            None => None,
            Some(child) => Some(child.record.as_ref().ok_or(FsError::Busy)?),
        };
        if it.source.record.is_none() {
            return Err(FsError::Busy.into());
        }
        if let (Some(record), true) = (displaced_record, mode != RenameMode::Exchange) {
            check_empty(record)?;
        }
        Ok(())
    }

    fn check_may_turn(&self, child: &Child) -> Ruled<()> {
        match &child.record {
            Some(record) if record.is_directory() => {
                self.records().check(self.caller, record, WRITE)
            }
            _ => Ok(()),
        }
    }

    /// Moves the source, over what is displaced; says whether that has become an orphan.
    fn replace(&mut self, it: &Move, displaced: Option<&Child>, name: &[u8]) -> Ruled<bool> {
        let (from, to) = (it.from.attributes.inode, it.to.attributes.inode);
        let mut orphan = false;
        if let Some(displaced) = displaced {
            self.take_name(to, &displaced.found)?;
            orphan = self.drop_link(displaced.found.inode)?;
        }
        let source = &it.source.found;
        self.take_name(from, source)?;
        self.put_name(to, name, source.inode, source.kind)?;
        let time = self.time;
        self.edit_inode(source.inode, |record| record.touch(time))?;
        Ok(orphan)
    }

    /// Both names stay; what they stand for changes places.
    fn exchange(&mut self, it: &Move, other: &Child) -> Ruled<()> {
        let (from, to) = (it.from.attributes.inode, it.to.attributes.inode);
        let source = &it.source.found;
        self.repoint(from, source, &other.found)?;
        self.repoint(to, &other.found, source)?;
        let subdirectories = |found: &Found| i64::from(found.kind == FileKind::Directory);
        let gained = subdirectories(&other.found) - subdirectories(source);
        for (directory, gained) in [(from, gained), (to, -gained)] {
            self.edit_directory(directory, |record, _, time| {
                record.attributes.links = count(record.attributes.links, gained);
                record.touch_content(time);
            })?;
        }
        let time = self.time;
        for inode in [source.inode, other.found.inode] {
            self.edit_inode(inode, |record| record.touch(time))?;
        }
        Ok(())
    }

    /// Has the name of `old` in `directory` stand for `new`.
    fn repoint(&mut self, directory: InodeId, old: &Found, new: &Found) -> Ruled<()> {
        let Some(dentry) = self.records().dentry(directory, old.cookie)? else {
            let damage = format!("the name of inode {} in {directory} is lost", old.inode);
            return Err(Fault::Kv(KvError(damage)));
        };
        let dentry = DentryRecord { name: dentry.name, inode: new.inode, kind: new.kind };
        self.write(self.keys.dentry(directory, old.cookie), &dentry);
        if old.kind != FileKind::Directory {
            self.state.delete(self.keys.backlink(old.inode, directory, old.cookie));
        }
        self.put_way_back(new.inode, new.kind, directory, old.cookie)
    }
}

fn count(links: u32, gained: i64) -> u32 {
    u32::try_from(i64::from(links) + gained).expect("a directory has fewer links than 2^32")
}
