//! Listings go on where they were, while others come and go.

use std::collections::BTreeMap;

use ministry_types::FileKind;
use ministry_types::limits::LISTING_ENTRIES_MAX;
use ministry_types::operations::{Operation, RenameMode};
use proptest::prelude::*;

use super::world::{ROOT, World, create};

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Unlink(u8),
    Rename(u8, u8),
    Page(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..40).prop_map(Step::Create),
        2 => (0u8..40).prop_map(Step::Unlink),
        1 => (0u8..40, 0u8..40).prop_map(|(a, b)| Step::Rename(a, b)),
        2 => (1u32..6).prop_map(Step::Page),
    ]
}

fn name(at: u8) -> String {
    format!("name {at}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_listing_shows_once_each_name_that_was_there_all_the_time(
        at_first in prop::collection::btree_set(0u8..40, 0..30),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut world = World::new();
        for at in &at_first {
            world.file(ROOT, &name(*at));
        }
        let mut stayed: std::collections::BTreeSet<Vec<u8>> =
            at_first.iter().map(|at| name(*at).into_bytes()).collect();
        let mut seen: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut after = 0;
        let mut ended = false;
        for step in steps.iter().chain(std::iter::once(&Step::Page(1000))) {
            match step {
                Step::Create(at) => {
                    let _ = world.root(create(ROOT, &name(*at), FileKind::Regular, 0));
                }
                Step::Unlink(at) => {
                    let name = name(*at).into_bytes();
                    stayed.remove(&name);
                    let _ = world.root(Operation::Unlink { parent: ROOT, name });
                }
                Step::Rename(from, to) => {
                    let (name, new_name) = (name(*from).into_bytes(), name(*to).into_bytes());
                    stayed.remove(&name);
                    let _ = world.root(Operation::Rename {
                        parent: ROOT,
                        name,
                        new_parent: ROOT,
                        new_name,
                        mode: RenameMode::Replace,
                    });
                }
                Step::Page(most) => {
                    let (entries, end) = world.list(ROOT, after, *most);
                    for entry in entries {
                        prop_assert!(entry.cookie > after && entry.cookie > 2);
                        prop_assert!(entry.cookie < i64::MAX as u64);
                        after = entry.cookie;
                        prop_assert!(seen.insert(entry.cookie, entry.name).is_none());
                    }
                    ended = end;
                }
            }
        }
        prop_assert!(ended);
        for name in stayed {
            let times = seen.values().filter(|found| **found == name).count();
            prop_assert_eq!(times, 1);
        }
    }
}

#[test]
fn a_page_has_a_limit_and_tells_whether_more_follows() {
    let mut world = World::new();
    let directory = world.directory(ROOT, "d");
    for at in 0..LISTING_ENTRIES_MAX + 1 {
        world.file(directory, &format!("{at}"));
    }
    let (entries, end) = world.list(directory, 0, u32::MAX);
    assert_eq!((entries.len(), end), (LISTING_ENTRIES_MAX, false));
    let (rest, end) = world.list(directory, entries.last().unwrap().cookie, 1);
    assert_eq!((rest.len(), end), (1, true));
    let (none, end) = world.list(directory, u64::MAX, 1);
    assert_eq!((none.len(), end), (0, true));
}
