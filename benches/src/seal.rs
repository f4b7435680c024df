//! Group `seal`: plaintext to Cobblestone-256, beside AES-256-GCM alone.

use bulla_envelope::cobblestone::{CHUNK_LEN, SEALED_CHUNK_LEN, Sealer};
use bulla_envelope::crypto::CryptoProvider;
use criterion::Throughput;

use crate::{Criterion, PIECE, raw};

const CONTEXT: &[u8] = b"bulla/v1/bench";

/// Runs the group.
pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(PIECE as u64));
    let plaintext = vec![0x5a_u8; PIECE];
    let key = raw::key();
    let mut data = plaintext.clone();
    group.bench_function("aws-lc seal", |bencher| bencher.iter(|| raw::seal(&key, &mut data)));
    group.bench_function("sha256", |bencher| bencher.iter(|| raw::hash(&plaintext)));
    group.bench_function("sha256+seal", |bencher| bencher.iter(|| raw::hash_and_seal(&key, &mut data)));
    for crypto in [CryptoProvider::aws_lc(), CryptoProvider::rust_crypto()] {
        let chunks = raw::BLOCK / CHUNK_LEN;
        let mut out = vec![0; chunks * SEALED_CHUNK_LEN];
        group.bench_function(format!("bulla {}", crypto.name), |bencher| {
            bencher.iter(|| {
                let mut sealer = Sealer::new(crypto, &[7; 32], CONTEXT, [1; 24]);
                for block in plaintext.chunks(raw::BLOCK) {
                    sealer.seal_chunks(block, &mut out);
                }
            });
        });
    }
    group.finish();
}
