//! `cargo bench -p bulla-benches`

use bulla_benches::cpu::CpuTime;
use bulla_benches::{open, seal};
use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = seal::group, open::group
}
criterion_main!(benches);
