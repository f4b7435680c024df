//! Opening a store: only one that this machine knows, as the one it knows, and no older than it was seen.

use std::time::Duration;

use bulla::bucket::{Bucket, BucketErrorKind};
use bulla::{Engine, ErrorKind, OpenOptions, Store, StoreUrl, Trust};
use bulla_kek::{DenyReason, Providers, remedy};

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};
use crate::key_vault;
use crate::known::{Encryption, KnownStore};
use crate::{host, vaults};

/// An open store, and what was known of it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) url: StoreUrl,
    pub(crate) known: KnownStore,
}

/// The engine with these providers. A command is over in a moment, and does what it says and nothing else: new versions of
/// a key are for processes that stay, and for `bulla rotate`.
pub(crate) fn engine(providers: Providers) -> Engine {
    Engine::builder().providers(providers).node(&host::name()).follow_versions_every(Duration::MAX).build()
}

/// A store that a process opens to keep it open, now or when its key is given back.
pub(crate) struct Opening {
    pub(crate) url: StoreUrl,
    known: KnownStore,
    engine: Engine,
}

/// Why a store is not open.
pub(crate) enum Attempt {
    /// Its key or its bucket can't be used now.
    Later(bulla::Error),
    /// Trying again won't help.
    Never(Failure),
}

/// The store at this URL or path, for a process that stays: new versions of its key are followed.
pub(crate) async fn to_stay(ctx: &Context, text: &str) -> Result<Opening> {
    let (url, known) = known(ctx, text)?;
    let providers = vaults::providers(ctx, &known).await?;
    let engine = Engine::builder().providers(providers).node(&host::name()).build();
    Ok(Opening { url, known, engine })
}

impl Opening {
    pub(crate) async fn attempt(&self) -> Result<Store, Attempt> {
        let prepared = || Ok::<_, Failure>((connect(&self.url)?, remembered(&self.known)?));
        let (bucket, options) = prepared().map_err(Attempt::Never)?;
        self.engine.open(bucket, options).await.map_err(|error| match error.kind() {
            ErrorKind::Revoked | ErrorKind::Unavailable | ErrorKind::Throttled => Attempt::Later(error),
            _ => Attempt::Never(self.explain(error)),
        })
    }

    /// Adds the fix to an engine's error.
    pub(crate) fn explain(&self, error: bulla::Error) -> Failure {
        explain(error, &self.known.encryption)
    }

    /// Ends the lease and remembers the newest record seen.
    pub(crate) async fn close(&self, ctx: &Context, store: &Store) {
        close(ctx, &self.url, store).await;
    }
}

/// Opens the store at this URL or path under its remembered anchor and newest record.
pub(crate) async fn open(ctx: &Context, text: &str) -> Result<Opened> {
    let (url, known) = known(ctx, text)?;
    let providers = vaults::providers(ctx, &known).await?;
    let store = open_as_known(&url, &known, providers).await?;
    Ok(Opened { store, url, known })
}

/// What the engine says of a key that is the second party's.
const OF_THE_SECOND: &str = "of the second party";

/// The store's URL, and what this machine knows of it.
pub(crate) fn known(ctx: &Context, text: &str) -> Result<(StoreUrl, KnownStore)> {
    let url = StoreUrl::parse(text)?;
    match ctx.config.store(url.canonical())? {
        Some(known) => Ok((url, known)),
        None => Err(unknown(&url)),
    }
}

/// Opens a store with exactly these providers.
pub(crate) async fn open_as_known(url: &StoreUrl, known: &KnownStore, providers: Providers) -> Result<Store> {
    let (bucket, options) = (connect(url)?, remembered(known)?);
    engine(providers).open(bucket, options).await.map_err(|error| explain(error, &known.encryption))
}

fn connect(url: &StoreUrl) -> Result<Bucket> {
    url.connect(false).map_err(|error| match error.kind() {
        BucketErrorKind::NotFound => no_store(url, true),
        _ => error.into(),
    })
}

fn remembered(known: &KnownStore) -> Result<OpenOptions> {
    Ok(OpenOptions { trust: Trust::Anchor(known.anchor()?), floor: Some(known.mark()?) })
}

impl Opened {
    /// Adds the fix to an engine's error.
    pub(crate) fn explain(&self, error: bulla::Error) -> Failure {
        explain(error, &self.known.encryption)
    }

    /// Ends the lease and remembers the newest record seen.
    pub(crate) async fn close(self, ctx: &Context) {
        close(ctx, &self.url, &self.store).await;
    }
}

async fn close(ctx: &Context, url: &StoreUrl, store: &Store) {
    store.close().await;
    let mark = store.mark();
    let remembered = ctx.config.update(url.canonical(), |known| {
        known.map(|mut known| {
            known.advance(mark);
            known
        })
    });
    if let Err(failure) = remembered {
        // The command's work is done; what was known still protects, only from an older past.
        tracing::warn!(%failure, "the newest log record seen could not be remembered");
    }
}

fn unknown(url: &StoreUrl) -> Failure {
    if url.folder().is_some_and(|folder| !folder.join("store").is_dir()) {
        return no_store(url, false);
    }
    Failure::invalid(format!(
        "this machine does not know the store {url}, and can't tell it from a forgery: `bulla attach {url} --kek KEY_ID \
         --anchor A` with the anchor that `bulla init` printed, or --trust-on-first-use instead of --anchor"
    ))
}

fn no_store(url: &StoreUrl, was_known: bool) -> Failure {
    let message = format!("there is no store at {url}");
    Failure::not_found(message).with_fix(if was_known {
        "mount or restore its folder"
    } else {
        "check the address, or make one there with `bulla init`"
    })
}

/// How errors begin that are about one blob; the others are about the store.
const OF_ONE_BLOB: [&str; 4] = ["data of", "the content of", "the envelope of", "an envelope"];

/// How errors begin that are about a key that nobody here may be asked about.
pub(crate) const NO_PROVIDER: &str = "no provider is configured for";

/// How errors begin that are about a key that the store is to be put under.
const OF_A_NAMED_KEY: &str = "the identity `";

/// How commands begin in errors that say already what to do.
const COMMANDS: [&str; 3] = ["`bulla ", "`az ", "`pkcs11-tool "];

/// What to do about an error, where the engine does not say it already.
pub(crate) fn explain(error: bulla::Error, encryption: &Encryption) -> Failure {
    let kind = error.kind();
    let message = error.to_string();
    let mut failure = Failure::from(error);
    if failure.denied == Some(DenyReason::NotFound) && message.starts_with(OF_A_NAMED_KEY) {
        // Nothing was taken away: the name is wrong.
        failure.kind = Kind::NotFound;
        return failure;
    }
    if COMMANDS.iter().any(|start| message.contains(start)) {
        return failure;
    }
    if let Some(fix) = key_vault::fix(&message) {
        return failure.with_fix(fix);
    }
    match kind {
        ErrorKind::Revoked => {
            let second = encryption.second_party.as_ref().filter(|_| message.contains(OF_THE_SECOND));
            let (key, identity) = match second {
                Some(second) => (&second.versioned_key_identifier, &second.identity),
                None => (&encryption.versioned_key_identifier, &encryption.identity),
            };
            let fix = failure.denied.map(|reason| restore(reason, key, identity));
            failure.with_fix(fix.unwrap_or_else(|| "its owner can restore it".to_owned()))
        }
        ErrorKind::Invalid if message.starts_with(NO_PROVIDER) => failure.with_fix(
            "tell this machine where the key is: `bulla attach STORE --kek vault+file:///DIR/keys/NAME --anchor A`",
        ),
        ErrorKind::Unavailable => failure.with_fix("try again later (-v shows the cause)"),
        ErrorKind::Corrupt if message.contains("restore") => failure,
        ErrorKind::Corrupt if OF_ONE_BLOB.iter().any(|start| message.starts_with(start)) => {
            failure.with_fix("put the blob again")
        }
        ErrorKind::Corrupt => failure.with_fix("restore the store from a copy"),
        _ => failure,
    }
}

/// How the key's owner gives the key back.
fn restore(reason: DenyReason, key: &str, identity: &str) -> String {
    match key.parse() {
        Ok(uri) => remedy::restore(reason, &uri, identity),
        Err(_) => format!("restore {key} for the identity {identity}"),
    }
}

/// Says that the store's kind of trouble is about the whole store, for `status`.
pub(crate) fn is_about_the_key(failure: &Failure) -> bool {
    matches!(failure.kind, Kind::Revoked | Kind::Unavailable | Kind::Throttled)
}
