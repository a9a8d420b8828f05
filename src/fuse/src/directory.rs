//! Listing a directory in pages.
//!
//! The kernel asks for as many entries as fit its buffer and names the cookie to go on after.
//! Cookies 1 and 2 are `.` and `..`; every other is the entry's own, which stays the same while
//! others come and go, so `telldir` and `seekdir` hold and nothing is listed twice or left out.
//! Since the kernel's buffer is often smaller than one answer of the minister, what is left over is
//! kept with the handle; and while one page is handed over the next is asked for already. That
//! makes two pages, whatever the size of the directory.
//!
//! What must always hold: entries with attributes are never kept, since the kernel would take old
//! attributes for new ones. Names may be as old as the last rewind; POSIX leaves that open. A page
//! that was asked for ahead and is not wanted any more is dropped, its question with it; one that
//! failed is asked for again when it is wanted.

use std::collections::VecDeque;

use ministry_types::InodeId;
use ministry_types::operations::Entry;
use parking_lot::Mutex;
use tokio::task::JoinSet;

/// Cookie of the entry `.`: going on after 0 begins with it.
pub(crate) const COOKIE_DOT: u64 = 1;
/// Cookie of the entry `..`.
pub(crate) const COOKIE_DOT_DOT: u64 = 2;

/// The next entries of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// They follow this cookie, in the words of [`ministry_types::operations::Query::List`].
    pub(crate) after: u64,
    /// The entries.
    pub(crate) entries: VecDeque<Entry>,
    /// Nothing follows.
    pub(crate) end: bool,
    /// The directory that holds this one.
    pub(crate) parent: InodeId,
}

impl Page {
    /// The cookie after which the next page begins; nothing if this is the last.
    pub(crate) fn next(&self) -> Option<u64> {
        let last = self.entries.back().map_or(self.after, |entry| entry.cookie);
        (!self.end).then_some(last)
    }
}

/// The page that is asked for ahead. Dropping it ends the question.
#[derive(Debug)]
struct Ahead {
    after: u64,
    question: JoinSet<Option<Page>>,
}

/// What is kept with an open directory.
#[derive(Debug, Default)]
pub(crate) struct Position {
    left_over: Mutex<Option<Page>>,
    ahead: Mutex<Option<Ahead>>,
}

impl Position {
    /// The page that goes on after `after`, if that is what was left over. A listing that begins
    /// anew takes nothing from before.
    pub(crate) fn take(&self, offset: u64) -> Option<Page> {
        let page = self.left_over.lock().take()?;
        (offset != 0 && page.after == list_after(offset)).then_some(page)
    }

    /// Asks for the page after this cookie while others are handed over. To be called in the
    /// runtime.
    pub(crate) fn ask_ahead(
        &self,
        after: u64,
        question: impl Future<Output = Option<Page>> + Send + 'static,
    ) {
        let mut tasks = JoinSet::new();
        tasks.spawn(question);
        *self.ahead.lock() = Some(Ahead { after, question: tasks });
    }

    /// The page after this cookie, if that is the one that was asked for ahead and it came.
    ///
    /// Cancel safety: the page is lost, and is asked for again.
    pub(crate) async fn take_ahead(&self, after: u64) -> Option<Page> {
        let mut ahead = self.ahead.lock().take().filter(|ahead| ahead.after == after)?;
        ahead.question.join_next().await?.ok()?
    }

    /// Keeps what did not fit.
    pub(crate) fn keep(&self, page: Page) {
        *self.left_over.lock() = Some(page);
    }
}

/// What to ask the minister to go on after, for the kernel's offset.
pub(crate) fn list_after(offset: u64) -> u64 {
    if offset <= COOKIE_DOT_DOT { 0 } else { offset }
}

/// Hands entries over from `offset` on until `put` says that there is no more room; `put` gets the
/// inode, the cookie, the name and, for all but `.` and `..`, the entry. Returns whether there is
/// room left.
pub(crate) fn fill(
    offset: u64,
    inode: InodeId,
    page: &mut Page,
    put: &mut impl FnMut(InodeId, u64, &[u8], Option<&Entry>) -> bool,
) -> bool {
    if offset < COOKIE_DOT && put(inode, COOKIE_DOT, b".", None) {
        return false;
    }
    if offset < COOKIE_DOT_DOT && put(page.parent, COOKIE_DOT_DOT, b"..", None) {
        return false;
    }
    while let Some(entry) = page.entries.front() {
        if put(entry.inode, entry.cookie, &entry.name, Some(entry)) {
            return false;
        }
        page.after = entry.cookie;
        page.entries.pop_front();
    }
    true
}

#[cfg(test)]
mod tests {
    use ministry_types::FileKind;

    use super::*;

    fn page(after: u64, cookies: &[u64]) -> Page {
        let entries = cookies.iter().map(|cookie| Entry {
            cookie: *cookie,
            name: format!("f{cookie}").into_bytes(),
            inode: InodeId(cookie + 1000),
            kind: FileKind::Regular,
            attributes: None,
        });
        Page { after, entries: entries.collect(), end: true, parent: InodeId(1) }
    }

    /// Lists with room for `room` entries at a time, as the kernel does.
    fn list_in_steps(room: usize) -> Vec<(u64, Vec<u8>)> {
        let all = [3, 10, 11, 900, u64::MAX >> 1];
        let position = Position::default();
        let mut listed = Vec::new();
        loop {
            let offset = listed.last().map_or(0, |(cookie, _)| *cookie);
            let mut page = position.take(offset).unwrap_or_else(|| {
                let after = list_after(offset);
                let rest: Vec<u64> = all.iter().copied().filter(|c| *c > after).collect();
                page(after, &rest)
            });
            let before = listed.len();
            let mut left = room;
            fill(offset, InodeId(50), &mut page, &mut |_, cookie, name, _| {
                if left == 0 {
                    return true;
                }
                left -= 1;
                listed.push((cookie, name.to_vec()));
                false
            });
            position.keep(page);
            if listed.len() == before {
                return listed;
            }
        }
    }

    #[test]
    fn every_entry_is_listed_once_whatever_the_size_of_the_buffer() {
        let whole = list_in_steps(100);
        assert_eq!(whole.len(), 7);
        assert_eq!(whole[0], (COOKIE_DOT, b".".to_vec()));
        assert_eq!(whole[1], (COOKIE_DOT_DOT, b"..".to_vec()));
        for room in 1..7 {
            assert_eq!(list_in_steps(room), whole, "{room}");
        }
    }

    #[test]
    fn a_listing_that_begins_anew_takes_nothing_from_before() {
        let position = Position::default();
        position.keep(page(0, &[3, 4]));
        assert_eq!(position.take(0), None);
        position.keep(page(7, &[9]));
        assert_eq!(position.take(3), None, "seekdir went elsewhere");
        position.keep(page(7, &[9]));
        assert_eq!(position.take(7), Some(page(7, &[9])));
    }

    #[tokio::test]
    async fn only_the_page_that_is_wanted_is_taken_of_what_was_asked_ahead() {
        let position = Position::default();
        assert_eq!(position.take_ahead(4).await, None, "nothing was asked for");
        position.ask_ahead(4, async { Some(page(4, &[5])) });
        assert_eq!(position.take_ahead(4).await, Some(page(4, &[5])));
        assert_eq!(position.take_ahead(4).await, None, "it is taken once");
        position.ask_ahead(4, async { Some(page(4, &[5])) });
        assert_eq!(position.take_ahead(9).await, None, "seekdir went elsewhere");
        position.ask_ahead(4, async { None });
        assert_eq!(position.take_ahead(4).await, None, "it failed");
    }

    #[test]
    fn the_next_page_begins_behind_the_last_entry() {
        let more = Page { end: false, ..page(3, &[7, 9]) };
        assert_eq!(more.next(), Some(9));
        assert_eq!(Page { entries: VecDeque::new(), ..more }.next(), Some(3));
        assert_eq!(page(3, &[7, 9]).next(), None, "nothing follows");
    }
}
