//! The administrators' door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ministry_transport::token::JoinToken;
use ministry_transport::{Authority, Role};
use ministry_types::government::Event;
use ministry_types::limits::{ATTEMPT_TIMEOUT, HISTORY_MAX, JOIN_TOKENS_MAX};
use ministry_types::{ClientId, InodeId, LogIndex, MinistryId, NodeId, Timestamp};
use ministry_wire::admin::{Admin, AdminError, Invitation, NodeSight, Status};
use tarpc::context::Context;
use tokio::time::{Instant, timeout};

use crate::government::{Order, OrderReply};
use crate::node::{NodeContext, OrderError};
use crate::president::{View, placement};

/// Longest life of a join token.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Addresses in one token.
const TOKEN_ADDRESSES_MAX: usize = 3;

#[derive(Clone)]
pub(super) struct AdminService {
    pub node: Arc<NodeContext>,
}

fn refused(why: impl ToString) -> AdminError {
    AdminError::Refused(why.to_string())
}

impl AdminService {
    /// Whether this node may give orders. A cluster that is being founded has a president a moment
    /// before it has an authority and a registered node: that moment is waited for.
    async fn check_president(&self) -> Result<(), AdminError> {
        if self.node.is_president() {
            let mut map = self.node.government.map();
            let ready = map.wait_for(|map| map.nodes.contains_key(&self.node.me));
            return match timeout(ATTEMPT_TIMEOUT, ready).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(AdminError::NoPresident),
            };
        }
        let president = self.node.cluster.status().leader;
        match president {
            None => Err(AdminError::NoPresident),
            Some(_) => {
                Err(AdminError::NotPresident { president, address: self.node.president_address() })
            }
        }
    }

    async fn order(&self, order: Order, reason: &str) -> Result<OrderReply, AdminError> {
        match self.node.order(order, reason.to_owned()).await {
            Ok(OrderReply::Refused(why)) => Err(refused(why)),
            Ok(reply) => Ok(reply),
            Err(OrderError::NotPresident) => {
                self.check_president().await?;
                Err(AdminError::NoPresident)
            }
            Err(OrderError::Unknown) => Err(AdminError::Unknown),
        }
    }

    /// Where a new node or client begins to ask: the president first.
    fn addresses(&self) -> Vec<SocketAddr> {
        let government = self.node.government.government();
        let mut nodes: Vec<_> = government
            .nodes()
            .map(|(node, profile, _)| (node != self.node.me, profile.address))
            .collect();
        nodes.sort();
        nodes.into_iter().take(TOKEN_ADDRESSES_MAX).map(|(_, address)| address).collect()
    }
}

impl Admin for AdminService {
    async fn status(self, _: Context) -> Status {
        let node = &self.node;
        let raft = node.cluster.status();
        let sights = if raft.is_leader {
            let sights = node.sights.snapshot(Instant::now()).into_values();
            sights.map(|sight| NodeSight { report: sight.report, age: sight.age }).collect()
        } else {
            Vec::new()
        };
        Status {
            node: node.me,
            map: node.government.government().map(),
            president: raft.leader,
            term: raft.term,
            applied: node.government.applied_index(),
            sights,
            usage: node.usage(),
        }
    }

    async fn events(self, _: Context, from: LogIndex, max: u32) -> Vec<Event> {
        let max = (max as usize).min(HISTORY_MAX);
        self.node.government.events(from, max).unwrap_or_else(|error| {
            tracing::error!(%error, "the history cannot be read");
            Vec::new()
        })
    }

    async fn invite(
        self,
        _: Context,
        role: Role,
        life: Duration,
        count: u32,
    ) -> Result<Vec<Invitation>, AdminError> {
        self.check_president().await?;
        if life.is_zero() || life > TOKEN_LIFE_MAX {
            return Err(refused("a token lives for more than nothing and at most 7 days"));
        }
        if count == 0 || count as usize > JOIN_TOKENS_MAX {
            return Err(refused(format!("between 1 and {JOIN_TOKENS_MAX} tokens can be made")));
        }
        let government = self.node.government.government();
        let authority = Authority::from_pem(government.authority()).map_err(refused)?;
        let nanoseconds = i64::try_from(life.as_nanos()).unwrap_or(i64::MAX);
        let expires = Timestamp(self.node.clock.now().0.saturating_add(nanoseconds));
        let mut invitations = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let token =
                JoinToken::create(authority.hash(), role, self.addresses()).map_err(refused)?;
            let order = Order::Invite {
                id: token.id.to_string(),
                secret_hash: token.secret_hash().to_vec(),
                role,
                expires,
            };
            self.order(order, "an operator asked for it").await?;
            invitations.push(Invitation { token: token.to_string(), expires });
        }
        Ok(invitations)
    }

    async fn create_ministry(
        self,
        _: Context,
        root: InodeId,
        path: String,
    ) -> Result<MinistryId, AdminError> {
        self.check_president().await?;
        let government = self.node.government.government();
        let sights = self.node.sights.snapshot(Instant::now());
        let view = View {
            me: self.node.me,
            government: &government,
            sights: &sights,
            presidency: Duration::MAX,
            unserved: &Default::default(),
        };
        let members = placement::choose_members(&view).ok_or_else(|| {
            refused("a ministry needs three nodes that answer and offer metadata; start more nodes")
        })?;
        let ministry = government.next_ministry();
        let order = Order::CreateMinistry { ministry, members, root, path };
        self.order(order, "an operator gave it a subtree of its own").await?;
        Ok(ministry)
    }

    async fn revoke(self, _: Context, identity: String) -> Result<(), AdminError> {
        self.check_president().await?;
        let known = identity.parse::<NodeId>().is_ok() || identity.parse::<ClientId>().is_ok();
        if !known {
            return Err(refused(format!(
                "'{identity}' is not the id of a node (64 digits) or a client (32 digits)"
            )));
        }
        self.order(Order::Revoke { identity }, "an operator revoked it").await.map(drop)
    }
}
