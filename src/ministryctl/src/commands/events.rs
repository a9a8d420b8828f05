//! `events`: the orders of the government with their reasons.

use std::time::Duration;

use ministry_types::LogIndex;
use ministry_types::government::Event;
use tokio::time::sleep;

use super::{print, print_text};
use crate::access::Access;
use crate::cli::{EventsArgs, Global};
use crate::failure::Failure;
use crate::output::{self, EventsOut};
use crate::{show, view};

/// Orders asked for at a time: their texts fit one frame.
const PAGE: u32 = 1_000;
/// Between two looks for new orders.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

/// `events`.
pub async fn run(global: &Global, args: &EventsArgs) -> Result<(), Failure> {
    let mut access = Access::open(global)?;
    if args.follow {
        return follow(global, args.from).await;
    }
    let mut all = Vec::new();
    let mut from = args.from;
    loop {
        let page = fetch(&mut access, from).await?;
        let whole = page.len() < PAGE as usize;
        if let Some(last) = page.last() {
            from = last.index + 1;
        }
        all.extend(page.iter().map(view::event));
        if whole {
            break;
        }
    }
    print(global, &EventsOut { events: all }, |out| show::events(&out.events))
}

/// Prints new orders as they come, one JSON document or one paragraph each.
async fn follow(global: &Global, mut from: u64) -> Result<(), Failure> {
    loop {
        // A deadline of its own for each look: the command has none.
        let mut access = Access::open(global)?;
        loop {
            let page = fetch(&mut access, from).await?;
            for event in page.iter().map(view::event) {
                let text = match global.json {
                    true => {
                        serde_json::to_string(&output::Document {
                            schema: output::SCHEMA,
                            content: &event,
                        })? + "\n"
                    }
                    false => show::event_line(&event),
                };
                print_text(&text)?;
            }
            if let Some(last) = page.last() {
                from = last.index + 1;
            }
            if access.deadline() < tokio::time::Instant::now() {
                break;
            }
            sleep(FOLLOW_PAUSE).await;
        }
    }
}

async fn fetch(access: &mut Access, from: u64) -> Result<Vec<Event>, Failure> {
    access
        .read(|client, context| async move { client.events(context, LogIndex(from), PAGE).await })
        .await
}
