//! What the clients do: the real client library, driven at random, each answer noted.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use ministry_client::{Client, ClientConfig, NewObject, OpenFlags};
use ministry_transport::Security;
use ministry_types::operations::{Entry, RenameMode};
use ministry_types::{Caller, FileKind, FsError, InodeId};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use std::sync::Arc;
use tokio::time::sleep;

use crate::history::{Directory, History, Item, Listing, Name, Shared};
use crate::network::{Link, address};
use crate::trace;
use crate::world::NODES;

/// Tasks that change things at one client at the same time.
const WORKERS: usize = 2;
/// A contest for a name lasts this long.
const CONTEST: u64 = 300;
/// A client that could not begin tries again after this.
const AGAIN: Duration = Duration::from_millis(100);

async fn connect(link: Link, security: Arc<Security>, rng: &mut SmallRng) -> Client {
    loop {
        let config = ClientConfig {
            security: Arc::clone(&security),
            connector: Arc::new(link.clone()),
            addresses: (0..NODES).map(address).collect(),
            rng: SmallRng::seed_from_u64(rng.next_u64()),
        };
        match Client::connect(config).await {
            Ok(client) => return client,
            Err(error) => trace::note(format_args!("not connected: {error}")),
        }
        sleep(AGAIN).await;
    }
}

fn me() -> Caller {
    Caller::root()
}

/// Makes what the others need, then ends.
pub async fn prepare(shared: Shared, link: Link, security: Arc<Security>, mut rng: SmallRng) {
    let client = connect(link, security, &mut rng).await;
    let make = async |parent: InodeId, name: &str, new: NewObject| match client
        .create(&me(), parent, name.as_bytes(), new)
        .await
    {
        Ok(attributes) => attributes.inode,
        Err(error) => {
            trace::breach(format_args!("{name} cannot be made in a cluster at peace: {error}"));
            InodeId::ROOT
        }
    };
    for directory in Directory::ALL {
        let inode = make(InodeId::ROOT, directory.name(), NewObject::directory(0o755)).await;
        shared.with(|history| history.directories.insert(directory, inode));
    }
    let ring = shared.with(|history| history.directory(Directory::Ring));
    let token = make(ring, "token-0", NewObject::file(0o644)).await;
    let register = make(InodeId::ROOT, "register", NewObject::file(0o644)).await;
    let anchor = make(InodeId::ROOT, "anchor", NewObject::file(0o644)).await;
    shared.with(|history| {
        history.token.0 = token;
        history.register.0 = register;
        history.anchor = anchor;
    });
    client.shutdown().await;
    trace::note("everything is prepared");
    shared.works(false);
}

/// A client until it is stopped. The first one moves the token, the second writes the register.
pub async fn work(
    number: usize,
    shared: Shared,
    link: Link,
    security: Arc<Security>,
    mut rng: SmallRng,
) {
    let client = connect(link, security, &mut rng).await;
    let mut tasks = Vec::new();
    for worker in 0..WORKERS {
        let worker = Worker {
            name: format!("{number}.{worker}"),
            shared: shared.clone(),
            client: client.clone(),
            rng: SmallRng::seed_from_u64(rng.next_u64()),
            items: Vec::new(),
        };
        tasks.push(tokio::spawn(worker.run()));
    }
    match number {
        0 => tasks.push(tokio::spawn(move_token(shared.clone(), client.clone()))),
        1 => tasks.push(tokio::spawn(write_register(shared.clone(), client.clone()))),
        _ => {}
    }
    for ended in join_all(tasks).await {
        assert!(ended.is_ok(), "a task of a client ends in order");
    }
    client.shutdown().await;
    trace::note("the client has ended");
    shared.works(false);
}

struct Worker {
    name: String,
    shared: Shared,
    client: Client,
    rng: SmallRng,
    /// Items whose place is known.
    items: Vec<usize>,
}

impl Worker {
    async fn run(mut self) {
        while !self.shared.is_stopping() {
            match self.rng.random_range(0..100) {
                0..28 => self.create().await,
                28..52 => self.rename().await,
                52..66 => self.remove().await,
                66..74 => self.contest().await,
                74..80 => self.link().await,
                80..88 => self.read_token().await,
                88..92 => self.read_parent().await,
                _ => self.read_register().await,
            }
            sleep(Duration::from_millis(self.rng.random_range(1..25))).await;
        }
    }

    fn draw_name(&mut self, word: &str) -> (Name, InodeId) {
        let first = self.rng.random_bool(0.5);
        let directory = if first { Directory::First } else { Directory::Second };
        self.shared.with(|history| {
            let name = format!("{word}-{}-{}", self.name, history.serial());
            ((directory, name), history.directory(directory))
        })
    }

    fn begin(&self, kind: FileKind, inode: Option<InodeId>, name: &Name) -> usize {
        let places = vec![None];
        let item = Item { kind, inode, places, contents: vec![Vec::new()] };
        self.shared.with(|history| {
            history.items.push(item);
            history.ask(history.items.len() - 1, Some(name.clone()));
            history.items.len() - 1
        })
    }

    fn settle(&mut self, what: &str, item: usize, result: Result<(), FsError>) -> bool {
        let what = format!("{} {what}", self.name);
        let certain = self.shared.with(|history| history.answer(&what, item, result));
        if certain {
            self.items.push(item);
        }
        certain
    }

    async fn create(&mut self) {
        match self.rng.random_range(0..4) {
            0 => self.create_and_write().await,
            1 => self.create_object(FileKind::Directory).await,
            _ => self.create_object(FileKind::Regular).await,
        }
    }

    async fn create_object(&mut self, kind: FileKind) {
        let (name, parent) = self.draw_name("object");
        let item = self.begin(kind, None, &name);
        let new = match kind {
            FileKind::Directory => NewObject::directory(0o755),
            _ => NewObject::file(0o644),
        };
        let made = self.client.create(&me(), parent, name.1.as_bytes(), new).await;
        if let Ok(attributes) = &made {
            self.shared.with(|history| history.items[item].inode = Some(attributes.inode));
        }
        self.settle(&format!("create {name:?}"), item, made.map(drop));
    }

    async fn create_and_write(&mut self) {
        let (name, parent) = self.draw_name("written");
        let item = self.begin(FileKind::Regular, None, &name);
        let flags = OpenFlags::READ_WRITE;
        let text = name.1.as_bytes();
        let made = self.client.create_and_open(&me(), parent, text, 0o644, flags, true).await;
        let handle = match made {
            Ok((attributes, handle)) => {
                self.shared.with(|history| history.items[item].inode = Some(attributes.inode));
                self.settle(&format!("create {name:?}"), item, Ok(()));
                handle
            }
            Err(error) => {
                self.settle(&format!("create {name:?}"), item, Err(error));
                return;
            }
        };
        let content = name.1.clone().into_bytes();
        self.shared.with(|history| history.items[item].contents.push(content.clone()));
        let written = self.client.write(&handle, 0, Bytes::from(content)).await;
        trace::note(format_args!("{} write {name:?}: {written:?}", self.name));
        match written {
            Ok(_) => self.shared.with(|history| drop(history.items[item].contents.remove(0))),
            Err(FsError::TimedOut) => self.shared.with(|history| history.counts.unknown += 1),
            Err(error) => trace::breach(format_args!("a write was answered: {error}")),
        }
        self.client.close(handle).await;
    }

    /// One of the own items, and where it is.
    fn take(&mut self) -> Option<(usize, Name, FileKind)> {
        if self.items.is_empty() {
            return None;
        }
        let place = self.rng.random_range(0..self.items.len());
        let item = self.items.swap_remove(place);
        self.shared.with(|history| {
            let known = &history.items[item];
            Some((item, known.places.first()?.clone()?, known.kind))
        })
    }

    async fn rename(&mut self) {
        let Some((item, old, _)) = self.take() else { return };
        let (new, new_parent) = self.draw_name("renamed");
        let parent = self.shared.with(|history| {
            history.ask(item, Some(new.clone()));
            history.directory(old.0)
        });
        let mode = match self.rng.random_bool(0.5) {
            true => RenameMode::NoReplace,
            false => RenameMode::Replace,
        };
        let from = (parent, old.1.as_bytes());
        let renamed = self.client.rename(&me(), from, (new_parent, new.1.as_bytes()), mode).await;
        self.settle(&format!("rename {old:?} to {new:?}"), item, renamed);
    }

    async fn remove(&mut self) {
        let Some((item, name, kind)) = self.take() else { return };
        let parent = self.shared.with(|history| {
            history.ask(item, None);
            history.directory(name.0)
        });
        let text = name.1.as_bytes();
        let removed = match kind {
            FileKind::Directory => self.client.rmdir(&me(), parent, text).await,
            _ => self.client.unlink(&me(), parent, text).await,
        };
        if self.settle(&format!("remove {name:?}"), item, removed) {
            self.items.retain(|known| *known != item);
        }
    }

    /// All clients want the same name; one gets it.
    async fn contest(&mut self) {
        let name = format!("prize-{}", trace::tick() / CONTEST);
        let parent = self.shared.with(|history| {
            history.contests.entry(name.clone()).or_default().1 += 1;
            history.directory(Directory::Contest)
        });
        let new = NewObject::directory(0o755);
        let made = self.client.create(&me(), parent, name.as_bytes(), new).await.map(drop);
        trace::note(format_args!("{} contest {name}: {made:?}", self.name));
        self.shared.with(|history| {
            let (done, unknown) = history.contests.entry(name.clone()).or_default();
            match made {
                Ok(()) => (*done, *unknown) = (*done + 1, *unknown - 1),
                Err(FsError::Exists) => *unknown -= 1,
                Err(FsError::TimedOut) => history.counts.unknown += 1,
                Err(error) => trace::breach(format_args!("a contest was answered: {error}")),
            }
        });
    }

    /// A further name of the anchor.
    async fn link(&mut self) {
        let (name, parent) = self.draw_name("link");
        let anchor = self.shared.with(|history| history.anchor);
        let item = self.begin(FileKind::Regular, Some(anchor), &name);
        let linked = self.client.link(&me(), anchor, parent, name.1.as_bytes()).await;
        self.settle(&format!("link {name:?}"), item, linked.map(drop));
    }

    async fn read_token(&mut self) {
        let (ring, floor) = self.shared.with(|h| (h.directory(Directory::Ring), h.token.1.floor));
        let listed = self.client.list(&me(), ring, 0, 100, false).await;
        let Some(listing) = read_answer(&self.shared, "the token", listed) else { return };
        let names: Vec<_> = listing.entries.iter().map(|entry| token_number(&entry.name)).collect();
        let what = format!("{} the token", self.name);
        match names[..] {
            [Some(found)] => {
                self.shared.with(|h| History::seen(&what, &mut h.token.1, floor, found));
            }
            _ => trace::breach(format_args!("the token has the names {names:?}")),
        }
    }

    async fn read_parent(&mut self) {
        let (token, ring, floor) =
            self.shared.with(|h| (h.token.0, h.directory(Directory::Ring), h.token.1.floor));
        let answer = self.client.parent(&me(), token).await;
        let Some((parent, name)) = read_answer(&self.shared, "its parent", answer) else { return };
        let what = format!("{} the token's name", self.name);
        match token_number(&name) {
            Some(found) if parent == ring => {
                self.shared.with(|h| History::seen(&what, &mut h.token.1, floor, found));
            }
            _ => trace::breach(format_args!("the token is {name:?} in {parent}")),
        }
    }

    async fn read_register(&mut self) {
        let (register, floor) = self.shared.with(|h| (h.register.0, h.register.1.floor));
        let opened = self.client.open(&me(), register, OpenFlags::READ).await;
        let Some(handle) = read_answer(&self.shared, "opening", opened) else { return };
        let bytes = self.client.read(&handle, 0, 8).await;
        self.client.close(handle).await;
        let Some(bytes) = read_answer(&self.shared, "the register", bytes) else { return };
        let what = format!("{} the register", self.name);
        match (bytes.len(), bytes.first_chunk::<8>()) {
            (0, _) => {
                self.shared.with(|h| History::seen(&what, &mut h.register.1, floor, 0));
            }
            (8, Some(number)) => {
                let found = u64::from_be_bytes(*number);
                self.shared.with(|h| History::seen(&what, &mut h.register.1, floor, found));
            }
            _ => trace::breach(format_args!("the register holds {bytes:?}")),
        }
    }
}

/// A read that was answered; one that came to no answer in time says nothing.
fn read_answer<T>(shared: &Shared, what: &str, answer: Result<T, FsError>) -> Option<T> {
    match answer {
        Ok(answer) => {
            shared.with(|history| history.counts.reads += 1);
            Some(answer)
        }
        Err(FsError::TimedOut) => {
            trace::note(format_args!("{what}: no answer"));
            None
        }
        Err(error) => {
            trace::breach(format_args!("a read of {what} was answered: {error}"));
            None
        }
    }
}

fn token_number(name: &[u8]) -> Option<u64> {
    std::str::from_utf8(name).ok()?.strip_prefix("token-")?.parse().ok()
}

/// Renames the token again and again.
async fn move_token(shared: Shared, client: Client) {
    let ring = shared.with(|history| history.directory(Directory::Ring));
    let (mut at, mut uncertain) = (0, false);
    while !shared.is_stopping() {
        let next = at + 1;
        shared.with(|history| history.token.1.issued = next.max(history.token.1.issued));
        let (from, to) = (format!("token-{at}"), format!("token-{next}"));
        let (from, to) = ((ring, from.as_bytes()), (ring, to.as_bytes()));
        let renamed = client.rename(&me(), from, to, RenameMode::Replace).await;
        trace::note(format_args!("the token from {at} to {next}: {renamed:?}"));
        match renamed {
            Ok(()) => {
                (at, uncertain) = (next, false);
                shared.with(|history| {
                    history.token.1.floor = next.max(history.token.1.floor);
                    history.counts.done += 1;
                });
            }
            Err(FsError::TimedOut) => {
                shared.with(|history| history.counts.unknown += 1);
                uncertain = true;
            }
            Err(FsError::NotFound) if uncertain => {
                at = next;
                continue;
            }
            Err(error) => {
                return trace::breach(format_args!("the token's rename was answered: {error}"));
            }
        }
        sleep(Duration::from_millis(15)).await;
    }
}

/// Writes the register again and again.
async fn write_register(shared: Shared, client: Client) {
    let register = shared.with(|history| history.register.0);
    let handle = loop {
        match client.open(&me(), register, OpenFlags::READ_WRITE).await {
            Ok(handle) => break handle,
            Err(error) => trace::note(format_args!("the register does not open: {error}")),
        }
    };
    let mut number = 0_u64;
    while !shared.is_stopping() {
        number += 1;
        shared.with(|history| history.register.1.issued = number);
        let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
        let written = client.write(&handle, 0, bytes).await;
        trace::note(format_args!("the register to {number}: {written:?}"));
        match written {
            Ok(_) => shared.with(|history| {
                history.register.1.floor = number.max(history.register.1.floor);
                history.counts.done += 1;
            }),
            Err(FsError::TimedOut) => shared.with(|history| history.counts.unknown += 1),
            Err(error) => trace::breach(format_args!("the register was answered: {error}")),
        }
        sleep(Duration::from_millis(15)).await;
    }
    client.close(handle).await;
}

/// After the faults: a fresh client makes a fresh file.
pub async fn probe(shared: Shared, link: Link, security: Arc<Security>, mut rng: SmallRng) {
    let client = connect(link, security, &mut rng).await;
    let made = client.create(&me(), InodeId::ROOT, b"healed", NewObject::file(0o644)).await;
    match made {
        Ok(_) => trace::note("a fresh create is answered"),
        Err(error) => trace::breach(format_args!("no fresh create after healing: {error}")),
    }
    client.shutdown().await;
    shared.works(false);
}

/// In the end: lists everything and compares it with the history.
pub async fn inspect(shared: Shared, link: Link, security: Arc<Security>, mut rng: SmallRng) {
    let client = connect(link, security, &mut rng).await;
    if let Err(error) = inspect_all(&shared, &client).await {
        trace::breach(format_args!("the inspection had no answer in a cluster at peace: {error}"));
    }
    client.shutdown().await;
    shared.works(false);
}

async fn list_all(client: &Client, directory: InodeId) -> Result<Vec<Entry>, FsError> {
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let page = client.list(&me(), directory, after, 100, true).await?;
        after = page.entries.last().map_or(after, |entry| entry.cookie);
        entries.extend(page.entries);
        if page.end {
            return Ok(entries);
        }
    }
}

async fn inspect_all(shared: &Shared, client: &Client) -> Result<(), FsError> {
    let mut listing = Listing::new();
    let mut links = std::collections::BTreeMap::<InodeId, (u32, u32)>::new();
    let mut count = |entry: &Entry| match &entry.attributes {
        Some(attributes) if attributes.kind != FileKind::Directory => {
            let (names, claimed) = links.entry(entry.inode).or_default();
            (*names, *claimed) = (*names + 1, attributes.links);
        }
        Some(_) => {}
        None => trace::breach(format_args!("{entry:?} has no attributes")),
    };
    list_all(client, InodeId::ROOT).await?.iter().for_each(&mut count);
    for directory in Directory::ALL {
        let inode = shared.with(|history| history.directory(directory));
        for entry in list_all(client, inode).await? {
            count(&entry);
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            if listing.insert((directory, name.clone()), entry.inode).is_some() {
                trace::breach(format_args!("{name} is listed twice"));
            }
        }
    }
    for (inode, (names, claimed)) in links {
        if names != claimed {
            trace::breach(format_args!("inode {inode} has {names} names and says {claimed}"));
        }
    }
    trace::note(format_args!("{} names are there", listing.len()));
    shared.with(|history| history.check(&listing));
    let written: Vec<(InodeId, Vec<Vec<u8>>)> = shared.with(|history| {
        let items = history.items.iter().filter(|item| item.contents != [Vec::new()]);
        let there = items.filter(|item| !item.places.contains(&None));
        there.filter_map(|item| Some((item.inode?, item.contents.clone()))).collect()
    });
    for (inode, allowed) in written {
        let handle = client.open(&me(), inode, OpenFlags::READ).await?;
        let found = client.read(&handle, 0, 4096).await?;
        client.close(handle).await;
        if !allowed.iter().any(|content| *content == found) {
            trace::breach(format_args!("inode {inode} holds {found:?}, not one of {allowed:?}"));
        }
    }
    Ok(())
}
