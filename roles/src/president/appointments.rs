//! Who is minister of what.
//!
//! Elections inside ministries are off: the president appoints. The successor is the member with
//! the highest *last (term, index)* among an answering majority: any majority holds every
//! committed entry, so the highest of it lacks none. What a member knows to be committed lags
//! behind that, and is not looked at.

use std::cmp::Reverse;
use std::time::Duration;

use ministry_types::government::MinistryCondition;
use ministry_types::limits::{INODE_RANGES_AHEAD, SUSPECT_AFTER};
use ministry_types::{Epoch, LogPosition, MinistryId, NodeId};

use super::view::{Decision, View};
use crate::government::{Ministry, Order};

/// How long an appointed member may take until it serves: the lease of the minister before has to
/// end, an election has to be won and one entry committed.
pub const GRACE: Duration = Duration::from_secs(3);

/// Appointments, and the changes of condition around them, that are due.
pub fn plan(view: &View<'_>) -> Vec<Decision> {
    let ministries = view.government.ministries().iter();
    ministries.flat_map(|(id, ministry)| plan_one(view, *id, ministry)).collect()
}

fn plan_one(view: &View<'_>, id: MinistryId, ministry: &Ministry) -> Option<Decision> {
    if let Some(minister) = ministry.minister
        && view.serves(minister, id, ministry.epoch)
    {
        return governed_again(id, ministry).or_else(|| range(view, id, ministry, minister));
    }
    let why = why_replace(view, id, ministry)?;
    match successor(view, id, ministry) {
        Ok((minister, how)) => {
            let order = Order::Appoint { ministry: id, minister, succeeds: ministry.epoch };
            Some(Decision { order, reason: format!("{why}; {how}") })
        }
        Err(missing) => {
            let condition = MinistryCondition::Down(missing.clone());
            let known = matches!(ministry.condition, MinistryCondition::Down(_));
            // A ministry that never reigned is still forming; it is not down.
            (!known && ministry.epoch > Epoch(0)).then(|| Decision {
                order: Order::SetMinistryCondition { ministry: id, condition },
                reason: format!("{why}; {missing}"),
            })
        }
    }
}

fn governed_again(id: MinistryId, ministry: &Ministry) -> Option<Decision> {
    matches!(ministry.condition, MinistryCondition::Down(_)).then(|| Decision {
        order: Order::SetMinistryCondition { ministry: id, condition: MinistryCondition::Governed },
        reason: "its minister serves again".to_owned(),
    })
}

/// A further range of inode numbers before the last but one is begun.
fn range(view: &View<'_>, id: MinistryId, ministry: &Ministry, at: NodeId) -> Option<Decision> {
    let report = view.group(at, id)?;
    let all_known = report.ranges_known as usize == ministry.ranges.len();
    let ahead = report.ranges_left as usize;
    (all_known && report.ranges_known > 0 && ahead + 1 < INODE_RANGES_AHEAD).then(|| Decision {
        order: Order::GrantRange { ministry: id },
        reason: format!("{ahead} unused ranges of inodes are left to it"),
    })
}

/// Why the ministry needs an appointment now; `None`: it does not, or not yet.
fn why_replace(view: &View<'_>, id: MinistryId, ministry: &Ministry) -> Option<String> {
    let Some(minister) = ministry.minister else {
        return Some("the ministry is new".to_owned());
    };
    let silence = view.silence(minister);
    if silence >= SUSPECT_AFTER {
        return Some(format!(
            "minister {} has not answered for {} ms",
            minister.short(),
            silence.as_millis()
        ));
    }
    let unserved = view.unserved.get(&id).copied().unwrap_or_default();
    let report = view.group(minister, id);
    // Its reign had begun and is over: it was restarted, or lost its majority for a while.
    if report.is_some_and(|report| report.reign >= ministry.epoch) && unserved >= SUSPECT_AFTER {
        return Some(format!("minister {} no longer serves; was it restarted?", minister.short()));
    }
    (unserved >= GRACE).then(|| {
        format!(
            "minister {} has not begun to serve within {} ms",
            minister.short(),
            unserved.as_millis()
        )
    })
}

/// The successor and how it was found, or who is missing.
fn successor(
    view: &View<'_>,
    id: MinistryId,
    ministry: &Ministry,
) -> Result<(NodeId, String), String> {
    let never_reigned = ministry.epoch == Epoch(0);
    let last = |node: NodeId| match view.group(node, id) {
        Some(report) => Some(report.last_log),
        // A member of a new ministry may not have opened it yet: its log is empty.
        None if never_reigned && view.answers(node) => Some(LogPosition::default()),
        None => None,
    };
    let answers: Vec<(NodeId, LogPosition)> =
        ministry.members.iter().filter_map(|node| Some((*node, last(*node)?))).collect();
    let majority = ministry.members.len() / 2 + 1;
    if answers.len() < majority {
        let missing: Vec<String> = ministry
            .members
            .iter()
            .filter(|node| !answers.iter().any(|(answering, _)| answering == *node))
            .map(NodeId::short)
            .collect();
        return Err(format!(
            "{} of {} members answer, {majority} are needed; missing: {}",
            answers.len(),
            ministry.members.len(),
            missing.join(", ")
        ));
    }
    let reigns = |node: NodeId| {
        view.government.ministries().values().filter(|m| m.minister == Some(node)).count()
    };
    let (chosen, position) = answers
        .iter()
        .copied()
        .max_by_key(|(node, last)| {
            let stays = ministry.minister == Some(*node);
            // The whole position, as the members compare it when they vote: there may have been
            // two leaders in one term.
            (*last, stays, Reverse((*node == view.me, reigns(*node), *node)))
        })
        .expect("a majority is not empty");
    let how = format!(
        "{} holds the last entry ({position}) among {} of {} members that answer",
        chosen.short(),
        answers.len(),
        ministry.members.len()
    );
    Ok((chosen, how))
}
