//! What a manifest says, as far as a registry needs it: what it needs to be there, and what it says of itself.
//!
//! Manifests are hostile input. Any JSON object is taken under any media type, and looked at by its shape; what is of a known
//! type must have that type's shape.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use bulla::Digest;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::{ErrorCode, RegistryError, Result};
use crate::name::parse_digest;

/// An image or artifact.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A list of manifests.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's image.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's list of manifests.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The longest media type, in bytes.
const MAX_TYPE_LEN: usize = 255;

/// A manifest that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parsed {
    /// What it is served as.
    pub media_type: String,
    /// What it needs, each once.
    pub needs: Vec<Need>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// What it is: its own word, or its configuration's media type.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Something that must be in the repository for a manifest to be of use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "there is nothing else in a repository")]
pub enum Need {
    /// A blob.
    Blob(Digest),
    /// A manifest; some clients list blobs among an index's manifests, so it may be one.
    Manifest(Digest),
}

impl Need {
    /// Its name.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        match self {
            Need::Blob(digest) | Need::Manifest(digest) => digest,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Object<Part>>,
    #[serde(default, deserialize_with = "list")]
    layers: Option<Vec<Object<Part>>>,
    /// Of the artifact manifest that never made it into a release of the specification.
    #[serde(default, deserialize_with = "list")]
    blobs: Option<Vec<Object<Part>>>,
    #[serde(default, deserialize_with = "list")]
    manifests: Option<Vec<Object<Part>>>,
    #[serde(default)]
    subject: Option<Object<Part>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    media_type: String,
    digest: String,
    /// Signed, as Go's clients read it.
    #[serde(default)]
    size: Option<i64>,
}

/// A JSON object. serde would take a list of its values as well, and see a manifest where no client sees one.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Only<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Only<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Only(PhantomData))
    }
}

/// Go's empty list may be `null`, which is there all the same.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Object<Part>>>, D::Error> {
    Option::deserialize(deserializer).map(|list| Some(list.unwrap_or_default()))
}

impl Parsed {
    /// Reads a manifest. `content_type` is what the client says that it is.
    ///
    /// # Errors
    /// `MANIFEST_INVALID` where it is no JSON object, says another media type than the client, lacks what its type must
    /// have, is two things at once, refers to what can't be there, or is of Docker's schema 1.
    pub fn new(content_type: Option<&str>, bytes: &[u8]) -> Result<Self> {
        // Also where nobody here reads it: readers would differ in what they make of other bytes.
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("the manifest is not UTF-8"))?;
        let Object(document) = serde_json::from_str::<Object<Document>>(text)
            .map_err(|error| invalid(format!("the manifest is not the JSON of one: {error}")))?;
        if document.schema_version == Some(1) {
            return Err(invalid("Docker's schema 1 is not supported; push schema 2 or OCI"));
        }
        let media_type = document.media_type(content_type)?;
        document.check(&media_type)?;
        let needs = document.needs()?;
        let subject = document.subject.as_ref().map(|part| part.0.digest()).transpose()?;
        let artifact_type = document.artifact_type.filter(|text| !text.is_empty());
        let of_config = || document.config.map(|part| part.0.media_type).filter(|text| !text.is_empty());
        let artifact_type = artifact_type.or_else(of_config);
        if artifact_type.as_ref().is_some_and(|text| text.len() > MAX_TYPE_LEN) {
            return Err(invalid("the manifest's artifact type is too long for a media type"));
        }
        Ok(Self {
            media_type,
            needs,
            subject,
            artifact_type,
            annotations: document.annotations.unwrap_or_default(),
        })
    }
}

impl Document {
    fn media_type(&self, content_type: Option<&str>) -> Result<String> {
        // Parameters say nothing about JSON.
        let header = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        let header = header.filter(|text| !text.is_empty());
        let inside = self.media_type.as_deref().filter(|text| !text.is_empty());
        let media_type = match (header, inside) {
            (Some(header), Some(inside)) if header != inside => {
                return Err(invalid("the manifest says another media type than the Content-Type header"));
            }
            (Some(header), _) => header,
            (None, Some(inside)) => inside,
            (None, None) if self.manifests.is_some() => OCI_INDEX,
            (None, None) => OCI_MANIFEST,
        };
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if media_type.len() > MAX_TYPE_LEN || !media_type.contains('/') || !media_type.bytes().all(is_plain) {
            return Err(invalid("the manifest's media type is none"));
        }
        Ok(media_type.to_owned())
    }

    fn check(&self, media_type: &str) -> Result<()> {
        // CVE-2021-41190: who reads it as the one sees other content than who reads it as the other.
        let is_image = self.config.is_some() || self.layers.as_ref().is_some_and(|list| !list.is_empty());
        if is_image && self.manifests.is_some() {
            return Err(invalid("a manifest has either `manifests` or `config` and `layers`"));
        }
        match media_type {
            OCI_MANIFEST | DOCKER_MANIFEST if self.config.is_none() || self.layers.is_none() => {
                Err(invalid("a manifest of this type has `config` and `layers`"))
            }
            OCI_INDEX | DOCKER_LIST if self.manifests.is_none() => {
                Err(invalid("a manifest of this type has `manifests`"))
            }
            OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_LIST if self.schema_version != Some(2) => {
                Err(invalid("a manifest of this type has `schemaVersion` 2"))
            }
            _ => Ok(()),
        }
    }

    fn needs(&self) -> Result<Vec<Need>> {
        let blobs = self.config.iter().chain(self.layers.iter().flatten()).chain(self.blobs.iter().flatten());
        let blobs = blobs.filter(|part| !part.0.is_elsewhere()).map(|part| part.0.digest().map(Need::Blob));
        let manifests = self.manifests.iter().flatten().map(|part| part.0.digest().map(Need::Manifest));
        let mut seen = HashSet::new();
        let mut needs: Vec<Need> = blobs.chain(manifests).collect::<Result<_>>()?;
        needs.retain(|need| seen.insert(need.clone()));
        Ok(needs)
    }
}

impl Part {
    fn digest(&self) -> Result<Digest> {
        if self.size.is_some_and(i64::is_negative) {
            return Err(invalid(format!("the manifest gives `{}` a negative size", self.digest)));
        }
        parse_digest(&self.digest)
            .map_err(|error| invalid(format!("the manifest refers to `{}`: {error}", self.digest)))
    }

    /// Layers that may not be distributed, or are fetched from elsewhere: whether they are here is nobody's business.
    fn is_elsewhere(&self) -> bool {
        self.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || self.media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

fn invalid(message: impl Into<String>) -> RegistryError {
    RegistryError::new(ErrorCode::ManifestInvalid, message)
}

#[cfg(test)]
mod tests;
