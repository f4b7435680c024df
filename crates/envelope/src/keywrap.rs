//! AES key wrap (RFC 3394) with 256-bit keys: `A256KW`.
//!
//! Deterministic, authenticated, 8 bytes longer than what it wraps. An unwrap can't tell a wrong key from a damaged wrap.

use aes_kw::cipher::consts::U32;
use aes_kw::{KeyInit, KwAes256};
use zeroize::Zeroizing;

use crate::secret::{KeyWrappingKey, Secret, StoreKey};

/// The length of a wrapped 32-byte key.
pub const WRAPPED_LEN: usize = 40;

/// The wrap is damaged, or was made with another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key does not unwrap")]
pub struct KeyWrapError;

/// `AES-KW-256.Wrap(kek, secret)`.
#[must_use]
pub fn wrap_key(kek: &[u8; 32], secret: &[u8; 32]) -> [u8; WRAPPED_LEN] {
    KwAes256::new(kek.into()).wrap_fixed_key::<U32>(secret.into()).into()
}

/// `AES-KW-256.Unwrap(kek, wrapped)`.
///
/// # Errors
///
/// [`KeyWrapError`] unless `wrapped` is what [`wrap_key`] made with this `kek`.
pub fn unwrap_key(kek: &[u8; 32], wrapped: &[u8]) -> Result<Secret<32>, KeyWrapError> {
    let wrapped: &[u8; WRAPPED_LEN] = wrapped.try_into().map_err(|_| KeyWrapError)?;
    let mut secret = Secret::zero();
    KwAes256::new(kek.into()).unwrap_key(wrapped, secret.expose_mut()).map_err(|_| KeyWrapError)?;
    Ok(secret)
}

/// `AES-KW-256.Wrap(kek, secret)` for secrets of other lengths; `None` unless it is a multiple of 8, from 16 bytes on.
#[must_use]
pub fn wrap_bytes(kek: &[u8; 32], secret: &[u8]) -> Option<Vec<u8>> {
    // RFC 3394 §2: at least two blocks.
    if secret.len() < 16 {
        return None;
    }
    let mut wrapped = vec![0; secret.len().checked_add(8)?];
    KwAes256::new(kek.into()).wrap_key(secret, &mut wrapped).ok()?;
    Some(wrapped)
}

/// `AES-KW-256.Unwrap(kek, wrapped)` for secrets of any length.
///
/// # Errors
///
/// [`KeyWrapError`] unless `wrapped` is what [`wrap_bytes`] made with this `kek`.
pub fn unwrap_bytes(kek: &[u8; 32], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyWrapError> {
    let len = wrapped.len().checked_sub(8).filter(|&len| len >= 16).ok_or(KeyWrapError)?;
    let mut secret = Zeroizing::new(vec![0; len]);
    KwAes256::new(kek.into()).unwrap_key(wrapped, &mut secret).map_err(|_| KeyWrapError)?;
    Ok(secret)
}

macro_rules! wraps {
    ($($name:ident)*) => {$(
        impl $name {
            /// `AES-KW-256.Wrap(self, secret)`.
            #[must_use]
            pub fn wrap_key(&self, secret: &[u8; 32]) -> [u8; WRAPPED_LEN] {
                wrap_key(self.expose(), secret)
            }

            /// `AES-KW-256.Unwrap(self, wrapped)`.
            ///
            /// # Errors
            ///
            /// [`KeyWrapError`] unless `wrapped` was made with this key.
            pub fn unwrap_key(&self, wrapped: &[u8]) -> Result<Secret<32>, KeyWrapError> {
                unwrap_key(self.expose(), wrapped)
            }
        }
    )*};
}

wraps! { KeyWrappingKey StoreKey }
