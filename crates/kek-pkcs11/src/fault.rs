//! What went wrong, and whether to look again before believing it.

use std::fmt;

use bulla_kek::{DenyReason, KekError};
use cryptoki::error::Error;

/// A failed call.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The verdict: looking again would not change it, or could do harm.
    Final(KekError),
    /// The verdict, if the same comes of looking again at a module initialized anew: what was seen may be the absence of
    /// the token.
    Doubtful(KekError),
}

impl Fault {
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Final(KekError::invalid(what))
    }

    /// A refusal that looking again must confirm.
    pub(crate) fn denied(reason: DenyReason, what: impl Into<String>) -> Self {
        Self::Doubtful(KekError::denied(reason).with_message(what))
    }

    /// No useful answer, so far.
    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self::Doubtful(KekError::unavailable(what))
    }

    pub(crate) fn into_verdict(self) -> KekError {
        match self {
            Self::Final(error) | Self::Doubtful(error) => error,
        }
    }
}

/// For `map_err`: the token did not do `what`.
pub(crate) fn failed(what: &str) -> impl FnOnce(Error) -> Fault {
    move |error| Fault::Doubtful(KekError::unavailable(what).with_source(Refusal::from(error)))
}

/// A module's error in few words: cryptoki's own are paragraphs of the standard.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::Pkcs11(code, function) => {
                write!(f, "C_{function:?} answered {}", code_name(&format!("{code:?}")))
            }
            other => other.fmt(f),
        }
    }
}

/// `PinIncorrect` ↦ `CKR_PIN_INCORRECT`.
fn code_name(variant: &str) -> String {
    let mut name = String::from("CKR");
    for character in variant.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_standards_names() {
        use cryptoki::context::Function;
        use cryptoki::error::RvError;
        let refusal = Refusal(Error::Pkcs11(RvError::PinIncorrect, Function::Login));
        assert_eq!(refusal.to_string(), "C_Login answered CKR_PIN_INCORRECT");
    }
}
