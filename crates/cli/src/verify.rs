//! `bulla verify`: does everything that should be there check out?

use std::io;
use std::str::FromStr;

use bulla::{Damage, VerifyEvent, VerifyOptions, VerifyProgress, VerifyReport};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::gc::{shown, tally};
use crate::open::{self, Opened};
use crate::progress::Progress;

/// Check that every blob is there and sound
///
/// Every envelope must open and all of its data be there, at exactly its length; the log must be whole. With --deep every
/// byte is read and authenticated, and every blob hashed. It goes on after damage, lists each damaged blob, changes nothing,
/// and ends with exit code 8 if there was any.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla verify ./store
  bulla verify ./store --deep
  bulla verify ./store --sample 1%     # reads one blob of a hundred, others each time
  bulla verify ./store --json | jq -r '.damaged[].digest'")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// Read, authenticate and hash every byte
    #[arg(long)]
    deep: bool,
    /// Do so for a random share of the blobs
    #[arg(long, value_name = "PERCENT")]
    sample: Option<Share>,
}

/// `1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share(f64);

#[derive(Debug)]
struct NotAShare;

impl std::fmt::Display for NotAShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a share is 0% to 100%, such as 1% or 0.5%")
    }
}

impl std::error::Error for NotAShare {}

impl FromStr for Share {
    type Err = NotAShare;

    fn from_str(text: &str) -> Result<Self, NotAShare> {
        let percent: f64 = text.strip_suffix('%').and_then(|text| text.parse().ok()).ok_or(NotAShare)?;
        if (0.0..=100.0).contains(&percent) { Ok(Self(percent / 100.0)) } else { Err(NotAShare) }
    }
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    damaged: Vec<Damage>,
    at: VerifyProgress,
    /// The first line that could not be printed.
    unprinted: Option<io::Error>,
}

/// Not dropped at an interrupt: what was found until then is worth knowing.
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let store = ctx.store(args.store.as_deref())?;
    let opened = tokio::select! {
        interrupted = ctx.interrupt.wait() => return Err(interrupted),
        opened = open::open(ctx, &store) => opened?,
    };
    let read = match args.sample {
        Some(Share(share)) => share,
        None => f64::from(u8::from(args.deep)),
    };
    let mut seen = Seen::default();
    let done = verify(ctx, &opened, read, &mut seen).await;
    opened.close(ctx).await;
    if let Some(error) = seen.unprinted.take() {
        return Err(error.into());
    }
    print(ctx, &seen, done.as_ref().ok())?;
    done?;
    match seen.damaged.len() {
        0 => Ok(()),
        count => {
            let objects = if count == 1 { "1 object is" } else { &format!("{count} objects are") };
            Err(Failure::new(Kind::Corrupt, format!("{objects} damaged"))
                .with_fix("put these blobs again, or restore the objects from a copy"))
        }
    }
}

async fn verify(ctx: &Context, opened: &Opened, read: f64, seen: &mut Seen) -> Result<VerifyReport> {
    let mut progress =
        if read > 0.0 { Progress::new(None, ctx.quiet) } else { Progress::of_blobs(ctx.quiet) };
    let running = opened.store.verify(VerifyOptions { read }, |event| match event {
        VerifyEvent::Progress(at) => {
            seen.at = at;
            if read > 0.0 {
                progress.set(at.bytes, Some(at.of_bytes.max(at.bytes)));
            } else {
                progress.set(at.blobs, Some(at.of_blobs.max(at.blobs)));
            }
        }
        VerifyEvent::Damaged(damage) => {
            if !ctx.json {
                let printed = progress.suspend(|| ctx.out.line(line(&damage)));
                // Seen at once, also where it takes hours to the next.
                let printed = printed.and_then(|()| ctx.out.flush());
                seen.unprinted = seen.unprinted.take().or(printed.err());
            }
            seen.damaged.push(damage);
        }
        _ => {}
    });
    tokio::select! {
        biased;
        interrupted = ctx.interrupt.wait() => Err(interrupted),
        done = running => done.map_err(|error| opened.explain(error)),
    }
}

fn line(damage: &Damage) -> String {
    let digest = damage.digest.as_ref().map(|digest| format!("{digest}  ")).unwrap_or_default();
    format!("damaged  {digest}{}: {}", damage.object, damage.what)
}

/// The whole report; or, where it ended early, what there is of it, if that is worth a line.
fn print(ctx: &Context, seen: &Seen, report: Option<&VerifyReport>) -> Result<()> {
    let Some(report) = report else {
        if seen.at.blobs == 0 && seen.damaged.is_empty() {
            return Ok(());
        }
        if ctx.json {
            let damaged: Vec<Value> = seen.damaged.iter().map(value).collect();
            let at = json!({ "complete": false, "blobs": seen.at.blobs, "damaged": damaged });
            ctx.out.json(&at)?;
        } else {
            let so_far = format!("{} of {}, then it was stopped", seen.at.blobs, seen.at.of_blobs);
            ctx.out.fields(&[("blobs", so_far), ("damaged", seen.damaged.len().to_string())])?;
        }
        return Ok(());
    };
    if ctx.json {
        let mut foreign = tally(report.foreign);
        foreign["names"] = json!(report.foreign_names);
        ctx.out.json(&json!({
            "complete": true,
            "blobs": report.blobs,
            "uploads": report.uploads,
            "read": { "blobs": report.read.objects, "bytes": report.read.bytes },
            "damaged": seen.damaged.iter().map(value).collect::<Vec<_>>(),
            "log": { "records": report.log_records, "stubs": report.log_stubs },
            "data": tally(report.data),
            "unnamed": tally(report.unnamed),
            "foreign": foreign,
        }))?;
        return Ok(());
    }
    let read = match report.read.objects {
        0 => "none; --deep reads them".to_owned(),
        blobs => format!("{blobs} of them, {}", crate::output::size(report.read.bytes)),
    };
    let records = if report.log_records == 1 { "record" } else { "records" };
    let mut fields = vec![
        ("blobs", report.blobs.to_string()),
        ("read", read),
        ("data", shown(report.data)),
        ("log", format!("{} {records}, {} of them stubs", report.log_records, report.log_stubs)),
        ("damaged", report.damaged.to_string()),
    ];
    if report.unnamed.objects > 0 {
        fields.push((
            "unnamed",
            format!("{}, of unfinished or deleted blobs: `bulla gc`", shown(report.unnamed)),
        ));
    }
    if report.foreign.objects > 0 {
        let names = report.foreign_names.join(", ");
        fields.push(("not ours", format!("{}: {names}", shown(report.foreign))));
    }
    ctx.out.fields(&fields)?;
    Ok(())
}

fn value(damage: &Damage) -> Value {
    let digest = damage.digest.as_ref().map(ToString::to_string);
    json!({ "digest": digest, "object": damage.object, "what": damage.what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!("1%".parse::<Share>().unwrap(), Share(0.01));
        assert_eq!("0.5%".parse::<Share>().unwrap(), Share(0.005));
        for bad in ["1", "101%", "-1%", "%", "nan%", "0.01", "inf%"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
