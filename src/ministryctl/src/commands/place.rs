//! `where`: who is in charge of a path, and where its bytes lie.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use ministry_client::{Client, ClientConfig, ConnectError};
use ministry_fuse::mount_table::{self, MountEntry};
use ministry_transport::{Security, TcpConnector};
use ministry_types::government::ClusterMap;
use ministry_types::{Attributes, Caller, FsError, Layout};
use tokio::time::timeout_at;

use super::print;
use crate::access::Access;
use crate::cli::{Global, WhereArgs};
use crate::failure::{Failure, Kind};
use crate::output::{ChunkOut, ReplicaOut, WhereOut};
use crate::{show, view};

/// `where`.
pub async fn run(global: &Global, args: &WhereArgs) -> Result<(), Failure> {
    let path = match args.fs_path {
        true if !args.path.is_absolute() => {
            let text = "--fs-path wants a path from the root '/' of the file system on";
            return Err(Failure::text(Kind::Usage, text));
        }
        true => args.path.clone(),
        false => inside(&args.path)?,
    };
    let access = Access::open(global)?;
    let (attributes, map) = resolve(&access, path.as_os_str().as_bytes()).await?;
    let out = place(&path, &attributes, &map, args.chunks)?;
    print(global, &out, show::place)
}

/// The object at a path inside the file system, and the map it was found by. Asks as root: an
/// operator may look everywhere.
pub async fn resolve(
    access: &Access,
    path: &[u8],
) -> Result<(Attributes, Arc<ClusterMap>), Failure> {
    let looking = async {
        let security = Security::tls(access.credentials.identity.clone())
            .map_err(|error| Failure::new(Kind::Credentials, error))?;
        let config = ClientConfig {
            security: Arc::new(security),
            connector: Arc::new(TcpConnector),
            addresses: access.credentials.addresses.clone(),
            rng: rand::SeedableRng::from_os_rng(),
        };
        let client = Client::connect(config)
            .await
            .map_err(|error: ConnectError| Failure::new(Kind::Unreachable, error))?;
        let found = client.resolve(&Caller::root(), path).await;
        let map = client.map().borrow().clone();
        client.shutdown().await;
        Ok((found.map_err(|error| explain(path, error))?, map))
    };
    timeout_at(access.deadline(), looking).await.unwrap_or_else(|_| {
        let text = "the ministry of that path does not answer in time: see 'ministryctl status'";
        Err(Failure::text(Kind::Unreachable, text))
    })
}

fn explain(path: &[u8], error: FsError) -> Failure {
    let path = String::from_utf8_lossy(path).into_owned();
    let kind = match error {
        FsError::TimedOut => Kind::Unreachable,
        _ => Kind::Failed,
    };
    Failure::text(kind, format!("{path}: {error}"))
}

/// Translates a path on this machine to the path inside the file system.
fn inside(path: &Path) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(path)?;
    let mounts = mount_table::read()?;
    // What lies inside a mount already is not looked at again: the mount might not answer.
    if let Some(found) = translate(&path, &mounts) {
        return Ok(found);
    }
    let resolved = path.canonicalize().ok().and_then(|path| translate(&path, &mounts));
    resolved.ok_or_else(|| {
        anyhow!(
            "{} is not inside a mount of Ministry: give a path inside one, or --fs-path and a path \
             inside the file system",
            path.display()
        )
        .into()
    })
}

/// The path behind the mount point that holds `path`, from the root of the file system on.
fn translate(path: &Path, mounts: &[MountEntry]) -> Option<PathBuf> {
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return None;
    }
    let holds = |mount: &&MountEntry| path.starts_with(&mount.mount_point);
    // The longest mount point holds it; of several at one point the last is the visible one.
    let depth = |mount: &&MountEntry| mount.mount_point.components().count();
    let mount = mounts.iter().filter(holds).max_by_key(depth).filter(|it| it.is_ministry())?;
    let rest = path.strip_prefix(&mount.mount_point).ok()?;
    Some(match rest.as_os_str().is_empty() {
        true => mount.subdirectory().to_owned(),
        false => mount.subdirectory().join(rest),
    })
}

/// What is shown of an object.
fn place(
    path: &Path,
    attributes: &Attributes,
    map: &ClusterMap,
    chunks_max: u64,
) -> Result<WhereOut, Failure> {
    let number = map.ownership.owner(attributes.inode);
    let owner = number.and_then(|number| Some((number, map.ministries.get(&number)?)));
    let (number, ministry) = owner.ok_or_else(|| {
        anyhow!("the map names no owner of inode {}: ask again in a moment", attributes.inode)
    })?;
    let (layout, chunk_bytes) = match &attributes.layout {
        Layout::None => ("none", None),
        Layout::Inline => ("inline", None),
        Layout::Chunked { chunk_bytes, .. } => ("chunked", Some((*chunk_bytes).max(1))),
    };
    let chunks_total = chunk_bytes.map_or(0, |chunk| attributes.size.div_ceil(chunk));
    let chunk = |number: u64| {
        let pg = map.pgs.group_of(attributes.inode, number)?;
        let group = map.pgs.get(pg)?;
        let replica = |(position, node): (usize, &ministry_types::NodeId)| ReplicaOut {
            node: node.to_string(),
            address: map.address(*node).map(|address| address.to_string()),
            role: if position == 0 { "master" } else { "slave" }.to_owned(),
            in_sync: group.in_sync.contains(node),
        };
        let replicas = group.members.iter().enumerate().map(replica).collect();
        Some(ChunkOut { chunk: number, pg: pg.0, replicas })
    };
    Ok(WhereOut {
        path: path.to_string_lossy().into_owned(),
        inode: attributes.inode.0,
        kind: attributes.kind.to_string(),
        size_bytes: attributes.size,
        allocated_bytes: attributes.allocated_bytes,
        ministry: view::ministry(number, ministry, &[]),
        layout: layout.to_owned(),
        chunk_bytes,
        chunks_total,
        chunks: (0..chunks_total.min(chunks_max)).filter_map(chunk).collect(),
    })
}

#[cfg(test)]
mod tests {
    use ministry_fuse::mount_table::FILE_SYSTEM_TYPE;
    use ministry_types::{FileKind, InodeId, MinistryId, Timestamp};

    use super::*;

    fn mount(point: &str, kind: &str) -> MountEntry {
        MountEntry {
            id: 1,
            parent: 0,
            major: 0,
            minor: 50,
            mount_point: PathBuf::from(point),
            file_system_type: kind.to_owned(),
            source: "home:/".to_owned(),
        }
    }

    #[test]
    fn a_path_inside_a_mount_becomes_a_path_inside_the_file_system() {
        let mounts = [
            mount("/", "ext4"),
            mount("/mnt/m", FILE_SYSTEM_TYPE),
            mount("/mnt/m/inner", "tmpfs"),
            MountEntry { source: "home:/sub".to_owned(), ..mount("/srv", FILE_SYSTEM_TYPE) },
        ];
        let translate = |path: &str| translate(Path::new(path), &mounts);
        assert_eq!(translate("/mnt/m"), Some(PathBuf::from("/")));
        assert_eq!(translate("/mnt/m/a/b"), Some(PathBuf::from("/a/b")));
        assert_eq!(translate("/mnt/m/inner/x"), None, "another mount hides it");
        assert_eq!(translate("/mnt/more"), None);
        assert_eq!(translate("/srv/x"), Some(PathBuf::from("/sub/x")), "a part is mounted");
        assert_eq!(translate("/srv"), Some(PathBuf::from("/sub")));
        assert_eq!(translate("/etc/passwd"), None);
        assert_eq!(translate("/mnt/m/../x"), None);
    }

    fn attributes(size: u64, layout: Layout) -> Attributes {
        let time = Timestamp(0);
        Attributes {
            inode: InodeId(7),
            kind: FileKind::Regular,
            permissions: 0o644,
            uid: 0,
            gid: 0,
            links: 1,
            size,
            allocated_bytes: size,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            device: 0,
            layout,
        }
    }

    #[test]
    fn chunks_are_shown_with_their_replicas_up_to_the_limit() {
        let mut map = view::tests::sample(3).map;
        map.ownership.assign(InodeId(1), InodeId(1 << 40), MinistryId::ROOT);
        let layout = Layout::Chunked { chunk_bytes: 1 << 20, truncates: Vec::new() };
        let big = attributes((10 << 20) + 1, layout.clone());
        let out = place(Path::new("/big"), &big, &map, 4).unwrap();
        assert_eq!((out.chunks_total, out.chunks.len()), (11, 4));
        let replicas = &out.chunks[0].replicas;
        assert_eq!((replicas.len(), replicas[0].role.as_str()), (3, "master"));
        let inline = place(Path::new("/s"), &attributes(5, Layout::Inline), &map, 4).unwrap();
        assert_eq!((inline.layout.as_str(), inline.chunks_total), ("inline", 0));
        let empty = place(Path::new("/e"), &attributes(0, layout), &map, 4).unwrap();
        assert_eq!(empty.chunks_total, 0);
    }

    #[test]
    fn an_inode_without_an_owner_is_said_to_have_none() {
        let map = ClusterMap::default();
        assert!(place(Path::new("/x"), &attributes(0, Layout::Inline), &map, 1).is_err());
    }
}
