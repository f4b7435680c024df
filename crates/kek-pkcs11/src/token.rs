//! One token of a module: found by its label, with sessions that are logged in.

use std::sync::{Arc, Mutex, PoisonError};

use bulla_kek::{DenyReason, KekError};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;

use crate::fault::{Fault, Refusal, failed};
use crate::module::{Live, Module};
use crate::options::Pkcs11Options;
use crate::pin::PinSource;

/// A token, and the sessions on it that wait for their next use.
#[derive(Debug)]
pub(crate) struct Token {
    module: Arc<Module>,
    label: String,
    pin: PinSource,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    generation: u64,
    session: Session,
}

/// A session that is logged in, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connected<'a> {
    pub(crate) pkcs11: &'a Pkcs11,
    pub(crate) slot: Slot,
    pub(crate) session: &'a Session,
}

impl Connected<'_> {
    /// Whether the token still tells about itself.
    pub(crate) fn token_answers(&self) -> Result<(), Fault> {
        self.pkcs11.get_token_info(self.slot).map(drop).map_err(failed("the token does not answer"))
    }
}

impl Token {
    pub(crate) fn new(options: &Pkcs11Options) -> Self {
        Self {
            module: Module::at(&options.module),
            label: options.token.clone(),
            pin: options.pin.clone(),
            idle: Mutex::default(),
        }
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Does something in a session, twice where the first outcome may be the token's absence: the second time with a module
    /// initialized, a token found and a session logged in anew. Blocks.
    pub(crate) fn ask<T>(&self, work: impl Fn(Connected<'_>) -> Result<T, Fault>) -> Result<T, KekError> {
        let generation = self.module.generation();
        match self.once(&work) {
            Ok(value) => return Ok(value),
            Err(Fault::Final(verdict)) => return Err(verdict),
            Err(Fault::Doubtful(seen)) => {
                tracing::debug!(token = %self.label, %seen, "looking again with the module initialized anew");
            }
        }
        // What this call saw; a younger generation is as good as a new one.
        self.module.reset(generation.max(1));
        self.once(&work).map_err(Fault::into_verdict)
    }

    fn once<T>(&self, work: impl FnOnce(Connected<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        self.module.with(|live| {
            let (slot, session) = match self.idle(live) {
                Some(idle) => idle,
                None => self.open(live)?,
            };
            let done = work(Connected { pkcs11: &live.pkcs11, slot, session: &session });
            if done.is_ok() || matches!(done, Err(Fault::Final(_))) {
                let idle = Idle { generation: live.generation, session };
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
            } else {
                let _ = session.close();
            }
            done
        })
    }

    /// A waiting session that is still what it was.
    fn idle(&self, live: &Live) -> Option<(Slot, Session)> {
        loop {
            let Idle { generation, session } =
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            // A handle of another generation may be somebody else's now: forgotten, not closed.
            if generation != live.generation {
                continue;
            }
            match session.get_session_info() {
                Ok(info) if is_user(info.session_state()) => return Some((info.slot_id(), session)),
                _ => drop(session.close()),
            }
        }
    }

    fn open(&self, live: &Live) -> Result<(Slot, Session), Fault> {
        let slot = self.find(&live.pkcs11)?;
        let what = format!("no session on the token {} can be opened", self.label);
        // Not closed by itself when dropped: after a reset the same handle may be another session's.
        let session = live.pkcs11.open_ro_session_no_drop(slot).map_err(failed(&what))?;
        match self.log_in(live, slot, &session) {
            Ok(()) => Ok((slot, session)),
            Err(fault) => {
                let _ = session.close();
                Err(fault)
            }
        }
    }

    fn find(&self, pkcs11: &Pkcs11) -> Result<Slot, Fault> {
        let slots = pkcs11.get_slots_with_token().map_err(failed("the PKCS#11 module lists no slots"))?;
        // A slot that does not tell its token has none for now.
        let mut named = slots
            .into_iter()
            .filter(|slot| pkcs11.get_token_info(*slot).is_ok_and(|info| info.label() == self.label));
        let Some(slot) = named.next() else {
            return Err(Fault::unavailable(format!(
                "there is no token {} in any slot of the PKCS#11 module; insert it",
                self.label
            )));
        };
        if named.next().is_some() {
            return Err(Fault::unavailable(format!(
                "two tokens are called {}; give each a label of its own",
                self.label
            )));
        }
        Ok(slot)
    }

    /// Logs the user in, unless a session of this process did.
    ///
    /// A wrong PIN is tried once: too many lock the token, and a service that restarts would do that in a minute.
    fn log_in(&self, live: &Live, slot: Slot, session: &Session) -> Result<(), Fault> {
        let label = &self.label;
        let denied = |what: String| KekError::denied(DenyReason::IdentityUnknown).with_message(what);
        let mut rejected = self.module.rejected();
        let rejected = rejected.entry(label.clone()).or_default();
        let state = session.get_session_info().map_err(failed("a new session does not tell its state"))?;
        if is_user(state.session_state()) {
            return Ok(());
        }
        let look = || {
            let what = format!("the token {label} does not answer");
            live.pkcs11.get_token_info(slot).map_err(failed(&what))
        };
        let before = look()?;
        if !before.login_required() {
            return Ok(());
        }
        if before.user_pin_locked() {
            // Kryoptic learns only when it is initialized that somebody else has unlocked it.
            return Err(Fault::Doubtful(denied(format!(
                "the user PIN of the token {label} is locked; its security officer can set a new one"
            ))));
        }
        let pin = self.pin.read()?;
        if rejected.iter().any(|before| before.ct_eq(&pin)) {
            return Err(Fault::Final(denied(format!(
                "the token {label} refused this PIN before; it is not tried again, because too many wrong ones lock the \
                 token: correct it (BULLA_PKCS11_PIN_FILE), or restart if it is right by now"
            ))));
        }
        if before.user_pin_final_try() {
            return Err(Fault::Doubtful(denied(format!(
                "one more wrong PIN would lock the token {label}, so it is not tried here; log in with the vendor's tool \
                 once, which resets the count"
            ))));
        }
        let raw = RawAuthPin::new(Box::new(pin.expose().to_vec()));
        let error = match session.login_with_raw(UserType::User, &raw) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                return Ok(());
            }
            Err(error) => error,
        };
        // A token that is gone refuses nothing; one that counts a wrong PIN has refused it, whatever it answers.
        let after = look()?;
        let counted = after.user_pin_locked()
            || after.user_pin_final_try()
            || (after.user_pin_count_low() && !before.user_pin_count_low());
        let says_so = matches!(
            error,
            Error::Pkcs11(
                RvError::PinIncorrect
                    | RvError::PinInvalid
                    | RvError::PinLenRange
                    | RvError::PinExpired
                    | RvError::PinLocked
                    | RvError::UserPinNotInitialized,
                _
            )
        );
        if !counted && !says_so {
            return Err(failed(&format!("nobody can log in to the token {label} now"))(error));
        }
        rejected.push(pin);
        let why = match error {
            Error::Pkcs11(RvError::PinExpired, _) => "has expired; set a new one",
            Error::Pkcs11(RvError::UserPinNotInitialized, _) => {
                "is not set yet; the security officer sets it"
            }
            Error::Pkcs11(RvError::PinLocked, _) => "is locked; the security officer can set a new one",
            _ => "is not the one given here; correct it (BULLA_PKCS11_PIN_FILE). It is not tried again",
        };
        let verdict = KekError::denied(DenyReason::IdentityUnknown)
            .with_message(format!("the user PIN of the token {label} {why}"));
        Err(Fault::Final(verdict.with_source(Refusal::from(error))))
    }
}

impl Drop for Token {
    /// The last session that is closed logs out.
    fn drop(&mut self) {
        let idle = std::mem::take(self.idle.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.module.if_live(|live| {
            for Idle { session, .. } in idle.into_iter().filter(|idle| idle.generation == live.generation) {
                let _ = session.close();
            }
        });
    }
}

fn is_user(state: SessionState) -> bool {
    matches!(state, SessionState::RoUser | SessionState::RwUser)
}
