//! `cargo bench -p bulla-benches`

use bulla_benches::cpu::CpuTime;
use bulla_benches::{calls, get, open, put, rewrap, rotate, seal, small};
use criterion::{Criterion, criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = seal::group, open::group, put::group, get::group, small::group, rotate::group, rewrap::group, calls::count
}
criterion_main!(benches);
