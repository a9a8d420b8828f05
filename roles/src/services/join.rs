//! The door for those who have no certificate yet.

use std::sync::Arc;
use std::time::Duration;

use ministry_transport::Authority;
use ministry_transport::token::hash_secret;
use ministry_wire::hello::Role;
use ministry_wire::join::{EnrollRequest, Enrolled, Join, JoinError, NodeAddress};
use tarpc::context::Context;

use crate::government::{Enrolment, Order, OrderReply, TokenState};
use crate::node::NodeContext;

/// How long a certificate is valid. Rotation is not built yet: a certificate lasts as long as a
/// cluster may run without anybody looking after it.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

#[derive(Clone)]
pub(super) struct JoinService {
    pub node: Arc<NodeContext>,
}

fn bad_request(reason: impl ToString) -> JoinError {
    JoinError::BadRequest { reason: reason.to_string() }
}

impl Join for JoinService {
    async fn enroll(self, _: Context, request: EnrollRequest) -> Result<Enrolled, JoinError> {
        let (role, token) = (request.role, request.token.to_string());
        let answer = self.decide(request).await;
        match &answer {
            // Another node is to be asked, or the same again: nobody was turned away.
            Ok(_) | Err(JoinError::NotPresident { .. } | JoinError::Unavailable { .. }) => {}
            Err(reason) => tracing::warn!(%role, token, %reason, "a newcomer is refused"),
        }
        answer
    }
}

impl JoinService {
    async fn decide(&self, request: EnrollRequest) -> Result<Enrolled, JoinError> {
        let node = &self.node;
        if !node.is_president() {
            return Err(JoinError::NotPresident { address: node.president_address() });
        }
        let government = node.government.government();
        let id = request.token.to_string();
        let token = government.token(&id).ok_or(JoinError::UnknownToken)?;
        // A hash of 128 random bits: comparing it takes no care against timing.
        if token.secret_hash != hash_secret(&request.secret) {
            return Err(JoinError::UnknownToken);
        }
        let now = node.clock.now();
        if token.expires <= now && token.state == TokenState::Open {
            let ended_at = u64::try_from(token.expires.seconds()).unwrap_or(0);
            return Err(JoinError::Expired { ended_at });
        }
        if token.role != request.role {
            return Err(JoinError::WrongRole { granted: token.role, asked: request.role });
        }
        let authority = Authority::from_pem(government.authority()).map_err(bad_request)?;
        let seconds = u64::try_from(now.seconds()).unwrap_or(0);
        let signed = authority
            .sign_request(&request.signing_request, request.role, seconds, CERTIFICATE_LIFETIME)
            .map_err(bad_request)?;
        let subject = signed.subject;
        let reason = match (&request.role, &request.profile) {
            (Role::Node, Some(profile)) => format!("it showed the token from {}", profile.address),
            _ => "it showed the token".to_owned(),
        };
        let unavailable = |reason: String| JoinError::Unavailable { reason };
        match node.order(Order::Enrol { id, subject }, reason).await {
            Ok(OrderReply::Enrolment(Enrolment::Accepted)) => {}
            Ok(OrderReply::Enrolment(Enrolment::Used(by))) => {
                return Err(JoinError::AlreadyUsed { by });
            }
            Ok(OrderReply::Enrolment(Enrolment::Unknown)) => return Err(JoinError::UnknownToken),
            Ok(other) => return Err(unavailable(format!("unexpected answer {other:?}"))),
            Err(error) => return Err(unavailable(error.to_string())),
        }
        let nodes = government
            .nodes()
            .map(|(node, profile, _)| NodeAddress { node, address: profile.address });
        Ok(Enrolled {
            certificate: signed.pem,
            authority: authority.certificate_pem(),
            cluster: government.cluster(),
            subject,
            nodes: nodes.collect(),
        })
    }
}
