//! Group `put`: a blob into a bucket in memory, beside hashing and sealing its bytes with nothing around it.

use std::convert::Infallible;
use std::time::Duration;

use bulla::PutOptions;
use criterion::Throughput;

use crate::world::{World, unique};
use crate::{BLOB, Criterion, FRAME, cpu, raw};

/// Runs the group.
pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put");
    group.throughput(Throughput::Bytes(BLOB as u64)).sample_size(20);
    let key = raw::key();
    let mut data = vec![0x5a_u8; BLOB];
    group.bench_function("sha256", |bencher| bencher.iter(|| raw::hash(&data)));
    group.bench_function("sha256+seal", |bencher| bencher.iter(|| raw::hash_and_seal(&key, &mut data)));
    let world = World::new();
    let mut number = 0;
    // The whole blob at once, and in the pieces that a server hands over.
    for (name, piece) in [("bulla", FRAME), ("bulla, in one piece", BLOB)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    number += 1;
                    let blob = unique(BLOB, number);
                    let pieces =
                        (0..BLOB).step_by(piece).map(|at| Ok::<_, Infallible>(blob.slice(at..at + piece)));
                    let pieces = futures::stream::iter(pieces);
                    let started = cpu::used();
                    let put = world.tokio.block_on(world.store.put(pieces, PutOptions::default()));
                    total += cpu::used().saturating_sub(started);
                    assert!(put.expect("memory takes it").created);
                    world.clear();
                }
                total
            });
        });
    }
    group.finish();
}
