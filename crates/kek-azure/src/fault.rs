//! From what came back, or did not, to what the caller does next.
//!
//! | answer | becomes |
//! |---|---|
//! | 401, with a fresh token too | `Denied(IdentityUnknown)` |
//! | 403 `KeyDisabled` | `Denied(Disabled)` |
//! | 403 `ForbiddenByFirewall`, `ForbiddenByConnection` | `Denied(Firewall)` |
//! | 403 `KeyOperationForbidden` | `Denied(OperationNotPermitted)` |
//! | 403 `KeyExpired` · `KeyNotYetValid` | `Denied(Expired)` · `Denied(NotYetValid)` |
//! | any other 403: `ForbiddenByPolicy`, `ForbiddenByRbac`, unknown | `Denied(Forbidden)` |
//! | 404 with a code | `Denied(Deleted)` if it is among the deleted keys, else `Denied(NotFound)` |
//! | 409 `ObjectIsDeletedButRecoverable`, `ObjectIsBeingDeleted` | `Denied(Deleted)` |
//! | 400 with a code | `Invalid` |
//! | 429 | `Throttled` |
//! | 409 `ObjectIsBeingRecovered`, 408, 5xx, redirects, anything else, no answer | `Unavailable` |
//! | identity endpoint: 400, 401, 403 | `Denied(IdentityUnknown)` |
//! | identity endpoint: 429 · anything else, no answer | `Throttled` · `Unavailable` |
//!
//! Codes are in `error.code`, `error.innererror.code` and so on inwards, by whichever spelling; the innermost that is
//! known decides. A 400 or 404 without one did not come from a key vault, but from something on the way.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use azure_core::Error;
use azure_core::error::ErrorKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::Headers;
use bulla_kek::{DenyReason, KekError};
use serde_json::Value;

/// The longest text of the other side that goes into a message.
const MAX_TEXT: usize = 400;
/// Longer words are tokens or keys, whatever else they claim to be.
const MAX_WORD: usize = 80;
/// Inner errors nest twice in practice.
const MAX_DEPTH: usize = 8;

/// A failed attempt.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) error: KekError,
    pub(crate) again: Again,
}

/// Whether another attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It would come to the same.
    No,
    /// After a while.
    Later,
    /// After this time, as the other side said.
    After(Duration),
    /// At once, with a new token: the one that was used may be stale.
    FreshToken,
    /// After a look at the deleted keys, which decide what it means.
    Missing,
}

impl Fault {
    /// An answer that is none: another key's, or not what was asked for.
    pub(crate) fn useless(message: impl Into<String>) -> Self {
        Self { error: KekError::unavailable(message), again: Again::No }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { error: KekError::invalid(message), again: Again::No }
    }

    fn denied(reason: DenyReason, what: &str) -> Self {
        Self { error: KekError::denied(reason).with_message(format!("{reason}: {what}")), again: Again::No }
    }

    fn later(message: impl Into<String>) -> Self {
        Self { error: KekError::unavailable(message), again: Again::Later }
    }

    /// What a call of the SDK to the vault `host` failed with.
    pub(crate) fn of(error: &Error, host: &str) -> Self {
        if *error.kind() == ErrorKind::Credential {
            return of_identity(error);
        }
        match error.kind() {
            ErrorKind::HttpResponse { status, raw_response, .. } => {
                of_answer((*status).into(), raw_response.as_deref(), host)
            }
            ErrorKind::Connection | ErrorKind::Io => unreachable(host, error),
            // A challenge for another domain, an answer that is too long or is not JSON.
            _ => Self::useless(format!(
                "{host} does not answer as a key vault does: {}",
                printable(&error.to_string())
            )),
        }
    }
}

/// The vault answered, and not with success.
fn of_answer(status: u16, raw: Option<&RawResponse>, host: &str) -> Fault {
    let body: Value = raw.and_then(|raw| serde_json::from_slice(raw.body()).ok()).unwrap_or_default();
    let codes = codes(&body["error"]);
    let what = said(host, status, &codes, body["error"]["message"].as_str());
    let has =
        |wanted: &[&str]| codes.iter().any(|code| wanted.iter().any(|one| code.eq_ignore_ascii_case(one)));
    match status {
        401 => Fault { again: Again::FreshToken, ..Fault::denied(DenyReason::IdentityUnknown, &what) },
        403 if has(&["KeyDisabled"]) => Fault::denied(DenyReason::Disabled, &what),
        403 if has(&["ForbiddenByFirewall", "ForbiddenByConnection"]) => {
            Fault::denied(DenyReason::Firewall, &what)
        }
        403 if has(&["KeyOperationForbidden"]) => Fault::denied(DenyReason::OperationNotPermitted, &what),
        403 if has(&["KeyExpired"]) => Fault::denied(DenyReason::Expired, &what),
        403 if has(&["KeyNotYetValid"]) => Fault::denied(DenyReason::NotYetValid, &what),
        403 => Fault::denied(DenyReason::Forbidden, &what),
        404 if !codes.is_empty() => {
            Fault { again: Again::Missing, ..Fault::denied(DenyReason::NotFound, &what) }
        }
        409 if has(&["ObjectIsDeletedButRecoverable", "ObjectIsBeingDeleted"]) => {
            Fault::denied(DenyReason::Deleted, &what)
        }
        400 if !codes.is_empty() => Fault::invalid(what),
        429 => throttled(raw.map(RawResponse::headers), &what),
        300..=399 => Fault::useless(format!("{host} answers with a redirect, which is not followed")),
        408 | 409 | 500..=599 => match raw.and_then(|raw| retry_after(raw.headers())) {
            Some(wait) => Fault { again: Again::After(wait), ..Fault::later(what) },
            None => Fault::later(what),
        },
        _ => Fault::useless(format!("what answers is not a key vault: {what}")),
    }
}

/// No token. Whoever gives them answered, or did not.
fn of_identity(error: &Error) -> Fault {
    let chain = causes(error);
    for cause in &chain {
        let Some(error) = cause.downcast_ref::<Error>() else { continue };
        match error.kind() {
            ErrorKind::HttpResponse { status, raw_response, .. } => {
                return of_identity_answer((*status).into(), raw_response.as_deref());
            }
            ErrorKind::Connection | ErrorKind::Io => return unreachable("the identity endpoint", error),
            _ => {}
        }
    }
    if error.to_string().starts_with("AzureCliCredential") {
        return Fault::useless("the Azure CLI gives no token; install it and run `az login`");
    }
    // Not its text: what could not be read may have been a token.
    Fault::useless("the identity endpoint's answer has no token that can be used")
}

fn of_identity_answer(status: u16, raw: Option<&RawResponse>) -> Fault {
    let body: Value = raw.and_then(|raw| serde_json::from_slice(raw.body()).ok()).unwrap_or_default();
    let code = body["error"].as_str().map(str::to_owned);
    let text = body["error_description"].as_str().or(body["message"].as_str());
    let codes: Vec<String> = code.into_iter().collect();
    let what = said("the identity endpoint", status, &codes, text);
    let busy = codes.iter().any(|code| code == "temporarily_unavailable" || code == "server_error");
    match status {
        400 | 401 | 403 if !busy => Fault::denied(DenyReason::IdentityUnknown, &what),
        429 => throttled(raw.map(RawResponse::headers), &what),
        // On virtual machines 404 and 410 mean that the endpoint is being updated.
        _ => Fault::later(what),
    }
}

fn throttled(headers: Option<&Headers>, what: &str) -> Fault {
    let wait = headers.and_then(retry_after);
    let error = KekError::throttled(wait);
    let message = format!("{error}: {what}");
    Fault { error: error.with_message(message), again: wait.map_or(Again::Later, Again::After) }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds or a date. A date that is over means now.
fn retry_after(headers: &Headers) -> Option<Duration> {
    let value =
        headers.iter().find(|(name, _)| name.as_str().eq_ignore_ascii_case("retry-after"))?.1.as_str();
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date: SystemTime = azure_core::time::parse_rfc7231(value.trim()).ok()?.into();
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// There was no answer.
fn unreachable(who: &str, error: &Error) -> Fault {
    let chain = causes(error);
    let untrusted = chain.iter().any(|cause| is_untrusted(*cause));
    let timed_out = chain
        .iter()
        .any(|cause| cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout));
    let message = if untrusted {
        format!(
            "the certificate of {who} is not trusted here; name the certificate of who issued it as an additional one"
        )
    } else if timed_out {
        format!("{who} does not answer in time")
    } else {
        format!("{who} can't be reached")
    };
    let mut texts: Vec<String> = chain.iter().map(ToString::to_string).collect();
    texts.dedup();
    let cause = Cause(printable(&texts.join(": ")));
    Fault { error: KekError::unavailable(message).with_source(cause), again: Again::Later }
}

/// Whether a certificate was not accepted. I/O errors don't name what they wrap as their source.
fn is_untrusted(cause: &(dyn StdError + 'static)) -> bool {
    if let Some(io) = cause.downcast_ref::<io::Error>() {
        return io.get_ref().is_some_and(|inner| is_untrusted(inner));
    }
    matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
}

/// The causes as text. The errors themselves may hold bodies and headers.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Cause {}

fn causes(error: &Error) -> Vec<&(dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |&cause| cause.source()).take(16).collect()
}

/// The codes of an error, outermost first.
fn codes(error: &Value) -> Vec<String> {
    let inner = |error: &Value| {
        ["innererror", "innerError"].iter().find_map(|name| error.get(name)).cloned().unwrap_or_default()
    };
    std::iter::successors(Some(error.clone()), |error| Some(inner(error)))
        .take(MAX_DEPTH)
        .take_while(Value::is_object)
        .filter_map(|error| error["code"].as_str().map(printable))
        .filter(|code| !code.is_empty())
        .collect()
}

/// `HOST says 403 Forbidden/ForbiddenByPolicy: …`
fn said(who: &str, status: u16, codes: &[String], text: Option<&str>) -> String {
    let mut said = format!("{who} says {status}");
    if !codes.is_empty() {
        said.push_str(&format!(" {}", codes.join("/")));
    }
    if let Some(text) = text.map(printable).filter(|text| !text.is_empty()) {
        // What to do follows after a semicolon.
        said.push_str(&format!(": {}", text.trim_end_matches('.')));
    }
    said
}

/// Somebody else's text, fit for a message of one line: short, printable, and without anything that could be a token or
/// a wrapped key. (No backticks either: in our messages they mark commands to type.)
pub(crate) fn printable(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=' | '~');
    let mut out = String::new();
    for line in
        text.split(|c: char| c.is_control() || c.is_whitespace() || c == '`').filter(|part| !part.is_empty())
    {
        if !out.is_empty() {
            out.push(' ');
        }
        let longest = line.split(|c| !is_word(c)).map(str::len).max().unwrap_or_default();
        out.push_str(if longest > MAX_WORD { "…" } else { line });
        if out.len() > MAX_TEXT {
            let cut = (0..=MAX_TEXT).rev().find(|&at| out.is_char_boundary(at)).unwrap_or_default();
            out.truncate(cut);
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests;
