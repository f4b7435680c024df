//! What an adoption did, and what it could not do.

use std::error::Error as StdError;
use std::fmt;

use bulla::Tally;

use crate::name::RepositoryName;

/// What an adoption did or, in a dry run, would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdoptReport {
    /// What was in the source when it began.
    pub source: Tally,
    /// Repositories in the source.
    pub repositories: u64,
    /// Blobs that were copied: each once, however many repositories have it.
    pub sealed: Tally,
    /// Blobs that were in the store already.
    pub present: Tally,
    /// Manifests that were written.
    pub manifests: Tally,
    /// Manifests that their repositories had already.
    pub present_manifests: u64,
    /// Tags that were written.
    pub tags: u64,
    /// Tags that named the same manifest already.
    pub present_tags: u64,
    /// Content of the source that none of its repositories has: not adopted.
    pub unlinked: Tally,
    /// Uploads to the source that did not end: not adopted.
    pub uploads: Tally,
    /// Links of the source to blobs that it does not have, as its own garbage collection leaves them: not adopted.
    pub dangling: u64,
    /// Objects that no registry of this kind writes: not adopted, and never removed. Their keys.
    pub unknown: Vec<String>,
    /// Blobs that were read back from the store and hashed.
    pub verified: Tally,
    /// Objects of the source that were written, replaced or removed meanwhile. Their keys.
    pub changed: Vec<String>,
    /// Objects of the source that were removed.
    pub removed: Tally,
    /// Objects that are in the source at the end: none of them is sealed.
    pub unsealed: u64,
    /// What could not be adopted, and why.
    pub failures: Vec<AdoptFailure>,
}

/// Something that could not be adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdoptFailure {
    /// Where, if it is one repository's.
    pub repository: Option<String>,
    /// What: `blob sha256:…`, `manifest sha256:…`, `tag v1`, `link docker/…`.
    pub what: String,
    /// Why, in one line.
    pub why: String,
}

/// How far an adoption is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdoptProgress {
    /// The source is listed and its links are read.
    Looking,
    /// Content is copied: bytes so far, those that are there already included.
    Sealing {
        /// So far.
        bytes: u64,
        /// Of so many.
        of_bytes: u64,
    },
    /// What was sealed is read back.
    Verifying {
        /// So far.
        bytes: u64,
        /// Of so many.
        of_bytes: u64,
    },
    /// Originals are removed.
    Removing {
        /// So far.
        objects: u64,
        /// Of so many.
        of_objects: u64,
    },
}

impl AdoptFailure {
    pub(super) fn new(
        repository: Option<&RepositoryName>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { repository: repository.map(ToString::to_string), what: what.into(), why: why.into() }
    }
}

impl fmt::Display for AdoptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repository {
            Some(repository) => write!(f, "{repository}: {}: {}", self.what, self.why),
            None => write!(f, "{}: {}", self.what, self.why),
        }
    }
}

/// An error and its causes in one line: what happened to another program's storage can only be told by its own words.
pub(super) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        // Layers that only pass an error on add nothing.
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
