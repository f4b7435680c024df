//! Group `small`: configs and manifests, which live inside their envelopes, beside the same bucket without Bulla.

use std::time::Duration;

use bulla::PutOptions;
use criterion::Throughput;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};

use crate::world::{World, unique};
use crate::{Criterion, SMALL, cpu};

/// Runs the group.
pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("small");
    group.throughput(Throughput::Elements(1));
    let world = World::new();
    let mut number = 0;
    let mut next = || {
        number += 1;
        unique(SMALL, number)
    };
    group.bench_function("put, bucket alone", |bencher| {
        let mut name = 0;
        bencher.iter_custom(|iterations| {
            let blobs: Vec<_> = (0..iterations).map(|_| next()).collect();
            let started = cpu::used();
            for blob in blobs {
                name += 1;
                let key = Path::from(format!("raw/{name}"));
                world
                    .tokio
                    .block_on(world.objects.put(&key, PutPayload::from(blob)))
                    .expect("memory takes it");
            }
            spent(&world, started)
        });
    });
    group.bench_function("put, bulla", |bencher| {
        bencher.iter_custom(|iterations| {
            let blobs: Vec<_> = (0..iterations).map(|_| next()).collect();
            let started = cpu::used();
            for blob in blobs {
                let put = world.tokio.block_on(world.store.put_bytes(blob, PutOptions::default()));
                assert!(put.expect("memory takes it").created);
            }
            spent(&world, started)
        });
    });
    let blob = next();
    let put = world.tokio.block_on(world.store.put_bytes(blob.clone(), PutOptions::default()));
    let digest = put.expect("memory takes it").digest;
    let key = Path::from("raw/one");
    world.tokio.block_on(world.objects.put(&key, PutPayload::from(blob))).expect("memory takes it");
    group.bench_function("get, bucket alone", |bencher| {
        bencher.iter(|| {
            world.tokio.block_on(async {
                let got = world.objects.get(&key).await.expect("it was put");
                got.bytes().await.expect("it is there").len()
            })
        });
    });
    group.bench_function("get, bulla", |bencher| {
        bencher.iter(|| {
            world.tokio.block_on(async {
                let blob = world.store.get(&digest).await.expect("it was put");
                blob.bytes().await.expect("it opens").len()
            })
        });
    });
    group.finish();
}

/// CPU time since `started`; then the bucket is emptied.
fn spent(world: &World, started: Duration) -> Duration {
    let spent = cpu::used().saturating_sub(started);
    world.clear();
    spent
}
