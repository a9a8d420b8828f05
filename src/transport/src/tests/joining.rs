//! A token becomes an identity, and only the right cluster ever hears the secret.

use ministry_wire::join::{EnrollRequest, Enrolled, Join, JoinError, NodeAddress};
use tarpc::context::Context;
use tarpc::server::Serve;

use super::*;
use crate::join::{EnrollError, enroll};
use crate::token::hash_secret;

#[derive(Clone)]
struct Registrar {
    authority: Arc<Authority>,
    secret_hash: Arc<Mutex<[u8; 32]>>,
    nodes: Vec<NodeAddress>,
    president: Option<SocketAddr>,
    asked: Arc<Mutex<u32>>,
}

impl Registrar {
    fn new(authority: Arc<Authority>) -> Registrar {
        Registrar {
            authority,
            secret_hash: Arc::default(),
            nodes: Vec::new(),
            president: None,
            asked: Arc::default(),
        }
    }
}

impl Join for Registrar {
    async fn enroll(self, _: Context, request: EnrollRequest) -> Result<Enrolled, JoinError> {
        *self.asked.lock() += 1;
        if self.president.is_some() {
            return Err(JoinError::NotPresident { address: self.president });
        }
        if hash_secret(&request.secret) != *self.secret_hash.lock() {
            return Err(JoinError::UnknownToken);
        }
        let signing = &request.signing_request;
        let signed = self
            .authority
            .sign_request(signing, request.role, now(), CERTIFICATE_LIFETIME)
            .map_err(|error| JoinError::BadRequest { reason: error.to_string() })?;
        Ok(Enrolled {
            certificate: signed.pem,
            authority: self.authority.certificate_pem(),
            cluster: self.authority.cluster(),
            subject: signed.subject,
            nodes: self.nodes,
        })
    }
}

impl Handler for Registrar {
    fn handle(&self, incoming: Incoming) -> BoxFuture<'static, ()> {
        if incoming.door != Door::Join {
            return Guests::default().handle(incoming);
        }
        serve(incoming.stream, self.clone().serve(), |service, context, request| {
            service.serve(context, request)
        })
        .boxed()
    }
}

#[tokio::test]
async fn a_token_becomes_an_identity_that_gets_in() {
    let authority = Arc::new(cluster());
    let registrar = Registrar::new(authority.clone());
    let server = start(identity(&authority, Role::Node), Arc::new(registrar.clone())).await;
    let token = JoinToken::create(authority.hash(), Role::Node, vec![server.address]).unwrap();
    *registrar.secret_hash.lock() = token.secret_hash();
    let token: JoinToken = token.to_string().parse().unwrap();
    let key = PrivateKey::generate().unwrap();
    let subject = key.subject(Role::Node);
    let joined = enroll(&TcpConnector, &token, key, Role::Node, None).await.unwrap();
    assert_eq!(joined.identity.peer(), PeerIdentity { cluster: authority.cluster(), subject });
    dialer(joined.identity).connect(server.address, Some(server.node), Door::Raft).await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_not_the_president_names_it() {
    let authority = Arc::new(cluster());
    let registrar = Registrar::new(authority.clone());
    let president = start(identity(&authority, Role::Node), Arc::new(registrar.clone())).await;
    let clerk = Registrar { president: Some(president.address), ..registrar.clone() };
    let clerk = start(identity(&authority, Role::Node), Arc::new(clerk)).await;
    let token = JoinToken::create(authority.hash(), Role::Client, vec![clerk.address]).unwrap();
    *registrar.secret_hash.lock() = token.secret_hash();
    let key = PrivateKey::generate().unwrap();
    let joined = enroll(&TcpConnector, &token, key, Role::Client, None).await.unwrap();
    assert_eq!(joined.identity.peer().role(), Role::Client);
}

#[tokio::test]
async fn a_refusal_of_the_cluster_ends_the_joining_at_once() {
    let authority = Arc::new(cluster());
    let registrar = Registrar::new(authority.clone());
    let server = start(identity(&authority, Role::Node), Arc::new(registrar.clone())).await;
    let token = JoinToken::create(authority.hash(), Role::Client, vec![server.address]).unwrap();
    let key = PrivateKey::generate().unwrap();
    let error = enroll(&TcpConnector, &token, key, Role::Client, None).await.unwrap_err();
    assert!(matches!(error, EnrollError::Refused(JoinError::UnknownToken)), "{error}");
    assert_eq!(*registrar.asked.lock(), 1);
    let key = PrivateKey::generate().unwrap();
    let error = enroll(&TcpConnector, &token, key, Role::Node, None).await.unwrap_err();
    assert!(matches!(error, EnrollError::WrongRole { .. }), "{error}");
}

#[tokio::test]
async fn a_node_of_another_cluster_never_hears_the_secret() {
    let (ours, theirs) = (cluster(), Arc::new(cluster()));
    let registrar = Registrar::new(theirs.clone());
    let server = start(identity(&theirs, Role::Node), Arc::new(registrar.clone())).await;
    let token = JoinToken::create(ours.hash(), Role::Client, vec![server.address]).unwrap();
    let key = PrivateKey::generate().unwrap();
    let error = enroll(&TcpConnector, &token, key, Role::Client, None).await.unwrap_err();
    assert!(matches!(error, EnrollError::NobodyAnswers { .. }));
    says(&error, "another cluster");
    assert_eq!(*registrar.asked.lock(), 0);
}
