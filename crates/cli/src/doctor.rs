//! `bulla doctor`: looks for everything that is commonly wrong, and says what to run.
//!
//! It is needed most where a store can't be opened, so no check waits for another to succeed. It changes nothing: probe
//! objects are removed again, the audit log is not written, and nothing is remembered.
//!
//! ```text
//! configuration, permissions ─► bucket ─► log ─► vaults ─► each key ─► open ─► machine
//! ```

mod bucket;
mod keys;
mod local;
mod machine;
mod owner;
mod report;
mod store;
mod subject;

use bulla::{LogClaims, StoreUrl};
use bulla_kek::Identity;

use self::report::Report;
use self::subject::Subject;
use crate::context::Context;
use crate::exit::Result;
use crate::known::KnownStore;
use crate::vaults;

/// Look for what is wrong with a store, its key, its bucket or this machine, and say what to run
///
/// Looks at what this machine remembers, file permissions, clocks, the bucket and its conditional writes, the log, the key
/// and what may be done with it, and opens the store. No check needs another to succeed, and nothing is changed. Warnings
/// don't fail the command; problems do, with the exit code of the first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla doctor ./store
  bulla doctor ./store --kek vault+file:///srv/vault/keys/registry --identity registry   # before `init` or `rotate`
  bulla doctor ./store --json | jq '.checks[] | select(.verdict == \"problem\")'")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// A key that the store is to be put under: checked in place of the one it is under
    #[arg(long, value_name = "KEY_ID")]
    kek: Option<String>,
    /// As whom that key would be used (default: as the store's, or `system`)
    #[arg(long, value_name = "ID", requires = "kek")]
    identity: Option<Identity>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let url = StoreUrl::parse(&ctx.store(args.store.as_deref())?)?;
    let mut report = Report::new(ctx);
    let clocks = machine::Clocks::read();
    let planned = args.kek.is_some();
    let known = local::configuration(&mut report, &url, planned)?;
    local::permissions(&mut report, &url, known.as_ref())?;
    let bucket = bucket::check(&mut report, &url, known.as_ref()).await?;
    let claims = match &bucket {
        Some(bucket) => store::log(&mut report, bucket, known.as_ref()).await?,
        None => None,
    };
    let providers = keys::providers(&mut report, known.as_ref()).await?;
    let subjects = match &args.kek {
        Some(text) => named(&mut report, text, args.identity, known.as_ref()).await?,
        None => keys::of_store(&mut report, &url, known.as_ref(), claims.as_ref(), &providers)?,
    };
    let bound = claims.as_ref().map(|claims| claims.revocation_bound);
    for subject in &subjects {
        subject.check(&mut report, &url, bound).await?;
    }
    match (&known, bucket) {
        (Some(known), Some(bucket)) => store::open(&mut report, &url, &bucket, known, providers).await?,
        _ => report
            .skipped("open", "without a store that is known here and its bucket there is nothing to open")?,
    }
    machine::check(&mut report, &clocks)?;
    report.finish()
}

/// The key that was named, if it can be asked about.
async fn named(
    report: &mut Report<'_>,
    text: &str,
    identity: Option<Identity>,
    known: Option<&KnownStore>,
) -> Result<Vec<Subject>> {
    let identity = identity
        .or_else(|| known.and_then(|known| known.encryption.identity.parse().ok()))
        .unwrap_or(Identity::System);
    match vaults::key(report.ctx, text).await {
        Ok(key) => Ok(vec![Subject::planned(key, identity)]),
        Err(failure) => {
            report.failed("provider", &failure)?;
            Ok(Vec::new())
        }
    }
}

/// What a store in this folder or bucket claims to be under, where that could be read.
type Claims<'a> = Option<&'a LogClaims>;
