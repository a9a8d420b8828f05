//! The tables of the commands.

use std::fmt::Write;

use crate::output::{EventOut, MinistryOut, NodeOut, PgOut, RoleOut, StatusOut, WhereOut};
use crate::table::{bytes, list, or_dash, short, table, text};

fn shorts(identities: &[String]) -> String {
    list(&identities.iter().map(|identity| short(identity).to_owned()).collect::<Vec<_>>())
}

fn short_or_dash(identity: &Option<String>) -> String {
    or_dash(identity.as_deref().map(short))
}

/// `status`.
pub fn status(status: &StatusOut) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: String| {
        // Writing into a string does not fail.
        let _ = writeln!(page, "{name:<12} {value}");
    };
    line("cluster", status.cluster.clone());
    let address = |id: &String| {
        let node = status.nodes.iter().find(|node| node.node == *id);
        node.map_or(String::new(), |node| format!(" at {}", node.address))
    };
    line(
        "president",
        match &status.president {
            Some(president) => {
                format!("{}{} (term {})", short(president), address(president), status.term)
            }
            None => "none".to_owned(),
        },
    );
    let alive = status.nodes.iter().filter(|node| node.condition == "alive").count();
    line("nodes", format!("{alive} of {} answer", status.nodes.len()));
    let pgs = &status.placement_groups;
    line("placement", format!("{} of {} placement groups are whole", pgs.whole, pgs.total));
    if let Some(usage) = &status.usage {
        let room = (bytes(usage.available_bytes), bytes(usage.total_bytes));
        line("room", format!("{} of {} available; {} objects", room.0, room.1, usage.inodes));
    }
    line("map", format!("version {}, cluster log at {}", status.map_version, status.applied));
    page.push('\n');
    page.push_str(&ministries(&status.ministries));
    page.push('\n');
    if status.healthy {
        page.push_str("all is well\n");
    }
    for problem in &status.problems {
        page.push_str(&wrapped(&format!("! {problem}")));
    }
    page
}

/// A sentence on lines of at most 100 columns; a word that is longer is cut.
fn wrapped(sentence: &str) -> String {
    let columns = usize::from(crate::table::COLUMNS);
    let mut page = String::new();
    let mut width = 0;
    for word in sentence.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        for (number, piece) in letters.chunks(columns - 2).enumerate() {
            if width > 0 && (number > 0 || width + 1 + piece.len() > columns) {
                page.push_str("\n  ");
                width = 2;
            } else if width > 0 {
                page.push(' ');
                width += 1;
            }
            page.extend(piece);
            width += piece.len();
        }
    }
    page.push('\n');
    page
}

/// `ministries`.
pub fn ministries(all: &[MinistryOut]) -> String {
    let mut table = table(&["MINISTRY", "PATH", "STATE", "EPOCH", "MINISTER", "CLERKS"]);
    for ministry in all {
        let state = match (ministry.condition.as_str(), ministry.serving) {
            ("governed", Some(true)) => "serves".to_owned(),
            ("governed", Some(false)) => "appointed".to_owned(),
            (word, _) => match &ministry.reason {
                Some(reason) => format!("{word}: {reason}"),
                None => word.to_owned(),
            },
        };
        table.add_row([
            ministry.ministry.to_string(),
            ministry.path.clone(),
            state,
            ministry.epoch.to_string(),
            short_or_dash(&ministry.minister),
            shorts(&ministry.clerks),
        ]);
    }
    text(&table)
}

/// `roles`.
pub fn roles(all: &[RoleOut]) -> String {
    let mut table = table(&["NODE", "ADDRESS", "STATE", "OFFICES", "MASTER", "SLAVE"]);
    for role in all {
        let mut offices = Vec::new();
        if role.president {
            offices.push("president".to_owned());
        }
        offices.extend(role.minister_of.iter().map(|number| format!("minister of {number}")));
        offices.extend(role.clerk_of.iter().map(|number| format!("clerk of {number}")));
        if role.idle {
            offices.push("idle".to_owned());
        }
        if role.elector {
            offices.push("elector".to_owned());
        }
        table.add_row([
            short(&role.node).to_owned(),
            role.address.clone(),
            role.condition.clone(),
            list(&offices),
            format!("{} PGs", role.master_of_pgs),
            format!("{} PGs", role.slave_in_pgs),
        ]);
    }
    text(&table)
}

/// `node list`.
pub fn nodes(all: &[NodeOut]) -> String {
    let headings = ["NODE", "ADDRESS", "STATE", "DOMAIN", "WEIGHT", "FREE", "HEARD", "VERSION"];
    let mut table = table(&headings);
    for node in all {
        table.add_row([
            short(&node.node).to_owned(),
            node.address.clone(),
            node.condition.clone(),
            node.failure_domain.clone(),
            node.storage_weight.to_string(),
            or_dash(node.disk_available_bytes.map(bytes)),
            or_dash(node.answered_ms_ago.map(|ms| format!("{ms} ms ago"))),
            node.version.clone(),
        ]);
    }
    text(&table)
}

/// `pgs`.
pub fn pgs(all: &[PgOut]) -> String {
    let mut table = table(&["PG", "EPOCH", "MASTER", "SLAVES", "IN SYNC"]);
    for pg in all {
        let members = pg.slaves.len() + usize::from(pg.master.is_some());
        let in_sync = match pg.in_sync.len() == members {
            true => format!("all {members}"),
            false => shorts(&pg.in_sync),
        };
        table.add_row([
            pg.pg.to_string(),
            pg.epoch.to_string(),
            short_or_dash(&pg.master),
            shorts(&pg.slaves),
            in_sync,
        ]);
    }
    text(&table)
}

/// `events`.
pub fn events(all: &[EventOut]) -> String {
    let mut table = table(&["INDEX", "TIME (UTC)", "ORDER", "ABOUT", "WHAT", "WHY"]);
    for event in all {
        // Seconds are enough for a person; --json has it all.
        let time = event.time.get(..19).unwrap_or(&event.time).replace('T', " ");
        table.add_row([
            event.index.to_string(),
            time,
            event.order.clone(),
            event.subject.clone(),
            event.text.clone(),
            event.reason.clone(),
        ]);
    }
    text(&table)
}

/// One order on lines of its own, for `events --follow`.
pub fn event_line(event: &EventOut) -> String {
    let time = event.time.get(..19).unwrap_or(&event.time).replace('T', " ");
    let about = (&event.order, &event.subject);
    let head = format!("{} {time} {} {}: {}", event.index, about.0, about.1, event.text);
    wrapped(&format!("{head} ({})", event.reason))
}

/// `where`.
pub fn place(place: &WhereOut) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: String| {
        // Writing into a string does not fail.
        let _ = writeln!(page, "{name:<10} {value}");
    };
    line("path", place.path.clone());
    line("object", format!("{}, inode {}", place.kind, place.inode));
    let sizes = (bytes(place.size_bytes), bytes(place.allocated_bytes));
    line("size", format!("{} ({} allocated on each replica)", sizes.0, sizes.1));
    let ministry = &place.ministry;
    line("ministry", format!("{} ({})", ministry.ministry, ministry.path));
    line("minister", format!("{} (epoch {})", short_or_dash(&ministry.minister), ministry.epoch));
    line("clerks", shorts(&ministry.clerks));
    let layout = match (place.layout.as_str(), place.chunk_bytes) {
        ("inline", _) => "in the inode, at every member of the ministry".to_owned(),
        ("chunked", Some(size)) => {
            let plural = if place.chunks_total == 1 { "" } else { "s" };
            format!("{} chunk{plural} of up to {}", place.chunks_total, bytes(size))
        }
        _ => "no data of its own".to_owned(),
    };
    line("data", layout);
    if place.chunks.is_empty() {
        return page;
    }
    page.push('\n');
    let mut table = table(&["CHUNK", "PG", "MASTER", "SLAVES", "IN SYNC"]);
    for chunk in &place.chunks {
        let named = |role: &str| -> Vec<String> {
            let held = chunk.replicas.iter().filter(|replica| replica.role == role);
            held.map(|replica| {
                let address = replica.address.as_deref().unwrap_or("-");
                format!("{} ({address})", short(&replica.node))
            })
            .collect()
        };
        let in_sync = chunk.replicas.iter().filter(|replica| replica.in_sync).count();
        table.add_row([
            chunk.chunk.to_string(),
            chunk.pg.to_string(),
            list(&named("master")),
            list(&named("slave")),
            format!("{in_sync} of {}", chunk.replicas.len()),
        ]);
    }
    page.push_str(&text(&table));
    let shown = place.chunks.len() as u64;
    if shown < place.chunks_total {
        let more = place.chunks_total - shown;
        page.push_str(&format!("… and {more} more chunks: use --chunks to see them\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{ChunkOut, ReplicaOut};
    use crate::view;

    fn fits(page: &str) {
        for line in page.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
    }

    fn event() -> EventOut {
        EventOut {
            index: 123_456_789,
            time: "2026-11-20T10:11:12.123456789Z".into(),
            president: "ab".repeat(32),
            order: "ministry-condition".into(),
            subject: "ministry 4711".into(),
            text: "ministry 4711 is down from now on ".repeat(4),
            reason: "no majority of its members answers: 01020304 has not answered for 3 s, "
                .repeat(3),
        }
    }

    #[test]
    fn every_table_fits_a_hundred_columns() {
        for nodes in [1, 3, 5, 50] {
            let sample = view::tests::sample(nodes);
            fits(&status(&view::status(&sample)));
            fits(&ministries(&view::ministries(&sample)));
            fits(&roles(&view::roles(&sample)));
            fits(&super::nodes(&view::nodes(&sample)));
            fits(&pgs(&view::pgs(&sample.map)));
        }
        fits(&events(&[event(), event()]));
        fits(&event_line(&event()));
    }

    #[test]
    fn where_fits_and_says_what_it_leaves_out() {
        let sample = view::tests::sample(3);
        let replica = |role: &str| ReplicaOut {
            node: "ab".repeat(32),
            address: Some("[2001:db8:1234:5678:9abc:def0:1234:5678]:65535".into()),
            role: role.into(),
            in_sync: true,
        };
        let chunk = |number| ChunkOut {
            chunk: number,
            pg: 63,
            replicas: vec![replica("master"), replica("slave"), replica("slave")],
        };
        let page = place(&WhereOut {
            path: "/data".into(),
            inode: 1 << 40,
            kind: "file".into(),
            size_bytes: 1 << 40,
            allocated_bytes: 1 << 40,
            ministry: view::ministries(&sample).remove(0),
            layout: "chunked".into(),
            chunk_bytes: Some(64 << 20),
            chunks_total: 16_384,
            chunks: (0..4).map(chunk).collect(),
        });
        fits(&page);
        assert!(page.contains("16380 more chunks"), "{page}");
    }
}
