//! From text to key id: total, and every refusal says what to write instead.

use std::net::Ipv6Addr;

use super::{InvalidKeyId, KeyId};
use crate::percent;

/// Token labels are fields of 32 bytes (PKCS#11, `CK_TOKEN_INFO`).
pub(super) const MAX_TOKEN_LEN: usize = 32;
const MAX_OBJECT_ID_LEN: usize = 64;
const VAULT_ID_LEN: usize = 26;

const FORMS: &str = "write https://HOST/keys/NAME[/VERSION], vault+file:///DIR/keys/NAME[/VERSION] or \
                     pkcs11:token=TOKEN;object=NAME";

pub(super) fn key_id(text: &str) -> Result<KeyId, InvalidKeyId> {
    if let Some(rest) = strip_scheme(text, "https:") {
        let rest =
            rest.strip_prefix("//").ok_or_else(|| fix("after https: there are two slashes and a host"))?;
        let (host, path) = rest.split_once('/').ok_or_else(|| fix("after the host, write /keys/NAME"))?;
        let (name, version) = key_path(path)?;
        KeyId::key_vault(host, name, version)
    } else if let Some(rest) = strip_scheme(text, "vault:") {
        let (id, path) = rest.split_once('/').ok_or_else(|| fix("after the vault's id, write /keys/NAME"))?;
        let (name, version) = key_path(path)?;
        KeyId::vault(id, name, version)
    } else if let Some(rest) = strip_scheme(text, "pkcs11:") {
        pkcs11(rest)
    } else if strip_scheme(text, "http:").is_some() {
        Err(fix("keys are reached over https only; write https://"))
    } else if strip_scheme(text, "vault+file:").is_some() {
        Err(fix("a folder is not part of a portable key id; write vault:VAULTID/keys/NAME[/VERSION]"))
    } else {
        Err(fix(FORMS))
    }
}

pub(super) fn fix(why: &str) -> InvalidKeyId {
    InvalidKeyId::new(why)
}

/// The text after the scheme, which may be in any case.
pub(crate) fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let head = text.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
}

/// `keys/NAME[/VERSION]`
fn key_path(path: &str) -> Result<(&str, Option<&str>), InvalidKeyId> {
    if path.contains(['?', '#']) {
        return Err(fix("remove everything from ? or # on"));
    }
    let (collection, rest) = path.split_once('/').unwrap_or((path, ""));
    if !collection.eq_ignore_ascii_case("keys") {
        return Err(fix("the path begins with /keys/ (secrets and certificates are not keys)"));
    }
    // Portals and scripts put one there.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    match rest.split_once('/') {
        None => Ok((rest, None)),
        Some((name, version)) => Ok((name, Some(version))),
    }
}

pub(crate) fn name(text: &str) -> Result<String, InvalidKeyId> {
    word(text, "a key's name has 1 to 127 characters out of 0-9, A-Z, a-z and -")
}

pub(crate) fn version(text: &str) -> Result<String, InvalidKeyId> {
    word(text, "a key's version has 1 to 127 characters out of 0-9, A-Z, a-z and -")
}

fn word(text: &str, why: &str) -> Result<String, InvalidKeyId> {
    let fits = (1..=KeyId::MAX_NAME_LEN).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(text.to_owned()) } else { Err(fix(why)) }
}

/// A DNS name, IPv4 or bracketed IPv6 address in lower case, with its port unless that is 443.
pub(super) fn host(text: &str) -> Result<String, InvalidKeyId> {
    if text.contains('@') {
        return Err(fix("a host has no user or password before it"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let mut canonical = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(address) => {
            let address: Ipv6Addr =
                address.parse().map_err(|_| fix("between brackets stands an IPv6 address"))?;
            format!("[{address}]")
        }
        None => dns_name(host)?,
    };
    if let Some(port) = port {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(443) if digits => {}
            Ok(port @ 1..) if digits => canonical.push_str(&format!(":{port}")),
            _ => return Err(fix("a port is a number from 1 to 65535")),
        }
    }
    Ok(canonical)
}

fn dns_name(text: &str) -> Result<String, InvalidKeyId> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(fix("a host is a DNS name such as NAME.vault.azure.net, in ASCII"))
    }
}

/// 16 bytes in base32 (RFC 4648, lower case, no padding).
pub(super) fn vault_id(text: &str) -> Result<String, InvalidKeyId> {
    let id = text.to_ascii_lowercase();
    let base32 = id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
    // 26 characters carry 130 bits: the last two are zero, else two texts would name one vault.
    let whole = id.ends_with(['a', 'e', 'i', 'm', 'q', 'u', 'y', '4']);
    if id.len() == VAULT_ID_LEN && base32 && whole {
        Ok(id)
    } else {
        Err(fix(
            "a vault's id has 26 base32 characters (a-z, 2-7); for a folder write vault+file:///DIR/keys/NAME",
        ))
    }
}

/// `token=…;object=…[;id=…]`
fn pkcs11(text: &str) -> Result<KeyId, InvalidKeyId> {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    for attribute in path.split(';').chain(query.into_iter().flat_map(|query| query.split(['&', ';']))) {
        local_only(attribute)?;
    }
    if query.is_some() {
        return Err(fix("remove everything from ? on"));
    }

    let (mut token, mut object, mut id) = (None, None, None);
    for attribute in path.split(';') {
        let (key, value) =
            attribute.split_once('=').ok_or_else(|| fix("write pkcs11:token=TOKEN;object=NAME"))?;
        let place = match key {
            "token" => &mut token,
            "object" => &mut object,
            "id" => &mut id,
            "manufacturer"
            | "model"
            | "serial"
            | "slot-id"
            | "slot-description"
            | "slot-manufacturer"
            | "type"
            | "library-manufacturer"
            | "library-description"
            | "library-version" => {
                return Err(InvalidKeyId::new(format!(
                    "remove {key}=: a key is named by token, object and id; what narrows the choice of tokens is \
                     local configuration"
                )));
            }
            _ => return Err(fix("only token, object and id name a PKCS#11 key")),
        };
        let bytes = percent::decode(value, is_path_char)
            .ok_or_else(|| fix("percent-encode blanks and special characters, as in token=My%20Token"))?;
        if place.replace(bytes).is_some() {
            return Err(InvalidKeyId::new(format!("write {key}= once")));
        }
    }
    let token = token.ok_or_else(|| fix("token= is missing: write pkcs11:token=TOKEN;object=NAME"))?;
    let object = object.ok_or_else(|| fix("object= is missing: write pkcs11:token=TOKEN;object=NAME"))?;
    let token = label("token", token, MAX_TOKEN_LEN)?;
    let object = label("object", object, KeyId::MAX_NAME_LEN)?;
    KeyId::pkcs11(&token, &object, id.as_deref())
}

/// Refuses attributes by which a bucket could choose what is loaded, or that are secret.
fn local_only(attribute: &str) -> Result<(), InvalidKeyId> {
    let key = attribute.split_once('=').map_or(attribute, |(key, _)| key);
    match key {
        "module-path" | "module-name" => Err(InvalidKeyId::new(format!(
            "remove {key}: which PKCS#11 module is loaded is local configuration of the PKCS#11 provider, never \
             part of a key id"
        ))),
        "pin-value" | "pin-source" => Err(InvalidKeyId::new(format!(
            "remove {key}: the PIN or where it is read from is local configuration of the PKCS#11 provider, never \
             part of a key id"
        ))),
        _ => Ok(()),
    }
}

/// RFC 7512 `pk11-path-char`, escapes apart.
fn is_path_char(byte: u8) -> bool {
    percent::is_unreserved(byte)
        || matches!(
            byte,
            b':' | b'[' | b']' | b'@' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b'&'
        )
}

pub(super) fn label(what: &str, bytes: Vec<u8>, max: usize) -> Result<String, InvalidKeyId> {
    let text =
        String::from_utf8(bytes).map_err(|_| InvalidKeyId::new(format!("the {what} label is UTF-8")))?;
    if (1..=max).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(InvalidKeyId::new(format!("a {what} label has 1 to {max} bytes and no control characters")))
    }
}

/// An object's id as the lower-case hexadecimal text by which versions are compared.
pub(super) fn object_id(bytes: &[u8]) -> Result<String, InvalidKeyId> {
    if (1..=MAX_OBJECT_ID_LEN).contains(&bytes.len()) {
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    } else {
        Err(fix("an object's id has 1 to 64 bytes"))
    }
}

pub(super) fn hex(text: &str) -> Result<Vec<u8>, InvalidKeyId> {
    let odd = || fix("the version of a PKCS#11 key is its object's id in hexadecimal");
    let digits: Option<Vec<u8>> = text.bytes().map(percent::hex_digit).collect();
    let digits = digits.ok_or_else(odd)?;
    if digits.len() % 2 != 0 {
        return Err(odd());
    }
    Ok(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}
