//! `bulla serve` as the world's clients use it: docker, containerd, podman, buildah, skopeo, umoci, clients in Python and
//! Rust, and an independent verifier of signatures.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "registry/adopt.rs"]
mod adopt;
#[path = "registry/adopt_s3.rs"]
mod adopt_s3;
#[path = "registry/buildah.rs"]
mod buildah;
#[path = "registry/certificates.rs"]
mod certificates;
#[path = "registry/containers.rs"]
mod containers;
#[path = "registry/distribution.rs"]
mod distribution;
#[path = "registry/docker.rs"]
mod docker;
#[path = "registry/engine.rs"]
mod engine;
#[path = "registry/gc.rs"]
mod gc;
#[path = "registry/images.rs"]
mod images;
#[path = "registry/layout.rs"]
mod layout;
#[path = "registry/node.rs"]
mod node;
#[path = "registry/nodes.rs"]
mod nodes;
#[path = "registry/oci_client.rs"]
mod oci_client;
#[path = "registry/one_bucket.rs"]
mod one_bucket;
#[path = "registry/places.rs"]
mod places;
#[path = "registry/podman.rs"]
mod podman;
#[path = "registry/python.rs"]
mod python;
#[path = "registry/revoked.rs"]
mod revoked;
#[path = "registry/server.rs"]
mod server;
#[path = "registry/skopeo.rs"]
mod skopeo;
#[path = "registry/tokens.rs"]
mod tokens;
#[path = "registry/trust.rs"]
mod trust;
#[allow(dead_code, reason = "the command's own tests use the rest of it")]
#[path = "cli/world.rs"]
mod world;
