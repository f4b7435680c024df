//! What is after the question mark. A parameter may come several times.

use axum::http::StatusCode;
use serde_json::json;
use url::form_urlencoded;

use super::answer::Failure;
use crate::error::{ErrorCode, RegistryError};

#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: Option<&str>) -> Self {
        Self(form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first one of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `n`, the length of a page.
    pub(super) fn page_len(&self) -> Result<Option<usize>, Failure> {
        let Some(text) = self.get("n") else { return Ok(None) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            // Docker's PAGINATION_NUMBER_INVALID is no code of the specification, and none of its others is about a query.
            let message =
                "n is the most entries that a page may have: a whole number such as 100, or leave it out";
            let error = RegistryError::new(ErrorCode::Unsupported, message).with_detail(json!({ "n": text }));
            return Err(Failure::new(StatusCode::BAD_REQUEST, error));
        }
        // More than there can be is all that there is.
        Ok(Some(text.parse().unwrap_or(usize::MAX)))
    }
}

/// Parameters as they are sent.
pub(super) fn encode(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}
