//! Group `rewrap`: every data key of a store is wrapped again, beside plainly reading and writing the same envelopes.
//!
//! A rewrap also opens each envelope in the end, to count. In CPU time: what a rewrap waits for, R and the disk, is not in it.

use std::num::NonZeroU32;
use std::time::Duration;

use bulla::{PutOptions, SweepOptions};
use criterion::{SamplingMode, Throughput};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};

use crate::world::{Place, World, unique};
use crate::{Criterion, SMALL, cpu};

/// Envelopes in one iteration.
const ENVELOPES: NonZeroU32 = NonZeroU32::new(500).expect("more than none");

/// The shortest there is: a rewrap waits that long.
const BOUND: Duration = Duration::from_millis(100);

/// As many at once as a sweep has.
const CONCURRENCY: usize = 16;

/// Runs the group.
pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrap");
    group.throughput(Throughput::Elements(ENVELOPES.get().into()));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (place, name) in [(Place::Memory, "memory"), (Place::Folder, "folder")] {
        group.bench_function(format!("{name}, read and written alone"), |bencher| {
            bencher.iter_custom(|iterations| total(iterations, place, World::rewrite));
        });
        group.bench_function(format!("{name}, bulla"), |bencher| {
            bencher.iter_custom(|iterations| total(iterations, place, World::rewrap));
        });
    }
    group.finish();
}

/// Each in a store of its own: a log holds a few store keys only.
fn total(iterations: u64, place: Place, work: impl Fn(&World)) -> Duration {
    let once = |_| {
        let world = World::with(place, BOUND);
        world.put_small(ENVELOPES.get());
        let started = cpu::used();
        work(&world);
        cpu::used().saturating_sub(started)
    };
    (0..iterations).map(once).sum()
}

impl World {
    fn put_small(&self, count: u32) {
        self.tokio.block_on(async {
            for number in 0..count {
                let put = self.store.put_bytes(unique(SMALL, number.into()), PutOptions::default()).await;
                assert!(put.expect("the bucket takes it").created);
            }
        });
    }

    fn rewrap(&self) {
        let options = SweepOptions { concurrency: CONCURRENCY.try_into().ok(), ..SweepOptions::default() };
        let rewrapped = self.tokio.block_on(self.store.rewrap(options, |_| {}));
        assert_eq!(rewrapped.expect("nothing is in its way").rewrapped, u64::from(ENVELOPES.get()));
    }

    fn rewrite(&self) {
        let written = self.tokio.block_on(async {
            let listed: Vec<_> = self.objects.list(Some(&Path::from("blobs"))).try_collect().await?;
            let writes = stream::iter(listed).map(|envelope| async move {
                let bytes = self.objects.get(&envelope.location).await?.bytes().await?;
                self.objects.put(&envelope.location, PutPayload::from(bytes)).await
            });
            writes
                .buffer_unordered(CONCURRENCY)
                .try_fold(0, |count, _| std::future::ready(Ok(count + 1)))
                .await
        });
        assert_eq!(written.expect("the bucket takes them"), ENVELOPES.get());
    }
}
