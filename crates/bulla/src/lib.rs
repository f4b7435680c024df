//! Envelope-encryption storage engine for container registries.

pub mod bucket;
