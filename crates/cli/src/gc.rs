//! `bulla gc`: removes what no blob and no upload needs any more.

use std::time::Duration;

use bulla::{GcOptions, GcProgress, GcReport, Tally};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Result;
use crate::progress::Progress;
use crate::{open, output};

/// Remove data that no blob needs any more, and blobs past their time
///
/// Store keys that a rewrap retired, and what old log records hold of earlier keys, are destroyed after the grace too.
/// Deleted blobs, interrupted puts and replaced blobs leave data behind; so do blobs past their time, whose data goes with
/// the gc after the one that removes them, and uploads to a registry that nobody went on with for seven days. Reads and
/// writes go on. Data that was written within the grace stays, and keys that were retired within it. Writers count on 24 h;
/// with a shorter grace, gc waits until every one has heard of it (the revocation bound, and a minute for requests to object
/// stores), and those that upload just now copy their data. Run it again if it was interrupted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla gc ./store
  bulla gc ./store --dry-run
  bulla gc ./store --grace 0s     # also what was deleted just now; waits for the revocation bound
  bulla gc ./store --json | jq .removed.bytes")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// Leave alone what was written less than this ago
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Say what would go and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let opened = open::open(ctx, &ctx.store(args.store.as_deref())?).await?;
    let options = GcOptions { grace: Some(args.grace), dry_run: args.dry_run };
    let mut progress = Progress::of_blobs(ctx.quiet);
    let done = opened.store.gc(options, |at| progress.say(|| said(at))).await;
    drop(progress);
    let done = done.map_err(|error| opened.explain(error));
    opened.close(ctx).await;
    print(ctx, &args, &done?)
}

fn said(at: GcProgress) -> String {
    match at {
        GcProgress::Waiting(wait) => {
            format!("waiting {} until every writer knows", humantime::format_duration(wait))
        }
        GcProgress::Marking(blobs) => format!("looking at blobs: {blobs}"),
        GcProgress::Collecting { seen, removed } => {
            format!("looking at data: {} objects, {} of them removed", seen.objects, removed.objects)
        }
        GcProgress::Shredding(blobs) => format!("looking at blobs again, for retired keys: {blobs}"),
        _ => String::new(),
    }
}

fn print(ctx: &Context, args: &Args, report: &GcReport) -> Result<()> {
    if ctx.json {
        let mut foreign = tally(report.foreign);
        foreign["names"] = json!(report.foreign_names);
        ctx.out.json(&json!({
            "dryRun": args.dry_run,
            "grace": args.grace.as_secs_f64(),
            "blobs": report.envelopes,
            "expired": report.expired,
            "uploads": report.uploads,
            "expiredUploads": report.expired_uploads,
            "data": tally(report.data),
            "removed": tally(report.removed),
            "tooYoung": tally(report.too_young),
            "foreign": foreign,
            "shredded": {
                "storeKeys": report.shredded.store_keys,
                "logRecords": report.shredded.records,
                "alteredLogRecords": report.shredded.altered,
            },
        }))?;
        return Ok(());
    }
    let expired = match (report.expired, args.dry_run) {
        (0, _) => String::new(),
        (count, false) => {
            format!(", {count} of them past their time and removed; their data goes with the next gc")
        }
        (count, true) => format!(", {count} of them past their time"),
    };
    let removed = if args.dry_run { "would go" } else { "removed" };
    let mut fields = vec![
        ("blobs", format!("{}{expired}", report.envelopes)),
        ("data", shown(report.data)),
        (removed, shown(report.removed)),
    ];
    if report.uploads + report.expired_uploads > 0 {
        let expired = match report.expired_uploads {
            0 => String::new(),
            count => format!(", and {count} given up after seven days; their data goes with the next gc"),
        };
        fields.push(("uploads", format!("{} not complete{expired}", report.uploads)));
    }
    if report.too_young.objects > 0 {
        let grace = humantime::format_duration(args.grace);
        fields.push(("too young", format!("{}, written within {grace}", shown(report.too_young))));
    }
    if report.foreign.objects > 0 {
        let names = report.foreign_names.join(", ");
        fields.push(("not ours", format!("{}, left alone: {names}", shown(report.foreign))));
    }
    let shredded = &report.shredded;
    if !shredded.store_keys.is_empty() || shredded.records > 0 {
        let keys = shredded.store_keys.len();
        fields.push(("shredded", format!("{keys} store keys, {} log records", shredded.records)));
    }
    if !shredded.altered.is_empty() {
        fields.push(("altered", format!("log records {:?}: see `bulla verify`", shredded.altered)));
    }
    ctx.out.fields(&fields)?;
    Ok(())
}

pub(crate) fn tally(tally: Tally) -> Value {
    json!({ "objects": tally.objects, "bytes": tally.bytes })
}

pub(crate) fn shown(tally: Tally) -> String {
    let objects = if tally.objects == 1 { "object" } else { "objects" };
    format!("{} {objects}, {}", tally.objects, output::size(tally.bytes))
}
