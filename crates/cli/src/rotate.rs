//! `bulla rotate`: puts a store under another key, version or identity.

use std::collections::BTreeMap;

use bulla::{Managed, Party, PartyKey, RotateOptions, Rotation, Status, StoreUrl};
use bulla_kek::{Identity, KeyId};
use serde_json::json;

use crate::context::Context;
use crate::exit::Result;
use crate::known::{KnownStore, VaultPlace};
use crate::sweep::{self, Show};
use crate::vaults::{self, Key};
use crate::{init, known, open, rewrap, service};

/// Put a store under another key, key version or identity
///
/// One secret is wrapped anew; no data is touched, and reads and writes go on. Run it again if it was interrupted. In direct
/// mode every data key is wrapped again as well: keep the old key version enabled until that is done. When
/// a store leaves its service-managed key for yours, the service's key is destroyed; there is no way back. Rotation is no
/// help against a key that is compromised: who unwrapped the store's secret once keeps it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla vault key create /srv/vault --name registry   # a new version …
  bulla rotate ./store                                # … and the store under it
  bulla rotate ./store --kek vault+file:///srv/vault/keys/other
  bulla rotate ./store --kek https://contoso.vault.azure.net/keys/registry --identity system
  bulla rotate ./store --kek 'pkcs11:token=HSM;object=registry'
  bulla rotate ./store --identity registry-2
  bulla rotate ./store --party second                 # of two parties, the second one's key
  bulla rotate ./store --and-kek 'pkcs11:token=HSM;object=registry'   # bring in a second party
  bulla rotate ./store --rate 100/s                   # in direct mode")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// The new key; without it the newest version of the present one
    #[arg(long, value_name = "KEY_ID")]
    kek: Option<String>,
    /// As whom the key is used from now on
    #[arg(long, value_name = "ID")]
    identity: Option<Identity>,
    /// Whose key, where the store has two parties
    #[arg(long, value_name = "PARTY", default_value = "first")]
    party: WhichParty,
    /// Bring in a second party, whose key is needed as well from then on; it can't be dropped again
    #[arg(long, value_name = "KEY_ID", conflicts_with_all = ["kek", "identity", "party"])]
    and_kek: Option<String>,
    /// As whom the second party's key is used
    #[arg(long, value_name = "ID", default_value = "system", requires = "and_kek")]
    and_identity: Identity,
    /// Accept a vault without purge protection, or a key that can be destroyed on its token or taken out of it
    #[arg(long)]
    allow_unprotected_key: bool,
    #[command(flatten)]
    sweep: sweep::SweepArgs,
}

/// [`Party`], as it is typed.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum WhichParty {
    #[default]
    First,
    Second,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let text = ctx.store(args.store.as_deref())?;
    let (url, known) = open::known(ctx, &text)?;
    let key = match args.kek.as_ref().or(args.and_kek.as_ref()) {
        Some(text) => {
            let key = vaults::key(ctx, text).await?;
            init::refuse_service_key(&key)?;
            Some(key)
        }
        None => None,
    };
    if let Some(key) = &key {
        // First, so that this machine can open the store whatever of the rotation happens.
        ctx.config.update(url.canonical(), |known| {
            known.map(|mut known| {
                known.vaults.extend(key.vaults());
                known.tokens.extend(key.token());
                known
            })
        })?;
    } else {
        service_version(ctx, &known).await?;
    }
    let opened = open::open(ctx, &text).await?;
    let new = key.as_ref().map(|key| key.id.clone());
    let options = RotateOptions {
        party: match args.party {
            WhichParty::First => Party::First,
            WhichParty::Second => Party::Second,
        },
        key: new.clone().filter(|_| args.and_kek.is_none()),
        identity: args.identity,
        allow_unprotected_key: args.allow_unprotected_key,
        second: new
            .filter(|_| args.and_kek.is_some())
            .map(|key| PartyKey { key, identity: args.and_identity }),
    };
    let show = Show::new(ctx, &opened.known);
    let rotated = async {
        let watch = |event| show.event(&event);
        let rotation = opened.store.rotate_watched(options, args.sweep.options(), watch).await;
        let rotated = match rotation {
            Ok(rotation) => opened.store.status().await.map(|status| (rotation, status)),
            Err(error) => Err(error),
        };
        rotated.map_err(|error| opened.explain(error))
    };
    // A rotation is over in a moment and is not interrupted; the sweep that follows it in direct mode is.
    let interrupted = async {
        show.begun().await;
        ctx.interrupt.wait().await
    };
    let rotated = tokio::select! {
        biased;
        interrupted = interrupted => {
            show.end()?;
            opened.close(ctx).await;
            return Err(interrupted.with_fix("the store is under the new key already; `bulla rewrap` goes on with the rest"));
        }
        rotated = rotated => rotated,
    };
    show.end()?;
    if rotated.is_err() {
        forget_unused(ctx, &opened).await;
    }
    let known = opened.known.clone();
    opened.close(ctx).await;
    let (rotation, status) = rotated?;
    let destroyed = settle(ctx, &url, &known, key.as_ref(), &status).await?;
    print(ctx, &known, &rotation, &status, destroyed)
}

/// After a refusal: a vault that the store was not put under is not asked from now on. Best effort.
async fn forget_unused(ctx: &Context, opened: &open::Opened) {
    let Ok(status) = opened.store.status().await else { return };
    let _ = ctx.config.update(opened.url.canonical(), |known| {
        known.map(|mut known| {
            known.vaults.retain(|id, _| status.keks.iter().any(|(kek, _)| kek.host() == id));
            known.tokens = known::tokens(&status);
            known
        })
    });
}

/// A service-managed key gets its new version here: nobody else would make one.
async fn service_version(ctx: &Context, known: &KnownStore) -> Result<()> {
    if known.encryption.customer_managed {
        return Ok(());
    }
    for place in known.vaults.values().filter(|place| place.is_service()) {
        let vault = vaults::open(ctx, place).await?;
        service::new_version(&vault)?;
    }
    Ok(())
}

/// Remembers the store under the keys it has now. Where it left the service's key, that is destroyed, once the store
/// was seen to open without it. Does what an interrupted rotation left undone.
pub(crate) async fn settle(
    ctx: &Context,
    url: &StoreUrl,
    known: &KnownStore,
    key: Option<&Key>,
    status: &Status,
) -> Result<bool> {
    let mut vaults = known.vaults.clone();
    if let Some(key) = key {
        vaults.extend(key.vaults());
    }
    let in_use: Vec<&str> = status.keks.iter().map(|(kek, _)| kek.host()).collect();
    let (kept, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
        vaults.into_iter().partition(|(id, _)| in_use.contains(&id.as_str()));
    let service: Vec<VaultPlace> = left.into_values().filter(VaultPlace::is_service).collect();
    let destroy = status.managed == Managed::Customer && !service.is_empty();
    let now = KnownStore::of(status, kept);
    if destroy {
        opens_alone(ctx, url, &now).await?;
        for place in &service {
            service::destroy(ctx, place)?;
        }
    }
    ctx.config.update(url.canonical(), |_| Some(now))?;
    Ok(destroy)
}

async fn opens_alone(ctx: &Context, url: &StoreUrl, now: &KnownStore) -> Result<()> {
    for place in now.vaults.values() {
        // Opened anew, so that nothing but what is on disk now is believed.
        vaults::close(ctx, &place.dir);
    }
    let providers = vaults::providers(ctx, now).await?;
    let store = open::open_as_known(url, now, providers).await.map_err(|failure| {
        failure.with_fix("the service's key was kept; run `bulla rotate` with the same --kek again")
    })?;
    store.close().await;
    Ok(())
}

fn print(
    ctx: &Context,
    known: &KnownStore,
    rotation: &Rotation,
    status: &Status,
    destroyed: bool,
) -> Result<()> {
    let from: Vec<String> = rotation.from.iter().map(|key| shown(known, key)).collect();
    let second = status.second.as_ref().filter(|_| rotation.party == Party::Second);
    let (to, identity) = match second {
        Some(second) => (&second.versioned_key, &second.identity),
        None => (&status.versioned_key, &status.identity),
    };
    if ctx.json {
        ctx.out.json(&json!({
            "from": from,
            "to": to,
            "party": rotation.party.to_string(),
            "identity": identity,
            "changed": rotation.changed,
            "serviceKeyDestroyed": destroyed,
            "rewrapped": rotation.sweep.as_ref().map(|sweep| sweep.rewrapped),
        }))?;
        return Ok(());
    }
    if rotation.changed && from.is_empty() {
        ctx.out.line(format!("{to} is needed as well from now on"))?;
    } else if rotation.changed && from.iter().all(|from| from == to) {
        ctx.out.line(format!("{to}, used as {identity} from now on"))?;
    } else if rotation.changed {
        ctx.out.line(format!("{} → {to}", from.join(", ")))?;
    } else {
        ctx.out.line(format!("unchanged: {to} is the key's newest version"))?;
    }
    for line in rotation.sweep.iter().flat_map(|sweep| rewrap::lines(known, sweep)) {
        ctx.out.line(line)?;
    }
    if destroyed {
        ctx.out.line("the service-managed key was destroyed; copies of its folder in backups are not")?;
    }
    Ok(())
}

/// A key as its owner would type it.
pub(crate) fn shown(known: &KnownStore, key: &KeyId) -> String {
    match known.vaults.get(key.host()) {
        Some(place) => {
            let (name, version) = (key.name().to_owned(), key.version().map(str::to_owned));
            bulla_kek::KeyUri::VaultFolder { dir: place.dir.clone(), name, version }.to_string()
        }
        None => key.to_string(),
    }
}
