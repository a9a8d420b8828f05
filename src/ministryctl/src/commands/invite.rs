//! `invite`: one-time tokens, one a line.

use ministry_wire::admin::InviteRole;

use super::print;
use crate::access::{Access, Repeat};
use crate::cli::{Global, InviteArgs};
use crate::failure::Failure;
use crate::output::{TokenOut, TokensOut};
use crate::view;

/// `invite`.
pub async fn run(global: &Global, args: &InviteArgs) -> Result<(), Failure> {
    let mut access = Access::open(global)?;
    let role = match (args.role.node, args.role.client) {
        (true, _) => InviteRole::Node,
        (_, true) => InviteRole::Client,
        _ => InviteRole::Operator,
    };
    let (life, count) = (args.life, args.count);
    // A token that nobody has seen ends by itself, so asking again does no harm.
    let invitations = access
        .change(Repeat::Harmless, |client, context| async move {
            client.invite(context, role, life, count).await
        })
        .await?;
    let tokens = invitations
        .into_iter()
        .map(|one| TokenOut { token: one.token, expires: view::time(one.expires) })
        .collect();
    print(global, &TokensOut { tokens }, |out| {
        out.tokens.iter().map(|one| format!("{}\n", one.token)).collect()
    })
}
