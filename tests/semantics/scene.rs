//! What a case gets: an empty folder, and everybody who may act in it.

use crate::actor::{ANN, Actor, BEN, CAT, ROOT, User};
use crate::raw::{self, Stat};

/// Longer than a tick of the kernel's clock on any machine: files stamped before and after differ.
const TICK_MS: u64 = 11;

/// Everybody, with the same empty folder as working folder. `far` and `far_ann` see it by another
/// mount of the same cluster. Umasks are zero.
#[derive(Debug)]
pub struct Scene {
    pub root: Actor,
    pub ann: Actor,
    pub ben: Actor,
    pub cat: Actor,
    pub far: Actor,
    pub far_ann: Actor,
    near: String,
    away: String,
}

impl Scene {
    /// Everybody, nowhere yet.
    pub fn new() -> Scene {
        Scene {
            root: Actor::new(ROOT),
            ann: Actor::new(ANN),
            ben: Actor::new(BEN),
            cat: Actor::new(CAT),
            far: Actor::new(ROOT),
            far_ann: Actor::new(ANN),
            near: String::new(),
            away: String::new(),
        }
    }

    /// Sends everybody into a folder, known under two paths.
    pub fn go(&mut self, near: &str, far: &str) {
        self.near = near.to_owned();
        self.away = far.to_owned();
        for actor in [&self.root, &self.ann, &self.ben, &self.cat] {
            actor.umask(0);
            actor.chdir(near).ok();
        }
        for actor in [&self.far, &self.far_ann] {
            actor.umask(0);
            actor.chdir(far).ok();
        }
    }

    /// The whole path of the folder.
    pub fn path(&self) -> &str {
        &self.near
    }

    /// Another process of this user: its record locks are its own. Files it opens are its own too.
    pub fn process(&self, user: User) -> Actor {
        let actor = Actor::with_own_files(user);
        actor.umask(0);
        actor.chdir(self.path()).ok();
        actor
    }

    /// Another process of this user that sees the folder by the other mount.
    pub fn far_process(&self, user: User) -> Actor {
        let actor = Actor::with_own_files(user);
        actor.umask(0);
        actor.chdir(&self.away).ok();
        actor
    }

    /// A file with an owner and a mode, made by root.
    #[track_caller]
    pub fn file(&self, name: &str, owner: User, mode: u32) {
        self.root.put(name, "content\n");
        self.give(name, owner, mode);
    }

    /// A folder with an owner and a mode, made by root.
    #[track_caller]
    pub fn folder(&self, name: &str, owner: User, mode: u32) {
        self.root.mkdir(name, 0o700).ok();
        self.give(name, owner, mode);
    }

    /// Sets owner, group and mode.
    #[track_caller]
    pub fn give(&self, name: &str, owner: User, mode: u32) {
        self.root.chown(name, owner.id, owner.group).ok();
        self.root.chmod(name, mode).ok();
    }

    /// What root sees; it does not follow a symbolic link.
    #[track_caller]
    pub fn stat(&self, name: &str) -> Stat {
        self.root.lstat(name).ok()
    }

    /// The permissions.
    #[track_caller]
    pub fn mode(&self, name: &str) -> u32 {
        self.stat(name).permissions()
    }

    /// The state of these names now; what happens next gets later times.
    #[track_caller]
    pub fn watch<const N: usize>(&self, names: [&str; N]) -> Watch<'_, N> {
        let before = names.map(|name| self.stat(name));
        raw::pause(TICK_MS);
        Watch { scene: self, names: names.map(str::to_owned), before }
    }

    /// Lets the clock move.
    pub fn tick(&self) {
        raw::pause(TICK_MS);
    }

    /// The mode must be this.
    #[track_caller]
    pub fn has_mode(&self, name: &str, expected: u32) {
        let found = self.mode(name);
        assert!(found == expected, "the mode of {name}: expected {expected:#o}, found {found:#o}");
    }

    /// Owner and group must be these.
    #[track_caller]
    pub fn has_owner(&self, name: &str, user: u32, group: u32) {
        let found = self.stat(name);
        same(&format!("owner and group of {name}"), (found.user, found.group), (user, group));
    }

    /// The link count must be this.
    #[track_caller]
    pub fn has_links(&self, name: &str, expected: u64) {
        same(&format!("link count of {name}"), self.stat(name).links, expected);
    }

    /// The size must be this.
    #[track_caller]
    pub fn has_size(&self, name: &str, expected: i64) {
        same(&format!("size of {name}"), self.stat(name).size, expected);
    }

    /// There must be no such name.
    #[track_caller]
    pub fn is_gone(&self, name: &str) {
        self.root.lstat(name).fails(libc::ENOENT);
    }
}

/// What names were like before something happened.
#[derive(Debug)]
pub struct Watch<'a, const N: usize> {
    scene: &'a Scene,
    names: [String; N],
    before: [Stat; N],
}

impl<const N: usize> Watch<'_, N> {
    /// Exactly these times of each name moved on since, in the order of the names: `m` mtime,
    /// `c` ctime. Nothing is said of atime.
    #[track_caller]
    pub fn moved(&self, expected: [&str; N]) {
        for ((name, before), expected) in self.names.iter().zip(&self.before).zip(expected) {
            moved(name, before, &self.scene.stat(name), expected);
        }
    }
}

/// Exactly these times moved on between two looks at one thing.
#[track_caller]
pub fn moved(name: &str, before: &Stat, after: &Stat, expected: &str) {
    let times =
        [('m', "mtime", before.mtime, after.mtime), ('c', "ctime", before.ctime, after.ctime)];
    for (letter, word, before, after) in times {
        if expected.contains(letter) {
            assert!(
                after > before,
                "the {word} of {name}: expected to move on, found {after} after {before}"
            );
        } else {
            assert!(
                after == before,
                "the {word} of {name}: expected to stay, found {after} after {before}"
            );
        }
    }
}

/// Two values must be the same.
#[track_caller]
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) {
    assert!(found == expected, "{what}: expected {expected:?}, found {found:?}");
}

/// Something must hold.
#[track_caller]
pub fn holds(what: &str, holds: bool) {
    assert!(holds, "expected: {what}");
}
