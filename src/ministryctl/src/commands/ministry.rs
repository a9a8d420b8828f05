//! `ministry create`: an empty directory gets a ministry of its own.

use std::time::Duration;

use anyhow::anyhow;
use ministry_types::{FileKind, LogIndex, MinistryId};
use tokio::time::{Instant, sleep};

use super::place::resolve;
use super::print;
use crate::access::{Access, Repeat};
use crate::cli::{Global, MinistryCreateArgs};
use crate::failure::{Failure, Kind};
use crate::output::MinistryCreatedOut;
use crate::view;

/// Between two looks while waiting.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Orders read behind the one that made the ministry: its own are among the first.
const EVENTS_READ: u32 = 256;

/// `ministry create`.
pub async fn create(global: &Global, args: &MinistryCreateArgs) -> Result<(), Failure> {
    let mut access = Access::open(global)?;
    let path = args.subtree.clone();
    let (attributes, _) = resolve(&access, path.as_bytes()).await?;
    if attributes.kind != FileKind::Directory {
        let error = anyhow!("{path} is a {}: only a directory can be given away", attributes.kind);
        return Err(error.into());
    }
    let inode = attributes.inode;
    let before = access.status().await?.applied;
    let ministry = access
        .change(Repeat::Never, |client, context| {
            let path = args.subtree.clone();
            async move { client.create_ministry(context, inode, path).await }
        })
        .await?;
    if args.wait {
        wait_until_serving(&mut access, ministry, before).await?;
    }
    let serving = args.wait;
    let out = MinistryCreatedOut { ministry: ministry.0, path, serving };
    print(global, &out, |out| match out.serving {
        true => format!("ministry {} serves {}\n", out.ministry, out.path),
        false => format!(
            "ministry {} for {} is ordered: watch it with 'ministryctl ministries'\n",
            out.ministry, out.path
        ),
    })
}

async fn wait_until_serving(
    access: &mut Access,
    ministry: MinistryId,
    before: LogIndex,
) -> Result<(), Failure> {
    loop {
        let status = access.status().await?;
        let all = view::ministries(&status);
        let ours = all.iter().find(|one| one.ministry == ministry.0);
        if ours.is_some_and(view::is_serving) {
            return Ok(());
        }
        if let Some(reason) = abandoned(access, ministry, before).await? {
            return Err(anyhow!("ministry {ministry} was given up: {reason}").into());
        }
        if Instant::now() >= access.deadline() {
            let state = ours.map_or("it is not in the map yet".to_owned(), |one| {
                one.reason.clone().unwrap_or_else(|| "its minister does not serve yet".to_owned())
            });
            let text = format!(
                "ministry {ministry} is ordered but does not serve in time ({state}): watch it \
                 with 'ministryctl ministries'"
            );
            return Err(Failure::text(Kind::Unknown, text));
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// Why the handover of the directory was given up, if it was: the history says so.
async fn abandoned(
    access: &mut Access,
    ministry: MinistryId,
    before: LogIndex,
) -> Result<Option<String>, Failure> {
    let events = access
        .read(|client, context| async move { client.events(context, before, EVENTS_READ).await })
        .await?;
    let subject = format!("ministry {ministry}");
    let ours =
        events.into_iter().find(|event| event.order == "abandon" && event.subject == subject);
    Ok(ours.map(|event| event.reason))
}
