//! Sealed messages, altered: opening gives the plaintext that was sealed or nothing.
//!
//! ```text
//! input = length(u16) ‖ operation(u8) ‖ position(u32) ‖ bytes
//! ```
#![no_main]

use bulla_envelope::cobblestone::{self, CHUNK_LEN, HEADER_LEN, Header, Opener, SEALED_CHUNK_LEN};
use bulla_envelope::crypto::CryptoProvider;
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 32] = [1; 32];
const CONTEXT: &[u8] = b"fuzz";

fuzz_target!(|input: &[u8]| {
    let crypto = CryptoProvider::rust_crypto();
    // As a message of its own it cannot be authentic.
    assert!(cobblestone::open(crypto, &KEY, b"other", input).is_err(), "random bytes opened");

    let Some((length, rest)) = input.split_first_chunk::<2>() else { return };
    let Some((&operation, rest)) = rest.split_first() else { return };
    let Some((position, bytes)) = rest.split_first_chunk::<4>() else { return };
    // Up to four chunks and a bit, so that whole chunks, empty last ones and several chunks all occur.
    let plaintext: Vec<u8> = (0..usize::from(u16::from_le_bytes(*length)) + 3).map(|at| at as u8).collect();
    let plaintext = &plaintext[..plaintext.len() - plaintext.len() % 3];
    let message = cobblestone::seal(crypto, &KEY, CONTEXT, [2; 24], plaintext);
    let at = u32::from_le_bytes(*position) as usize % message.len();

    let altered = alter(&message, operation, at, bytes);
    match cobblestone::open(crypto, &KEY, CONTEXT, &altered) {
        Ok(opened) => {
            assert_eq!(altered, message, "an altered message opened");
            assert_eq!(opened[..], *plaintext);
        }
        Err(_) => assert_ne!(altered, message, "what was sealed does not open"),
    }
    random_access(crypto, &altered, plaintext, u64::from(operation >> 4));
});

fn alter(message: &[u8], operation: u8, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut altered = message.to_vec();
    match operation % 8 {
        // Overwrite, cut, insert, append.
        0 => altered[at..].iter_mut().zip(bytes).for_each(|(old, new)| *old = *new),
        1 => altered.truncate(at),
        2 => drop(altered.splice(at..at, bytes.iter().copied())),
        3 => altered.extend(bytes),
        // Swap two chunks, drop one, repeat one.
        4 if message.len() > HEADER_LEN + 2 * SEALED_CHUNK_LEN => {
            let (first, second) = altered[HEADER_LEN..].split_at_mut(SEALED_CHUNK_LEN);
            first.swap_with_slice(&mut second[..SEALED_CHUNK_LEN]);
        }
        5 if message.len() > HEADER_LEN + SEALED_CHUNK_LEN => {
            altered.drain(HEADER_LEN..HEADER_LEN + SEALED_CHUNK_LEN);
        }
        6 if message.len() > HEADER_LEN + SEALED_CHUNK_LEN => {
            let first = altered[HEADER_LEN..HEADER_LEN + SEALED_CHUNK_LEN].to_vec();
            altered.splice(HEADER_LEN..HEADER_LEN, first);
        }
        _ => {}
    }
    altered
}

/// Whole chunks from number `first` on, read as a range is: each that opens holds the bytes of its place.
fn random_access(crypto: &'static CryptoProvider, message: &[u8], plaintext: &[u8], first: u64) {
    let Some(header) = message.get(..HEADER_LEN).and_then(Header::from_bytes) else { return };
    let Ok(opener) = Opener::new(crypto, &KEY, CONTEXT, &header) else { return };
    for (number, sealed) in message[HEADER_LEN..].chunks_exact(SEALED_CHUNK_LEN).enumerate() {
        let number = number as u64 + first;
        let mut out = vec![0xee; CHUNK_LEN];
        match opener.open_chunks(number, sealed, false, &mut out) {
            Ok(()) => {
                let start = number as usize * CHUNK_LEN;
                assert_eq!(
                    plaintext.get(start..start + CHUNK_LEN),
                    Some(&out[..]),
                    "a chunk opened elsewhere"
                );
            }
            Err(_) => assert!(out.iter().all(|byte| *byte == 0), "unauthenticated bytes were released"),
        }
    }
}
