//! Directories that become ministries of their own.
//!
//! Called by `apply` for [`Command::GiveAway`] and [`Command::Adopt`], which the president's orders
//! drive: the giver answers the record, the receiver takes it over, and asking either again changes
//! nothing.
//!
//! What must always hold: of giver and receiver at most one has the object. The name stays with the
//! giver and does not move while the object is away.
//!
//! [`Command::GiveAway`]: crate::Command::GiveAway
//! [`Command::Adopt`]: crate::Command::Adopt

use bytes::Bytes;
use ministry_types::operations::Name;
use ministry_types::{FsError, InodeId, MinistryId};
use serde::{Deserialize, Serialize};

use crate::acl::Acl;
use crate::acl_attributes::AclKind;
use crate::command::{decode, encode};
use crate::records::{AdoptedRecord, DirectoryRecord, GivenRecord, InodeRecord, Ruled, Work};
use crate::remove::check_empty;

/// What goes from one ministry to the other.
#[derive(Debug, Serialize, Deserialize)]
struct TransferRecord {
    inode: InodeRecord,
    xattrs: Vec<(Vec<u8>, Bytes)>,
    access: Option<Acl>,
    default: Option<Acl>,
    name: Name,
}

impl Work<'_> {
    /// Gives an empty directory to another ministry, and answers its record.
    pub(crate) fn give_away(
        &mut self,
        inode: InodeId,
        to: MinistryId,
        generation: u64,
    ) -> Ruled<Vec<u8>> {
        let key = self.keys.given(inode);
        if let Some(given) = self.records().read::<GivenRecord>(&key)? {
            return if given.to == to { Ok(given.record) } else { Err(FsError::Busy.into()) };
        }
        let mut record = self.records().inode(inode)?;
        let Some(directory) = record.directory.clone() else {
            return Err(FsError::NotDirectory.into());
        };
        if record.is_orphan() {
            return Err(FsError::NotFound.into());
        }
        if directory.ministry_root || directory.parent == inode {
            return Err(FsError::Busy.into());
        }
        check_empty(&record)?;
        let dentry = self.records().dentry(directory.parent, directory.cookie)?;
        let name = dentry.ok_or(FsError::Damaged)?.name;
        // Its numbers stay here: what the receiver makes has numbers of the receiver's ranges, by
        // which it is found.
        record.directory = Some(DirectoryRecord {
            ministry_root: true,
            ..DirectoryRecord::new(directory.parent, directory.cookie)
        });
        let access = self.records().acl(&record, AclKind::Access)?;
        let default = self.records().acl(&record, AclKind::Default)?;
        self.state.delete(self.keys.inode(inode));
        let xattrs = self.take_xattrs(&record)?;
        self.forget_acls(&record);
        let record = encode(&TransferRecord { inode: record, xattrs, access, default, name });
        self.count_objects(-1)?;
        self.write(key, &GivenRecord { to, generation, record: record.clone() });
        Ok(record)
    }

    /// Takes over a directory that another ministry has given.
    pub(crate) fn adopt(&mut self, record: &[u8], generation: u64) -> Ruled<()> {
        let mut transfer: TransferRecord = decode(record).map_err(|_| FsError::Damaged)?;
        let inode = transfer.inode.attributes.inode;
        if !transfer.inode.is_directory() || check_empty(&transfer.inode).is_err() {
            return Err(FsError::Damaged.into());
        }
        if self.records().inode_here(inode)?.is_some() {
            return Ok(());
        }
        self.keep_acl(&mut transfer.inode, AclKind::Access, transfer.access);
        self.keep_acl(&mut transfer.inode, AclKind::Default, transfer.default);
        self.write_inode(&transfer.inode);
        self.count_objects(1)?;
        for (name, value) in &transfer.xattrs {
            self.write(self.keys.xattr(inode, name), value);
        }
        self.write(self.keys.adopted(inode), &AdoptedRecord { generation, name: transfer.name });
        Ok(())
    }
}
