//! PKCS#11 tokens, as the environment describes them: which module is loaded, and where the PIN comes from.
//!
//! Which tokens are asked is what users typed and this machine remembers with a store: never what a bucket says, or whoever
//! can write to it could have the PIN tried on another token, until that is locked. The variables are in the command's help
//! (`args.rs`).

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use bulla_kek::{KekProvider, TokioRuntime};
use bulla_kek_pkcs11::{PinSource, Pkcs11Options, Pkcs11Provider, UserPin};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};

/// The provider for the token with this label.
pub(crate) async fn provider(ctx: &Context, token: &str) -> Result<Arc<dyn KekProvider>> {
    let opened = || ctx.tokens.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(provider) = opened().get(token) {
        return Ok(Arc::clone(provider));
    }
    let module = set("BULLA_PKCS11_MODULE").map(PathBuf::from).ok_or_else(|| {
        Failure::invalid(format!(
            "the key is on the token {token}: set BULLA_PKCS11_MODULE to the library that its vendor gives for it, for example \
             /usr/lib/softhsm/libsofthsm2.so"
        ))
    })?;
    let mut options = Pkcs11Options::new(module, token, pin(ctx, token).await?);
    options.allow_oaep_sha1 = match set("BULLA_PKCS11_ALLOW_OAEP_SHA1") {
        None => false,
        Some(value) if value == "0" => false,
        Some(value) if value == "1" => true,
        Some(_) => return Err(Failure::invalid("BULLA_PKCS11_ALLOW_OAEP_SHA1 is 1, or is left unset")),
    };
    let provider: Arc<dyn KekProvider> = Arc::new(Pkcs11Provider::new(options, Arc::new(TokioRuntime)));
    opened().insert(token.to_owned(), Arc::clone(&provider));
    Ok(provider)
}

async fn pin(ctx: &Context, token: &str) -> Result<PinSource> {
    if let Some(value) = set("BULLA_PKCS11_PIN") {
        return Ok(PinSource::value(UserPin::new(value.into_encoded_bytes())));
    }
    if let Some(path) = set("BULLA_PKCS11_PIN_FILE") {
        return Ok(PinSource::File(path.into()));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::invalid(format!(
            "the user PIN of the token {token} is needed: set BULLA_PKCS11_PIN_FILE or BULLA_PKCS11_PIN"
        )));
    }
    let prompt = format!("User PIN of the token {token}: ");
    // On a thread of its own, so that Ctrl-C ends the command while the prompt waits.
    let asked = tokio::task::spawn_blocking(move || rpassword::prompt_password(prompt).map(Zeroizing::new));
    tokio::select! {
        interrupted = ctx.interrupt.wait() => Err(interrupted),
        answer = asked => match answer {
            // Moved, not copied: the provider wipes it.
            Ok(Ok(mut pin)) => Ok(PinSource::value(UserPin::new(std::mem::take(&mut *pin).into_bytes()))),
            Ok(Err(error)) => Err(Failure::invalid("the PIN can't be asked for here; set BULLA_PKCS11_PIN_FILE")
                .with_source(error)),
            Err(_) => Err(Failure::new(Kind::Internal, "the prompt failed")),
        },
    }
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
