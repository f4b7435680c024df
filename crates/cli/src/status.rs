//! `bulla status`: the encryption of a store, in the shape of `az acr encryption show`.

use std::time::Duration;

use bulla::{FollowedVersions, Mode, PartyStatus, Status, StoreKeyState, StoreUrl};
use bulla_kek::{KeyDescription, LeaseState};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::known::{Encryption, KnownStore};
use crate::open::{self, Opened};
use crate::{host, output};

/// Show the encryption of a store, as JSON in the shape of `az acr encryption show`
///
/// With --verbose everything that is known: of the key also since when it is as it is, what failed last, and when its
/// provider is asked next. Where the key is revoked or out of reach, the command fails, and shows what this machine
/// remembers from when it last was not, and what to do.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla status ./store
  bulla status ./store | jq -r .keyVaultProperties.versionedKeyIdentifier
  bulla status ./store --verbose")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let (url, known) = open::known(ctx, &ctx.store(args.store.as_deref())?)?;
    match look(ctx, &url).await {
        Ok((opened, status)) => {
            ctx.config.update(url.canonical(), |known| {
                known.map(|mut known| {
                    known.saw(&status);
                    known
                })
            })?;
            // Of the secrets that are there while the store is open.
            let locked = host::secrets_are_locked();
            opened.close(ctx).await;
            let encryption = Encryption::of(&status);
            let mut shown = plain(&encryption);
            if ctx.verbose > 0 {
                add(&mut shown, everything(&url, &status, locked));
            }
            print(ctx, &shown)
        }
        Err(failure) => {
            if open::is_about_the_key(&failure) {
                let mut shown = plain(&known.encryption);
                add(&mut shown, unusable(&known.encryption, &failure));
                if ctx.verbose > 0 {
                    add(&mut shown, remembered(&url, &known));
                }
                print(ctx, &shown)?;
            }
            Err(failure)
        }
    }
}

async fn look(ctx: &Context, url: &StoreUrl) -> Result<(Opened, Status)> {
    let opened = open::open(ctx, url.canonical()).await?;
    match opened.store.status().await {
        Ok(status) => Ok((opened, status)),
        Err(error) => Err(opened.explain(error)),
    }
}

fn print(ctx: &Context, shown: &Value) -> Result<()> {
    if ctx.json {
        ctx.out.json(shown)?;
    } else {
        ctx.out.pretty_json(shown)?;
    }
    Ok(())
}

/// Exactly what `az acr encryption show` has, for a store under a customer's key.
fn plain(encryption: &Encryption) -> Value {
    if !encryption.customer_managed {
        // `az` shows nothing else of a registry under Microsoft's keys; it is encrypted all the same.
        return json!({ "keyVaultProperties": null, "managedBy": "service", "status": "disabled" });
    }
    let mut shown = json!({
        "keyVaultProperties": {
            "identity": encryption.identity,
            "keyIdentifier": encryption.key_identifier,
            "keyRotationEnabled": encryption.key_rotation_enabled,
            "lastKeyRotationTimestamp": encryption.last_key_rotation_timestamp,
            "versionedKeyIdentifier": encryption.versioned_key_identifier,
        },
        "status": "enabled",
    });
    if let Some(second) = &encryption.second_party {
        shown["secondParty"] = json!({
            "identity": second.identity,
            "keyIdentifier": second.key_identifier,
            "keyRotationEnabled": second.key_rotation_enabled,
            "versionedKeyIdentifier": second.versioned_key_identifier,
        });
    }
    shown
}

fn add(shown: &mut Value, more: Value) {
    if let (Value::Object(shown), Value::Object(more)) = (shown, more) {
        shown.extend(more);
    }
}

fn everything(url: &StoreUrl, status: &Status, locked: bool) -> Value {
    let bound = Duration::from_millis(status.revocation_bound_ms);
    json!({
        "managedBy": managed_by(&Encryption::of(status)),
        "store": { "url": url.canonical(), "id": status.store.to_string(), "anchor": status.anchor.to_string(),
                   "created": output::time(status.created) },
        "log": { "number": status.log.number, "hash": HEXLOWER.encode(&status.log.hash),
                 "read": output::time(status.read) },
        "mode": match status.mode { Mode::Direct => "direct", _ => "hierarchical" },
        "dataEncryption": "Cobblestone-256 (AES-256-GCM, HKDF-SHA-512), a key per blob",
        "revocationBound": humantime::format_duration(bound).to_string(),
        "key": key(status),
        "secondKey": status.second.as_ref().map(second_key),
        "keyVersions": status.keks.iter().map(|(kek, active)| json!({
            "key": kek.to_string(), "state": if *active { "active" } else { "retiring" } })).collect::<Vec<_>>(),
        "storeKeys": status.store_keys.iter().map(|(id, state)| json!({
            "id": id.to_string(), "state": store_key_state(*state) })).collect::<Vec<_>>(),
        "secrets": secrets(bound, locked),
        "warnings": status.warnings,
    })
}

fn key(status: &Status) -> Value {
    let report = &status.key_report;
    let (state, reason, until, outage) = match report.state {
        LeaseState::Live { until, outage_since, .. } => ("live", None, Some(until), outage_since),
        LeaseState::Revoked { reason, .. } => ("revoked", Some(reason.code()), None, None),
        LeaseState::Unavailable { .. } => ("unavailable", None, None, None),
        _ => ("expired", None, None, None),
    };
    let mut key = json!({
        "identifier": status.key, "versionedIdentifier": status.versioned_key, "identity": status.identity,
        "state": state, "reason": reason, "since": output::time(report.since),
        "leasedUntil": until.map(output::time), "outageSince": outage.map(output::time),
        "lastFailure": report.last_failure.as_ref().map(|failure| json!({
            "at": output::time(failure.at), "kind": failure.kind.as_str(), "message": failure.message })),
        "nextProbe": report.next_probe.map(output::time),
    });
    if status.follows_versions {
        add(&mut key, followed(&status.versions));
    }
    if let Some(description) = &status.kek {
        add(&mut key, described(description));
    }
    key
}

/// The second party's key. Whether it can be used is said with the first: the store opens by both or not at all.
fn second_key(second: &PartyStatus) -> Value {
    let mut key = json!({
        "identifier": second.key, "versionedIdentifier": second.versioned_key, "identity": second.identity,
    });
    if second.follows_versions {
        add(&mut key, followed(&second.versions));
    }
    if let Some(description) = &second.kek {
        add(&mut key, described(description));
    }
    key
}

fn followed(versions: &FollowedVersions) -> Value {
    if versions.asked.is_none() {
        return json!({});
    }
    json!({ "versions": {
        "asked": versions.asked.map(output::time),
        "newer": versions.newer.as_ref().map(ToString::to_string),
        "notTaken": versions.failure,
    } })
}

fn described(key: &KeyDescription) -> Value {
    json!({
        "kind": key.kind.to_string(),
        "enabled": key.enabled,
        "notBefore": key.not_before.map(output::time),
        "expires": key.expires.map(output::time),
        "softDelete": key.protection.soft_delete,
        "purgeProtection": key.protection.purge_protection,
    })
}

fn store_key_state(state: StoreKeyState) -> &'static str {
    match state {
        StoreKeyState::Active => "active",
        StoreKeyState::Retiring => "retiring",
        StoreKeyState::Retired => "retired",
        _ => "unknown",
    }
}

/// How long and how unwrapped secrets are held in memory.
fn secrets(bound: Duration, locked: bool) -> Value {
    json!({
        "heldAtMost": humantime::format_duration(bound).to_string(),
        "wipedOnRevocation": true,
        "lockedInMemory": locked,
        "coreDumpsPrevented": host::core_dumps_are_prevented(),
    })
}

/// What is the matter with a store that can't be opened now. The rest is how it was when it was seen last, and says so.
fn unusable(encryption: &Encryption, failure: &Failure) -> Value {
    json!({
        "key": {
            "identifier": encryption.key_identifier,
            "versionedIdentifier": encryption.versioned_key_identifier,
            "identity": encryption.identity,
            "state": failure.kind.as_str(),
            "reason": failure.denied.map(bulla_kek::DenyReason::code),
        },
        "seen": encryption.seen,
        "warnings": [format!("{failure}")],
    })
}

/// What this machine remembers beside that.
fn remembered(url: &StoreUrl, known: &KnownStore) -> Value {
    let encryption = &known.encryption;
    let bound = Duration::from_millis(encryption.revocation_bound_ms);
    json!({
        "managedBy": managed_by(encryption),
        "store": { "url": url.canonical(), "id": known.store_id, "anchor": known.anchor },
        "log": { "number": known.number, "hash": known.hash },
        "revocationBound": humantime::format_duration(bound).to_string(),
    })
}

fn managed_by(encryption: &Encryption) -> &'static str {
    if encryption.customer_managed { "customer" } else { "service" }
}
