//! `bulla rewrap`: a new store key, and every data key wrapped under it.

use bulla::{Mode, Rewrap};
use serde_json::json;

use crate::context::Context;
use crate::exit::Result;
use crate::known::KnownStore;
use crate::sweep::{self, Show};
use crate::{open, rotate};

/// Replace the store key: wrap every data key again under a new one
///
/// Blobs are not touched, and reads and writes go on. It takes the revocation bound, until every node has seen the new key,
/// and then a small read and write per blob; a count that opens every envelope ends it. Run it again if it was interrupted:
/// it goes on where it was, and several machines may share one. `bulla gc` destroys the old key a day later. In direct mode
/// there is no store key; there this finishes an interrupted `bulla rotate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla rewrap ./store
  bulla rewrap ./store --rate 500/s       # leaves the object store to others
  bulla rewrap ./store --json             # an event per line: started, waiting, progress, rowDone, failed, counted, retired")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    #[command(flatten)]
    sweep: sweep::SweepArgs,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let opened = open::open(ctx, &ctx.store(args.store.as_deref())?).await?;
    let known = opened.known.clone();
    let show = Show::new(ctx, &known);
    let done = opened.store.rewrap(args.sweep.options(), |event| show.event(&event)).await;
    show.end()?;
    let done = match done {
        Ok(done) => opened.store.status().await.map(|status| (done, status)),
        Err(error) => Err(error),
    };
    let done = done.map_err(|error| opened.explain(error));
    let url = opened.url.clone();
    opened.close(ctx).await;
    let (done, status) = done?;
    if status.mode == Mode::Direct {
        // What a rotation that was interrupted did not come to.
        rotate::settle(ctx, &url, &known, None, &status).await?;
    }
    print(ctx, &known, &done)
}

fn print(ctx: &Context, known: &KnownStore, done: &Rewrap) -> Result<()> {
    if ctx.json {
        let from: Vec<String> = done.from.iter().map(|kid| sweep::key(known, kid)).collect();
        ctx.out.json(&json!({
            "event": "done",
            "from": from,
            "to": sweep::key(known, &done.to),
            "resumed": done.resumed,
            "rewrapped": done.rewrapped,
            "counted": sweep::counted(known, &done.count),
        }))?;
        return Ok(());
    }
    for line in lines(known, done) {
        ctx.out.line(line)?;
    }
    Ok(())
}

/// What a rewrap, or the sweep of a rotation, came to.
pub(crate) fn lines(known: &KnownStore, done: &Rewrap) -> Vec<String> {
    let resumed = if done.resumed { " (gone on with)" } else { "" };
    let keys = if done.rewrapped == 1 { "data key" } else { "data keys" };
    let to = sweep::key(known, &done.to);
    let mut lines = vec![format!("{} {keys} wrapped again under {to}{resumed}", done.rewrapped)];
    lines.extend(done.from.iter().map(|kid| {
        let (under, all) = (done.count.under(kid), done.count.envelopes);
        format!("{under} of {all} under {}: safe to retire, and retired", sweep::key(known, kid))
    }));
    lines
}
