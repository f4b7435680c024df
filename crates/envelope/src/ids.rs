//! Random 128-bit identifiers, one type per kind of thing.

use std::fmt;
use std::str::FromStr;

use crate::base32;
use crate::random::{self, RandomSource};

/// A text that is not the base32 form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 26 lower-case base32 characters")]
pub struct ParseIdError;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// 16 random bytes; as text 26 lower-case, unpadded base32 characters.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A fresh one.
            pub fn random(random: &dyn RandomSource) -> Self {
                Self(random::array(random))
            }

            /// The id with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id with these bytes, or `None` unless there are exactly 16.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32::encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                base32::decode(text).and_then(|bytes| Self::from_slice(&bytes)).ok_or(ParseIdError)
            }
        }
    )*};
}

ids! {
    /// Names a store, for good.
    StoreId;
    /// Names a root.
    RootId;
    /// Names a store key.
    StoreKeyId;
    /// Names one put of a blob, so that two puts of the same bytes don't share contexts.
    BlobId;
    /// The object name of an extent. Never part of a context, so that a copy under another name opens.
    ExtentName;
    /// Names an upload session.
    SessionId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_is_canonical() {
        let id = StoreId::from_bytes(*b"0123456789abcdef");
        let text = "gaytemzugu3doobzmfrggzdfmy";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(format!("{id:?}"), format!("StoreId({text})"));
        for bad in [
            "",
            "GAYTEMZUGU3DOOBZMFRGGZDFMY",
            &text[1..],
            "gaytemzugu3doobzmfrggzdfmz",
            "gaytemzugu3doobzmfrggzdfmya",
        ] {
            assert_eq!(bad.parse::<StoreId>(), Err(ParseIdError), "{bad}");
        }
    }
}
