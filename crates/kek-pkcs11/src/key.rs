//! A key object of a token, as it is at the moment of a call: nothing about it is remembered, because it can be changed and
//! destroyed at any time by others.

use std::cmp::Ordering;

use bulla_envelope::crypto::RsaPublicKey;
use bulla_kek::{DenyReason, Exposure, KeyId, KeyKind, Protection};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};

use crate::dates::Day;
use crate::fault::{Fault, failed};
use crate::token::Connected;

/// A secret or private key on the token.
#[derive(Debug)]
pub(crate) struct Key {
    /// With the version.
    pub(crate) id: KeyId,
    pub(crate) handle: ObjectHandle,
    pub(crate) kind: KeyKind,
    pub(crate) start: Day,
    pub(crate) end: Day,
    /// The public half of an RSA key.
    pub(crate) public: Option<RsaPublicKey>,
    encrypt: bool,
    decrypt: bool,
    wrap: bool,
    unwrap: bool,
    destroyable: bool,
    exposure: Exposure,
    always_authenticate: bool,
    /// `CKA_ALLOWED_MECHANISMS`; empty: all.
    allowed: Vec<MechanismType>,
}

/// The two directions of a key's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Wrap,
    Unwrap,
}

/// The two families of functions that wrap and unwrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// `C_Encrypt`, `C_Decrypt`: the secret goes in and comes out, and is never an object.
    Cipher,
    /// `C_WrapKey`, `C_UnwrapKey`: the secret is a session object for a moment.
    Object,
}

impl Key {
    /// The object that a key id means: the one with its id, or without a version the newest.
    pub(crate) fn find(at: Connected<'_>, id: &KeyId) -> Result<Self, Fault> {
        let mut found = search(at, id)?;
        if found.is_empty() {
            // SoftHSM2 finds nothing, successfully, where the token has just gone; then it does not tell about it either.
            at.token_answers()?;
            found = search(at, id)?;
        }
        if found.is_empty() {
            return Err(Fault::denied(DenyReason::NotFound, format!("there is no {id} on the token")));
        }
        let mut versions = Vec::new();
        for (handle, class) in found {
            // Without an id it has no version that could be written down.
            if let Some(Attribute::Id(object_id)) = read(at, handle, AttributeType::Id)?
                && let Ok(versioned) = KeyId::pkcs11(id.host(), id.name(), Some(&object_id))
            {
                versions.push(Self::describe(at, handle, class, versioned)?);
            }
        }
        if versions.is_empty() {
            return Err(Fault::invalid(format!(
                "{id} has no id by which its version could be named; set CKA_ID of the object to 1 to 64 bytes \
                 (`pkcs11-tool --set-id`)"
            )));
        }
        versions.sort_by(|a, b| a.start.cmp(&b.start).then_with(|| by_number(&a.id, &b.id)));
        let newest = versions.pop();
        let twin = |key: &Self| versions.iter().any(|other| other.id == key.id);
        match newest {
            Some(key) if !twin(&key) => Ok(key),
            _ => Err(Fault::invalid(format!(
                "two keys on the token have the label {} and one id; give each its own (`pkcs11-tool --set-id`)",
                id.name()
            ))),
        }
    }

    fn describe(
        at: Connected<'_>,
        handle: ObjectHandle,
        class: ObjectClass,
        id: KeyId,
    ) -> Result<Self, Fault> {
        let flag = |attribute| {
            Ok::<_, Fault>(match read(at, handle, attribute)? {
                Some(
                    Attribute::Encrypt(is)
                    | Attribute::Decrypt(is)
                    | Attribute::Wrap(is)
                    | Attribute::Unwrap(is)
                    | Attribute::Destroyable(is)
                    | Attribute::Sensitive(is)
                    | Attribute::AlwaysSensitive(is)
                    | Attribute::Extractable(is)
                    | Attribute::NeverExtractable(is)
                    | Attribute::AlwaysAuthenticate(is),
                ) => Some(is),
                _ => None,
            })
        };
        let day = |attribute| match at.session.get_attributes(handle, &[attribute]) {
            Ok(read) => match read.first() {
                Some(Attribute::StartDate(date) | Attribute::EndDate(date)) => Day::of(date),
                _ => Day::None,
            },
            Err(_) => Day::Unreadable,
        };
        let (kind, public) = kind(at, handle, class, &id)?;
        Ok(Self {
            kind,
            public,
            start: day(AttributeType::StartDate),
            end: day(AttributeType::EndDate),
            encrypt: flag(AttributeType::Encrypt)?.unwrap_or(false),
            decrypt: flag(AttributeType::Decrypt)?.unwrap_or(false),
            wrap: flag(AttributeType::Wrap)?.unwrap_or(false),
            unwrap: flag(AttributeType::Unwrap)?.unwrap_or(false),
            // Tokens older than PKCS#11 2.40 don't know the attribute, and destroy everything.
            destroyable: flag(AttributeType::Destroyable)?.unwrap_or(true),
            exposure: {
                // What a token does not tell is taken for the worse.
                let told = |attribute| Ok::<_, Fault>(flag(attribute)? == Some(true));
                let hidden =
                    told(AttributeType::Sensitive)? && flag(AttributeType::Extractable)? == Some(false);
                let ever = told(AttributeType::AlwaysSensitive)? && told(AttributeType::NeverExtractable)?;
                match (hidden, ever) {
                    (true, true) => Exposure::Never,
                    (true, false) => Exposure::Before,
                    (false, _) => Exposure::Now,
                }
            },
            always_authenticate: flag(AttributeType::AlwaysAuthenticate)?.unwrap_or(false),
            allowed: match at.session.get_attributes(handle, &[AttributeType::AllowedMechanisms]) {
                Ok(read) => match read.into_iter().next() {
                    Some(Attribute::AllowedMechanisms(allowed)) => allowed,
                    _ => Vec::new(),
                },
                // A list with a vendor's own mechanism can't be read; then the token alone decides.
                Err(_) => Vec::new(),
            },
            id,
            handle,
        })
    }

    /// Whether the object's own attributes allow this.
    pub(crate) fn permits(&self, mechanism: MechanismType, via: Via, usage: Use) -> bool {
        let flag = match (via, usage) {
            // Wrapping for an RSA key is its public half's business, which is public.
            (_, Use::Wrap) if self.public.is_some() => true,
            (Via::Cipher, Use::Wrap) => self.encrypt,
            (Via::Cipher, Use::Unwrap) => self.decrypt,
            (Via::Object, Use::Wrap) => self.wrap,
            (Via::Object, Use::Unwrap) => self.unwrap,
        };
        flag && !self.always_authenticate && (self.allowed.is_empty() || self.allowed.contains(&mechanism))
    }

    /// Whether the key wants the PIN at every use (`CKA_ALWAYS_AUTHENTICATE`), which nobody is there to give.
    pub(crate) fn always_authenticate(&self) -> bool {
        self.always_authenticate
    }

    /// A token has no soft delete; an object that can't be destroyed needs none.
    pub(crate) fn protection(&self) -> Protection {
        let kept = !self.destroyable;
        Protection { soft_delete: kept, purge_protection: kept, exposure: self.exposure }
    }

    /// The public half of an RSA key as an object, for wrapping by the token: the one with this very modulus, because ids
    /// and labels need not be unlike.
    pub(crate) fn public_object(&self, at: Connected<'_>) -> Result<ObjectHandle, Fault> {
        let modulus = self.public.as_ref().map(|public| public.n().to_vec()).unwrap_or_default();
        let found = public_objects(at, Attribute::Modulus(modulus))?;
        found.first().copied().ok_or_else(|| {
            Fault::invalid(format!(
                "the public half of {} is not on the token, which must wrap with it",
                self.id
            ))
        })
    }
}

/// The secret and private keys that a key id may mean.
fn search(at: Connected<'_>, id: &KeyId) -> Result<Vec<(ObjectHandle, ObjectClass)>, Fault> {
    let mut found = Vec::new();
    for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY] {
        let mut template = vec![
            Attribute::Token(true),
            Attribute::Class(class),
            Attribute::Label(id.name().as_bytes().to_vec()),
        ];
        template.extend(id.version().map(|version| Attribute::Id(bytes(version))));
        let handles =
            at.session.find_objects(&template).map_err(failed("the token's objects can't be searched"))?;
        found.extend(handles.into_iter().map(|handle| (handle, class)));
    }
    Ok(found)
}

/// Algorithm and size, and the public half of RSA.
fn kind(
    at: Connected<'_>,
    handle: ObjectHandle,
    class: ObjectClass,
    id: &KeyId,
) -> Result<(KeyKind, Option<RsaPublicKey>), Fault> {
    let key_type = match read(at, handle, AttributeType::KeyType)? {
        Some(Attribute::KeyType(key_type)) => Some(key_type),
        _ => None,
    };
    let other = |name: String| Ok((KeyKind::Other(name), None));
    match (key_type, class) {
        (Some(KeyType::AES), ObjectClass::SECRET_KEY) => match read(at, handle, AttributeType::ValueLen)? {
            Some(Attribute::ValueLen(len)) => {
                let bits = u32::try_from(usize::from(len)).ok().and_then(|len| len.checked_mul(8));
                Ok((KeyKind::Aes { bits: bits.unwrap_or(0) }, None))
            }
            _ => other("AES of an unknown size".to_owned()),
        },
        (Some(KeyType::RSA), ObjectClass::PRIVATE_KEY) => {
            let Some(Numbers { n, e }) = public_numbers(at, handle, id)? else {
                return other("RSA without its public half on the token".to_owned());
            };
            match RsaPublicKey::new(&n, &e) {
                Ok(public) => {
                    let bits = u32::try_from(public.bits()).unwrap_or(0);
                    Ok((KeyKind::Rsa { bits }, Some(public)))
                }
                Err(error) => other(format!("RSA that can't be used ({error})")),
            }
        }
        (Some(key_type), _) => other(key_type.to_string()),
        (None, _) => other("a key of an unknown type".to_owned()),
    }
}

/// Modulus and exponent.
struct Numbers {
    n: Vec<u8>,
    e: Vec<u8>,
}

/// The public numbers, from the private object or the public one beside it.
fn public_numbers(at: Connected<'_>, private: ObjectHandle, id: &KeyId) -> Result<Option<Numbers>, Fault> {
    let beside = public_objects(at, Attribute::Id(bytes(id.version().unwrap_or_default())))?;
    for handle in std::iter::once(private).chain(beside) {
        let n = read(at, handle, AttributeType::Modulus)?;
        let e = read(at, handle, AttributeType::PublicExponent)?;
        if let (Some(Attribute::Modulus(n)), Some(Attribute::PublicExponent(e))) = (n, e)
            && !n.is_empty()
            && !e.is_empty()
        {
            return Ok(Some(Numbers { n, e }));
        }
    }
    Ok(None)
}

fn public_objects(at: Connected<'_>, which: Attribute) -> Result<Vec<ObjectHandle>, Fault> {
    let rsa = [
        Attribute::Token(true),
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        which,
    ];
    at.session.find_objects(&rsa).map_err(failed("the token's objects can't be searched"))
}

/// An attribute; `None` where the object does not have it, or has something in it that nobody knows.
fn read(
    at: Connected<'_>,
    handle: ObjectHandle,
    attribute: AttributeType,
) -> Result<Option<Attribute>, Fault> {
    match at.session.get_attributes(handle, &[attribute]) {
        Ok(read) => Ok(read.into_iter().next()),
        Err(error @ cryptoki::error::Error::Pkcs11(..)) => {
            Err(failed("an attribute of the key can't be read")(error))
        }
        Err(_) => Ok(None),
    }
}

/// Ids as numbers: `0a` comes after `9`, and `0100` after `ff`.
fn by_number(a: &KeyId, b: &KeyId) -> Ordering {
    let digits = |key: &KeyId| {
        let version = key.version().unwrap_or_default();
        version.trim_start_matches('0').to_owned()
    };
    let (a, b) = (digits(a), digits(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

/// A version is an id in hexadecimal; `KeyId` has seen to that.
fn bytes(version: &str) -> Vec<u8> {
    let digits = version.as_bytes().chunks_exact(2);
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_as_numbers() {
        let key = |id: &[u8]| KeyId::pkcs11("T", "K", Some(id)).unwrap();
        let ascending: [&[u8]; 5] = [&[1], &[9], &[0, 10], &[0xff], &[1, 0]];
        for pair in ascending.windows(2) {
            assert_eq!(by_number(&key(pair[0]), &key(pair[1])), Ordering::Less, "{pair:?}");
        }
        assert_eq!(bytes(key(&[0, 10, 255]).version().unwrap()), [0, 10, 255]);
    }
}
