//! A client as registries' clients are: POST and PUT per blob, GET per blob, eight at a time over kept connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla::{Algorithm, Digest};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use tokio::runtime::{Builder, Runtime};

use super::Load;

const AT_A_TIME: usize = 8;

/// With the blobs, hashed.
pub(super) struct Client {
    tokio: Runtime,
    http: reqwest::Client,
    blobs: Arc<Vec<(Digest, Bytes)>>,
}

impl Client {
    pub(super) fn new(load: Load) -> Self {
        // There is one already, in this process's second client.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let blobs = (0..load.blobs as u64).map(|number| {
            let blob = noise(load.len, number);
            (Digest::of(Algorithm::Sha256, &blob), blob)
        });
        Self {
            tokio: Builder::new_multi_thread().enable_all().build().expect("threads can start"),
            http: reqwest::Client::builder().no_proxy().build().expect("there is a provider of TLS"),
            blobs: Arc::new(blobs.collect()),
        }
    }

    /// How long it takes to push everything.
    pub(super) fn push(&self, address: &str) -> Duration {
        self.all(async |(digest, blob)| {
            let begin = format!("http://{address}/v2/bench/app/blobs/uploads/");
            let begun = self.http.post(begin).body("").send().await?.error_for_status()?;
            let location = begun.headers()[LOCATION].to_str().expect("a URL is text");
            let joint = if location.contains('?') { '&' } else { '?' };
            let host = if location.starts_with('/') { format!("http://{address}") } else { String::new() };
            let put = self.http.put(format!("{host}{location}{joint}digest={digest}"));
            let put = put.header(CONTENT_TYPE, "application/octet-stream").body(blob.clone()).send().await?;
            assert_eq!(put.status(), StatusCode::CREATED);
            Ok(())
        })
    }

    /// How long it takes to pull everything.
    pub(super) fn pull(&self, address: &str) -> Duration {
        self.all(async |(digest, blob)| {
            let get = self.http.get(format!("http://{address}/v2/bench/app/blobs/{digest}"));
            let mut answer = get.send().await?.error_for_status()?;
            let mut at = 0;
            while let Some(piece) = answer.chunk().await? {
                at += piece.len();
            }
            assert_eq!(at, blob.len());
            Ok(())
        })
    }

    fn all(&self, one: impl AsyncFn(&(Digest, Bytes)) -> reqwest::Result<()>) -> Duration {
        let started = Instant::now();
        let all = stream::iter(self.blobs.iter()).map(|blob| one(blob)).buffer_unordered(AT_A_TIME);
        self.tokio.block_on(all.try_for_each(|()| async { Ok(()) })).expect("a registry on loopback serves");
        started.elapsed()
    }
}

/// Bytes that no other number gives.
fn noise(len: usize, number: u64) -> Bytes {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
