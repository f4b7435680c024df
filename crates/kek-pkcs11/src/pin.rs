//! PINs, and where they come from.

use std::fmt;
use std::path::PathBuf;

use bulla_kek::KekError;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::fault::Fault;

/// The user's PIN of a token. Wiped when dropped, never printed.
pub struct UserPin(Zeroizing<Vec<u8>>);

impl UserPin {
    /// Takes the PIN over, without copying it.
    pub fn new(pin: Vec<u8>) -> Self {
        Self(Zeroizing::new(pin))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether both are the same, in time that does not depend on their bytes.
    pub(crate) fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }

    fn copy(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for UserPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserPin(…)")
    }
}

/// Where the PIN comes from. Asked at each login, so that a changed PIN is picked up without a restart.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PinSource {
    /// A file with the PIN, a line end not counted.
    File(PathBuf),
    /// This PIN, from wherever the caller has it.
    Value(std::sync::Arc<UserPin>),
}

impl PinSource {
    /// This PIN.
    pub fn value(pin: UserPin) -> Self {
        Self::Value(std::sync::Arc::new(pin))
    }

    pub(crate) fn read(&self) -> Result<UserPin, Fault> {
        match self {
            Self::Value(pin) => Ok(pin.copy()),
            Self::File(path) => {
                let mut bytes = std::fs::read(path).map(Zeroizing::new).map_err(|error| {
                    Fault::Final(
                        KekError::unavailable(format!(
                            "the PIN can't be read from {}; make the file readable for this user",
                            path.display()
                        ))
                        .with_source(error),
                    )
                })?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                    if bytes.last() == Some(&b'\r') {
                        bytes.pop();
                    }
                }
                if bytes.is_empty() {
                    return Err(Fault::Final(KekError::unavailable(format!(
                        "{} is empty; put the token's user PIN into it",
                        path.display()
                    ))));
                }
                Ok(UserPin(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_line_end_does_not_count_and_an_empty_file_is_no_pin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let source = PinSource::File(path.clone());
        assert!(source.read().is_err(), "missing");
        for empty in ["", "\n", "\r\n"] {
            std::fs::write(&path, empty).unwrap();
            assert!(source.read().is_err(), "{empty:?}");
        }
        std::fs::write(&path, "12 34\r\n").unwrap();
        assert!(source.read().unwrap().ct_eq(&UserPin::new(b"12 34".to_vec())));
    }

    #[test]
    fn a_pin_is_not_printed() {
        let source = PinSource::value(UserPin::new(b"314159".to_vec()));
        assert!(!format!("{source:?}").contains("314159"));
    }
}
