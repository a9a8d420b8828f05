//! Runs cases in fresh folders and says what came of them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::cases;
use crate::differences::{DIFFERENCES, Difference};
use crate::scene::Scene;

/// A case that takes longer is named.
const SLOW: Duration = Duration::from_secs(5);

/// One sentence of docs/semantics.md and the test of it.
pub struct Case {
    /// Its name on the page, such as `rename-7`.
    pub id: &'static str,
    /// What the file system does.
    pub says: &'static str,
    /// Does it and looks.
    pub run: fn(&Scene),
}

/// A case, in the order in which one reads it.
pub const fn case(id: &'static str, says: &'static str, run: fn(&Scene)) -> Case {
    Case { id, says, run }
}

/// A part of the page.
pub struct Section {
    pub title: &'static str,
    pub intro: &'static str,
    pub cases: &'static [Case],
}

/// Where the cases run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A folder of a local ext4: the listed differences must show, nothing else.
    Local,
    /// A mount: every sentence must hold.
    Mount,
}

/// A case that did not end as it had to.
struct Failure {
    id: &'static str,
    says: &'static str,
    what: String,
}

thread_local! {
    /// Where the panic of a case leaves its words; none outside of a case.
    static WORDS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of cases are kept, not printed: a listed difference is no news.
fn keep_words_of_cases() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let kept = WORDS.with_borrow_mut(|words| match words {
                Some(words) => {
                    let place = panic.location().map(ToString::to_string).unwrap_or_default();
                    let said = panic.payload_as_str().unwrap_or("a panic without words");
                    *words = format!("{said}\n    at {place}");
                    true
                }
                None => false,
            });
            if !kept {
                usual(panic);
            }
        }));
    });
}

/// Runs every case; `near` and `far` are two paths to the same empty folder. Panics with a list
/// if anything is not as it has to be.
pub fn run_all(place: Place, near: &Path, far: &Path) {
    keep_words_of_cases();
    let wanted = std::env::var("MINISTRY_CASES").unwrap_or_default();
    let mut failures = Vec::new();
    let (mut ran, mut differ) = (0, 0);
    let mut scene = Scene::new();
    for case in cases::all().filter(|case| case.id.starts_with(&wanted)) {
        let listed = DIFFERENCES.iter().find(|difference| difference.sentence == case.id);
        let began = Instant::now();
        let found = run_one(case, &mut scene, near, far);
        if began.elapsed() > SLOW {
            eprintln!("{}: {:.1} s", case.id, began.elapsed().as_secs_f64());
        }
        ran += 1;
        differ += usize::from(place == Place::Local && listed.is_some());
        let what = judged(place, listed, found);
        if let Err(what) = what {
            // The actors may be stuck in the case.
            scene = Scene::new();
            eprintln!("{} ({place:?}): {what}", case.id);
            failures.push(Failure { id: case.id, says: case.says, what });
        }
    }
    println!(
        "semantics on {}: {ran} sentences, {} hold, {} failed{}",
        if place == Place::Local { "local ext4" } else { "the mounts" },
        ran - failures.len(),
        failures.len(),
        if differ > 0 {
            format!(", {differ} of them differ here as listed")
        } else {
            String::new()
        }
    );
    if !failures.is_empty() {
        for Failure { id, says, what } in &failures {
            println!("{id}: {says}\n    {what}");
        }
        panic!("{} sentences of docs/semantics.md do not hold on {place:?}", failures.len());
    }
}

/// What a case did, against what it had to do at this place.
fn judged(
    place: Place,
    listed: Option<&Difference>,
    found: Result<(), String>,
) -> Result<(), String> {
    match (place, listed) {
        (Place::Local, Some(listed)) => match found {
            Ok(()) => Err(vanished(listed)),
            Err(_) => Ok(()),
        },
        (Place::Local, None) | (Place::Mount, _) => found,
    }
}

fn vanished(difference: &Difference) -> String {
    format!("is listed as a difference ({}) but holds: take it off the list", difference.reason)
}

fn run_one(case: &Case, scene: &mut Scene, near: &Path, far: &Path) -> Result<(), String> {
    let inside = near.join(case.id);
    std::fs::create_dir(&inside).map_err(|error| format!("cannot make its folder: {error}"))?;
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&inside, all).map_err(|error| error.to_string())?;
    let text = |path: &Path| path.join(case.id).to_str().expect("plain names").to_owned();
    let (near, far) = (text(near), text(far));
    WORDS.set(Some(String::new()));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        scene.go(&near, &far);
        (case.run)(scene);
    }));
    let words = WORDS.take().unwrap_or_default();
    // Some folders are not writable any more, others too deep: root's rm knows what to do.
    let _ = std::process::Command::new("rm").arg("-rf").arg(&inside).status();
    ended.map_err(|_| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlisted_difference_fails_and_so_does_a_listed_one_that_vanished() {
        let listed = DIFFERENCES.first();
        assert!(listed.is_some());
        let failed = || Err(String::from("found something else"));
        assert!(judged(Place::Local, None, Ok(())).is_ok());
        assert!(judged(Place::Local, None, failed()).is_err());
        assert!(judged(Place::Local, listed, failed()).is_ok());
        assert!(judged(Place::Local, listed, Ok(())).is_err());
        assert!(judged(Place::Mount, listed, Ok(())).is_ok());
        assert!(judged(Place::Mount, listed, failed()).is_err());
    }
}
