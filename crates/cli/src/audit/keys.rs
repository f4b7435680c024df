//! The operator's keys: the private one in a file, the public one as text.

use std::fs;
use std::path::{Path, PathBuf};

use bulla::audit_format::{Checkpoint, PublicKey, SigningKey};
use bulla::{StoreId, kek::SystemRandom};
use serde_json::json;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::durable;
use crate::exit::{Failure, Kind, Result};
use crate::open;

/// The largest file that is taken for a key or a checkpoint, in bytes.
const MAX_LEN: u64 = 64 << 10;

/// Make the key that signs a store's checkpoints, and print the public half
///
/// One key per store. Give the public half to auditors and to machines that attach the store; keep the private one off the
/// bucket, and off the nodes if you can: only `checkpoint` and `export` need it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla audit keygen ./store --out audit.key > audit.pub")]
pub(super) struct Keygen {
    /// A folder or a URL, or BULLA_STORE
    #[arg(value_name = "STORE")]
    store: Option<String>,
    /// The file to write the private key to; never one that exists
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn generate(ctx: &Context, args: Keygen) -> Result<()> {
    let (_, known) = open::known(ctx, &ctx.store(args.store.as_deref())?)?;
    let store: StoreId = known
        .store_id
        .parse()
        .map_err(|_| Failure::new(Kind::Corrupt, "what this machine remembers of the store is damaged"))?;
    if args.out.exists() {
        return Err(Failure::new(
            Kind::Conflict,
            format!("{} exists; a key is never overwritten: choose another file", args.out.display()),
        ));
    }
    let key = SigningKey::generate(&name_for(&store), &SystemRandom).map_err(|error| {
        Failure::new(Kind::Internal, "the store's id is no key's name").with_source(error)
    })?;
    let mut text = key.encode();
    text.push('\n');
    durable::replace_private(&args.out, text.as_bytes())
        .map_err(|error| Failure::file("write", &args.out, error))?;
    let public = key.public_key().to_string();
    if ctx.json {
        ctx.out.json(&json!({ "publicKey": public, "file": args.out }))?;
    } else {
        ctx.out.line(public)?;
    }
    Ok(())
}

/// What a store's key is called: its log's origin.
pub(super) fn name_for(store: &StoreId) -> String {
    Checkpoint::origin_of(store)
}

pub(super) fn read_private(path: &Path) -> Result<SigningKey> {
    let text = Zeroizing::new(read(path)?);
    SigningKey::parse(text.trim_end()).map_err(|error| {
        Failure::invalid(format!("{}: {error}", path.display()))
            .with_fix("give the file that `bulla audit keygen --out` wrote")
    })
}

/// A public key, or a file with one.
pub(crate) fn read_public(given: &str) -> Result<PublicKey> {
    let problem = match given.parse() {
        Ok(key) => return Ok(key),
        Err(problem) => problem,
    };
    let path = Path::new(given);
    let described = |what: String| {
        Failure::invalid(what).with_fix("give what `bulla audit keygen` printed, or a file with it")
    };
    if !path.exists() {
        return Err(described(format!("`{given}` is no public key: {problem}")));
    }
    read(path)?.trim_end().parse().map_err(|problem| described(format!("{given}: {problem}")))
}

/// A checkpoint that this key signed.
pub(crate) fn read_checkpoint(path: &Path, key: &PublicKey) -> Result<Checkpoint> {
    Checkpoint::open(&read(path)?, key).map_err(|error| {
        Failure::new(Kind::Corrupt, format!("{}: {error}", path.display()))
            .with_fix("give a file that `bulla audit checkpoint` printed, and the public half of the key that signed it")
    })
}

fn read(path: &Path) -> Result<String> {
    let failed = |error| Failure::file("read", path, error);
    if fs::metadata(path).map_err(failed)?.len() > MAX_LEN {
        return Err(Failure::invalid(format!("{} is too large for a key or a checkpoint", path.display())));
    }
    fs::read_to_string(path).map_err(failed)
}
