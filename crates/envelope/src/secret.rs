//! Secrets: bytes that can't be copied, compared, printed or serialized by accident, and are wiped when dropped.
//!
//! They live on the heap, so that moving one moves a pointer and leaves no copy behind; those that open more than one blob
//! in pages of their own, locked where the system allows ([`page`]). What this can't do: wipe what the compiler spilled to
//! the stack inside the ciphers, keep anything out of a core dump, or survive `abort`.

pub mod page;

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use self::page::Place;
use crate::random::RandomSource;

/// `N` secret bytes.
pub struct Secret<const N: usize>(Place<N>);

impl<const N: usize> Secret<N> {
    /// A fresh secret.
    pub fn random(random: &dyn RandomSource) -> Self {
        let mut secret = Self::zero();
        random.fill(secret.expose_mut());
        secret
    }

    /// A copy of `bytes`, or `None` unless there are exactly `N`. Wiping `bytes` is the caller's duty.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self::zero();
        if bytes.len() != N {
            return None;
        }
        secret.expose_mut().copy_from_slice(bytes);
        Some(secret)
    }

    /// The bytes. Whoever copies them wipes the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        self.0.bytes()
    }

    /// Whether both are the same, in time that does not depend on their bytes.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }

    /// A place for a secret that is about to be computed.
    pub(crate) fn zero() -> Self {
        Self(Place::zero())
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; N] {
        self.0.bytes_mut()
    }

    /// The same secret in a place to stay in: a page of its own, out of swap where the system allows.
    #[must_use]
    pub fn kept(mut self) -> Self {
        Self(Place::kept(&mut self.0))
    }
}

// `Place` wipes.
impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A named secret of `$len` bytes with a redacted `Debug`.
macro_rules! secret_types {
    ($($(#[$doc:meta])* $name:ident: $len:literal;)*) => {$(
        $(#[$doc])*
        #[derive(ZeroizeOnDrop)]
        pub struct $name(Secret<$len>);

        impl $name {
            /// The bytes. Whoever copies them wipes the copy.
            #[must_use]
            pub fn expose(&self) -> &[u8; $len] {
                self.0.expose()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}

/// What is drawn, not derived, and comes back from being wrapped. `$place` says where it stays.
macro_rules! drawn {
    ($($name:ident: $place:expr;)*) => {$(
        impl From<Secret<32>> for $name {
            /// Says what an unwrapped secret is.
            fn from(secret: Secret<32>) -> Self {
                Self($place(secret))
            }
        }

        impl $name {
            /// A fresh one.
            pub fn random(random: &dyn RandomSource) -> Self {
                Self::from(Secret::random(random))
            }

            /// A copy of `bytes`, or `None` unless there are exactly 32. Wiping `bytes` is the caller's duty.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Secret::from_slice(bytes).map(Self::from)
            }

            /// Whether both are the same, in time that does not depend on their bytes.
            #[must_use]
            pub fn ct_eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0)
            }
        }
    )*};
}

/// What [`crate::derive`] derives, and nobody else makes.
macro_rules! derived {
    ($($name:ident: $len:literal;)*) => {$(
        impl $name {
            pub(crate) fn new(secret: Secret<$len>) -> Self {
                Self(secret.kept())
            }
        }
    )*};
}

secret_types! {
    /// A data-encryption key: one per blob, random, never reused.
    Dek: 32;
    /// Wraps DEKs.
    StoreKey: 32;
    /// The one secret of a store: wrapped by the KEK, in memory only under a live lease, everything else derived from it.
    Root: 32;
    /// Authenticates the records of the log.
    RecordKey: 32;
    /// Half of what an envelope is sealed under; the other half is the DEK.
    EnvelopeKey: 32;
    /// Seals small records about the store's contents.
    MetaKey: 32;
    /// Seals upload sessions.
    UploadKey: 32;
    /// Seals the batches of the audit log.
    AuditKey: 32;
    /// Wraps store keys, or a retiring root.
    KeyWrappingKey: 32;
    /// Seals the names of one kind of object.
    NameKey: 64;
}

// There are thousands of DEKs, each of which opens one blob: a page for each would exceed every limit.
drawn! { Dek: std::convert::identity; StoreKey: Secret::kept; Root: Secret::kept; }

derived! { RecordKey: 32; EnvelopeKey: 32; MetaKey: 32; UploadKey: 32; AuditKey: 32; KeyWrappingKey: 32; NameKey: 64; }

impl Root {
    /// Splits the root into `n` shares: `root = share₁ ⊕ … ⊕ shareₙ`. Fewer than all of them say nothing about it.
    ///
    /// The shares are drawn afresh by every call. For `n` = 1 the one share is the root itself, and so it is for 0: a group
    /// without members would open for everyone.
    #[must_use]
    pub fn split(&self, n: usize, random: &dyn RandomSource) -> Vec<Secret<32>> {
        let mut shares: Vec<Secret<32>> = (1..n).map(|_| Secret::random(random)).collect();
        let mut last = Secret::zero();
        last.expose_mut().copy_from_slice(self.expose());
        for share in &shares {
            xor(last.expose_mut(), share.expose());
        }
        shares.push(last);
        shares
    }

    /// `share₁ ⊕ … ⊕ shareₙ`, or `None` if there are no shares.
    ///
    /// Any shares give *some* root; only what the root derives can tell that it is the right one.
    #[must_use]
    pub fn join(shares: &[Secret<32>]) -> Option<Self> {
        if shares.is_empty() {
            return None;
        }
        let mut root = Secret::zero();
        for share in shares {
            xor(root.expose_mut(), share.expose());
        }
        Some(Self::from(root))
    }
}

fn xor(into: &mut [u8; 32], other: &[u8; 32]) {
    for (into, other) in into.iter_mut().zip(other) {
        *into ^= other;
    }
}
