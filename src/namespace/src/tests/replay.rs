//! The same commands give the same records, however they are cut into batches.

use ministry_types::kv::{Kv, MemoryKv};
use ministry_types::operations::{Operation, Outcome};
use ministry_types::{Caller, FileKind};
use proptest::prelude::*;

use super::against_model::{Pair, wishes};
use super::world::{ROOT, World, create, dump, user};
use crate::{Command, CommandReply, Overlay};

fn run(world: &World, from: &MemoryKv, commands: &[Command], most: usize) -> Vec<CommandReply> {
    let mut replies = Vec::new();
    for batch in commands.chunks(most.max(1)) {
        let view = from.view();
        let mut overlay = Overlay::new(&*view);
        for command in batch {
            replies.push(world.rules.apply(&mut overlay, command).unwrap());
        }
        let batch = overlay.into_batch();
        from.write(batch).unwrap();
    }
    replies
}

fn copy(world: &World) -> MemoryKv {
    let kv = MemoryKv::default();
    let mut batch = ministry_types::kv::Batch::default();
    for (key, value) in world.dump() {
        batch.put(key, value);
    }
    kv.write(batch).unwrap();
    kv
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn batches_of_any_size_and_a_second_replay_give_the_same_records(
        wishes in wishes(60), most in 1usize..70,
    ) {
        // The commands are fixed by one run, then played again from the beginning.
        let mut pair = Pair::new();
        let beginning = copy(&pair.world);
        let mut commands = Vec::new();
        let callers = [Caller::root(), user(1, 1, &[2]), user(2, 2, &[]), user(3, 1, &[])];
        for (who, wish) in &wishes {
            let operation = pair.operation(wish);
            let (sequence, time) = (pair.world.sequence, pair.world.time);
            commands.push(pair.world.command(&callers[*who], operation));
            (pair.world.sequence, pair.world.time) = (sequence, time);
            let _ = pair.grant(*who, wish)?;
        }
        let expected = pair.world.dump();
        let replies = run(&pair.world, &beginning, &commands, most);
        prop_assert_eq!(dump(&beginning, &pair.world.rules), expected.clone());
        // Each retry of the last command of the slot is answered as before, and changes nothing.
        if let Some(last) = commands.last() {
            let again = run(&pair.world, &beginning, std::slice::from_ref(last), 1);
            prop_assert_eq!(again.last(), replies.last());
            prop_assert_eq!(dump(&beginning, &pair.world.rules), expected);
        }
    }
}

#[test]
fn a_change_that_comes_again_is_answered_again_and_not_done_again() {
    let mut world = World::new();
    let make = create(ROOT, "a", FileKind::Regular, 0o644);
    let command = world.command(&Caller::root(), make.clone());
    let first = world.apply(&command);
    assert!(matches!(first, CommandReply::Change(Ok(Outcome::Attributes(_)))));
    let before = world.dump();
    assert_eq!(world.apply(&command), first);
    assert_eq!(world.dump(), before);

    let unlink = Operation::Unlink { parent: ROOT, name: b"a".to_vec() };
    let later = world.command(&Caller::root(), unlink);
    assert!(matches!(world.apply(&later), CommandReply::Change(Ok(Outcome::Unlinked { .. }))));
    assert_eq!(world.apply(&command), CommandReply::StaleSequence, "a later one was done");
}

#[test]
fn a_refusal_is_kept_as_the_reply_too() {
    let mut world = World::new();
    let unlink = Operation::Unlink { parent: ROOT, name: b"a".to_vec() };
    let command = world.command(&Caller::root(), unlink);
    let refused = world.apply(&command);
    // Another slot makes what was missing: the answer stays what it was.
    let mut other = world.command(&Caller::root(), create(ROOT, "a", FileKind::Regular, 0o644));
    if let Command::Change { slot, .. } = &mut other {
        *slot = 1;
    }
    world.apply(&other);
    assert_eq!(world.apply(&command), refused);
}
