//! The store itself: its log, whether it opens, and what is unfinished in it.

use std::time::Duration;

use bulla::{AuditMode, Bucket, Engine, LogClaims, Managed, OpenOptions, StoreUrl, Trust};
use bulla_envelope::audit::AUDIT_PREFIX;
use bulla_kek::Providers;
use futures::TryStreamExt;

use super::machine;
use super::report::Report;
use crate::exit::{Failure, Result};
use crate::known::KnownStore;
use crate::{host, open as opening, output};

/// What the log claims, if it can be read and goes on from what was seen before.
pub(super) async fn log(
    report: &mut Report<'_>,
    bucket: &Bucket,
    known: Option<&KnownStore>,
) -> Result<Option<LogClaims>> {
    const CHECK: &str = "log";
    let floor = known.and_then(|known| known.mark().ok());
    let waiting = report.waiting("reading the log");
    let claims = LogClaims::read(bucket, floor).await;
    drop(waiting);
    let error = match claims {
        Ok(claims) => {
            let seen = match floor {
                Some(floor) => format!(", and goes on from record {}, which was seen before", floor.number),
                None => String::new(),
            };
            report.ok(CHECK, format!("it is whole up to record {}{seen}", claims.mark.number))?;
            return Ok(Some(claims));
        }
        Err(error) => error,
    };
    if known.is_none() && error.kind() == bulla::ErrorKind::NotFound {
        report.skipped(CHECK, "there is no store in the bucket yet")?;
        return Ok(None);
    }
    let encryption = known.map_or_else(crate::known::Encryption::unknown, |known| known.encryption.clone());
    report.failed(CHECK, &opening::explain(error, &encryption))?;
    // Rolled back or forked, its keys can be looked at all the same.
    Ok(LogClaims::read(bucket, None).await.ok())
}

/// Opens the store as every command does, and looks into it.
pub(super) async fn open(
    report: &mut Report<'_>,
    url: &StoreUrl,
    bucket: &Bucket,
    known: &KnownStore,
    providers: Providers,
) -> Result<()> {
    const CHECK: &str = "open";
    let (Ok(anchor), Ok(mark)) = (known.anchor(), known.mark()) else {
        return report.skipped(CHECK, "without its anchor a store is not opened");
    };
    // A look is no use of the store that an audit log should tell of.
    let engine = Engine::builder()
        .providers(providers)
        .node(&host::name())
        .audit(AuditMode::Off)
        .follow_versions_every(Duration::MAX)
        .build();
    let options = OpenOptions { trust: Trust::Anchor(anchor), floor: Some(mark) };
    let waiting = report.waiting("opening the store");
    let opened = match engine.open(bucket.clone(), options).await {
        Ok(store) => store.status().await.map(|status| (store, status)),
        Err(error) => Err(error),
    };
    drop(waiting);
    let (store, status) = match opened {
        Ok(opened) => opened,
        Err(error) => return report.failed(CHECK, &opening::explain(error, &known.encryption)),
    };
    report.ok(
        CHECK,
        format!(
            "the store opens: log record {} is authentic, the anchor is the remembered one, {} opened it",
            status.log.number, status.versioned_key
        ),
    )?;
    machine::secrets(report)?;
    // Told of here in other words: an expired key by its own check, a service's key below.
    for warning in status.warnings.iter().filter(|warning| !warning.starts_with("the KEK ")) {
        report.warned("store", warning)?;
    }
    if status.managed == Managed::Service {
        report.warning(
            "store",
            "its key is service-managed, and lies beside the configuration of this machine",
            format!(
                "`bulla rotate {url} --kek KEY_ID` puts it under a key of yours, which you can take away"
            ),
        )?;
    }
    store.close().await;
    audit(report, url, bucket).await
}

async fn audit(report: &mut Report<'_>, url: &StoreUrl, bucket: &Bucket) -> Result<()> {
    const CHECK: &str = "audit";
    let (mut batches, mut newest) = (0_u64, None);
    let mut listing = bucket.list(AUDIT_PREFIX);
    loop {
        match listing.try_next().await {
            Ok(Some(entry)) => {
                batches += 1;
                newest = newest.max(Some(entry.last_modified));
            }
            Ok(None) => break,
            Err(error) => return report.failed(CHECK, &Failure::from(error)),
        }
    }
    match newest {
        Some(newest) => report.ok(
            CHECK,
            format!("the audit log has {batches} objects, the newest of {}", output::time(newest)),
        ),
        None => report
            .skipped(CHECK, format!("the store keeps no audit log; `bulla audit start {url}` begins one")),
    }
}
