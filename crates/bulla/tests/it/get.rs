//! Get: only authenticated bytes, in few requests.

use std::time::Duration;

use bulla::ErrorKind;
use bulla_testkit::scripted::{Op, broken_connection};
use futures::TryStreamExt;

use crate::support::*;

async fn range(
    store: &bulla::Store,
    digest: &bulla::Digest,
    range: std::ops::Range<u64>,
) -> bulla::Result<Vec<u8>> {
    let pieces: Vec<_> = store.get(digest).await?.range(range)?.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test(start_paused = true)]
async fn ranges_are_the_bytes_asked_for() {
    let world = World::new().await;
    let bytes = large();
    let put = world.put(&bytes).await;
    let len = bytes.len() as u64;
    for (from, to) in [
        (0, 1),
        (16_383, 16_385),
        (4 << 20, (4 << 20) + 1),
        ((4 << 20) - 3, (4 << 20) + 3),
        (len - 1, len),
        (5, 5),
        (0, len),
    ] {
        let expected = &bytes[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
        assert_eq!(range(&world.store, &put.digest, from..to).await.unwrap(), expected, "{from}..{to}");
    }
    assert_eq!(range(&world.store, &put.digest, 0..len + 1).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Salts and commitments are in the envelope, so a cold range read is the envelope and one request.
#[tokio::test(start_paused = true)]
async fn a_cold_range_read_is_one_request_beside_the_envelope() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    let (fresh, _, script) = world.node(2).await;
    range(&fresh, &put.digest, 1_000_000..1_000_010).await.unwrap();
    let requests = script.take_requests();
    assert_eq!(
        (count(&requests, Op::Get, "blobs/"), count(&requests, Op::Get, "data/")),
        (1, 1),
        "{requests:?}"
    );
    assert_eq!(requests.len(), 2, "{requests:?}");
    range(&fresh, &put.digest, 2_000_000..2_000_010).await.unwrap();
    assert_eq!(script.take_requests().len(), 1, "and warm it is one");
}

#[tokio::test(start_paused = true)]
async fn readers_of_one_blob_share_one_envelope_read() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    let (fresh, _, script) = world.node(2).await;
    let reads = (0..32).map(|_| get(&fresh, &put.digest));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap(), data(10));
    }
    assert_eq!(count(&script.take_requests(), Op::Get, "blobs/"), 1);
}

// FORMAT-P10
#[tokio::test(start_paused = true)]
async fn bytes_are_released_only_after_their_chunk_authenticated() {
    let world = World::new().await;
    let bytes = large();
    let put = world.put(&bytes).await;
    for (key, at) in [(0, 56 + 16_400 * 100), (1, 60), (0, 56 + 5)] {
        let key = world.keys("data").await[key].clone();
        let good = world.read(&key).await;
        let mut bad = good.clone();
        bad[at] ^= 1;
        world.write(&key, bad).await;
        let mut stream = world.store.get(&put.digest).await.unwrap().into_stream();
        let mut released = Vec::new();
        let error = loop {
            match stream.try_next().await {
                Ok(Some(piece)) => released.extend_from_slice(&piece),
                Ok(None) => panic!("an altered blob was read to its end"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(bytes.starts_with(&released));
        world.write(&key, good).await;
    }
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), bytes);
}

/// Another node replaced the blob and its old data is gone: a reader with the old envelope goes on with the new one, as often as
/// that happens.
#[tokio::test(start_paused = true)]
async fn a_stale_envelope_is_read_again_in_the_middle_of_a_stream() {
    let world = World::new().await;
    let bytes = data(40 << 20);
    let put = world.put(&bytes).await;
    let (other, ..) = world.node(2).await;
    let mut stream = world.store.get(&put.digest).await.unwrap().into_stream();
    let mut read = Vec::new();
    for until in [1, 16 << 20] {
        while read.len() < until {
            read.extend_from_slice(&stream.try_next().await.unwrap().unwrap());
        }
        let old = world.keys("data").await;
        other.delete(&put.digest).await.unwrap();
        assert!(crate::support::put(&other, &bytes).await.created);
        for key in old {
            world.remove(&key).await;
        }
    }
    while let Some(piece) = stream.try_next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == bytes);
}

#[tokio::test(start_paused = true)]
async fn a_delete_on_another_node_shows_within_the_revocation_bound() {
    let world = World::new().await;
    let put = world.put(&data(10)).await;
    get(&world.store, &put.digest).await.unwrap();
    let (other, ..) = world.node(2).await;
    other.delete(&put.digest).await.unwrap();
    pass(R).await;
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_bucket_is_unavailable_and_heals() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    world.script.before(Op::Get, "data/", || Some(broken_connection()));
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(get(&world.store, &put.digest).await.unwrap(), large());
}

#[tokio::test(start_paused = true)]
async fn missing_data_is_corrupt_not_absent() {
    let world = World::new().await;
    let put = world.put(&large()).await;
    for key in world.keys("data").await {
        world.remove(&key).await;
    }
    assert_eq!(get(&world.store, &put.digest).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn listing_reads_no_envelope() {
    let world = World::new().await;
    let mut digests = vec![world.put(&data(1)).await.digest, world.put(&data(2)).await.digest];
    digests.sort();
    world.script.take_requests();
    let mut listed: Vec<_> = world.store.list().map_ok(|entry| entry.digest).try_collect().await.unwrap();
    listed.sort();
    assert_eq!(listed, digests);
    assert_eq!(world.count(Op::Get, ""), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_sleeps_longer_than_the_lease_goes_on() {
    let world = World::new().await;
    let bytes = large();
    let put = world.put(&bytes).await;
    let mut stream = world.store.get(&put.digest).await.unwrap().into_stream();
    let mut read = stream.try_next().await.unwrap().unwrap().to_vec();
    pass(5 * R).await;
    world.runtime.suspend(Duration::from_secs(24 * 3600));
    while let Some(piece) = stream.try_next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == bytes);
}
