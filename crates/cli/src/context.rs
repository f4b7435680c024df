//! What every command is given: where this machine remembers things, where output goes, whom to ask for passphrases.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use bulla_kek::KekProvider;
use bulla_vault::Vault;

use crate::config::Config;
use crate::exit::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::{self, Output};
use crate::passphrase::Passphrases;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) passphrases: Passphrases,
    pub(crate) out: Arc<Output>,
    pub(crate) interrupt: Interrupt,
    /// `BULLA_STORE`.
    pub(crate) store: Option<String>,
    pub(crate) json: bool,
    /// How often `-v` was given.
    pub(crate) verbose: u8,
    /// No progress bars.
    pub(crate) quiet: bool,
    /// Vaults opened so far, so that a passphrase is asked for once.
    pub(crate) vaults: Mutex<BTreeMap<PathBuf, Vault>>,
    /// The provider for Key Vault and Managed HSM: one, with its connections, tokens and proofs.
    pub(crate) key_vault: OnceLock<Arc<dyn KekProvider>>,
    /// The providers of tokens used so far, by label, so that a PIN is asked for once.
    pub(crate) tokens: Mutex<BTreeMap<String, Arc<dyn KekProvider>>>,
}

impl Context {
    pub(crate) fn from_environment(interrupt: Interrupt, json: bool, verbose: u8) -> Result<Self> {
        Ok(Self {
            config: Config::from_environment()?,
            passphrases: Passphrases::Environment,
            out: Arc::new(Output::stdout()),
            interrupt,
            store: std::env::var("BULLA_STORE").ok().filter(|store| !store.is_empty()),
            json,
            verbose,
            quiet: json,
            vaults: Mutex::default(),
            key_vault: OnceLock::new(),
            tokens: Mutex::default(),
        })
    }

    /// Says what is good to know.
    pub(crate) fn note(&self, message: impl Display) {
        output::aside(self.json, "note", message);
    }

    /// Says what is not as it should be, and does not stop the command.
    pub(crate) fn warn(&self, message: impl Display) {
        output::aside(self.json, "warning", message);
    }

    /// The store of a command that takes nothing else.
    pub(crate) fn store(&self, given: Option<&str>) -> Result<String> {
        given
            .or(self.store.as_deref())
            .map(str::to_owned)
            .ok_or_else(|| Failure::invalid("which store? name it, or set BULLA_STORE"))
    }

    /// The store and the other arguments of a command like `bulla put [STORE] FILE`. With one argument more than those the
    /// first is the store, whatever BULLA_STORE says; without it BULLA_STORE must be set.
    pub(crate) fn store_and<'a, const N: usize>(
        &self,
        command: &str,
        others: &str,
        given: &'a [OsString],
    ) -> Result<(String, [&'a OsStr; N])> {
        let Some((before, others_given)) = given.split_last_chunk::<N>() else {
            return Err(Failure::invalid(format!("write `bulla {command} STORE {others}`")));
        };
        let others_given = others_given.each_ref().map(OsString::as_os_str);
        match (before, &self.store) {
            ([store], _) => match store.to_str() {
                Some(store) => Ok((store.to_owned(), others_given)),
                None => Err(Failure::invalid("a store's name is UTF-8")),
            },
            ([], Some(store)) => Ok((store.clone(), others_given)),
            ([], None) => Err(Failure::invalid(format!(
                "one argument is missing: write `bulla {command} STORE {others}`, or set BULLA_STORE"
            ))),
            _ => Err(Failure::invalid(format!("write `bulla {command} STORE {others}`"))),
        }
    }
}
