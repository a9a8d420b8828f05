//! One sequence on both sides: every answer, every effect and the whole tree at the end.
//!
//! What is compared after each step: the answer; the attributes of every object that the call
//! touched, of the folders that hold them and of the handle, through the mount that is to look; and,
//! if the step is watched, which of their times have changed. The local file system keeps times
//! finer than its clock when they were looked at in between, so a change always shows there.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs;

use crate::accepted;
use crate::call::{Call, Step, Whence};
use crate::confinement::Confinement;
use crate::snapshot::{self, Attributes, Changed};
use crate::subject::{Outcome, Subject, Value};

/// Reason for another answer of `lseek` on a folder.
const PLACES: &str = "places in a folder are cookies, each file system's own";

/// The two sides.
#[derive(Debug)]
pub struct World {
    confinement: Confinement,
    /// A folder on a local file system. This and the mounts by their confined names.
    reference: PathBuf,
    /// The mounts that take turns.
    mounts: Vec<PathBuf>,
    /// Folders made so far.
    made: AtomicU64,
}

/// Where the two sides are not alike.
#[derive(Debug, Clone)]
pub struct Difference {
    /// Which of the steps showed it; none: the tree at the end.
    pub step: Option<usize>,
    /// What kind of difference: the same for the same mistake, as far as one can tell.
    pub kind: String,
    /// All about it.
    pub text: String,
}

/// How a sequence went.
#[derive(Debug, Default)]
pub struct Ran {
    /// By call: how often it was made, and how often it succeeded.
    pub calls: BTreeMap<String, (u64, u64)>,
    /// How often a difference was accepted, by its reason.
    pub accepted: BTreeMap<&'static str, u64>,
    /// What the reference answered, by step.
    pub answers: Vec<String>,
}

impl World {
    /// Folders are made in `reference` and in the first of the mounts, all of them below `top`.
    pub fn new(top: &Path, reference: &Path, mounts: &[&Path]) -> World {
        assert!(!mounts.is_empty());
        let confinement = Confinement::new(top);
        let reference = confinement.inner(reference);
        let mounts = mounts.iter().map(|mount| confinement.inner(mount)).collect();
        World { confinement, reference, mounts, made: AtomicU64::new(0) }
    }

    /// Runs `work`, which runs sequences, in a thread that cannot leave the folder.
    pub fn confined<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.confinement.run(work)
    }

    fn folders(&self) -> (Subject, Subject) {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        // A folder below another: a link that leads up by one stays in what is compared.
        let name = format!("s{number}/w");
        for top in [&self.reference, &self.mounts[0]] {
            std::fs::create_dir_all(top.join(&name)).expect("a folder for the sequence");
            for folder in [top.join(format!("s{number}")), top.join(&name)] {
                let mode = std::fs::Permissions::from_mode(0o777);
                std::fs::set_permissions(folder, mode).expect("our folder");
            }
        }
        let reference = Subject::new(vec![self.reference.join(&name)]);
        let mounts = self.mounts.iter().map(|mount| mount.join(&name)).collect();
        (reference, Subject::new(mounts))
    }
}

/// Runs the steps in new folders; in a confined thread only.
pub fn run(world: &World, steps: &[Step]) -> (Ran, Option<Difference>) {
    let (reference, subject) = world.folders();
    let mut both = Both { reference, subject, descriptors: world.confinement.descriptors() };
    let mut ran = Ran::default();
    for (number, step) in steps.iter().enumerate() {
        let found = both.step(step, &mut ran);
        if let Err((kind, text)) = found {
            let kind = format!("{}: {kind}", step.call.name());
            return (ran, Some(Difference { step: Some(number), kind, text }));
        }
    }
    both.reference.close_all();
    both.subject.close_all();
    let found = both.trees(world.mounts.len());
    let found = found.err().map(|(kind, text)| {
        let kind = format!("tree at the end: {kind}");
        Difference { step: None, kind, text }
    });
    (ran, found)
}

/// The kind of a difference, and all about it.
type Unlike = (String, String);

struct Both<'a> {
    reference: Subject,
    subject: Subject,
    descriptors: &'a File,
}

/// What is known of the objects of a call on one side.
type Touched = Vec<(String, Option<Attributes>)>;

impl Both<'_> {
    fn step(&mut self, step: &Step, ran: &mut Ran) -> Result<(), Unlike> {
        let before = step.watch.then(|| self.touched(step));
        let expected = self.reference.run(step);
        let found = self.subject.run(step);
        let entry = ran.calls.entry(step.call.name()).or_default();
        entry.0 += u64::from(expected != Outcome::Skipped);
        entry.1 += u64::from(matches!(expected, Outcome::Done(_)));
        ran.answers.push(format!("{expected:?}"));
        let accepted = accepted::reason(&step.call, &expected, &found);
        let accepted = accepted
            .or_else(|| self.seek(&step.call, &expected, &found))
            .or_else(|| self.copy_the_rest(step, &expected, &found));
        match accepted {
            Some(reason) => *ran.accepted.entry(reason).or_default() += 1,
            None => answers(&expected, &found)?,
        }
        if let Some(reason) = self.place(&step.call)? {
            *ran.accepted.entry(reason).or_default() += 1;
        }
        let after = self.touched(step);
        compare_touched(&after)?;
        match before {
            Some(before) => compare_times(&before, &after),
            None => Ok(()),
        }
    }

    /// The objects of a call: of the reference, and of the mount that looks.
    fn touched(&self, step: &Step) -> (Touched, Touched) {
        let mut paths: Vec<String> = Vec::new();
        for path in step.call.paths() {
            let path = path.trim_end_matches('/');
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            for one in [path, parent] {
                if !paths.iter().any(|known| known == one) {
                    paths.push(one.to_owned());
                }
            }
        }
        let look = |side: &Subject| {
            let mut all: Touched = paths
                .iter()
                .map(|path| {
                    let stat = fs::lstat(side.path(step.look, path)).ok();
                    (format!("{path:?}"), stat.map(|stat| Attributes::of(&stat)))
                })
                .collect();
            if let Some(slot) = step.call.slot() {
                all.push((format!("handle {slot}"), side.handle_attributes(slot)));
            }
            all
        };
        (look(&self.reference), look(&self.subject))
    }

    /// Whether an answer of `lseek` is right, where it is not the reference's.
    fn seek(&self, call: &Call, expected: &Outcome, found: &Outcome) -> Option<&'static str> {
        let Call::Seek { slot, offset, whence } = *call else { return None };
        if expected == found {
            return None;
        }
        let attributes = self.reference.handle_attributes(slot)?;
        let reason = match whence {
            _ if attributes.size.is_none() => Some(PLACES),
            Whence::Data | Whence::Hole => {
                let content = self.reference.handle_content(slot, self.descriptors)?;
                accepted::holes(&content, offset, whence, found)
            }
            _ => None,
        };
        self.reference.set_place(slot, 0);
        self.subject.set_place(slot, 0);
        reason
    }

    /// Copies what a copy has left out, where another mount may have made the source longer.
    fn copy_the_rest(
        &mut self,
        step: &Step,
        expected: &Outcome,
        found: &Outcome,
    ) -> Option<&'static str> {
        let mut step = step.clone();
        let Call::CopyRange { from, from_offset, to_offset, length, .. } = &mut step.call else {
            return None;
        };
        let (Outcome::Done(Value::Count(wanted)), Outcome::Done(Value::Count(copied))) =
            (expected, found)
        else {
            return None;
        };
        let missing = wanted.checked_sub(*copied)?;
        if missing == 0 || self.subject.mounts() == 1 {
            return None;
        }
        self.subject.handle_attributes(*from);
        (*from_offset, *to_offset) = (*from_offset + copied, *to_offset + copied);
        *length -= usize::try_from(*copied).ok()?;
        let rest = self.subject.run(&step);
        (rest == Outcome::Done(Value::Count(missing))).then_some(accepted::SIZE_SEEN)
    }

    /// Compares where a handle stands; why it may stand elsewhere. Then it is put right.
    fn place(&self, call: &Call) -> Result<Option<&'static str>, Unlike> {
        let (Call::Write { slot, .. } | Call::Read { slot, .. }) = *call else { return Ok(None) };
        let (expected, found) = (self.reference.place(slot), self.subject.place(slot));
        let of_file = self.subject.handle_attributes(slot).is_some_and(|of| of.size.is_some());
        if expected == found || !of_file {
            return Ok(None);
        }
        let wrote = matches!(call, Call::Write { .. });
        match expected {
            Some(place) if wrote && self.subject.mounts() > 1 && self.subject.appends(slot) => {
                self.subject.set_place(slot, place);
                Ok(Some(accepted::POSITION))
            }
            _ => {
                let text = format!("the handle is at {found:?}, expected {expected:?}");
                Err(("place after it".into(), text))
            }
        }
    }

    fn trees(&self, mounts: usize) -> Result<(), Unlike> {
        let top = |side: &Subject, mount: usize| {
            let inner: &Path = side.top(mount);
            let outer = inner.parent().expect("the folder is in another").to_owned();
            snapshot::tree(&outer).map_err(|text| ("unreadable".to_owned(), text))
        };
        let expected = top(&self.reference, 0)?;
        for mount in 0..mounts {
            let found = top(&self.subject, mount)?;
            if let Some((kind, text)) = snapshot::differences(&found, &expected) {
                return Err((kind, format!("seen from mount {mount}: {text}")));
            }
        }
        Ok(())
    }
}

fn answers(expected: &Outcome, found: &Outcome) -> Result<(), Unlike> {
    let texts = || format!("answered {found:?}, expected {expected:?}");
    match (expected, found) {
        (Outcome::Done(Value::Attributes(expected)), Outcome::Done(Value::Attributes(found))) => {
            match found.difference(expected) {
                Some((field, text)) => Err((field.to_owned(), format!("{field} {text}"))),
                None => Ok(()),
            }
        }
        _ if expected == found => Ok(()),
        (Outcome::Done(_), Outcome::Done(_)) => Err(("another answer".into(), texts())),
        _ => {
            let short = |outcome: &Outcome| match outcome {
                Outcome::Skipped => "skipped".to_owned(),
                Outcome::Failed(error) => format!("{}", std::io::Error::from_raw_os_error(*error)),
                Outcome::Done(_) => "success".to_owned(),
            };
            Err((format!("{}, expected {}", short(found), short(expected)), texts()))
        }
    }
}

fn compare_touched((expected, found): &(Touched, Touched)) -> Result<(), Unlike> {
    for ((what, expected), (_, found)) in expected.iter().zip(found) {
        match (expected, found) {
            (None, None) => {}
            (Some(expected), Some(found)) => {
                if let Some((field, text)) = found.difference(expected) {
                    return Err((format!("{field} after it"), format!("{what}: {field} {text}")));
                }
            }
            (Some(_), None) => {
                return Err(("missing after it".into(), format!("{what} is missing")));
            }
            (None, Some(_)) => {
                return Err(("phantom after it".into(), format!("{what} should not be there")));
            }
        }
    }
    Ok(())
}

fn compare_times(before: &(Touched, Touched), after: &(Touched, Touched)) -> Result<(), Unlike> {
    let changed = |before: &Touched, after: &Touched| -> Vec<Option<Changed>> {
        let pairs = before.iter().zip(after);
        pairs
            .map(|((_, before), (_, after))| match (before, after) {
                // Another object under the same name tells nothing.
                (Some(before), Some(after)) if before.inode == after.inode => {
                    Some(Changed::between(before, after))
                }
                _ => None,
            })
            .collect()
    };
    let expected = changed(&before.0, &after.0);
    let found = changed(&before.1, &after.1);
    for (number, (expected, found)) in expected.iter().zip(&found).enumerate() {
        let what = &after.0[number].0;
        match (expected, found) {
            (Some(expected), Some(found)) if expected == found => {}
            (None, None) => {}
            (Some(expected), Some(found)) => {
                let kind = match (expected.mtime != found.mtime, expected.ctime != found.ctime) {
                    (true, true) => "changed mtime and ctime",
                    (true, false) => "changed mtime",
                    _ => "changed ctime",
                };
                let (was, is) = (&before.1[number].1, &after.1[number].1);
                let text =
                    format!("{what}: {found:?}, expected {expected:?}; from {was:?} to {is:?}");
                return Err((kind.into(), text));
            }
            _ => {
                let text = format!("{what} became another object on one side only");
                return Err(("identity".into(), text));
            }
        }
    }
    Ok(())
}
