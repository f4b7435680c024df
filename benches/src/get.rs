//! Group `get`: a blob out of a bucket in memory, beside opening its bytes with nothing around it.

use std::ops::Range;

use bulla::{Digest, PutOptions};
use criterion::Throughput;
use futures::StreamExt as _;

use crate::world::{World, unique};
use crate::{BLOB, Criterion, raw};

/// Runs the group.
pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Bytes(BLOB as u64)).sample_size(50);
    let key = raw::key();
    let sealed = raw::sealed(&key, &unique(BLOB, 0));
    let mut out = vec![0_u8; BLOB];
    group.bench_function("aws-lc open", |bencher| bencher.iter(|| raw::open(&key, &sealed, &mut out)));
    drop((sealed, out));
    let world = World::new();
    let put = world.tokio.block_on(world.store.put_bytes(unique(BLOB, 0), PutOptions::default()));
    let digest = put.expect("memory takes it").digest;
    let size = BLOB as u64;
    group.bench_function("bulla", |bencher| bencher.iter(|| world.read(&digest, 0..size)));
    // The rate of a pull by ranges, each of its own request.
    group.bench_function("bulla, ranges of 1 MiB", |bencher| {
        bencher.iter(|| (0..size).step_by(1 << 20).for_each(|at| world.read(&digest, at..at + (1 << 20))));
    });
    group.finish();
}

impl World {
    /// Reads a range to its end and drops what comes.
    fn read(&self, digest: &Digest, range: Range<u64>) {
        let wanted = range.end - range.start;
        let read = self.tokio.block_on(async {
            let blob = self.store.get(digest).await.expect("it was put");
            let mut stream = blob.range(range).expect("it is inside the blob");
            let mut read = 0;
            while let Some(piece) = stream.next().await {
                read += piece.expect("it opens").len() as u64;
            }
            read
        });
        assert_eq!(read, wanted);
    }
}
