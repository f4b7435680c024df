//! The query: the API's version, and which part of a listing is wanted.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::reply::Refusal;

/// As Key Vault: at most, and unless said otherwise.
const PAGE: usize = 25;

/// What the server takes from a query; names are the same in any case.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    version: Option<String>,
    max_results: Option<String>,
    skip_token: Option<String>,
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match name.to_ascii_lowercase().as_str() {
                "api-version" => &mut parsed.version,
                "maxresults" => &mut parsed.max_results,
                "$skiptoken" => &mut parsed.skip_token,
                _ => continue,
            };
            field.get_or_insert_with(|| value.into_owned());
        }
        parsed
    }

    /// 7.x, and the dates that came after and before.
    pub(crate) fn check_version(&self) -> Result<(), Refusal> {
        let Some(version) = &self.version else {
            return Err(Refusal::bad_parameter("The query parameter api-version is missing."));
        };
        if is_supported(version) {
            return Ok(());
        }
        Err(Refusal::bad_parameter(
            "The api-version is not one of Key Vault: write 7.4, or a date from 2016-10-01 on.",
        ))
    }

    /// The wanted part of `items`, which are sorted by the key in front of each, and where the next one is.
    pub(crate) fn page(&self, url: &str, items: Vec<(String, Value)>) -> Result<Value, Refusal> {
        let size = match &self.max_results {
            None => PAGE,
            Some(text) => text
                .parse()
                .ok()
                .filter(|size| (1..=PAGE).contains(size))
                .ok_or_else(|| Refusal::bad_parameter("maxresults is a number from 1 to 25."))?,
        };
        let after = self.skip_token.as_deref().map(decode).transpose()?;
        // By order, not by place: what was deleted since must not end the listing.
        let mut rest =
            items.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after)).peekable();
        let (mut value, mut last) = (Vec::new(), String::new());
        while value.len() < size
            && let Some((key, item)) = rest.next()
        {
            value.push(item);
            last = key;
        }
        let next = rest.peek().is_some().then(|| {
            let version = form_urlencoded::Serializer::new(String::new())
                .append_pair("api-version", self.version.as_deref().unwrap_or_default())
                .append_pair("$skiptoken", &BASE64URL_NOPAD.encode(last.as_bytes()))
                .append_pair("maxresults", &size.to_string())
                .finish();
            format!("{url}?{version}")
        });
        Ok(json!({ "value": value, "nextLink": next }))
    }
}

fn decode(token: &str) -> Result<String, Refusal> {
    BASE64URL_NOPAD
        .decode(token.as_bytes())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::bad_parameter("The $skiptoken is not one that this vault gave."))
}

fn is_supported(version: &str) -> bool {
    let released = match version.split_once("-preview") {
        Some((released, number)) if number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            released
        }
        Some(_) => return false,
        None => version,
    };
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    match released.strip_prefix("7.") {
        Some(minor) => digits(minor),
        None => {
            let parts: Vec<&str> = released.split('-').collect();
            matches!(parts[..], [year, month, day]
                if year.len() == 4 && month.len() == 2 && day.len() == 2 && [year, month, day].into_iter().all(digits))
                && released >= "2016-10-01"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_api() {
        for version in
            ["7.0", "7.4", "7.6", "7.6-preview.2", "2016-10-01", "2025-07-01", "2025-06-01-preview"]
        {
            assert!(is_supported(version), "{version}");
        }
        for version in ["", "7", "7.", "8.0", "2015-06-01", "2025-7-1", "7.4; DROP", "latest"] {
            assert!(!is_supported(version), "{version}");
        }
    }

    #[test]
    fn pages_in_order_until_the_end() {
        let items = || ["a", "b", "c", "d", "e"].map(|key| (key.to_owned(), json!(key))).to_vec();
        let mut query = Query::parse("Api-Version=7.4&MaxResults=2");
        let mut seen = Vec::new();
        loop {
            let page = query.page("https://h/keys", items()).unwrap();
            seen.push(page["value"].clone());
            let Some(next) = page["nextLink"].as_str() else { break };
            let (url, text) = next.split_once('?').unwrap();
            assert_eq!(url, "https://h/keys");
            query = Query::parse(text);
            assert_eq!(query.check_version().ok(), Some(()));
        }
        assert_eq!(json!(seen), json!([["a", "b"], ["c", "d"], ["e"]]));
        // What the token names is gone; the listing goes on behind it.
        let query = Query::parse(&format!("$skiptoken={}", BASE64URL_NOPAD.encode(b"bb")));
        assert_eq!(query.page("u", items()).unwrap()["value"], json!(["c", "d", "e"]));
        for bad in ["maxresults=0", "maxresults=26", "maxresults=x", "$skiptoken=*"] {
            assert!(Query::parse(bad).page("u", items()).is_err(), "{bad}");
        }
    }
}
