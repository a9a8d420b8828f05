//! Records that many append to one file: each is there once and whole, and their order does not
//! contradict the clock.
//!
//! A record tells who wrote it and which of theirs it is, so the file itself tells the order in
//! which the appends took effect; nothing has to be searched for.

use std::collections::BTreeMap;

/// Length of what stands before a record's filling: `NN:NNNNNN:NNNNN:`.
const HEAD: usize = 16;
/// Bytes shown around a place where no record is.
const SHOWN: usize = 48;

/// Names a record: the writer, and the number among the writer's.
pub type Id = (usize, u64);

/// An append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    /// What.
    pub id: Id,
    /// When it was called, in nanoseconds.
    pub called: u64,
    /// When it returned.
    pub returned: u64,
    /// Whether it is known to have been done.
    pub done: bool,
}

/// A look at the size of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// When it was called.
    pub called: u64,
    /// When it returned.
    pub returned: u64,
    /// What it told.
    pub size: u64,
}

/// The bytes of a record, `length` in all, at least [`HEAD`] and one.
pub fn record((writer, number): Id, length: usize) -> Vec<u8> {
    assert!(length > HEAD && length < 100_000 && writer < 100 && number < 1_000_000);
    let mut bytes = format!("{writer:02}:{number:06}:{length:05}:").into_bytes();
    assert_eq!(bytes.len(), HEAD);
    bytes.resize(length - 1, b'a' + ((writer as u64 + number) % 26) as u8);
    bytes.push(b'\n');
    bytes
}

/// The record that begins here, and its length.
fn parse(bytes: &[u8]) -> Option<(Id, usize)> {
    let head = std::str::from_utf8(bytes.get(..HEAD)?).ok()?;
    let mut parts = head.split(':');
    let writer = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    let length: usize = parts.next()?.parse().ok()?;
    let id = (writer, number);
    let whole = length > HEAD && writer < 100 && bytes.get(..length)? == record(id, length);
    whole.then_some((id, length))
}

/// The records of a file with the place where each ends.
pub fn records(content: &[u8]) -> Result<Vec<(Id, u64)>, String> {
    let (mut found, mut place) = (Vec::new(), 0);
    while place < content.len() {
        let Some((id, length)) = parse(&content[place..]) else {
            let from = place.saturating_sub(SHOWN);
            let shown = &content[from..content.len().min(place + SHOWN)];
            let last = found.last();
            return Err(format!(
                "no whole record at {place} of {} bytes, after {last:?}: {:?}",
                content.len(),
                String::from_utf8_lossy(shown)
            ));
        };
        place += length;
        found.push((id, place as u64));
    }
    Ok(found)
}

/// Judges a file by its content at the end.
pub fn check(appends: &[Append], looks: &[Look], content: &[u8]) -> Result<(), String> {
    let found = records(content)?;
    let mut ends: BTreeMap<Id, u64> = BTreeMap::new();
    for (id, end) in &found {
        if ends.insert(*id, *end).is_some() {
            return Err(format!("record {id:?} is there twice"));
        }
    }
    let made: BTreeMap<Id, &Append> = appends.iter().map(|append| (append.id, append)).collect();
    assert_eq!(made.len(), appends.len(), "each record is appended once");
    if let Some(lost) = appends.iter().find(|append| append.done && !ends.contains_key(&append.id))
    {
        let all = appends.iter().filter(|append| append.done && !ends.contains_key(&append.id));
        return Err(format!("{} acknowledged records are lost, the first {lost:?}", all.count()));
    }
    // In the order of the file, none may have returned before one ahead of it was called.
    let mut latest: Option<&Append> = None;
    for (id, _) in &found {
        let Some(append) = made.get(id) else {
            return Err(format!("nobody appended {id:?}"));
        };
        if let Some(latest) = latest
            && append.done
            && append.returned < latest.called
        {
            return Err(format!("{append:?} had returned before {latest:?}, yet comes after it"));
        }
        if latest.is_none_or(|latest| latest.called < append.called) {
            latest = Some(append);
        }
    }
    check_looks(looks, &made, &found)
}

/// Each size is the end of a record, and no smaller than what was done before, no larger than what
/// was called for before its return.
fn check_looks(
    looks: &[Look],
    made: &BTreeMap<Id, &Append>,
    found: &[(Id, u64)],
) -> Result<(), String> {
    for look in looks {
        let is_end = look.size == 0 || found.iter().any(|(_, end)| *end == look.size);
        if !is_end {
            return Err(format!("{look:?} shows part of a record"));
        }
        for (id, end) in found {
            let append = made[id];
            if append.done && append.returned < look.called && *end > look.size {
                return Err(format!("{look:?} does not show {append:?}, which ends at {end}"));
            }
            if append.called > look.returned && *end <= look.size {
                return Err(format!("{look:?} shows {append:?}, which was called later"));
            }
        }
    }
    // And none is smaller than one that was told before.
    let mut by_time: Vec<&Look> = looks.iter().collect();
    by_time.sort_by_key(|look| look.called);
    let mut by_end: Vec<&Look> = looks.iter().collect();
    by_end.sort_by_key(|look| look.returned);
    let (mut ended, mut largest): (usize, Option<&Look>) = (0, None);
    for look in by_time {
        while ended < by_end.len() && by_end[ended].returned < look.called {
            if largest.is_none_or(|largest| largest.size < by_end[ended].size) {
                largest = Some(by_end[ended]);
            }
            ended += 1;
        }
        if let Some(largest) = largest
            && largest.size > look.size
        {
            return Err(format!("{look:?} comes after {largest:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(id: Id, called: u64, returned: u64) -> Append {
        Append { id, called, returned, done: true }
    }

    fn file(ids: &[Id]) -> Vec<u8> {
        ids.iter().flat_map(|id| record(*id, 40)).collect()
    }

    #[test]
    fn records_are_found_again() {
        let content = [record((1, 5), 17), record((12, 99), 9_000)].concat();
        assert_eq!(records(&content).unwrap(), [((1, 5), 17), ((12, 99), 9_017)]);
        let mut torn = content;
        torn[500] = b'Z';
        assert!(records(&torn).unwrap_err().contains("at 17"));
    }

    #[test]
    fn lost_doubled_torn_and_strange_records_are_found() {
        let appends = [append((0, 0), 0, 10), append((1, 0), 5, 15), append((0, 1), 20, 30)];
        let good = [(0, 0), (1, 0), (0, 1)];
        let verdict = |content: &[u8]| check(&appends, &[], content);
        assert_eq!(verdict(&file(&good)), Ok(()));
        assert_eq!(verdict(&file(&[(1, 0), (0, 0), (0, 1)])), Ok(()), "these were at once");
        assert!(verdict(&file(&good[..2])).unwrap_err().contains("lost"));
        assert!(verdict(&file(&[(0, 0), (1, 0), (0, 1), (1, 0)])).unwrap_err().contains("twice"));
        assert!(verdict(&file(&[(0, 1), (0, 0), (1, 0)])).unwrap_err().contains("comes after"));
        assert!(verdict(&file(&[(0, 0), (1, 0), (0, 1), (7, 7)])).unwrap_err().contains("nobody"));
        let mut torn = file(&good);
        torn.remove(60);
        assert!(verdict(&torn).unwrap_err().contains("no whole record"));
    }

    #[test]
    fn an_unknown_append_may_be_there_or_not() {
        let mut appends = [append((0, 0), 0, 10), append((1, 0), 20, 30)];
        appends[0].done = false;
        assert_eq!(check(&appends, &[], &file(&[(1, 0)])), Ok(()));
        assert_eq!(check(&appends, &[], &file(&[(1, 0), (0, 0)])), Ok(()), "late");
        assert!(check(&appends, &[], &file(&[(0, 0), (1, 0), (0, 0)])).is_err());
    }

    #[test]
    fn sizes_show_what_was_done_and_nothing_else() {
        let appends = [append((0, 0), 0, 10), append((1, 0), 20, 30)];
        let content = file(&[(0, 0), (1, 0)]);
        let look = |called, size| Look { called, returned: called + 1, size };
        let verdict = |looks: &[Look]| check(&appends, looks, &content);
        assert_eq!(verdict(&[look(5, 0), look(7, 40), look(12, 40), look(31, 80)]), Ok(()));
        assert!(verdict(&[look(12, 0)]).unwrap_err().contains("does not show"));
        assert!(verdict(&[look(12, 80)]).unwrap_err().contains("called later"));
        assert!(verdict(&[look(25, 50)]).unwrap_err().contains("part of a record"));
        assert!(verdict(&[look(22, 80), look(25, 40)]).unwrap_err().contains("comes after"));
    }
}
