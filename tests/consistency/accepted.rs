//! Differences between the mount and a local file system that are meant, each with its reason.
//!
//! Each of them leaves both sides in the same state, so that the sequence goes on. How often each
//! was met is told at the end of a run: one that is never met any more is to be removed.

use crate::call::{Call, Whence};
use crate::subject::Outcome;

/// The kernel, which does not check permissions on the mount, checks kinds before it asks.
const ORDER: &str = "of two reasons to fail the kernel finds that of the kind first: the server, \
                     which judges rights, is asked after it";
/// A link to a folder, or to another's file.
const LINK: &str = "EPERM or EACCES: the kernel's own rules on links (folders, protected_hardlinks) \
                    come before the server's on a mount and after the rights on a local disk";
/// `chown(-1, -1)`, which takes set-id bits and so is the owner's to do.
const NOTHING: &str = "a chown of nothing reaches the mount as what the kernel asks before a write, in \
                       whoever's name: that is answered, and changes nothing";
/// `copy_file_range`, whose length the kernel cuts at the size before it asks.
pub const SIZE_SEEN: &str = "a copy ends where this mount last saw the source end: the kernel asks nobody \
                             before it cuts; the rest is copied once the size was looked at";
/// `lseek(SEEK_CUR)` after an append.
pub const POSITION: &str = "after an append the place of the handle counts from the end as this mount last \
                            saw it: the kernel is not told where the bytes went";
/// Where the holes are.
const HOLES: &str = "a file system may know fewer holes than there are";

/// Why the mount may answer this, where it may.
pub fn reason(call: &Call, expected: &Outcome, found: &Outcome) -> Option<&'static str> {
    if matches!(call, Call::Chown { uid: None, gid: None, .. })
        && matches!((expected, found), (Outcome::Failed(libc::EPERM), Outcome::Done(_)))
    {
        return Some(NOTHING);
    }
    let (Outcome::Failed(expected), Outcome::Failed(found)) = (expected, found) else {
        return None;
    };
    if expected == found {
        return None;
    }
    let errors = [*expected, *found];
    if matches!(call, Call::Link { .. })
        && errors.iter().all(|error| [libc::EPERM, libc::EACCES].contains(error))
    {
        return Some(LINK);
    }
    // Both folders are found before either is asked for a right.
    let two_paths = matches!(call, Call::Rename { .. } | Call::Link { .. });
    let by_kind = [libc::ENOENT, libc::ENOTDIR, libc::EISDIR, libc::ENXIO, libc::EEXIST];
    let by_kind = by_kind.contains(found)
        || two_paths && *found == libc::ELOOP
        || [libc::ENOTEMPTY, libc::EINVAL, libc::ENAMETOOLONG].contains(found);
    // The sticky bit is a matter of rights too, with an error of its own.
    let takes_a_name =
        matches!(call, Call::Rename { .. } | Call::Unlink { .. } | Call::Rmdir { .. });
    let by_right = *expected == libc::EACCES || takes_a_name && *expected == libc::EPERM;
    (by_right && by_kind).then_some(ORDER)
}

/// Why the mount may answer this to `lseek`, given all that is in the file. It may know fewer
/// holes, but must not take bytes for one.
pub fn holes(content: &[u8], begin: i64, whence: Whence, found: &Outcome) -> Option<&'static str> {
    let begin = usize::try_from(begin).ok()?;
    let size = content.len();
    let zeros = |from: usize, to: usize| content[from..to].iter().all(|byte| *byte == 0);
    let allowed = match found {
        Outcome::Done(crate::subject::Value::Count(place)) => {
            let place = usize::try_from(*place).ok()?;
            let inside = begin <= place && begin < size;
            match whence {
                Whence::Data => inside && place < size && zeros(begin, place),
                _ => inside && (place == size || place < size && content[place] == 0),
            }
        }
        Outcome::Failed(libc::ENXIO) => {
            begin >= size || whence == Whence::Data && zeros(begin, size)
        }
        _ => false,
    };
    allowed.then_some(HOLES)
}
