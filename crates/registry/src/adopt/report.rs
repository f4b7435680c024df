//! What an adoption did, and what it could not do.

use std::error::Error as StdError;
use std::fmt;

use bulla::bucket::{BucketError, BucketErrorKind};
use bulla::{ErrorKind, Tally};

use crate::error::{ErrorCode, RegistryError};
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
    /// What a folder has beside files: symbolic links, pipes and the like. Files that links point to are adopted as what they
    /// are named; nothing is removed while there is any. Their keys.
    pub irregular: Vec<String>,
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
    /// Whose business it is.
    pub cause: AdoptCause,
}

/// Why something could not be adopted, by what is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AdoptCause {
    /// It is damaged in the source (or in the store): not what its digest says, not there, not readable as what it is. Repair
    /// or remove it there.
    Damaged,
    /// It is sound, and nothing that this registry takes, such as a manifest of Docker's schema 1. Convert or remove it.
    Unsupported,
    /// The store has something else by that name. Delete one of the two.
    Conflict,
    /// It could not be read or written at the time. Run it again.
    Unavailable,
}

/// What an adoption tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdoptEvent {
    /// How far it is.
    Progress(AdoptProgress),
    /// Something could not be adopted; it goes on with the rest.
    Failed(AdoptFailure),
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
        refusal: Refusal,
    ) -> Self {
        let Refusal { cause, why } = refusal;
        Self { repository: repository.map(ToString::to_string), what: what.into(), why, cause }
    }
}

/// Why one thing is not adopted.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) cause: AdoptCause,
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn new(cause: AdoptCause, why: impl Into<String>) -> Self {
        Self { cause, why: why.into() }
    }

    pub(super) fn damaged(why: impl Into<String>) -> Self {
        Self::new(AdoptCause::Damaged, why)
    }

    /// The source does not give it.
    pub(super) fn of_source(error: &BucketError) -> Self {
        let cause = match error.kind() {
            BucketErrorKind::NotFound | BucketErrorKind::ShortObject => AdoptCause::Damaged,
            BucketErrorKind::TooLarge => AdoptCause::Unsupported,
            _ => AdoptCause::Unavailable,
        };
        Self::new(cause, with_causes(error))
    }

    /// The registry does not take it. `None`: it takes nothing at all now.
    pub(super) fn of_registry(error: &RegistryError) -> Option<Self> {
        let cause = match error.engine().map(bulla::Error::kind) {
            Some(ErrorKind::Corrupt) => AdoptCause::Damaged,
            Some(ErrorKind::Conflict) => AdoptCause::Conflict,
            Some(_) if error.code() == ErrorCode::DigestInvalid => AdoptCause::Damaged,
            Some(_) => return None,
            None if error.code() == ErrorCode::Unavailable => AdoptCause::Unavailable,
            None => AdoptCause::Damaged,
        };
        Some(Self::new(cause, with_causes(error)))
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
fn with_causes(error: &(dyn StdError + 'static)) -> String {
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
