//! Signed notes: <https://c2sp.org/signed-note>, Ed25519 only.
//!
//! ```text
//! text, lines that each end with a newline
//! (an empty line)
//! — NAME base64(key id ‖ Ed25519 signature of the text)        one or more such lines
//!
//! key id = first 4 bytes of SHA-256(NAME ‖ 0a ‖ 01 ‖ public key)
//! ```

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ed25519_dalek::Signer;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::base64::{self, BASE64};
use crate::random::RandomSource;
use crate::secret::Secret;

/// Ed25519, in a key id and in a key's text.
const ED25519: u8 = 1;
/// Longer notes are refused unread, in bytes.
const MAX_NOTE_LEN: usize = 16 << 10;
/// Characters in a key's name.
const MAX_NAME_LEN: usize = 256;
const PRIVATE: &str = "PRIVATE+KEY+";

/// The operator's key that checkpoints are signed with. It is local configuration, never in a bucket.
pub struct SigningKey {
    name: String,
    // Wiped when dropped.
    key: ed25519_dalek::SigningKey,
}

/// What everybody else verifies checkpoints with. Text: `NAME+KEYID+base64(01 ‖ public key)`.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: ed25519_dalek::VerifyingKey,
}

/// A text that is no key of a signed note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// Not of the form that signed notes give it.
    #[error("not a signed note's key: that is NAME+KEYID+BASE64, a private one with PRIVATE+KEY+ before it")]
    Malformed,
    /// Of another algorithm.
    #[error("not an Ed25519 key")]
    Algorithm,
    /// The name or the key was changed.
    #[error("the key's id is not that of its name and key: one of them was changed")]
    Id,
    /// The name can't stand in a note.
    #[error("a key's name is 1 to 256 printable characters without `+`")]
    Name,
}

/// A text that is no note of this key's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not a signed note.
    #[error("not a signed note")]
    Malformed,
    /// None of its signatures is by this key.
    #[error("the note is not signed by this key")]
    OtherKey,
    /// The signature is not of this text: one of them was changed.
    #[error("the note's signature is not of its text")]
    Signature,
}

impl SigningKey {
    /// A fresh key. Its name is the origin of the log whose checkpoints it signs.
    ///
    /// # Errors
    ///
    /// [`ParseKeyError::Name`].
    pub fn generate(name: &str, random: &dyn RandomSource) -> Result<Self, ParseKeyError> {
        check_name(name)?;
        let seed = Secret::<32>::random(random);
        Ok(Self { name: name.to_owned(), key: ed25519_dalek::SigningKey::from_bytes(seed.expose()) })
    }

    /// Reads [`encode`](Self::encode)'s text. Wiping `text` is the caller's duty.
    ///
    /// # Errors
    ///
    /// [`ParseKeyError`].
    pub fn parse(text: &str) -> Result<Self, ParseKeyError> {
        let Parts { name, id, key } = parts(text.strip_prefix(PRIVATE).ok_or(ParseKeyError::Malformed)?)?;
        let key = Self { name: name.to_owned(), key: ed25519_dalek::SigningKey::from_bytes(&key) };
        if key.public_key().id() != id {
            return Err(ParseKeyError::Id);
        }
        Ok(key)
    }

    /// The key as text: `PRIVATE+KEY+NAME+KEYID+base64(01 ‖ seed)`.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let id = HEXLOWER.encode(&self.public_key().id());
        let bytes = Zeroizing::new([&[ED25519], self.key.as_bytes().as_slice()].concat());
        let encoded = Zeroizing::new(BASE64.encode(&bytes));
        // With the room it needs, so that growing leaves no copy behind.
        let mut text = Zeroizing::new(String::with_capacity(256 + self.name.len()));
        for part in [PRIVATE, &self.name, "+", &id, "+", &encoded] {
            text.push_str(part);
        }
        text
    }

    /// What others verify with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// `text`, an empty line, and the signature. `text` ends with a newline.
    pub(super) fn sign(&self, text: &str) -> String {
        let public = self.public_key();
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let signature = BASE64.encode(&[public.id().as_slice(), &signature].concat());
        format!("{text}\n\u{2014} {} {signature}\n", self.name)
    }
}

impl PublicKey {
    /// Whose key it is: the origin of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> [u8; 4] {
        let hash = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        let [a, b, c, d, ..] = <[u8; 32]>::from(hash);
        [a, b, c, d]
    }

    /// The text of a note that this key signed. Signatures by others are ignored.
    pub(super) fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let legible = |c: char| c == '\n' || !c.is_control();
        if note.len() > MAX_NOTE_LEN || !note.chars().all(legible) {
            return Err(NoteError::Malformed);
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
        let (text, rest) = note.split_at(at + 1);
        let lines = rest.strip_prefix('\n').and_then(|rest| rest.strip_suffix('\n'));
        let mut found = false;
        for line in lines.ok_or(NoteError::Malformed)?.split('\n') {
            let line = line.strip_prefix("\u{2014} ").ok_or(NoteError::Malformed)?;
            let (name, signature) = line.split_once(' ').ok_or(NoteError::Malformed)?;
            let signature = base64::decode(signature).ok_or(NoteError::Malformed)?;
            let (id, signature) = signature.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
            if name != self.name || *id != self.id() {
                continue;
            }
            let signature =
                ed25519_dalek::Signature::from_slice(signature).map_err(|_| NoteError::Signature)?;
            self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| NoteError::Signature)?;
            found = true;
        }
        if found { Ok(text) } else { Err(NoteError::OtherKey) }
    }
}

/// A key's text, taken apart.
struct Parts<'a> {
    name: &'a str,
    id: [u8; 4],
    /// What comes after the algorithm.
    key: Zeroizing<[u8; 32]>,
}

fn parts(text: &str) -> Result<Parts<'_>, ParseKeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ParseKeyError::Malformed);
    };
    check_name(name)?;
    let id = HEXLOWER.decode(id.as_bytes()).ok().and_then(|id| id.try_into().ok());
    let id = id.ok_or(ParseKeyError::Malformed)?;
    let key = Zeroizing::new(base64::decode(key).ok_or(ParseKeyError::Malformed)?);
    match key.split_first() {
        Some((&ED25519, key)) => {
            let key = <[u8; 32]>::try_from(key).map_err(|_| ParseKeyError::Malformed)?;
            Ok(Parts { name, id, key: Zeroizing::new(key) })
        }
        Some(_) => Err(ParseKeyError::Algorithm),
        None => Err(ParseKeyError::Malformed),
    }
}

fn check_name(name: &str) -> Result<(), ParseKeyError> {
    let fits = (1..=MAX_NAME_LEN).contains(&name.len());
    if fits && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+') {
        return Ok(());
    }
    Err(ParseKeyError::Name)
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        if text.starts_with(PRIVATE) {
            return Err(ParseKeyError::Malformed);
        }
        let Parts { name, id, key } = parts(text)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key).map_err(|_| ParseKeyError::Malformed)?;
        let key = Self { name: name.to_owned(), key };
        if key.id() == id { Ok(key) } else { Err(ParseKeyError::Id) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519], self.key.as_bytes().as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id()), BASE64.encode(&key))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, …)", self.name)
    }
}
