//! `bulla adopt`: takes over what another registry has stored.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bulla::StoreUrl;
use bulla::bucket::BucketErrorKind;
use bulla_registry::adopt::{AdoptCause, AdoptError, AdoptEvent, AdoptOptions, AdoptProgress, AdoptReport};
use bulla_registry::{Registry, RegistryError, RegistryOptions};
use serde_json::json;

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::gc::{shown, tally};
use crate::open::{self, Opened};
use crate::progress::Progress;

/// Where the other registry's storage begins, in what it is configured with.
const ROOT: &str = "docker/registry/v2";

/// Take over the storage of a CNCF Distribution registry ("docker-registry"), sealed
///
/// SOURCE is the folder or bucket that the registry is configured with (`rootdirectory`): repositories, layers, manifests,
/// tags and referrers become those of the registry in STORE, each content compared with its digest on the way. The store may
/// be in the same bucket, folder or prefix, beside the other's `docker/`. Stop the registry first, or make it read-only.
///
/// What is there already is not copied again: run it again after an interruption. Clients and gc may use STORE meanwhile; gc
/// takes no layer that a manifest needs. The originals stay, unsealed, until --delete-source, which removes and does not wipe:
/// versions, snapshots and copies of the source keep them. Nothing is removed if anything at all was not adopted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla adopt /var/lib/registry ./store --dry-run
  bulla adopt /var/lib/registry ./store
  bulla adopt s3://bucket/registry s3://bucket/sealed
  bulla adopt /var/lib/registry ./store --delete-source --drop-unlinked   # then nothing unsealed is left

Exit codes, of several the first of these:
    8  corrupt       something in the source is damaged or missing; all else was adopted
    2  invalid       something there is nothing that Bulla takes (schema 1, symbolic links with --delete-source); all else was
                     adopted
    7  conflict      a tag names another manifest in STORE; or the source changed meanwhile; or objects are left after
                     --drop-unlinked that no registry has written
    5  unavailable   something could not be read or written at the time: run it again
What was not adopted is named on stderr as it is found, and in `failures` with --json.")]
pub(crate) struct Args {
    /// A folder or a URL
    source: String,
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// Say what would be done and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the originals, once all was adopted and read back from the store. It can't be undone
    #[arg(long, conflicts_with = "dry_run")]
    delete_source: bool,
    /// And what no repository of the source has: layers that its own gc would remove, uploads that never ended
    #[arg(long, requires = "delete_source")]
    drop_unlinked: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let source = StoreUrl::parse(&args.source)?;
    let store = ctx.store(args.store.as_deref())?;
    apart(&source, &StoreUrl::parse(&store)?)?;
    let foreign = source.connect_foreign().map_err(|error| match error.kind() {
        BucketErrorKind::NotFound => no_registry(&source),
        _ => error.into(),
    })?;
    let opened = open::open(ctx, &store).await?;
    let registry = Registry::new(opened.store.clone(), RegistryOptions::default());
    let mut options = AdoptOptions::default();
    (options.dry_run, options.delete_source, options.drop_unlinked) =
        (args.dry_run, args.delete_source, args.drop_unlinked);
    let progress = Mutex::new(Progress::of_parts(ctx.quiet));
    let say = |event: AdoptEvent| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            AdoptEvent::Progress(at) => progress.say(|| said(at)),
            AdoptEvent::Failed(failure) => progress.suspend(|| ctx.warn(format!("not adopted: {failure}"))),
            _ => {}
        }
    };
    let adopted = registry.adopt(&foreign, options, &say).await;
    drop(progress);
    let adopted = adopted.map_err(|error| explained(&opened, &source, error));
    opened.close(ctx).await;
    let report = adopted?;
    print(ctx, &args, &report)?;
    verdict(ctx, &args, &report)
}

/// What was looked for in vain, and where it may be.
fn no_registry(source: &StoreUrl) -> Failure {
    let place = shown_place(source);
    let failure = Failure::not_found(match source.folder().is_none_or(Path::is_dir) {
        true => format!("there is no registry's storage at {place}: it has no {ROOT} with files below it"),
        false => format!("there is no folder {place}"),
    });
    // Somebody named a folder within it.
    let within = ROOT.match_indices('/').map(|(end, _)| &ROOT[..end]).chain([ROOT]);
    let above = within.filter_map(|part| place.strip_suffix(part)?.strip_suffix('/')).next();
    match above.filter(|above| !above.is_empty() && !above.ends_with('/')) {
        Some(above) => failure.with_fix(format!("name the folder or bucket that contains `docker`: {above}")),
        None => failure
            .with_fix("name the folder or bucket that the registry is configured with (`rootdirectory`)"),
    }
}

fn shown_place(place: &StoreUrl) -> String {
    place.folder().map_or_else(|| place.to_string(), |folder| folder.display().to_string())
}

/// Neither may lie where the other one writes. In one folder or below one prefix they can be.
fn apart(source: &StoreUrl, store: &StoreUrl) -> Result<()> {
    let below = |place: &StoreUrl, part: &str| {
        StoreUrl::parse(&format!("{}/{part}", place.canonical().trim_end_matches('/')))
    };
    let theirs = below(source, ROOT)?;
    if theirs.contains(store) {
        return Err(Failure::invalid(format!(
            "the store is within {}, which the other registry writes; put it beside that, for example at {}",
            theirs.canonical(),
            source.canonical(),
        )));
    }
    for part in ["store", "blobs", "data", "meta", "uploads", "jobs"] {
        let ours = below(store, part)?;
        if ours.contains(&theirs) {
            return Err(Failure::invalid(format!(
                "the source is within {}, which the store writes, and where its gc removes what it does not know; make a \
                 store elsewhere, or move the source",
                ours.canonical(),
            )));
        }
    }
    Ok(())
}

fn explained(opened: &Opened, source: &StoreUrl, error: AdoptError) -> Failure {
    match error {
        AdoptError::Store(error) => match RegistryError::into_engine(error) {
            Ok(error) => opened.explain(error),
            Err(error) => Failure::new(Kind::Unavailable, error.to_string()),
        },
        AdoptError::Nothing => no_registry(source),
        AdoptError::Source(error) => {
            let place = shown_place(source);
            Failure::from(error)
                .with_fix(format!("check the address and the credentials of {place} (-v shows the cause)"))
        }
        error => Failure::not_found(error.to_string()),
    }
}

fn said(at: AdoptProgress) -> String {
    let share = |done: u64, all: u64| (done.min(all) * 100).checked_div(all).unwrap_or(100);
    match at {
        AdoptProgress::Looking => "looking at the source".to_owned(),
        AdoptProgress::Sealing { bytes, of_bytes } => format!("sealing: {} %", share(bytes, of_bytes)),
        AdoptProgress::Verifying { bytes, of_bytes } => format!("reading back: {} %", share(bytes, of_bytes)),
        AdoptProgress::Removing { objects, of_objects } => {
            format!("removing originals: {} %", share(objects, of_objects))
        }
        _ => String::new(),
    }
}

fn print(ctx: &Context, args: &Args, report: &AdoptReport) -> Result<()> {
    if ctx.json {
        let failures = report.failures.iter().map(
            |failure| json!({
                "repository": failure.repository, "what": failure.what, "why": failure.why, "cause": cause(failure.cause),
            }),
        );
        ctx.out.json(&json!({
            "dryRun": args.dry_run,
            "source": tally(report.source),
            "repositories": report.repositories,
            "sealed": tally(report.sealed),
            "present": tally(report.present),
            "manifests": tally(report.manifests),
            "presentManifests": report.present_manifests,
            "tags": report.tags,
            "presentTags": report.present_tags,
            "unlinked": tally(report.unlinked),
            "uploads": tally(report.uploads),
            "dangling": report.dangling,
            "unknown": report.unknown,
            "irregular": report.irregular,
            "verified": tally(report.verified),
            "changed": report.changed,
            "removed": tally(report.removed),
            "unsealed": report.unsealed,
            "failures": failures.collect::<Vec<_>>(),
        }))?;
        return Ok(());
    }
    let would = |text: &'static str, done: &'static str| if args.dry_run { text } else { done };
    let mut fields = vec![
        ("source", shown(report.source)),
        ("repositories", report.repositories.to_string()),
        (would("to seal", "sealed"), shown(report.sealed)),
        ("there already", shown(report.present)),
        ("manifests", format!("{} and {} there already", report.manifests.objects, report.present_manifests)),
        ("tags", format!("{} and {} there already", report.tags, report.present_tags)),
    ];
    for (name, tally) in [("unlinked", report.unlinked), ("uploads", report.uploads)] {
        if tally.objects > 0 {
            fields.push((name, format!("{}, not adopted", shown(tally))));
        }
    }
    if report.dangling > 0 {
        fields
            .push(("dangling", format!("{} links to layers that the source does not have", report.dangling)));
    }
    if let Some(first) = report.unknown.first() {
        fields
            .push(("not its own", format!("{} objects, left alone, such as {first}", report.unknown.len())));
    }
    if let Some(first) = report.irregular.first() {
        fields.push((
            "no files",
            format!("{} links, pipes and the like, such as {first}", report.irregular.len()),
        ));
    }
    if args.delete_source {
        fields.push(("read back", shown(report.verified)));
        fields.push(("removed", shown(report.removed)));
    }
    ctx.out.fields(&fields)?;
    ctx.out.line(format!("{} of {} objects unsealed", report.unsealed, report.source.objects))?;
    Ok(())
}

fn cause(cause: AdoptCause) -> &'static str {
    match cause {
        AdoptCause::Damaged => "damaged",
        AdoptCause::Unsupported => "unsupported",
        AdoptCause::Conflict => "conflict",
        _ => "unavailable",
    }
}

fn verdict(ctx: &Context, args: &Args, report: &AdoptReport) -> Result<()> {
    // What is first in this order decides.
    if let Some(worst) = report.failures.iter().map(|failure| failure.cause).min() {
        let all = report.failures.len();
        let things = if all == 1 { "thing was" } else { "things were" };
        let (kind, fix) = match worst {
            AdoptCause::Damaged => (Kind::Corrupt, "repair or remove them in the source, and run it again"),
            AdoptCause::Unsupported => {
                (Kind::Invalid, "convert or remove what it names in the source, and run it again")
            }
            AdoptCause::Conflict => (Kind::Conflict, "delete one of the two, and run it again"),
            _ => (Kind::Unavailable, "run it again"),
        };
        return Err(Failure::new(kind, format!("{all} {things} not adopted")).with_fix(fix));
    }
    if let Some(first) = report.changed.first() {
        let changed =
            format!("{} objects of the source changed meanwhile, such as {first}", report.changed.len());
        return Err(Failure::new(Kind::Conflict, changed).with_fix("stop the registry, and run it again"));
    }
    if report.unsealed > 0 && args.drop_unlinked {
        let left = format!(
            "{} objects are still there, unsealed: no registry's, or written meanwhile",
            report.unsealed
        );
        let fix = "run it again with the registry stopped, and look at what stays by hand";
        return Err(Failure::new(Kind::Conflict, left).with_fix(fix));
    }
    if report.unsealed > 0 && args.delete_source {
        ctx.note(
            "what no repository has is still there, unsealed: remove it with --drop-unlinked, or by hand",
        );
    }
    if report.unsealed > 0 && !args.delete_source && !args.dry_run {
        ctx.note("the originals are where they were, unsealed: remove them with --delete-source");
    }
    Ok(())
}
