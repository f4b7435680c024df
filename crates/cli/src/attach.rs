//! `bulla attach`: makes a store known to this machine that another one made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bulla::audit_format::Checkpoint;
use bulla::bucket::BucketErrorKind;
use bulla::{Anchor, OpenOptions, RecordMark, StoreUrl, Trust};
use bulla_kek::Providers;

use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::known::{Encryption, KnownStore};
use crate::{audit, init, open, vaults};

/// Make a store known to this machine that another one made
///
/// Bucket and public key together don't tell a store from a forgery; the anchor that `bulla init` printed does. With
/// --trust-on-first-use whatever is there now is believed, and from then on nothing else.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla attach s3://bucket/prefix --kek vault+file:///srv/vault/keys/registry --anchor bulla-anchor-v1:…
  bulla attach ./store --kek https://contoso.vault.azure.net/keys/registry --anchor bulla-anchor-v1:…
  bulla attach ./store --kek 'pkcs11:token=HSM;object=registry' --anchor bulla-anchor-v1:…
  bulla attach ./store --kek vault+file:///srv/vault/keys/registry --trust-on-first-use
  bulla attach ./store --kek KEY_ID --anchor A --checkpoint monday.checkpoint --checkpoint-key audit.pub")]
#[group(skip)]
pub(crate) struct Args {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// The store's key, as this machine reaches it
    #[arg(long, value_name = "KEY_ID")]
    kek: Option<String>,
    /// The second party's key, as this machine reaches it
    #[arg(long, value_name = "KEY_ID", requires = "kek")]
    and_kek: Option<String>,
    /// The store's anchor, as `bulla init` printed it
    #[arg(long, value_name = "A", required_unless_present = "trust_on_first_use")]
    anchor: Option<Anchor>,
    /// A checkpoint of the store's audit log: an older state of the store is refused
    #[arg(long, value_name = "FILE", requires = "checkpoint_key")]
    checkpoint: Option<PathBuf>,
    /// The public key that signed the checkpoint, or a file with it
    #[arg(long, value_name = "PUBLIC_KEY", requires = "checkpoint")]
    checkpoint_key: Option<String>,
    /// Believe whatever is there now
    #[arg(long, conflicts_with = "anchor")]
    trust_on_first_use: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let url = StoreUrl::parse(&ctx.store(args.store.as_deref())?)?;
    ctx.config.check()?;
    let before = ctx.config.store(url.canonical())?;
    let mut encryption = before.as_ref().map_or_else(Encryption::unknown, |known| known.encryption.clone());
    let (providers, vaults) = match &args.kek {
        Some(text) => {
            let key = vaults::key(ctx, text).await?;
            if before.is_none() {
                encryption = Encryption::of_key(&key.id, &encryption.identity);
            }
            let (mut providers, mut vaults) = (key.providers(), key.vaults());
            if let Some(text) = &args.and_kek {
                let second = vaults::key(ctx, text).await?;
                providers = second.beside(providers);
                vaults.extend(second.vaults());
            }
            (providers, vaults)
        }
        None => match &before {
            Some(known) => (vaults::providers(ctx, known).await?, known.vaults.clone()),
            None => (Providers::new(), BTreeMap::new()),
        },
    };
    let mut options = trust(&args, before.as_ref())?;
    let checkpoint = checkpoint(&args)?;
    if let Some(checkpoint) = &checkpoint {
        let signed = RecordMark::from(checkpoint.log);
        options.floor = options.floor.filter(|floor| floor.number >= signed.number).or(Some(signed));
    }
    let bucket = url.connect(false).map_err(|error| match error.kind() {
        BucketErrorKind::NotFound => {
            Failure::not_found(format!("there is no store at {url}; check the address"))
        }
        _ => error.into(),
    })?;
    let nobody_to_ask = args.kek.is_none() && before.is_none();
    let explained = |error: bulla::Error| {
        if nobody_to_ask && error.to_string().starts_with(open::NO_PROVIDER) {
            return Failure::from(error)
                .with_fix("name the store's key, as this machine reaches it: --kek KEY_ID");
        }
        open::explain(error, &encryption)
    };
    let store = open::engine(providers).open(bucket, options).await.map_err(explained)?;
    let status = match &checkpoint {
        Some(checkpoint) => match store.check_checkpoint(checkpoint).await {
            Ok(()) => store.status().await,
            Err(error) => Err(error),
        },
        None => store.status().await,
    };
    store.close().await;
    let known = KnownStore::of(&status.map_err(explained)?, vaults);
    ctx.config.update(url.canonical(), |_| Some(known.clone()))?;
    let printed = init::describe(&url, &known);
    if ctx.json {
        ctx.out.json(&printed)?;
    } else {
        ctx.out.fields(&[
            ("store", url.to_string()),
            ("id", known.store_id.clone()),
            ("anchor", known.anchor.clone()),
            ("key", known.encryption.key_identifier.clone()),
        ])?;
    }
    Ok(())
}

/// The head of the audit log that the store must be at or after.
fn checkpoint(args: &Args) -> Result<Option<Checkpoint>> {
    match (&args.checkpoint, &args.checkpoint_key) {
        (Some(file), Some(key)) => {
            let key = audit::read_public(key)?;
            audit::read_checkpoint(file, &key).map(Some)
        }
        _ => Ok(None),
    }
}

/// A store that is known already is not met for the first time; only its anchor itself replaces what is remembered.
fn trust(args: &Args, before: Option<&KnownStore>) -> Result<OpenOptions> {
    let known = before.map(|known| Ok::<_, Failure>((known.anchor()?, known.mark()?))).transpose()?;
    Ok(match (args.anchor, known) {
        (Some(anchor), Some((same, mark))) if anchor.ct_eq(&same) => {
            OpenOptions { trust: Trust::Anchor(anchor), floor: Some(mark) }
        }
        (Some(anchor), _) => OpenOptions { trust: Trust::Anchor(anchor), floor: None },
        (None, Some((anchor, mark))) => OpenOptions { trust: Trust::Anchor(anchor), floor: Some(mark) },
        (None, None) => OpenOptions { trust: Trust::OnFirstUse, floor: None },
    })
}
