//! Group `open`: Cobblestone-256 to plaintext, from source into destination, beside AES-256-GCM alone.

use bulla_envelope::cobblestone::{self, CHUNK_LEN, HEADER_LEN, Header, Opener, SEALED_CHUNK_LEN};
use bulla_envelope::crypto::CryptoProvider;
use criterion::Throughput;

use crate::{Criterion, PIECE, raw};

const CONTEXT: &[u8] = b"bulla/v1/bench";

/// Runs the group.
pub fn group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Bytes(PIECE as u64));
    let plaintext = vec![0x5a_u8; PIECE];
    let mut out = vec![0_u8; PIECE];
    let key = raw::key();
    let sealed = raw::sealed(&key, &plaintext);
    group.bench_function("aws-lc open", |bencher| bencher.iter(|| raw::open(&key, &sealed, &mut out)));
    let message = cobblestone::seal(CryptoProvider::best(), &[7; 32], CONTEXT, [1; 24], &plaintext);
    let (header, chunks) = message.split_at(HEADER_LEN);
    let header = Header::from_bytes(header).expect("a message starts with a header");
    let per_block = raw::BLOCK / CHUNK_LEN;
    for crypto in [CryptoProvider::aws_lc(), CryptoProvider::rust_crypto()] {
        group.bench_function(format!("bulla {}", crypto.name), |bencher| {
            bencher.iter(|| {
                let opener = Opener::new(crypto, &[7; 32], CONTEXT, &header)
                    .expect("the key is the one it was sealed with");
                let mut first = 0;
                let sealed = chunks.chunks_exact(per_block * SEALED_CHUNK_LEN);
                for (sealed, out) in sealed.zip(out.chunks_exact_mut(raw::BLOCK)) {
                    opener.open_chunks(first, sealed, false, out).expect("it was sealed with this key");
                    first += per_block as u64;
                }
            });
        });
    }
    group.finish();
}
