//! A PKCS#11 library: loaded and initialized once per process, and initialized anew when a token was lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use crate::fault::{Fault, failed};
use crate::pin::UserPin;

/// Every library that this process uses. They stay: a library that was finalized by the last of its users while the next one
/// initializes it would be neither.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// A library.
#[derive(Debug)]
pub(crate) struct Module {
    path: PathBuf,
    /// Read for as long as a call is in the library; written to initialize it.
    state: RwLock<State>,
    /// The PINs that tokens refused, by label. Held while one is tried, so that no second one follows a wrong one.
    rejected: Mutex<BTreeMap<String, Vec<UserPin>>>,
}

#[derive(Debug, Default)]
struct State {
    library: Option<Pkcs11>,
    live: Option<Live>,
    initialized: u64,
}

/// An initialized library.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) pkcs11: Pkcs11,
    /// Session and object handles of another generation mean nothing.
    pub(crate) generation: u64,
    /// Whether it is ours to finalize.
    ours: bool,
}

impl Module {
    /// The library at this path, not necessarily loaded yet.
    pub(crate) fn at(path: &Path) -> Arc<Self> {
        let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        let module = modules.entry(canonical.clone()).or_insert_with(|| {
            Arc::new(Self { path: canonical, state: RwLock::default(), rejected: Mutex::default() })
        });
        Arc::clone(module)
    }

    /// Does something with the library, which is loaded and initialized first where it is not.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Live) -> Result<T, Fault>) -> Result<T, Fault> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = &state.live {
            return work(live);
        }
        drop(state);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.live.is_none() {
            self.initialize(&mut state)?;
        }
        let state = RwLockWriteGuard::downgrade(state);
        match &state.live {
            Some(live) => work(live),
            None => Err(Fault::unavailable("the PKCS#11 module is not initialized")),
        }
    }

    /// Does something with the library if it is initialized.
    pub(crate) fn if_live(&self, work: impl FnOnce(&Live)) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = &state.live {
            work(live);
        }
    }

    /// How often the library was initialized: the generation that a call meets now, or was last met.
    pub(crate) fn generation(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).initialized
    }

    /// Finalizes the library, so that the next call initializes it and finds slots and tokens as they are then. Nothing
    /// happens if somebody did that since `generation`. Waits for calls in flight.
    pub(crate) fn reset(&self, generation: u64) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.live.as_ref().is_some_and(|live| live.generation == generation && live.ours)
            && let Some(live) = state.live.take()
            && let Err(error) = live.pkcs11.finalize()
        {
            tracing::debug!(?error, module = %self.path.display(), "C_Finalize failed");
        }
    }

    /// The PINs that were refused; the lock serializes logins.
    pub(crate) fn rejected(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<UserPin>>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn initialize(&self, state: &mut State) -> Result<(), Fault> {
        let what = format!("the PKCS#11 module {}", self.path.display());
        let library = match &state.library {
            Some(library) => library.clone(),
            None => {
                let loaded = Pkcs11::new(&self.path).map_err(failed(&format!(
                    "{what} can't be loaded; BULLA_PKCS11_MODULE names the token vendor's library"
                )))?;
                state.library.insert(loaded).clone()
            }
        };
        let ours = match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) => true,
            // By somebody else in this process, whose it stays.
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => false,
            Err(error) => {
                // Kryoptic counts as initialized after a failure, and would never look at its tokens again.
                let _ = library.finalize();
                return Err(failed(&format!("{what} can't be initialized"))(error));
            }
        };
        state.initialized += 1;
        state.live = Some(Live { pkcs11: library, generation: state.initialized, ours });
        Ok(())
    }
}
