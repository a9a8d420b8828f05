//! `ministryd check`: whether a node could start, without starting it.

use anyhow::Context;

use crate::cli::{CheckArgs, SettingFlags};
use crate::failure::Failure;
use crate::{folder, settings};

/// Checks settings, folder and identity; prints what it found.
pub fn check(args: &CheckArgs) -> Result<(), Failure> {
    let settings = settings::load(&args.data, args.config.as_deref(), &SettingFlags::default())?;
    let folder = folder::inspect(&args.data)?;
    let usage = ministry_storage::disk::usage_of(&args.data)
        .with_context(|| format!("cannot look at the disk of {}", args.data.display()))?;
    println!("node      {}", folder.node);
    println!("cluster   {}", folder.identity.peer().cluster);
    println!("address   {}", settings.address().map_err(Failure::usage)?);
    println!("disk      {} MiB free of {} MiB", usage.available >> 20, usage.total >> 20);
    if folder.is_new {
        println!("founding  this node begins the cluster at its first start");
    }
    println!("the data folder is in order");
    Ok(())
}
