//! `status`, `roles`, `ministries`, `pgs`, `node list`: views of one answer.

use std::time::Duration;

use ministry_wire::admin::Status;
use tokio::time::{Instant, sleep};

use super::print;
use crate::access::Access;
use crate::cli::{Global, StatusArgs};
use crate::failure::{Failure, Kind};
use crate::output::{MinistriesOut, NodesOut, PgsOut, RolesOut};
use crate::{show, view};

/// Between two looks while waiting.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// `status`.
pub async fn status(global: &Global, args: &StatusArgs) -> Result<(), Failure> {
    let mut access = Access::open(global)?;
    let answer = match args.wait {
        true => wait_until_serving(&mut access).await?,
        false => access.status().await?,
    };
    print(global, &view::status(&answer), show::status)
}

async fn wait_until_serving(access: &mut Access) -> Result<Status, Failure> {
    loop {
        let answer = access.status().await?;
        if view::serves(&answer) {
            return Ok(answer);
        }
        if Instant::now() >= access.deadline() {
            let mut problems = view::status(&answer).problems;
            if problems.is_empty() {
                problems.push("no placement groups yet, or ministers that do not serve yet".into());
            }
            let text = format!("the cluster does not serve in time: {}", problems.join("; "));
            return Err(Failure::text(Kind::Unknown, text));
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// `roles`.
pub async fn roles(global: &Global) -> Result<(), Failure> {
    let answer = Access::open(global)?.status().await?;
    print(global, &RolesOut { roles: view::roles(&answer) }, |out| show::roles(&out.roles))
}

/// `ministries`.
pub async fn ministries(global: &Global) -> Result<(), Failure> {
    let answer = Access::open(global)?.status().await?;
    let out = MinistriesOut { ministries: view::ministries(&answer) };
    print(global, &out, |out| show::ministries(&out.ministries))
}

/// `node list`.
pub async fn nodes(global: &Global) -> Result<(), Failure> {
    let answer = Access::open(global)?.status().await?;
    print(global, &NodesOut { nodes: view::nodes(&answer) }, |out| show::nodes(&out.nodes))
}

/// `pgs`.
pub async fn pgs(global: &Global) -> Result<(), Failure> {
    let answer = Access::open(global)?.status().await?;
    let out = PgsOut { placement_groups: view::pgs(&answer.map) };
    print(global, &out, |out| show::pgs(&out.placement_groups))
}
