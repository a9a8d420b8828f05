//! Which ministries this node has an office in, and how it takes an appointment.
//!
//! The map of the cluster log says where this node is a member; the president's word of an
//! appointment may come before the order itself does, and opens the office just as well.

use std::sync::Arc;

use ministry_raft::GroupKind;
use ministry_types::MinistryId;
use ministry_wire::node::{Appointment, Handover, NodeRefusal};
use tokio_util::task::AbortOnDropHandle;

use super::{NodeContext, OpenOffice, StartError};
use crate::minister::{NamespaceMachine, Office, Surroundings};

impl NodeContext {
    /// Opens the office of a ministry that this node is a member of.
    async fn open_office(self: &Arc<Self>, id: MinistryId) -> Result<Arc<Office>, StartError> {
        let _only_one = self.opening.lock().await;
        if let Some(office) = self.office(id) {
            return Ok(office);
        }
        let machine = Arc::new(NamespaceMachine::open(id, Arc::clone(&self.kv))?);
        let state = Arc::clone(&machine);
        let group = self.groups.start(id.group(), GroupKind::Appointed, state).await?;
        let surroundings = Surroundings {
            me: self.me,
            clock: Arc::clone(&self.clock),
            map: self.government.map(),
            data: Arc::clone(&self.data),
            disk: Arc::clone(&self.disk),
        };
        let office = Office::new(id, group, machine, surroundings);
        let house = tokio::spawn(Arc::clone(&office).keep_house());
        let open = OpenOffice {
            office: Arc::clone(&office),
            standing: None,
            _house: AbortOnDropHandle::new(house),
        };
        self.offices.lock().insert(id, open);
        tracing::info!(ministry = %id, "this node is a member of the ministry");
        Ok(office)
    }

    /// Takes an appointment: opens the office if need be, and stands for election in a task of
    /// the office. Answers at once.
    pub async fn appoint(self: &Arc<Self>, appointment: Appointment) -> Result<(), NodeRefusal> {
        let (id, epoch) = (appointment.ministry, appointment.epoch);
        let failed = |error: StartError| NodeRefusal::Failed(error.to_string());
        let office = self.open_office(id).await.map_err(failed)?;
        let newest = office.note(epoch);
        if newest > epoch {
            return Err(NodeRefusal::OutOfDate(newest));
        }
        if appointment.minister != self.me || office.serves() == Some(epoch) {
            return Ok(());
        }
        let mut offices = self.offices.lock();
        let Some(open) = offices.get_mut(&id) else { return Ok(()) };
        let stands = open
            .standing
            .as_ref()
            .is_some_and(|(known, task)| *known == appointment && !task.is_finished());
        if !stands && office.reigned() >= epoch {
            // Its reign has begun before: it was this node's until it was restarted or lost the
            // lead. A reign is not taken up again, a new one begins.
            return Err(NodeRefusal::OutOfDate(office.reigned()));
        }
        if !stands {
            let told = appointment.clone();
            let task = tokio::spawn(async move { office.stand(&told).await });
            let task = AbortOnDropHandle::new(task);
            open.standing = Some((appointment, task));
        }
        Ok(())
    }

    /// A step of a handover that concerns a ministry served here.
    pub async fn hand_over(&self, step: Handover) -> Result<Vec<u8>, NodeRefusal> {
        let id = match &step {
            Handover::Give { from, .. } => *from,
            Handover::Take { to, .. } => *to,
        };
        match self.office(id) {
            Some(office) => office.hand_over(step).await,
            None => Err(NodeRefusal::NotServing(id)),
        }
    }

    /// Opens the offices that the map gives to this node, and closes those of ministries that are
    /// no more.
    pub(super) async fn follow_map(self: Arc<Self>) {
        let mut map = self.government.map();
        loop {
            let current = map.borrow_and_update().clone();
            for (id, entry) in &current.ministries {
                if !entry.members.contains(&self.me) {
                    continue;
                }
                match self.open_office(*id).await {
                    Ok(office) => {
                        office.note(entry.epoch);
                    }
                    Err(error) => {
                        let reason = format!("ministry {id} does not start: {error}");
                        return self.fatal.report(reason);
                    }
                }
            }
            let gone: Vec<MinistryId> = {
                let offices = self.offices.lock();
                let gone = offices.keys().filter(|id| !current.ministries.contains_key(id));
                gone.copied()
                    .filter(|id| current.version > Default::default() && id.0 > 0)
                    .collect()
            };
            for id in gone {
                // An appointment may have come before the order that made the ministry.
                if self.office(id).is_some_and(|office| office.serves().is_none())
                    && self.government.government().next_ministry() > id
                {
                    self.offices.lock().remove(&id);
                    self.groups.stop(id.group()).await;
                    tracing::info!(ministry = %id, "the ministry is dissolved");
                }
            }
            if map.changed().await.is_err() {
                return;
            }
        }
    }
}
