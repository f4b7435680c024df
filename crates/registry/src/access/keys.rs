//! The public keys that a token server signs with: a PEM file, or a JWK set (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use spki::{Document, ObjectIdentifier, SubjectPublicKeyInfoRef};

// RFC 8017, RFC 5480, RFC 8410.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// More are not tried on one token.
const MAX_KEYS: usize = 32;
/// Of an RSA modulus of 2048 bits, the least that is believed.
const MIN_RSA: usize = 256;

/// A key, and the one algorithm that it is used with, whatever a token says.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The keys in a file; one at least.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Key>, String> {
    if text.trim_ascii_start().starts_with(b"{") { jwk_set(text) } else { pem(text).map(|key| vec![key]) }
}

fn pem(text: &[u8]) -> Result<Key, String> {
    let text = str::from_utf8(text).unwrap_or_default();
    if text.contains("PRIVATE KEY") {
        return Err("it is a private key; take its public half: `openssl pkey -in KEY -pubout`".to_owned());
    }
    let none = || "there is no JWK set and no PEM `PUBLIC KEY` in it".to_owned();
    let (label, document) = Document::from_pem(text).map_err(|_| none())?;
    if label != "PUBLIC KEY" {
        return Err(none());
    }
    let info: SubjectPublicKeyInfoRef<'_> = document.decode_msg().map_err(|_| none())?;
    let curve = info.algorithm.parameters_oid().ok();
    let key = info.subject_public_key.raw_bytes();
    let (algorithm, key) = match (info.algorithm.oid, curve) {
        (RSA, _) if key.len() < MIN_RSA => {
            return Err("it is an RSA key of less than 2048 bits".to_owned());
        }
        (RSA, _) => (Algorithm::RS256, DecodingKey::from_rsa_der(key)),
        (EC, Some(P_256)) => (Algorithm::ES256, DecodingKey::from_ec_der(key)),
        (EC, Some(P_384)) => (Algorithm::ES384, DecodingKey::from_ec_der(key)),
        (ED25519, _) => (Algorithm::EdDSA, DecodingKey::from_ed_der(key)),
        _ => return Err("it is a key of another kind than RSA, P-256, P-384 and Ed25519".to_owned()),
    };
    Ok(Key { id: None, algorithm, key })
}

fn jwk_set(text: &[u8]) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|error| format!("it is no JWK set: {error}"))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        // For encryption, or of a kind that is not known here: not for us.
        let encrypts = jwk.common.public_key_use == Some(PublicKeyUse::Encryption);
        let Some(algorithm) = algorithm(jwk)?.filter(|_| !encrypts) else { continue };
        let key =
            DecodingKey::from_jwk(jwk).map_err(|error| format!("a key in it can't be read: {error}"))?;
        keys.push(Key { id: jwk.common.key_id.clone(), algorithm, key });
    }
    match keys.len() {
        0 => Err("there is no key in it that tokens are signed with".to_owned()),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(format!("there are more than {MAX_KEYS} keys in it; leave out those that are not in use")),
    }
}

/// What a key is for: by its type, and among these by what it says itself.
fn algorithm(jwk: &Jwk) -> Result<Option<Algorithm>, String> {
    use {Algorithm as A, KeyAlgorithm as K};
    let said = jwk.common.key_algorithm.as_ref();
    let found = match (&jwk.algorithm, said) {
        (AlgorithmParameters::OctetKey(_), _) => {
            return Err("there is a secret key in it; tokens are checked with public keys only".to_owned());
        }
        (AlgorithmParameters::RSA(rsa), said) => {
            let bytes = data_encoding::BASE64URL_NOPAD.decode(rsa.n.as_bytes()).unwrap_or_default();
            if bytes.len() < MIN_RSA {
                return Err("there is an RSA key of less than 2048 bits in it".to_owned());
            }
            match said {
                None | Some(K::RS256) => A::RS256,
                Some(K::RS384) => A::RS384,
                Some(K::RS512) => A::RS512,
                Some(K::PS256) => A::PS256,
                Some(K::PS384) => A::PS384,
                Some(K::PS512) => A::PS512,
                _ => return Ok(None),
            }
        }
        (AlgorithmParameters::EllipticCurve(ec), said) => match (&ec.curve, said) {
            (EllipticCurve::P256, None | Some(K::ES256)) => A::ES256,
            (EllipticCurve::P384, None | Some(K::ES384)) => A::ES384,
            _ => return Ok(None),
        },
        (AlgorithmParameters::OctetKeyPair(pair), None | Some(K::EdDSA))
            if pair.curve == EllipticCurve::Ed25519 =>
        {
            A::EdDSA
        }
        _ => return Ok(None),
    };
    Ok(Some(found))
}
