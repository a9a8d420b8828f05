//! Random rows of calls, with crashes that keep an arbitrary part of what was not synced, against
//! a model that knows which values each byte may have. `MINISTRY_STORAGE_CASES` says how many rows
//! are tried.

use proptest::prelude::*;

use super::*;

const SPAN: u64 = 3 << 20;

#[derive(Debug, Clone)]
enum Call {
    Write {
        inode: u64,
        offset: u64,
        length: usize,
        seed: u64,
    },
    Read {
        inode: u64,
        offset: u64,
        length: usize,
    },
    Space {
        inode: u64,
        offset: u64,
        length: u64,
        change: SpaceChange,
    },
    Seek {
        inode: u64,
        offset: u64,
        hole: bool,
    },
    Cut {
        inode: u64,
        size: u64,
        confirm: bool,
    },
    Sync {
        inode: u64,
    },
    Maintain,
    Close,
    /// Power is lost; with a seed, a part of what was not synced survives.
    Crash {
        seed: Option<u64>,
    },
    /// From the given number of syncs on, the disk fails them, until the store has noticed.
    FailSyncs {
        after: u64,
    },
    /// The process ends; what it wrote stays in the memory of the kernel.
    Kill,
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..SPAN,
        3 => (0..SPAN / BLOCK).prop_map(|block| block * BLOCK),
        2 => (0..SPAN / BLOCK).prop_map(|block| block * BLOCK + BLOCK - 1),
        2 => 0..10_000u64,
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 1..200usize,
        3 => 1..20_000usize,
        2 => (1..6usize).prop_map(|blocks| blocks * BLOCK_BYTES),
        1 => Just(1 << 20),
    ]
}

fn change() -> impl Strategy<Value = SpaceChange> {
    prop_oneof![Just(SpaceChange::Allocate), Just(SpaceChange::Zero), Just(SpaceChange::Punch)]
}

fn call() -> impl Strategy<Value = Call> {
    let inode = || 1..3u64;
    prop_oneof![
        10 => (inode(), offset(), length(), any::<u64>())
            .prop_map(|(inode, offset, length, seed)| Call::Write { inode, offset, length, seed }),
        5 => (inode(), offset(), length())
            .prop_map(|(inode, offset, length)| Call::Read { inode, offset, length }),
        5 => (inode(), offset(), length(), change()).prop_map(|(inode, offset, length, change)| {
            Call::Space { inode, offset, length: length as u64, change }
        }),
        3 => (inode(), offset(), any::<bool>())
            .prop_map(|(inode, offset, hole)| Call::Seek { inode, offset, hole }),
        3 => (inode(), offset(), any::<bool>())
            .prop_map(|(inode, size, confirm)| Call::Cut { inode, size, confirm }),
        4 => inode().prop_map(|inode| Call::Sync { inode }),
        2 => Just(Call::Maintain),
        1 => Just(Call::Close),
        2 => any::<Option<u64>>().prop_map(|seed| Call::Crash { seed }),
        1 => Just(Call::Kill),
        1 => (0..6u64).prop_map(|after| Call::FailSyncs { after }),
    ]
}

/// One file: what it held at the last sync and after each change since; what it holds now is the
/// last of them. A crash may bring back any of them, byte by byte.
struct Model {
    versions: Vec<Vec<u8>>,
    marks: Vec<TruncateMark>,
    /// How many of the marks the store was shown.
    made: usize,
}

impl Model {
    fn new() -> Model {
        Model { versions: vec![Vec::new()], marks: Vec::new(), made: 0 }
    }

    fn now(&self) -> &Vec<u8> {
        self.versions.last().unwrap()
    }

    fn now_at(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            self.now().iter().skip(offset as usize).take(length).copied().collect();
        bytes.resize(length, 0);
        bytes
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (from, to) = (offset as usize, offset as usize + data.len());
        let mut next = self.now().clone();
        if next.len() < to {
            next.resize(to, 0);
        }
        next[from..to].copy_from_slice(data);
        self.versions.push(next);
    }

    fn zero(&mut self, offset: u64, length: u64) {
        let mut next = self.now().clone();
        let end = next.len();
        let (from, to) = (offset as usize, (offset + length) as usize);
        next[from.min(end)..to.min(end)].fill(0);
        self.versions.push(next);
    }

    /// What a search found may not pass over a byte that is there, nor be in the wrong place.
    fn check(&self, offset: u64, hole: bool, searched: Searched) -> Result<(), ChunkError> {
        let zeros = |from: u64, to: u64| {
            self.now_at(from, (to - from) as usize).iter().all(|byte| *byte == 0)
        };
        let Searched { at, found } = searched;
        let right = match hole {
            true => !found || zeros(at, (at + 1).next_multiple_of(BLOCK)),
            false => zeros(offset, at),
        };
        let text = format!("looked for (hole: {hole}) from {offset} on: {searched:?}");
        if right && at >= offset { Ok(()) } else { Err(ChunkError::Invalid(text)) }
    }

    fn cut(&mut self, size: u64) {
        let mut next = self.now().clone();
        next.truncate(size as usize);
        self.versions.push(next);
        let sequence = self.marks.last().map_or(0, |mark| mark.sequence) + 1;
        self.marks.push(mark(sequence, size));
    }

    /// The store saw the marks: nothing behind them may ever come back.
    fn cuts_made(&mut self) {
        for mark in &self.marks[self.made..] {
            self.versions.iter_mut().for_each(|bytes| bytes.truncate(mark.size as usize));
        }
        self.made = self.marks.len();
    }

    fn sync(&mut self) {
        self.versions.drain(..self.versions.len() - 1);
    }

    /// Takes over what a stop left, after checking that each byte may be as it is. The store made
    /// durable what it recovered, and what needed no recovery was.
    fn stopped(&mut self, found: Vec<u8>) -> Result<(), String> {
        self.cuts_made();
        let mut wrong: Vec<usize> = (0..found.len()).collect();
        for version in &self.versions {
            let now = |at: &usize| version.get(*at).copied().unwrap_or(0);
            wrong.retain(|at| found[*at] != now(at));
        }
        if let Some(at) = wrong.first() {
            return Err(format!("byte {at} was never {} since the last sync", found[*at]));
        }
        let end = found.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        self.versions = vec![found[..end].to_vec()];
        Ok(())
    }
}

struct Run {
    disk: MemoryDisk,
    store: ChunkStore,
    models: BTreeMap<u64, Model>,
}

impl Run {
    fn new() -> Run {
        let disk = MemoryDisk::default();
        let store = open(&disk);
        let models = (1..3).map(|inode| (inode, Model::new())).collect();
        Run { disk, store, models }
    }

    fn carry_out(&mut self, call: &Call) -> Result<(), String> {
        match self.try_out(call) {
            // A failed sync ends the process; the next one finds the disk well again, and what the
            // kernel shows of the one before.
            Err(ChunkError::Fatal(_)) => {
                self.disk.fail_syncs_after(u64::MAX);
                self.reopen().map_err(|error| format!("after a failed sync: {error}"))
            }
            Err(error) => Err(format!("{call:?}: {error}")),
            Ok(()) if matches!(call, Call::Close | Call::Crash { .. } | Call::Kill) => {
                self.disk.fail_syncs_after(u64::MAX);
                self.reopen()
            }
            Ok(()) => Ok(()),
        }
    }

    fn try_out(&mut self, call: &Call) -> Result<(), ChunkError> {
        match call {
            Call::Write { inode, offset, length, seed } => {
                let model = self.models.get_mut(inode).unwrap();
                let data = pattern(*length, *seed);
                let sums = crcs(*offset, &data);
                let sums = (seed % 2 == 0).then_some(&sums[..]);
                self.store.write(InodeId(*inode), *offset, &data, sums, &model.marks)?;
                model.cuts_made();
                model.write(*offset, &data);
            }
            Call::Read { inode, offset, length } => {
                let model = self.models.get_mut(inode).unwrap();
                let out = self.store.read(InodeId(*inode), *offset, *length, &model.marks)?;
                let wanted = model.now_at(*offset, *length);
                if out.data != wanted || out.checksums != crcs(*offset, &wanted) {
                    return Err(ChunkError::Invalid("it reads other bytes".to_owned()));
                }
            }
            Call::Space { inode, offset, length, change } => {
                let model = self.models.get_mut(inode).unwrap();
                let (inode, bytes) = (InodeId(*inode), *offset..offset + length);
                self.store.change_space(inode, bytes, *change, &model.marks)?;
                // With nothing to punch there may be nothing to cut either.
                let seen = self.store.read(inode, 0, 1, &model.marks)?;
                drop(seen);
                model.cuts_made();
                if *change != SpaceChange::Allocate {
                    model.zero(*offset, *length);
                }
            }
            Call::Seek { inode, offset, hole } => {
                let model = self.models.get_mut(inode).unwrap();
                let bytes = *offset..SPAN + (2 << 20);
                let inode = InodeId(*inode);
                let all = |_| true;
                let searched = self.store.seek(inode, bytes, *hole, 1 << 20, all, &model.marks)?;
                model.check(*offset, *hole, searched)?;
            }
            Call::Cut { inode, size, confirm } => {
                let model = self.models.get_mut(inode).unwrap();
                model.cut(*size);
                if *confirm {
                    self.store.truncate(InodeId(*inode), &model.marks)?;
                    model.cuts_made();
                    // Confirmed cuts need not be shown again, but for the newest.
                    model.marks.drain(..model.marks.len() - 1);
                    model.made = 1;
                }
            }
            Call::Sync { inode } => {
                self.store.sync(InodeId(*inode))?;
                self.models.get_mut(inode).unwrap().sync();
            }
            Call::Maintain => self.store.maintain()?,
            Call::Close => self.store.close()?,
            Call::Crash { seed } => self.disk.crash(*seed),
            Call::FailSyncs { after } => self.disk.fail_syncs_after(*after),
            Call::Kill => {}
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.store = open(&self.disk);
        for (inode, model) in &mut self.models {
            let longest = model.versions.iter().map(Vec::len).max().unwrap_or(0);
            let mut found = Vec::new();
            while found.len() < longest + BLOCK_BYTES {
                let offset = found.len() as u64;
                let out = self.store.read(InodeId(*inode), offset, 1 << 20, &model.marks);
                found.extend_from_slice(&out.map_err(|e| format!("after a stop: {e}"))?.data);
            }
            model.stopped(found)?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("MINISTRY_STORAGE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
    ))]

    #[test]
    fn every_row_of_calls_and_crashes_leaves_what_was_promised(
        calls in proptest::collection::vec(call(), 1..40)
    ) {
        let mut run = Run::new();
        for call in &calls {
            if let Err(error) = run.carry_out(call) {
                return Err(TestCaseError::fail(error));
            }
        }
    }
}
