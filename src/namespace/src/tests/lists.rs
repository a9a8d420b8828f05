//! Access control lists of the model, written from acl(5) and not from the rules.

use ministry_types::{Caller, FileKind};

use super::model::Object;

/// Tag, permissions, id: as they lie in the kernel's binary form.
pub(super) type List = Vec<(u16, u16, u32)>;

const NONE: u32 = u32::MAX;
pub(super) const USER_OBJ: u16 = 1;
pub(super) const USER: u16 = 2;
pub(super) const GROUP_OBJ: u16 = 4;
pub(super) const GROUP: u16 = 8;
pub(super) const MASK: u16 = 0x10;
pub(super) const OTHER: u16 = 0x20;

/// Lists to set, and whether they make sense.
pub(super) fn samples() -> Vec<(bool, List)> {
    let sample = |valid, list: &[(u16, u16, u32)]| (valid, list.to_vec());
    vec![
        sample(true, &[(USER_OBJ, 6, NONE), (GROUP_OBJ, 4, NONE), (OTHER, 4, NONE)]),
        sample(
            true,
            &[
                (USER_OBJ, 7, NONE),
                (USER, 7, 2),
                (GROUP_OBJ, 0, NONE),
                (MASK, 7, NONE),
                (OTHER, 0, NONE),
            ],
        ),
        sample(
            true,
            &[
                (USER_OBJ, 7, NONE),
                (USER, 0, 2),
                (GROUP_OBJ, 5, NONE),
                (GROUP, 3, 1),
                (MASK, 7, NONE),
                (OTHER, 7, NONE),
            ],
        ),
        sample(
            true,
            &[
                (USER_OBJ, 7, NONE),
                (USER, 7, 3),
                (GROUP_OBJ, 7, NONE),
                (GROUP, 7, 2),
                (MASK, 5, NONE),
                (OTHER, 3, NONE),
            ],
        ),
        sample(
            true,
            &[(USER_OBJ, 7, NONE), (GROUP_OBJ, 7, NONE), (MASK, 0, NONE), (OTHER, 7, NONE)],
        ),
        sample(false, &[(USER_OBJ, 7, NONE), (USER, 7, 2), (GROUP_OBJ, 7, NONE), (OTHER, 7, NONE)]),
        sample(false, &[(USER_OBJ, 7, NONE), (OTHER, 7, NONE)]),
    ]
}

/// The value of the extended attribute.
pub(super) fn value(list: &List) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, permissions, id) in list {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn says(list: &List, tag: u16) -> Option<u32> {
    list.iter().find(|entry| entry.0 == tag).map(|entry| u32::from(entry.1))
}

pub(super) fn more_than_mode(list: &List) -> bool {
    list.len() > 3
}

/// "The file group class": the mask if there is one.
pub(super) fn mode_of(list: &List) -> u32 {
    let group = says(list, MASK).or(says(list, GROUP_OBJ)).unwrap();
    says(list, USER_OBJ).unwrap() * 0o100 + group * 0o10 + says(list, OTHER).unwrap()
}

pub(super) fn follow_chmod(list: &mut List, mode: u32) {
    let group = if says(list, MASK).is_some() { MASK } else { GROUP_OBJ };
    for entry in list {
        let digit = match entry.0 {
            USER_OBJ => mode / 0o100,
            OTHER => mode,
            tag if tag == group => mode / 0o10,
            _ => continue,
        };
        entry.1 = (digit % 8) as u16;
    }
}

/// "ACCESS CHECK ALGORITHM", for an ordinary user; and what Linux adds: where the group class may
/// nothing, the list is not asked.
pub(super) fn lets(who: &Caller, object: &Object, wanted: u32) -> bool {
    let mode = object.mode;
    if who.uid == object.uid {
        return (mode / 0o100) & wanted == wanted;
    }
    let in_group = |gid| who.gid == gid || who.groups.contains(&gid);
    let Some(list) = object.access.as_ref().filter(|_| mode & 0o70 != 0) else {
        let digit = if in_group(object.gid) { mode / 0o10 } else { mode };
        return digit & wanted == wanted;
    };
    let mask = says(list, MASK).unwrap_or(7);
    let grants = |entry: &&(u16, u16, u32)| u32::from(entry.1) & mask & wanted == wanted;
    if let Some(user) = list.iter().find(|entry| (entry.0, entry.2) == (USER, who.uid)) {
        return grants(&user);
    }
    let groups: Vec<_> = list
        .iter()
        .filter(|entry| match entry.0 {
            GROUP_OBJ => in_group(object.gid),
            GROUP => in_group(entry.2),
            _ => false,
        })
        .collect();
    if groups.is_empty() { mode & wanted == wanted } else { groups.iter().any(grants) }
}

/// "OBJECT CREATION AND DEFAULT ACLs".
pub(super) fn inherit(holder: &Object, object: &mut Object, umask: u32) {
    if object.kind == FileKind::Symlink {
        return;
    }
    let Some(default) = &holder.default else {
        object.mode &= !umask;
        return;
    };
    let mut list = default.clone();
    object.mode = object.mode & !0o777 | object.mode & mode_of(&list);
    follow_chmod(&mut list, object.mode);
    object.access = more_than_mode(&list).then_some(list);
    if object.kind == FileKind::Directory {
        object.default = Some(default.clone());
    }
}
