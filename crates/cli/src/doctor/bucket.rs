//! The bucket: reachable, everything allowed that a store does, conditions kept, and its clock.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bulla::StoreUrl;
use bulla::bucket::{Bucket, BucketError, BucketErrorKind};
use bulla::kek::SystemRandom;
use bulla_envelope::random::RandomSource;

use super::report::Report;
use crate::exit::{Kind, Result, one_line};
use crate::known::KnownStore;
use crate::output;

/// What times of objects are rounded to, at worst (HTTP dates), and what a request may take.
const ROUNDED: Duration = Duration::from_secs(2);
/// From here on times in the audit log and validities of keys are off by more than people expect.
const NOTICEABLE: Duration = Duration::from_secs(30);
/// From here on clouds refuse requests and tokens as too old or from the future (Azure and Kerberos after 5 minutes, S3
/// after 15).
const REFUSED: Duration = Duration::from_secs(300);
/// What a cause may take of a line.
const MAX_CAUSE: usize = 300;

/// The bucket, if it can be looked into. `planned`: there need not be a store in it yet.
pub(super) async fn check(
    report: &mut Report<'_>,
    url: &StoreUrl,
    known: Option<&KnownStore>,
) -> Result<Option<Bucket>> {
    const CHECK: &str = "bucket";
    let bucket = match url.connect(false) {
        Ok(bucket) => bucket,
        Err(error) if error.kind() == BucketErrorKind::NotFound && known.is_none() => {
            report.skipped(CHECK, format!("there is nothing at {url} yet; `bulla init` makes the folder"))?;
            return Ok(None);
        }
        Err(error) => {
            report.problem(CHECK, kind(&error), told(&error), fix(&error, "use it", url))?;
            return Ok(None);
        }
    };
    let waiting = report.waiting("asking the bucket");
    let before = SystemTime::now();
    let rights = bucket.rights(random()).await;
    let after = SystemTime::now();
    drop(waiting);
    if let Err(error) = &rights.list
        && error.kind() != BucketErrorKind::PermissionDenied
    {
        // Nothing else would say more.
        report.problem(CHECK, kind(error), told(error), fix(error, "list", url))?;
        return Ok(None);
    }
    let mut may = Vec::new();
    let tried = [
        ("list", Some(&rights.list)),
        ("read", Some(&rights.read)),
        ("write", Some(&rights.write)),
        ("delete", rights.delete.as_ref()),
    ];
    for (right, outcome) in tried {
        match outcome {
            Some(Ok(())) => may.push(right),
            Some(Err(error)) => report.problem(
                CHECK,
                kind(error),
                format!("this machine can't {right} objects: {}", told(error)),
                fix(error, right, url),
            )?,
            None => report.skipped(CHECK, format!("there is nothing of ours to {right}"))?,
        }
    }
    if may.len() == tried.len() {
        report.ok(CHECK, format!("this machine may list, read, write and delete objects in {url}"))?;
    }
    if rights.write.is_ok() {
        conditions(report, &bucket, url).await?;
    }
    if let Some(written) = rights.written {
        clock(report, written, before, after)?;
    }
    Ok(Some(bucket))
}

async fn conditions(report: &mut Report<'_>, bucket: &Bucket, url: &StoreUrl) -> Result<()> {
    const CHECK: &str = "conditions";
    let waiting = report.waiting("racing conditional writes");
    let probed = bucket.probe(random()).await;
    drop(waiting);
    match probed {
        Ok(()) => {
            report.ok(CHECK, "it creates only where nothing is, and updates only what was read, in races too")
        }
        Err(error) if error.kind() == BucketErrorKind::Unsupported => {
            let text = error.to_string();
            let (what, fix) = text.split_once("; ").unwrap_or((&text, "use another store"));
            report.problem(CHECK, Kind::Invalid, what, fix)
        }
        Err(error) => report.problem(CHECK, kind(&error), told(&error), fix(&error, "write", url)),
    }
}

fn clock(report: &mut Report<'_>, written: SystemTime, before: SystemTime, after: SystemTime) -> Result<()> {
    const CHECK: &str = "clock";
    let (off, direction) = apart(written, before, after);
    if off <= NOTICEABLE {
        return report.ok(CHECK, "this machine and the bucket have the same time");
    }
    let text = format!(
        "this machine's clock is {} {direction} the bucket's ({} here)",
        humantime::format_duration(Duration::from_secs(off.as_secs())),
        output::time(after)
    );
    let synchronize = "synchronize the clock that is wrong (`timedatectl set-ntp true`, chrony)";
    if off >= REFUSED {
        let why = format!(
            "{text}: clouds refuse requests and tokens of such clocks, and keys seem valid that are not"
        );
        return report.problem(CHECK, Kind::Invalid, why, synchronize);
    }
    report.warning(
        CHECK,
        format!("{text}: validities of keys and times in the audit log are off"),
        synchronize,
    )
}

/// How far the bucket's clock is from the span in which it was read, and where this machine's is.
fn apart(written: SystemTime, before: SystemTime, after: SystemTime) -> (Duration, &'static str) {
    if let Ok(ahead) = before.duration_since(written) {
        return (ahead.saturating_sub(ROUNDED), "ahead of");
    }
    let behind = written.duration_since(after).unwrap_or_default();
    (behind.saturating_sub(ROUNDED), "behind")
}

fn kind(error: &BucketError) -> Kind {
    match error.kind() {
        BucketErrorKind::NotFound => Kind::NotFound,
        BucketErrorKind::Unavailable => Kind::Unavailable,
        BucketErrorKind::Throttled => Kind::Throttled,
        _ => Kind::Invalid,
    }
}

/// An error with its innermost cause: here somebody wants to know.
fn told(error: &BucketError) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let (text, cause) = (error.to_string(), one_line(&cause.to_string()));
    if text == cause {
        return text;
    }
    let cause: String = cause.chars().take(MAX_CAUSE).collect();
    format!("{text} ({cause})")
}

fn fix(error: &BucketError, right: &str, url: &StoreUrl) -> String {
    let denied = error.kind() == BucketErrorKind::PermissionDenied;
    if denied && format!("{error:?}").contains("RequestTimeTooSkewed") {
        return "set this machine's clock (`timedatectl set-ntp true`): requests of other times are refused"
            .to_owned();
    }
    match (error.kind(), url.folder()) {
        (BucketErrorKind::NotFound, Some(folder)) => format!("mount or restore the folder {}", folder.display()),
        (BucketErrorKind::NotFound, None) => {
            format!(
                "check the name in {url}, or make the bucket or container (`aws s3 mb`, `az storage container create`, `gcloud \
                 storage buckets create`)"
            )
        }
        (BucketErrorKind::PermissionDenied, Some(folder)) => {
            format!("run as the owner of {0}, or give it to this user: `chown -R $USER {0}`", folder.display())
        }
        (BucketErrorKind::PermissionDenied, None) => {
            let s3 = match right {
                "list" => "s3:ListBucket",
                "read" => "s3:GetObject",
                "write" => "s3:PutObject",
                "delete" => "s3:DeleteObject",
                _ => "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject",
            };
            format!(
                "check the credentials (AWS_…, AZURE_…, GOOGLE_…) and grant them {s3}, the role `Storage Blob Data Contributor` \
                 or `roles/storage.objectUser`"
            )
        }
        (BucketErrorKind::Invalid, _) => "set the options of the store in the environment (AWS_…, AZURE_…, GOOGLE_…)".to_owned(),
        (BucketErrorKind::Throttled, _) => "try again later, or raise the store's limits".to_owned(),
        _ => "see that the network, a proxy or the endpoint (AWS_ENDPOINT, AZURE_STORAGE_ENDPOINT, GOOGLE_BASE_URL) is right, and \
              try again"
            .to_owned(),
    }
}

fn random() -> [u8; 16] {
    let mut nonce = [0; 16];
    SystemRandom.fill(&mut nonce);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_apart_by_what_neither_rounding_nor_the_request_explains() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (written, off, direction) in [
            (at(1000), 0, "ahead of"),
            (at(999), 0, "ahead of"),
            (at(1003), 0, "behind"),
            (at(900), 98, "ahead of"),
            (at(1100), 93, "behind"),
        ] {
            let found = apart(written, at(1000), at(1005));
            assert_eq!((found.0.as_secs(), found.1), (off, direction), "{written:?}");
        }
    }
}
