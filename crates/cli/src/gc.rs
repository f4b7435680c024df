//! `bulla gc`: removes what no blob and no upload needs any more.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bulla::{GcOptions, GcProgress, GcReport, Tally};
use bulla_registry::{CollectOptions, CollectProgress, CollectReport, Registry, RegistryOptions};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::open::Opened;
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
///
/// With --registry, first what no repository of `bulla serve` needs any more: layers without a manifest, and blobs that no
/// repository has. Whatever was pushed within the last 24 hours, or looked for by a push within the last 12, stays, also with a
/// shorter --grace.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla gc ./store
  bulla gc ./store --dry-run
  bulla gc ./store --grace 0s     # also what was deleted just now; waits for the revocation bound
  bulla gc ./store --json | jq .removed.bytes
  bulla gc ./store --registry --untagged-after 7d --dry-run")]
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
    /// Remove what no repository of the registry in this store needs. Blobs put by `bulla put` are in no repository
    #[arg(long)]
    registry: bool,
    /// Remove manifests that have had no tag for so long, and that no index and no subject keeps; at least 24h
    #[arg(long, value_name = "TIME", requires = "registry", value_parser = humantime::parse_duration)]
    untagged_after: Option<Duration>,
}

/// Untagged manifests stay for at least the grace.
pub(crate) fn refuse_short(untagged_after: Option<Duration>) -> Result<()> {
    let least = RegistryOptions::default().grace;
    if untagged_after.is_some_and(|after| after < least) {
        return Err(Failure::invalid("--untagged-after is at least 24h: a push may take that long"));
    }
    Ok(())
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    refuse_short(args.untagged_after)?;
    let opened = open::open(ctx, &ctx.store(args.store.as_deref())?).await?;
    let options = GcOptions { grace: Some(args.grace), dry_run: args.dry_run };
    let collected = match args.registry {
        true => Some(collect(ctx, &args, &opened).await),
        false => None,
    };
    let collected = match collected.transpose() {
        Ok(collected) => collected,
        Err(failure) => {
            opened.close(ctx).await;
            return Err(failure);
        }
    };
    let mut progress = Progress::of_blobs(ctx.quiet);
    let done = opened.store.gc(options, |at| progress.say(|| said(at))).await;
    drop(progress);
    let done = done.map_err(|error| opened.explain(error));
    opened.close(ctx).await;
    print(ctx, &args, collected.as_ref(), &done?)?;
    match collected {
        Some(report) if report.damaged > 0 => Err(damaged(&report)),
        _ => Ok(()),
    }
}

async fn collect(ctx: &Context, args: &Args, opened: &Opened) -> Result<CollectReport> {
    let registry = Registry::new(opened.store.clone(), RegistryOptions::default());
    let mut options = CollectOptions::default();
    (options.untagged_after, options.dry_run) = (args.untagged_after, args.dry_run);
    let progress = Mutex::new(Progress::of_blobs(ctx.quiet));
    let say = |at| progress.lock().unwrap_or_else(PoisonError::into_inner).say(|| collecting(at));
    registry.collect(&options, &say).await.map_err(|error| match error.into_engine() {
        Ok(error) => opened.explain(error),
        Err(error) => Failure::new(Kind::Unavailable, error.to_string()),
    })
}

fn collecting(at: CollectProgress) -> String {
    match at {
        CollectProgress::Listing(blobs) => format!("listing blobs: {blobs}"),
        CollectProgress::Repositories(count) => format!("looking at repositories: {count}"),
        CollectProgress::Blobs(count) => format!("removing blobs that no repository has: {count}"),
        _ => String::new(),
    }
}

fn damaged(report: &CollectReport) -> Failure {
    Failure::new(
        Kind::Corrupt,
        format!(
            "{} objects can't be read, so that what they need is unknown and no blob was removed: {}; push them again, or \
             delete their manifests",
            report.damaged,
            report.damaged_names.join(", ")
        ),
    )
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

fn print(ctx: &Context, args: &Args, collected: Option<&CollectReport>, report: &GcReport) -> Result<()> {
    if ctx.json {
        let mut foreign = tally(report.foreign);
        foreign["names"] = json!(report.foreign_names);
        let registry = collected.map(|report| {
            json!({
                "repositories": report.repositories,
                "manifests": report.manifests,
                "removedManifests": report.removed_manifests,
                "removedTags": report.removed_tags,
                "links": report.links,
                "removedLinks": report.removed_links,
                "removedBlobs": tally(report.removed_blobs),
                "tooYoung": report.too_young,
                "damaged": report.damaged,
                "damagedNames": report.damaged_names,
            })
        });
        ctx.out.json(&json!({
            "registry": registry,
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
    let mut fields = Vec::new();
    if let Some(report) = collected {
        let gone = if args.dry_run { "would go" } else { "removed" };
        fields.push(("repositories", report.repositories.to_string()));
        fields.push(("manifests", format!("{}; {} {gone}", report.manifests, report.removed_manifests)));
        if report.removed_tags > 0 {
            fields.push(("tags of nothing", format!("{} {gone}", report.removed_tags)));
        }
        fields.push(("layers", format!("{}; {} {gone}", report.links, report.removed_links)));
        fields.push(("no longer needed", format!("{} {gone}", shown(report.removed_blobs))));
    }
    fields.extend([
        ("blobs", format!("{}{expired}", report.envelopes)),
        ("data", shown(report.data)),
        (removed, shown(report.removed)),
    ]);
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
