//! `bulla init`: makes a store and remembers its anchor.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bulla::{CreateOptions, ErrorKind, Managed, Mode, OpenOptions, PartyKey, Status, Store, StoreUrl, Trust};
use bulla_kek::Identity;
use serde_json::{Value, json};

use crate::context::Context;
use crate::encryption::{self, Wanted};
use crate::exit::{Failure, Kind, Result};
use crate::known::{Encryption, KnownStore, VaultPlace};
use crate::vaults::{self, Key};
use crate::{open, service};

/// Make a store, print its anchor and remember it here
///
/// Without --kek the key is service-managed: an AES key in a vault beside the configuration, until `bulla rotate` puts
/// the store under a key of yours. The anchor tells this store from a forgery: pin it wherever the store is opened.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla init ./store
  bulla init ./store --kek vault+file:///srv/vault/keys/registry --identity registry
  bulla init ./store --kek https://contoso.vault.azure.net/keys/registry --identity CLIENT_ID
  bulla init ./store --kek 'pkcs11:token=HSM;object=registry'
  bulla init s3://bucket/prefix --kek vault+file:///srv/vault/keys/registry --revocation-bound 30s
  bulla init ./store --encryption encryption.json
  bulla init ./store --kek vault+file:///srv/vault/keys/registry --mode direct
  bulla init ./store --kek https://contoso.vault.azure.net/keys/registry --identity CLIENT_ID \\
    --and-kek 'pkcs11:token=HSM;object=registry'   # two parties: both keys are needed
  bulla init ./store --json | jq -r .anchor")]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// The key of yours that the store is to be under. Without a version, its newest: new ones are followed by processes
    /// that keep the store open, and by `bulla rotate`
    #[arg(long, value_name = "KEY_ID")]
    pub(crate) kek: Option<String>,
    /// As whom the key is used: `system`, or the id of an identity that its vault knows (for Key Vault a managed
    /// identity's client id)
    #[arg(long, value_name = "ID", default_value = "system")]
    pub(crate) identity: Identity,
    /// A second party's key, in a vault or token of its own: both keys are needed, and either one's owner closes the store
    #[arg(long, value_name = "KEY_ID", requires = "kek", conflicts_with_all = ["encryption", "service_vault"])]
    pub(crate) and_kek: Option<String>,
    /// As whom the second party's key is used
    #[arg(long, value_name = "ID", default_value = "system", requires = "and_kek")]
    pub(crate) and_identity: Identity,
    /// What wraps data keys: a store key, so that rotating the key is one small write at any size of the store; or directly
    /// the key itself, which then sees every blob and wraps every data key again when it is rotated
    #[arg(long, value_name = "MODE", default_value = "hierarchical")]
    pub(crate) mode: WrappingMode,
    /// Revocation takes effect within this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) revocation_bound: Duration,
    /// Accept a vault without purge protection, or a key that can be destroyed on its token or taken out of it
    #[arg(long)]
    pub(crate) allow_unprotected_key: bool,
    /// Key and identity from a file: the `encryption` block of a registry's ARM template, { "status": "enabled",
    /// "keyVaultProperties": { "identity": "ID", "keyIdentifier": "KEY_ID" } }
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kek", "identity"])]
    pub(crate) encryption: Option<PathBuf>,
    /// Where a service-managed key is to be (default for folders: beside the configuration)
    #[arg(long, value_name = "DIR", conflicts_with = "kek")]
    pub(crate) service_vault: Option<PathBuf>,
}

/// [`Mode`], as it is typed.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum WrappingMode {
    #[default]
    Hierarchical,
    Direct,
}

impl From<WrappingMode> for Mode {
    fn from(mode: WrappingMode) -> Self {
        match mode {
            WrappingMode::Hierarchical => Self::Hierarchical,
            WrappingMode::Direct => Self::Direct,
        }
    }
}

pub(crate) async fn run(ctx: &Context, mut args: Args) -> Result<()> {
    let url = StoreUrl::parse(&ctx.store(args.store.as_deref())?)?;
    ctx.config.check()?;
    if let Some(path) = &args.encryption
        && let Wanted::CustomerManaged { key, identity } = encryption::read(path)?
    {
        if args.service_vault.is_some() {
            return Err(Failure::invalid(format!(
                "{} names a key of yours; leave --service-vault out",
                path.display()
            )));
        }
        (args.kek, args.identity) = (Some(key), identity);
    }
    let made = match &args.kek {
        Some(text) => customer(ctx, &url, &args, text).await?,
        None => service_managed(ctx, &url, &args).await?,
    };
    if ctx.json {
        ctx.out.json(&made)?;
    } else {
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        ctx.out.fields(&[
            ("store", text("store")),
            ("id", text("id")),
            ("anchor", text("anchor")),
            ("key", format!("{} ({}-managed)", text("key"), text("managedBy"))),
        ])?;
        if let Some(second) = made["secondParty"]["key"].as_str() {
            ctx.out.fields(&[("and key", format!("{second} (the second party's)"))])?;
        }
    }
    Ok(())
}

async fn customer(ctx: &Context, url: &StoreUrl, args: &Args, text: &str) -> Result<Value> {
    let key = vaults::key(ctx, text).await?;
    refuse_service_key(&key)?;
    let second = match &args.and_kek {
        Some(text) => Some(vaults::key(ctx, text).await?),
        None => None,
    };
    if let Some(second) = &second {
        refuse_service_key(second)?;
    }
    let created = create(url, &key, second.as_ref(), args, Managed::Customer).await?;
    finish(ctx, url, &created, &key, second.as_ref()).await
}

async fn service_managed(ctx: &Context, url: &StoreUrl, args: &Args) -> Result<Value> {
    let dir = service::folder(&ctx.config, url, args.service_vault.as_deref())?;
    let made = service::make(&dir, &args.identity)?;
    let store = match create(url, &made.key, None, args, Managed::Service).await {
        Ok(store) => store,
        // Nobody else has this key, so a store that it opens is the one just made, whatever the error says.
        Err(failure) if failure.kind != Kind::Conflict => match opens(url, &made.key).await {
            Ok(store) => store,
            Err(ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Corrupt) => return Err(failure),
            Err(_) => {
                made.keep();
                return Err(failure.with_fix(format!(
                    "whether the store was made is not known; its key is kept in {}: look later, and if there is no \
                     store, remove that folder and try again",
                    dir.display()
                )));
            }
        },
        Err(failure) => return Err(failure),
    };
    // Whatever happens now, the store hangs on this key.
    let key = made.keep();
    finish(ctx, url, &store, &key, None).await
}

/// A service key belongs to one store and is destroyed when that leaves it.
pub(crate) fn refuse_service_key(key: &Key) -> Result<()> {
    if let Some(place) = key.service_place() {
        return Err(Failure::invalid(format!(
            "{} holds a service-managed key, which belongs to one store alone and is destroyed when that store leaves it; \
             make a key of your own with `bulla vault create DIR` and `bulla vault key create DIR --name K`",
            place.dir.display()
        )));
    }
    Ok(())
}

async fn create(
    url: &StoreUrl,
    key: &Key,
    second: Option<&Key>,
    args: &Args,
    managed: Managed,
) -> Result<Store> {
    let options = CreateOptions {
        mode: args.mode.into(),
        key: key.id.clone(),
        identity: args.identity.clone(),
        managed,
        revocation_bound: args.revocation_bound,
        allow_unprotected_key: args.allow_unprotected_key,
        second: second.map(|second| PartyKey { key: second.id.clone(), identity: args.and_identity.clone() }),
    };
    let encryption = Encryption::of_key(&key.id, args.identity.as_str());
    let providers = key.providers();
    let engine = open::engine(match second {
        Some(second) => second.beside(providers),
        None => providers,
    });
    if url.folder().is_some_and(|folder| !folder.exists()) {
        // Before the folder is made: a key or setting that is refused leaves none behind.
        engine.check(&options).await.map_err(|error| open::explain(error, &encryption))?;
    }
    engine.create(url.connect(true)?, options).await.map_err(|error| {
        if error.kind() == ErrorKind::Conflict {
            // Somebody's template says "disabled" now.
            let disabled = managed == Managed::Service && args.encryption.is_some();
            let more = if disabled { ", whose encryption can't be turned off" } else { "" };
            let message = format!(
                "there is a store at {url} already{more}; use it (`bulla status`, `bulla attach`), or choose an empty place"
            );
            return Failure::new(Kind::Conflict, message).with_source(error);
        }
        open::explain(error, &encryption)
    })
}

async fn opens(url: &StoreUrl, key: &Key) -> Result<Store, ErrorKind> {
    let bucket = url.connect(false).map_err(|_| ErrorKind::NotFound)?;
    let options = OpenOptions { trust: Trust::OnFirstUse, floor: None };
    open::engine(key.providers()).open(bucket, options).await.map_err(|error| error.kind())
}

async fn finish(
    ctx: &Context,
    url: &StoreUrl,
    store: &Store,
    key: &Key,
    second: Option<&Key>,
) -> Result<Value> {
    let status = store.status().await;
    store.close().await;
    let status = status?;
    let mut vaults = key.vaults();
    vaults.extend(second.map(Key::vaults).unwrap_or_default());
    let known = remember(ctx, url, &status, vaults)?;
    Ok(describe(url, &known))
}

/// Remembers a store that was just made.
fn remember(
    ctx: &Context,
    url: &StoreUrl,
    status: &Status,
    vaults: BTreeMap<String, VaultPlace>,
) -> Result<KnownStore> {
    let known = KnownStore::of(status, vaults);
    let mut replaced = None;
    let remembered = ctx.config.update(url.canonical(), |before| {
        replaced = before;
        Some(known.clone())
    });
    remembered.map_err(|failure| {
        failure.with_fix(format!("the store was made, with the anchor {}: `bulla attach` it", known.anchor))
    })?;
    for place in replaced.iter().flat_map(|known| known.vaults.values()).filter(|place| place.is_service()) {
        ctx.note(format!(
            "this machine knew another store at this place; if that is gone for good, remove its key: {}",
            place.dir.display()
        ));
    }
    Ok(known)
}

/// What `init` and `attach` print.
pub(crate) fn describe(url: &StoreUrl, known: &KnownStore) -> Value {
    let Encryption { key_identifier, customer_managed, identity, second_party, .. } = &known.encryption;
    let mut described = json!({
        "store": url.canonical(),
        "id": known.store_id,
        "anchor": known.anchor,
        "key": key_identifier,
        "identity": identity,
        "managedBy": if *customer_managed { "customer" } else { "service" },
    });
    if let Some(second) = second_party {
        described["secondParty"] = json!({ "key": second.key_identifier, "identity": second.identity });
    }
    described
}
