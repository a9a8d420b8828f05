//! A plain file system in memory, written from the manual pages and not from the rules.
//!
//! Objects are numbered in the order in which they were made, and are never forgotten: a removed
//! one is an object with no names.

use std::collections::BTreeMap;

use ministry_types::FsError::{self, *};
use ministry_types::operations::RenameMode;
use ministry_types::{Caller, FileKind};

use super::lists::{self, List};

pub(super) type Id = usize;

#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of an inline file, or the target of a link.
    pub(super) bytes: Vec<u8>,
    /// Set once the bytes lie elsewhere; then only the size is known.
    pub(super) chunked: Option<u64>,
    pub(super) entries: BTreeMap<Vec<u8>, Id>,
    /// The directory that holds a directory.
    pub(super) parent: Option<Id>,
    pub(super) removed: bool,
    pub(super) access: Option<List>,
    pub(super) default: Option<List>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Done,
    Unlinked { object: Id, orphan: bool },
    Renamed { displaced: Option<Id>, orphan: bool },
    Written(u64),
    NotInline,
}

pub(super) type Verdict = Result<Effect, FsError>;

#[derive(Debug, Default, Clone)]
pub(super) struct Settings {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) touch: bool,
    pub(super) set_mtime: bool,
}

impl Settings {
    /// What is left of a `chown` of neither owner nor group.
    fn is_nothing(&self) -> bool {
        let Settings { mode, uid, gid, size, touch, set_mtime } = self;
        mode.or(*uid).or(*gid).is_none() && size.is_none() && !touch && !set_mtime
    }
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) objects: Vec<Object>,
}

impl Model {
    pub(super) fn new() -> Model {
        let mut root = Model::object(FileKind::Directory, 0o755, 0, 0);
        root.parent = Some(0);
        Model { objects: vec![root] }
    }

    fn object(kind: FileKind, mode: u32, uid: u32, gid: u32) -> Object {
        Object {
            kind,
            mode,
            uid,
            gid,
            bytes: Vec::new(),
            chunked: None,
            entries: BTreeMap::new(),
            parent: None,
            removed: false,
            access: None,
            default: None,
        }
    }

    pub(super) fn is_dir(&self, id: Id) -> bool {
        self.objects[id].kind == FileKind::Directory
    }

    /// Where the names of an object are.
    pub(super) fn names(&self, id: Id) -> Vec<(Id, Vec<u8>)> {
        let mut names = Vec::new();
        for (at, holder) in self.objects.iter().enumerate() {
            for (name, object) in &holder.entries {
                if *object == id {
                    names.push((at, name.clone()));
                }
            }
        }
        names
    }

    pub(super) fn links(&self, id: Id) -> u32 {
        if self.objects[id].removed {
            return 0;
        }
        if !self.is_dir(id) {
            return self.names(id).len() as u32;
        }
        let subdirectories = self.objects[id].entries.values().filter(|at| self.is_dir(**at));
        2 + subdirectories.count() as u32
    }

    pub(super) fn size(&self, id: Id) -> u64 {
        let object = &self.objects[id];
        object.chunked.unwrap_or(object.bytes.len() as u64)
    }

    fn may(&self, who: &Caller, id: Id, what: &str) -> Result<(), FsError> {
        let object = &self.objects[id];
        let mut wanted = 0;
        for letter in what.chars() {
            wanted += match letter {
                'r' => 4,
                'w' => 2,
                _ => 1,
            };
        }
        let root_may =
            !what.contains('x') || object.kind == FileKind::Directory || object.mode & 0o111 != 0;
        let may = if who.uid == 0 { root_may } else { lists::lets(who, object, wanted) };
        if may { Ok(()) } else { Err(PermissionDenied) }
    }

    fn walk_into(&self, who: &Caller, dir: Id) -> Result<(), FsError> {
        if !self.is_dir(dir) {
            return Err(NotDirectory);
        }
        self.may(who, dir, "x")
    }

    fn child(&self, dir: Id, name: &[u8]) -> Result<Option<Id>, FsError> {
        if [&b""[..], b".", b".."].contains(&name) || name.contains(&b'/') {
            return Err(Invalid);
        }
        if name.len() > 255 {
            return Err(NameTooLong);
        }
        Ok(self.objects[dir].entries.get(name).copied())
    }

    fn may_add(&self, who: &Caller, dir: Id) -> Result<(), FsError> {
        if self.objects[dir].removed {
            return Err(NotFound);
        }
        self.may(who, dir, "wx")
    }

    fn may_take(&self, who: &Caller, dir: Id, victim: Id, as_dir: bool) -> Result<(), FsError> {
        self.may(who, dir, "wx")?;
        let (holder, object) = (&self.objects[dir], &self.objects[victim]);
        let sticky = holder.mode & 0o1000 != 0;
        if sticky && who.uid != 0 && who.uid != object.uid && who.uid != holder.uid {
            return Err(NotPermitted);
        }
        if as_dir && !self.is_dir(victim) {
            return Err(NotDirectory);
        }
        if !as_dir && self.is_dir(victim) {
            return Err(IsDirectory);
        }
        Ok(())
    }

    fn member(who: &Caller, gid: u32) -> bool {
        who.uid == 0 || who.gid == gid || who.groups.contains(&gid)
    }

    pub(super) fn create(
        &mut self,
        who: &Caller,
        dir: Id,
        name: &[u8],
        kind: FileKind,
        (mode, umask): (u32, u32),
    ) -> Verdict {
        self.walk_into(who, dir)?;
        if self.child(dir, name)?.is_some() {
            return Err(Exists);
        }
        self.may_add(who, dir)?;
        if kind == FileKind::BlockDevice && who.uid != 0 {
            return Err(NotPermitted);
        }
        let holder = &self.objects[dir];
        let mut object = Model::object(kind, mode, who.uid, who.gid);
        match kind {
            FileKind::Symlink => {
                object.mode = 0o777;
                object.bytes = b"target".to_vec();
            }
            FileKind::Directory => {
                object.mode &= 0o1777;
                object.parent = Some(dir);
            }
            _ => {}
        }
        if holder.mode & 0o2000 != 0 {
            object.gid = holder.gid;
            if kind == FileKind::Directory {
                object.mode |= 0o2000;
            } else if object.mode & 0o2010 == 0o2010 && !Model::member(who, holder.gid) {
                object.mode &= !0o2000;
            }
        }
        lists::inherit(&self.objects[dir], &mut object, umask);
        self.objects.push(object);
        let id = self.objects.len() - 1;
        self.objects[dir].entries.insert(name.to_vec(), id);
        Ok(Effect::Done)
    }

    pub(super) fn link(&mut self, who: &Caller, object: Id, dir: Id, name: &[u8]) -> Verdict {
        self.walk_into(who, dir)?;
        if self.child(dir, name)?.is_some() {
            return Err(Exists);
        }
        self.may_add(who, dir)?;
        if self.is_dir(object) {
            return Err(NotPermitted);
        }
        if self.objects[object].removed {
            return Err(NotFound);
        }
        self.objects[dir].entries.insert(name.to_vec(), object);
        Ok(Effect::Done)
    }

    fn forget(&mut self, dir: Id, name: &[u8]) -> bool {
        let object = self.objects[dir].entries.remove(name).unwrap();
        let gone = self.names(object).is_empty();
        self.objects[object].removed = gone;
        gone
    }

    pub(super) fn unlink(&mut self, who: &Caller, dir: Id, name: &[u8]) -> Verdict {
        self.walk_into(who, dir)?;
        let object = self.child(dir, name)?.ok_or(NotFound)?;
        self.may_take(who, dir, object, false)?;
        Ok(Effect::Unlinked { object, orphan: self.forget(dir, name) })
    }

    pub(super) fn rmdir(&mut self, who: &Caller, dir: Id, name: &[u8]) -> Verdict {
        self.walk_into(who, dir)?;
        let object = self.child(dir, name)?.ok_or(NotFound)?;
        self.may_take(who, dir, object, true)?;
        if !self.objects[object].entries.is_empty() {
            return Err(NotEmpty);
        }
        self.forget(dir, name);
        Ok(Effect::Done)
    }

    fn lies_in(&self, mut at: Id, dir: Id) -> bool {
        loop {
            if at == dir {
                return true;
            }
            match self.objects[at].parent {
                Some(parent) if parent != at => at = parent,
                _ => return false,
            }
        }
    }

    pub(super) fn rename(
        &mut self,
        who: &Caller,
        (dir, name): (Id, &[u8]),
        (new_dir, new_name): (Id, &[u8]),
        mode: RenameMode,
    ) -> Verdict {
        self.walk_into(who, dir)?;
        self.walk_into(who, new_dir)?;
        let source = self.child(dir, name)?.ok_or(NotFound)?;
        let target = self.child(new_dir, new_name)?;
        let exchange = mode == RenameMode::Exchange;
        if mode == RenameMode::NoReplace && target.is_some() {
            return Err(Exists);
        }
        if exchange && target.is_none() {
            return Err(NotFound);
        }
        if dir != new_dir {
            if self.is_dir(source) && self.lies_in(new_dir, source) {
                return Err(Invalid);
            }
            if target.is_some_and(|target| self.is_dir(target) && self.lies_in(dir, target)) {
                return Err(if exchange { Invalid } else { NotEmpty });
            }
        }
        if target == Some(source) {
            return Ok(Effect::Renamed { displaced: None, orphan: false });
        }
        self.may_take(who, dir, source, self.is_dir(source))?;
        match target {
            None => self.may_add(who, new_dir)?,
            Some(target) => {
                let like = if exchange { target } else { source };
                self.may_take(who, new_dir, target, self.is_dir(like))?;
            }
        }
        if dir != new_dir {
            if self.is_dir(source) {
                self.may(who, source, "w")?;
            }
            if exchange && self.is_dir(target.unwrap()) {
                self.may(who, target.unwrap(), "w")?;
            }
        }
        if exchange {
            let target = target.unwrap();
            self.objects[dir].entries.insert(name.to_vec(), target);
            self.objects[new_dir].entries.insert(new_name.to_vec(), source);
            self.settle(target, dir);
            self.settle(source, new_dir);
            return Ok(Effect::Renamed { displaced: None, orphan: false });
        }
        if target.is_some_and(|target| !self.objects[target].entries.is_empty()) {
            return Err(NotEmpty);
        }
        let orphan = target.is_some() && self.forget(new_dir, new_name);
        self.objects[dir].entries.remove(name);
        self.objects[new_dir].entries.insert(new_name.to_vec(), source);
        self.settle(source, new_dir);
        Ok(Effect::Renamed { displaced: target, orphan })
    }

    fn settle(&mut self, id: Id, dir: Id) {
        if self.is_dir(id) {
            self.objects[id].parent = Some(dir);
        }
    }

    /// What a change by another does to the bits that give rights away.
    fn drop_rights(&mut self, who: &Caller, id: Id) {
        let object = &mut self.objects[id];
        let executes = object.mode & 0o010 != 0;
        if executes || !Model::member(who, object.gid) {
            object.mode &= !0o2000;
        }
        object.mode &= !0o4000;
    }

    pub(super) fn setattr(&mut self, who: &Caller, id: Id, set: &Settings) -> Verdict {
        let object = self.objects[id].clone();
        let owner = who.uid == 0 || who.uid == object.uid;
        if let Some(_size) = set.size {
            match object.kind {
                FileKind::Regular => self.may(who, id, "w")?,
                FileKind::Directory => return Err(IsDirectory),
                _ => return Err(Invalid),
            }
        } else if set.touch && !owner {
            self.may(who, id, "w")?;
        }
        if set.mode.is_some() && object.kind == FileKind::Symlink {
            return Err(NotSupported);
        }
        if set.uid.is_some_and(|uid| who.uid != 0 && (!owner || uid != object.uid)) {
            return Err(NotPermitted);
        }
        if let Some(gid) = set.gid
            && who.uid != 0
            && (!owner || (gid != object.gid && !Model::member(who, gid)))
        {
            return Err(NotPermitted);
        }
        if (set.mode.is_some() || set.set_mtime) && !owner {
            return Err(NotPermitted);
        }
        let chown = set.uid.is_some() || set.gid.is_some() || set.is_nothing();
        if chown && object.kind != FileKind::Directory {
            let mode = object.mode;
            self.drop_rights(who, id);
            if self.objects[id].mode != mode && !owner {
                // What the kernel asks before a write: it goes on, and the write takes the bits.
                self.objects[id].mode = mode;
                return Ok(Effect::Done);
            }
            self.objects[id].mode = mode;
        }
        if let Some(size) = set.size {
            if object.chunked.is_some() || (size > 4096 && object.bytes.is_empty()) {
                self.objects[id].chunked = Some(size);
            } else if size > 4096 {
                return Ok(Effect::NotInline);
            } else {
                self.objects[id].bytes.resize(size as usize, 0);
            }
            if who.uid != 0 {
                self.drop_rights(who, id);
            }
        }
        if chown && object.kind != FileKind::Directory {
            self.drop_rights(who, id);
        }
        let object = &mut self.objects[id];
        object.uid = set.uid.unwrap_or(object.uid);
        object.gid = set.gid.unwrap_or(object.gid);
        if let Some(mode) = set.mode {
            object.mode = mode;
            if !Model::member(who, object.gid) {
                object.mode &= !0o2000;
            }
            if let Some(list) = &mut object.access {
                lists::follow_chmod(list, mode);
            }
        }
        Ok(Effect::Done)
    }

    pub(super) fn set_list(
        &mut self,
        who: &Caller,
        id: Id,
        default: bool,
        list: Option<&(bool, List)>,
    ) -> Verdict {
        let object = &mut self.objects[id];
        if object.kind == FileKind::Symlink {
            return Err(NotSupported);
        }
        if list.is_some_and(|(valid, _)| !valid) {
            return Err(Invalid);
        }
        if default && object.kind != FileKind::Directory {
            return if list.is_some() { Err(PermissionDenied) } else { Ok(Effect::Done) };
        }
        if who.uid != 0 && who.uid != object.uid {
            return Err(NotPermitted);
        }
        let list = list.map(|(_, list)| list.clone());
        if default {
            object.default = list;
            return Ok(Effect::Done);
        }
        if let Some(list) = &list {
            object.mode = object.mode & 0o7000 | lists::mode_of(list);
            if !Model::member(who, object.gid) {
                object.mode &= !0o2000;
            }
        }
        object.access = list.filter(lists::more_than_mode);
        Ok(Effect::Done)
    }

    /// Writes at an offset, or at the end.
    pub(super) fn write(
        &mut self,
        who: &Caller,
        id: Id,
        at: Option<usize>,
        data: &[u8],
    ) -> Verdict {
        let object = &mut self.objects[id];
        match object.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(IsDirectory),
            _ => return Err(Invalid),
        }
        let at = at.unwrap_or(object.bytes.len());
        if object.chunked.is_some() || (at + data.len() > 4096 && !data.is_empty()) {
            return Ok(Effect::NotInline);
        }
        if data.is_empty() {
            return Ok(Effect::Written(at as u64));
        }
        if object.bytes.len() < at + data.len() {
            object.bytes.resize(at + data.len(), 0);
        }
        object.bytes[at..at + data.len()].copy_from_slice(data);
        if who.uid != 0 {
            self.drop_rights(who, id);
        }
        Ok(Effect::Written(at as u64))
    }
}
