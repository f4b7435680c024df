//! Lazy pull: one file out of a sealed layer, by ranges, at the cost of the chunks that it is in.

use std::io::{Read, Write};
use std::sync::Arc;

use bulla::Bucket;
use bulla_registry::RegistryOptions;
use bulla_registry::access::Open;
use bulla_testkit::metered::MeteredStore;
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use crate::client::{Client, sha256};
use crate::support::{Node, World};

const FILES: u32 = 240;
const FILE: usize = 100 << 10;
/// Where the table of contents is, in the extra field of an empty gzip member.
const FOOTER: usize = 51;

/// Bytes that no compression makes shorter.
fn content(number: u32) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..FILE).map(|_| next()).collect()
}

fn entry(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, content).unwrap();
    let mut entry = archive.into_inner().unwrap();
    // Not the archive's end.
    entry.truncate(entry.len() - 1024);
    entry
}

fn member(of: &[u8], extra: &[u8]) -> Vec<u8> {
    let level = if of.is_empty() { Compression::none() } else { Compression::fast() };
    let mut builder = GzBuilder::new();
    if !extra.is_empty() {
        builder = builder.extra(extra);
    }
    let mut encoder = builder.write(Vec::new(), level);
    encoder.write_all(of).unwrap();
    encoder.finish().unwrap()
}

/// A layer like eStargz has it: a gzip member per file, their table of contents, and a footer that leads there. To anybody
/// else it is an ordinary `tar.gz`.
fn layer() -> Vec<u8> {
    let (mut layer, mut entries) = (Vec::new(), Vec::new());
    for number in 0..FILES {
        let (name, content) = (format!("usr/lib/{number}.so"), content(number));
        entries.push(json!({ "name": name, "type": "reg", "size": FILE, "offset": layer.len(),
            "digest": sha256(&content).to_string() }));
        layer.extend(member(&entry(&name, &content), &[]));
    }
    let contents_at = layer.len();
    let contents = json!({ "version": 1, "entries": entries }).to_string();
    let mut last = entry("stargz.index.json", contents.as_bytes());
    last.extend([0; 1024]);
    layer.extend(member(&last, &[]));
    let lead = format!("{contents_at:016x}STARGZ");
    let field = [&b"SG"[..], &u16::try_from(lead.len()).unwrap().to_le_bytes(), lead.as_bytes()].concat();
    let footer = member(&[], &field);
    assert_eq!(footer.len(), FOOTER);
    layer.extend(footer);
    layer
}

async fn range(client: &Client, path: &str, range: &str) -> Vec<u8> {
    let headers = [("Range", format!("bytes={range}"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client.send("GET", path, &headers, b"").await.assert_status(206).body
}

/// The only file of a gzip member.
fn file_of(member: &[u8]) -> Vec<u8> {
    let mut archive = tar::Archive::new(GzDecoder::new(member));
    let mut content = Vec::new();
    archive.entries().unwrap().next().unwrap().unwrap().read_to_end(&mut content).unwrap();
    content
}

/// Reads one file, as a snapshotter does that mounts the layer: footer, table of contents, file.
async fn read(client: &Client, path: &str, name: &str) -> Vec<u8> {
    let footer = range(client, path, &format!("-{FOOTER}")).await;
    let mut decoder = GzDecoder::new(&footer[..]);
    decoder.read_to_end(&mut Vec::new()).unwrap();
    let lead = decoder.header().unwrap().extra().unwrap()[4..20].to_vec();
    let contents_at = u64::from_str_radix(std::str::from_utf8(&lead).unwrap(), 16).unwrap();
    let contents = range(client, path, &format!("{contents_at}-")).await;
    let contents: Value = serde_json::from_slice(&file_of(&contents)).unwrap();
    let entries = contents["entries"].as_array().unwrap();
    let at = entries.iter().position(|entry| entry["name"] == name).unwrap();
    let start = entries[at]["offset"].as_u64().unwrap();
    let end = entries.get(at + 1).map_or(contents_at, |next| next["offset"].as_u64().unwrap());
    let content = file_of(&range(client, path, &format!("{start}-{}", end - 1)).await);
    assert_eq!(entries[at]["digest"], sha256(&content).to_string());
    content
}

#[tokio::test]
async fn a_file_costs_less_than_a_tenth_of_its_layer() {
    let metered = MeteredStore::default();
    let bucket = || Bucket::from_object_store(Arc::new(metered.clone()), "").unwrap();
    let world = World::over(bucket()).await;
    let start = async || {
        let store = world.open_at(bucket()).await;
        Node::with(store, RegistryOptions::default(), Arc::new(Open)).await
    };
    let layer = layer();
    let size = layer.len() as u64;
    let digest = start().await.client.push_blob("app", &layer).await;
    let path = format!("/v2/app/blobs/{digest}");
    for number in [0, 117, FILES - 1] {
        // One that has nothing of the layer in memory.
        let node = start().await;
        let _ = metered.take();
        let got = read(&node.client, &path, &format!("usr/lib/{number}.so")).await;
        assert!(got == content(number));
        let (bytes, requests) = metered.take();
        assert!(bytes * 10 < size, "{bytes} of {size} bytes were read of the bucket");
        assert!(bytes < 1 << 20 && requests < 20, "{bytes} bytes in {requests} requests");
        // The next file of a layer that is known.
        let got = read(&node.client, &path, "usr/lib/42.so").await;
        assert!(got == content(42));
        let (bytes, requests) = metered.take();
        assert!(bytes * 10 < size, "{bytes} of {size} bytes in {requests} requests");
    }
}

/// As podman takes a layer of which it has most files.
#[tokio::test]
async fn several_files_in_one_answer_cost_what_they_are() {
    let metered = MeteredStore::default();
    let bucket = || Bucket::from_object_store(Arc::new(metered.clone()), "").unwrap();
    let world = World::over(bucket()).await;
    let store = world.open_at(bucket()).await;
    let node = Node::with(store, RegistryOptions::default(), Arc::new(Open)).await;
    let layer = layer();
    let digest = node.client.push_blob("app", &layer).await;
    let _ = metered.take();
    let starts = [100_000, 3_000_000, 9_000_000, 9_050_000, 20_000_000];
    let ranges: Vec<String> = starts.iter().map(|start| format!("{start}-{}", start + 9_999)).collect();
    let headers = [("Range", format!("bytes={}", ranges.join(",")))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let path = format!("/v2/app/blobs/{digest}");
    let answer = node.client.send("GET", &path, &headers, b"").await.assert_status(206);
    for start in starts {
        let wanted = &layer[start..start + 10_000];
        assert!(answer.body.windows(wanted.len()).any(|bytes| bytes == wanted), "{start}");
    }
    assert!(answer.body.len() < starts.len() * 10_300);
    let (bytes, requests) = metered.take();
    assert!(bytes < 1 << 20 && requests < 20, "{bytes} bytes in {requests} requests");
}
