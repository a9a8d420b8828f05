//! What `--json` prints, and what the tables are made of.
//!
//! The form is stable: a field may be added, none changes its name or its meaning without a new
//! [`SCHEMA`] and a note in the changelog. Identities are whole lower-case hexadecimal numbers,
//! times RFC 3339 in UTC, sizes bytes. An absent value is `null`, never missing.

use serde::Serialize;

/// Version of the form, in the field `schema` of every document.
pub const SCHEMA: u32 = 1;

/// A document: what every command prints.
#[derive(Debug, Serialize)]
pub struct Document<T> {
    /// Version of the form.
    pub schema: u32,
    /// The content, its fields beside `schema`.
    #[serde(flatten)]
    pub content: T,
}

/// `status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusOut {
    /// The cluster.
    pub cluster: String,
    /// The node that answered.
    pub answered_by: String,
    /// The president, if there is one.
    pub president: Option<String>,
    /// Its term in the cluster log.
    pub term: u64,
    /// Last entry of the cluster log applied at the node that answered.
    pub applied: u64,
    /// Version of the map.
    pub map_version: u64,
    /// Whether there is nothing in `problems`.
    pub healthy: bool,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// Room in the file system, if known.
    pub usage: Option<UsageOut>,
    /// Placement groups.
    pub placement_groups: PgSummaryOut,
    /// The ministries.
    pub ministries: Vec<MinistryOut>,
    /// The nodes.
    pub nodes: Vec<NodeOut>,
}

/// Room in the file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageOut {
    /// Bytes in all, replicas counted once.
    pub total_bytes: u64,
    /// Bytes not used.
    pub free_bytes: u64,
    /// Bytes that may still be written.
    pub available_bytes: u64,
    /// Objects that exist.
    pub inodes: u64,
}

/// Placement groups in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PgSummaryOut {
    /// All.
    pub total: usize,
    /// Those whose members are all in sync and alive.
    pub whole: usize,
}

/// A ministry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MinistryOut {
    /// Its number.
    pub ministry: u64,
    /// The directory it was made for.
    pub path: String,
    /// Inode of that directory.
    pub root: u64,
    /// `forming`, `governed` or `down`.
    pub condition: String,
    /// The step that is due, or why it is down.
    pub reason: Option<String>,
    /// Number of the last appointment.
    pub epoch: u64,
    /// The minister.
    pub minister: Option<String>,
    /// The other members.
    pub clerks: Vec<String>,
    /// Whether the minister serves, as last heard by the president; `null`: not known.
    pub serving: Option<bool>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeOut {
    /// Its id.
    pub node: String,
    /// Where it is reached.
    pub address: String,
    /// Where its pages are.
    pub metrics_address: Option<String>,
    /// Where it stands.
    pub failure_domain: String,
    /// `alive`, `down` or `revoked`.
    pub condition: String,
    /// Whether it votes in the cluster log.
    pub elector: bool,
    /// Whether it takes metadata offices.
    pub offers_metadata: bool,
    /// Its share of the data.
    pub storage_weight: f64,
    /// Version of its program.
    pub version: String,
    /// How long ago it last answered the president; `null`: not known.
    pub answered_ms_ago: Option<u64>,
    /// Bytes of its disk; `null`: not known.
    pub disk_total_bytes: Option<u64>,
    /// Bytes that may still be written there; `null`: not known.
    pub disk_available_bytes: Option<u64>,
}

/// `node list`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodesOut {
    /// The nodes.
    pub nodes: Vec<NodeOut>,
}

/// `ministries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MinistriesOut {
    /// The ministries.
    pub ministries: Vec<MinistryOut>,
}

/// `roles`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolesOut {
    /// The nodes with their offices.
    pub roles: Vec<RoleOut>,
}

/// The offices of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleOut {
    /// The node.
    pub node: String,
    /// Where it is reached.
    pub address: String,
    /// `alive`, `down` or `revoked`.
    pub condition: String,
    /// Whether it is the president.
    pub president: bool,
    /// Whether it votes in the cluster log.
    pub elector: bool,
    /// Ministries that it governs.
    pub minister_of: Vec<u64>,
    /// Ministries in which it is a clerk.
    pub clerk_of: Vec<u64>,
    /// Whether it holds no office.
    pub idle: bool,
    /// Placement groups whose master it is.
    pub master_of_pgs: usize,
    /// Placement groups in which it is a slave.
    pub slave_in_pgs: usize,
}

/// `events`; with `--follow` one [`EventOut`] a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventsOut {
    /// The orders, oldest first.
    pub events: Vec<EventOut>,
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventOut {
    /// Its index in the cluster log.
    pub index: u64,
    /// When it was given.
    pub time: String,
    /// Who gave it.
    pub president: String,
    /// What was ordered, one word.
    pub order: String,
    /// What it was ordered about.
    pub subject: String,
    /// What was ordered, as a sentence.
    pub text: String,
    /// Why.
    pub reason: String,
}

/// `pgs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PgsOut {
    /// The placement groups.
    pub placement_groups: Vec<PgOut>,
}

/// A placement group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PgOut {
    /// Its number.
    pub pg: u32,
    /// Its epoch.
    pub epoch: u64,
    /// The member that orders the writes.
    pub master: Option<String>,
    /// The other members.
    pub slaves: Vec<String>,
    /// The members that have every acknowledged write.
    pub in_sync: Vec<String>,
}

/// `where`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhereOut {
    /// The path inside the file system.
    pub path: String,
    /// The object.
    pub inode: u64,
    /// `file`, `directory`, ….
    pub kind: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Bytes allocated on one replica.
    pub allocated_bytes: u64,
    /// The ministry that owns it.
    pub ministry: MinistryOut,
    /// `none`, `inline` (in the ministry) or `chunked` (on storage nodes).
    pub layout: String,
    /// Bytes of a chunk, of a chunked file.
    pub chunk_bytes: Option<u64>,
    /// How many chunks the file has.
    pub chunks_total: u64,
    /// The first of them, as many as were asked for.
    pub chunks: Vec<ChunkOut>,
}

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChunkOut {
    /// Its number in the file.
    pub chunk: u64,
    /// Its placement group.
    pub pg: u32,
    /// Who holds it, master first.
    pub replicas: Vec<ReplicaOut>,
}

/// Who holds a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaOut {
    /// The node.
    pub node: String,
    /// Where it is reached.
    pub address: Option<String>,
    /// `master` or `slave`.
    pub role: String,
    /// Whether it has every acknowledged write.
    pub in_sync: bool,
}

/// `invite`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokensOut {
    /// The tokens.
    pub tokens: Vec<TokenOut>,
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenOut {
    /// Its text.
    pub token: String,
    /// Until when it may be used.
    pub expires: String,
}

/// `network create`, `client join`, `operator join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CredentialsOut {
    /// The cluster.
    pub cluster: String,
    /// `node`, `client` or `operator`.
    pub role: String,
    /// Id of the new key.
    pub identity: String,
    /// The folder where it lies.
    pub folder: String,
    /// Of `network create`: the folder of the operator's credentials.
    pub admin_folder: Option<String>,
}

/// `ministry create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MinistryCreatedOut {
    /// Its number.
    pub ministry: u64,
    /// The directory it was made for.
    pub path: String,
    /// Whether it serves already; without `--wait` it may take a moment.
    pub serving: bool,
}

/// The text of a document.
pub fn json<T: Serialize>(content: T) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Document { schema: SCHEMA, content })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::view;

    /// Every field with its path; the elements of a list are one.
    fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    found.insert(path.clone());
                    fields(value, &path, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| fields(item, path, found)),
            _ => {}
        }
    }

    fn schema<T: Serialize>(content: T) -> String {
        let value: Value = serde_json::from_str(&json(content).unwrap()).unwrap();
        assert_eq!(value.get("schema"), Some(&Value::from(SCHEMA)));
        let mut found = BTreeSet::new();
        fields(&value, "", &mut found);
        found.remove("schema");
        found.into_iter().collect::<Vec<_>>().join(" ")
    }

    const MINISTRY: &str = "clerks condition epoch minister ministry path reason root serving";
    const NODE: &str = "address answered_ms_ago condition disk_available_bytes disk_total_bytes \
        elector failure_domain metrics_address node offers_metadata storage_weight version";

    fn below(path: &str, names: &str) -> String {
        let names = names.split(' ').map(|name| format!("{path}.{name}"));
        std::iter::once(path.to_owned()).chain(names).collect::<Vec<_>>().join(" ")
    }

    /// A field that changes its name or goes breaks the scripts of others: raise the schema's
    /// number and say so in the changelog.
    #[test]
    fn the_form_of_every_document_is_stable() {
        let sample = view::tests::sample(5);
        let status = format!(
            "answered_by applied cluster healthy map_version {} {} {} president problems term {}",
            below("ministries", MINISTRY),
            below("nodes", NODE),
            below("placement_groups", "total whole"),
            below("usage", "available_bytes free_bytes inodes total_bytes"),
        );
        assert_eq!(schema(view::status(&sample)), status);
        let nodes = NodesOut { nodes: view::nodes(&sample) };
        assert_eq!(schema(nodes), below("nodes", NODE));
        let ministries = MinistriesOut { ministries: view::ministries(&sample) };
        assert_eq!(schema(ministries), below("ministries", MINISTRY));
        let roles = RolesOut { roles: view::roles(&sample) };
        let role = "address clerk_of condition elector idle master_of_pgs minister_of node \
            president slave_in_pgs";
        assert_eq!(schema(roles), below("roles", role));
        let pgs = PgsOut { placement_groups: view::pgs(&sample.map) };
        assert_eq!(schema(pgs), below("placement_groups", "epoch in_sync master pg slaves"));
    }

    #[test]
    fn the_form_of_the_small_documents_is_stable() {
        let event = EventOut {
            index: 1,
            time: String::new(),
            president: String::new(),
            order: String::new(),
            subject: String::new(),
            text: String::new(),
            reason: String::new(),
        };
        let event_fields = "index order president reason subject text time";
        assert_eq!(schema(&event), event_fields);
        assert_eq!(schema(EventsOut { events: vec![event] }), below("events", event_fields));
        let token = TokenOut { token: String::new(), expires: String::new() };
        assert_eq!(schema(TokensOut { tokens: vec![token] }), below("tokens", "expires token"));
        let credentials = CredentialsOut {
            cluster: String::new(),
            role: String::new(),
            identity: String::new(),
            folder: String::new(),
            admin_folder: None,
        };
        assert_eq!(schema(credentials), "admin_folder cluster folder identity role");
        let created = MinistryCreatedOut { ministry: 2, path: String::new(), serving: true };
        assert_eq!(schema(created), "ministry path serving");
    }

    #[test]
    fn the_form_of_where_is_stable() {
        let replica =
            ReplicaOut { node: String::new(), address: None, role: String::new(), in_sync: true };
        let place = WhereOut {
            path: String::new(),
            inode: 1,
            kind: String::new(),
            size_bytes: 0,
            allocated_bytes: 0,
            ministry: view::ministries(&view::tests::sample(3)).remove(0),
            layout: String::new(),
            chunk_bytes: None,
            chunks_total: 1,
            chunks: vec![ChunkOut { chunk: 0, pg: 0, replicas: vec![replica] }],
        };
        let wanted = format!(
            "allocated_bytes chunk_bytes chunks chunks.chunk chunks.pg {} chunks_total inode kind \
             layout {} path size_bytes",
            below("chunks.replicas", "address in_sync node role"),
            below("ministry", MINISTRY),
        );
        assert_eq!(schema(place), wanted);
    }
}
