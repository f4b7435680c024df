//! Cobblestone-256: back end against back end, against another implementation, at random places and under attack.
//! FORMAT-S1, FORMAT-S2.

use bulla_envelope::cobblestone::{
    CHUNK_LEN, HEADER_LEN, Header, MAX_CHUNKS, OpenError, Opener, SEALED_CHUNK_LEN, Sealer, TAG_LEN, open,
    plaintext_len, seal, sealed_len,
};
use bulla_envelope::crypto::CryptoProvider;
use cobblestone::Key256;
use proptest::prelude::*;

use crate::support::{array, bytes, providers};

/// Lengths around the edges of chunks, up to three of them and a bit.
fn lens() -> impl Strategy<Value = usize> {
    let edge =
        (0..=3usize, 0..=2usize).prop_map(|(chunks, off)| (chunks * CHUNK_LEN + off).saturating_sub(1));
    prop_oneof![edge, 0..200usize, 0..3 * CHUNK_LEN + 500]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn back_ends_agree_with_each_other_and_with_another_implementation(
        seed in any::<u64>(), len in lens(), context in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let (key, plaintext) = (array(seed), bytes(seed, len));
        let theirs = Key256::from_bytes(&key);
        let foreign = cobblestone::encrypt(&theirs, &context, &plaintext).unwrap();
        let mut messages = Vec::new();
        for crypto in providers() {
            let message = seal(crypto, &key, &context, array(!seed), &plaintext);
            prop_assert_eq!(cobblestone::decrypt(&theirs, &context, &message).unwrap(), &plaintext[..]);
            prop_assert_eq!(&open(crypto, &key, &context, &foreign).unwrap()[..], &plaintext[..]);
            messages.push(message);
        }
        for message in &messages {
            prop_assert_eq!(message, &messages[0]);
            prop_assert_eq!(sealed_len(plaintext.len() as u64), Some(message.len() as u64));
            prop_assert_eq!(plaintext_len(message.len() as u64), Some(plaintext.len() as u64));
            for crypto in providers() {
                prop_assert_eq!(&open(crypto, &key, &context, message).unwrap()[..], &plaintext[..]);
            }
        }
    }

    #[test]
    fn any_batches_of_chunks_make_the_same_message(seed in any::<u64>(), len in lens(), batch in 1..4usize) {
        let (key, plaintext) = (array(seed), bytes(seed, len));
        for crypto in providers() {
            let mut sealer = Sealer::new(crypto, &key, b"", array(!seed));
            let mut message = sealer.header().to_bytes().to_vec();
            let (whole, last) = plaintext.split_at(len - len % CHUNK_LEN);
            for batch in whole.chunks(batch * CHUNK_LEN) {
                let mut out = vec![0; batch.len() / CHUNK_LEN * SEALED_CHUNK_LEN];
                sealer.seal_chunks(batch, &mut out);
                message.extend_from_slice(&out);
            }
            let mut out = vec![0; last.len() + TAG_LEN];
            sealer.seal_last(last, &mut out);
            message.extend_from_slice(&out);
            prop_assert_eq!(message, seal(crypto, &key, b"", array(!seed), &plaintext));
        }
    }

    #[test]
    fn any_run_of_chunks_opens_by_itself(
        seed in any::<u64>(), len in lens(), first in 0..4usize, count in 0..5usize,
    ) {
        let (key, plaintext) = (array(seed), bytes(seed, len));
        let chunks = len / CHUNK_LEN + 1;
        let first = first.min(chunks);
        let end = (first + count).min(chunks);
        let last = end == chunks && end > first;
        for crypto in providers() {
            let message = seal(crypto, &key, b"context", array(!seed), &plaintext);
            let header = Header::from_bytes(&message[..HEADER_LEN]).unwrap();
            let opener = Opener::new(crypto, &key, b"context", &header).unwrap();
            let body = &message[HEADER_LEN..];
            let sealed = &body[(first * SEALED_CHUNK_LEN).min(body.len())..(end * SEALED_CHUNK_LEN).min(body.len())];
            let expected = &plaintext[(first * CHUNK_LEN).min(len)..(end * CHUNK_LEN).min(len)];
            let mut out = vec![0xaa; expected.len()];
            prop_assert_eq!(opener.open_chunks(first as u64, sealed, last, &mut out), Ok(()));
            prop_assert_eq!(&out[..], expected);
        }
    }

    #[test]
    fn a_changed_bit_is_found_in_its_chunk_and_nothing_is_released(
        seed in any::<u64>(), len in lens(), at in any::<proptest::sample::Index>(), bit in 0..8u8,
    ) {
        let (key, plaintext) = (array(seed), bytes(seed, len));
        for crypto in providers() {
            let mut message = seal(crypto, &key, b"context", array(!seed), &plaintext);
            let header = Header::from_bytes(&message[..HEADER_LEN]).unwrap();
            let at = at.index(message.len());
            message[at] ^= 1 << bit;
            let error = match at.checked_sub(HEADER_LEN) {
                None => OpenError::Commitment,
                Some(at) => OpenError::Chunk((at / SEALED_CHUNK_LEN) as u64),
            };
            prop_assert_eq!(open(crypto, &key, b"context", &message).unwrap_err(), error);

            let mut out = vec![0xaa; len];
            let opener = Opener::new(crypto, &key, b"context", &header).unwrap();
            let result = opener.open_chunks(0, &message[HEADER_LEN..], true, &mut out);
            if at >= HEADER_LEN {
                prop_assert_eq!(result, Err(error));
                prop_assert!(out.iter().all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn any_other_length_is_refused(seed in any::<u64>(), len in lens(), cut in any::<proptest::sample::Index>()) {
        let (key, plaintext) = (array(seed), bytes(seed, len));
        for crypto in providers() {
            let message = seal(crypto, &key, b"", array(!seed), &plaintext);
            prop_assert!(open(crypto, &key, b"", &message[..cut.index(message.len())]).is_err());
            let longer = [message.as_slice(), &bytes(seed, cut.index(2 * SEALED_CHUNK_LEN) + 1)].concat();
            prop_assert!(open(crypto, &key, b"", &longer).is_err());
        }
    }

    #[test]
    fn no_input_makes_opening_panic(
        message in proptest::collection::vec(any::<u8>(), 0..200), first in any::<u64>(), last in any::<bool>(),
        sealed in prop_oneof![0..100usize, SEALED_CHUNK_LEN - 20..SEALED_CHUNK_LEN + 40],
        out in prop_oneof![0..100usize, CHUNK_LEN - 20..CHUNK_LEN + 40],
    ) {
        for crypto in providers() {
            prop_assert!(open(crypto, &[0; 32], &message, &message).is_err());
            let (opener, mut out) = (opener(crypto), vec![0xaa; out]);
            if opener.open_chunks(first, &bytes(first, sealed), last, &mut out).is_err() {
                prop_assert!(out.iter().all(|&byte| byte == 0));
            } else {
                prop_assert!(sealed == 0 && out.is_empty() && !last);
            }
        }
    }

    #[test]
    fn lengths_are_inverse(len in prop_oneof![any::<u64>(), 0..1u64 << 52]) {
        if let Some(sealed) = sealed_len(len) {
            prop_assert_eq!(plaintext_len(sealed), Some(len));
        }
        if let Some(plaintext) = plaintext_len(len) {
            prop_assert_eq!(sealed_len(plaintext), Some(len));
        }
    }
}

fn opener(crypto: &'static CryptoProvider) -> Opener {
    let header = Sealer::new(crypto, &[1; 32], b"", [2; 24]).header().clone();
    Opener::new(crypto, &[1; 32], b"", &header).unwrap()
}

#[test]
fn impossible_lengths() {
    let chunk = SEALED_CHUNK_LEN as u64;
    for (sealed, plaintext) in [
        (0, None),
        (55, None),
        (56, None),
        (71, None),
        (72, Some(0)),
        (56 + chunk - 1, Some(16_383)),
        (56 + chunk, None),
        (56 + chunk + 15, None),
        (56 + chunk + 16, Some(16_384)),
        (u64::MAX, None),
    ] {
        assert_eq!(plaintext_len(sealed), plaintext, "{sealed}");
    }
    let longest = MAX_CHUNKS * CHUNK_LEN as u64 - 1;
    assert_eq!(plaintext_len(sealed_len(longest).unwrap()), Some(longest));
    assert_eq!(sealed_len(longest + 1), None);
    assert_eq!(sealed_len(u64::MAX), None);
    assert_eq!(plaintext_len(56 + MAX_CHUNKS * chunk + 16), None);
}

#[test]
fn the_number_of_chunks_is_limited() {
    for crypto in providers() {
        let opener = opener(crypto);
        let sealed = vec![0; 2 * SEALED_CHUNK_LEN];
        let mut out = vec![0xaa; 2 * CHUNK_LEN];
        for (first, error) in [
            (MAX_CHUNKS - 2, OpenError::Chunk(MAX_CHUNKS - 2)),
            (MAX_CHUNKS - 1, OpenError::Length),
            (MAX_CHUNKS, OpenError::Length),
            (u64::MAX, OpenError::Length),
        ] {
            assert_eq!(opener.open_chunks(first, &sealed, false, &mut out), Err(error));
        }
        assert_eq!(opener.open_chunks(MAX_CHUNKS, &[0; 16], true, &mut []), Err(OpenError::Length));
        assert_eq!(
            opener.open_chunks(MAX_CHUNKS - 1, &[0; 16], true, &mut []),
            Err(OpenError::Chunk(MAX_CHUNKS - 1))
        );
    }
}

#[test]
fn another_key_context_or_header_is_refused_before_anything_is_opened() {
    for crypto in providers() {
        let message = seal(crypto, &[1; 32], b"context", [2; 24], b"plaintext");
        for (key, context) in
            [([3; 32], &b"context"[..]), ([1; 32], b"Context"), ([1; 32], b""), ([1; 32], b"context\0")]
        {
            assert_eq!(open(crypto, &key, context, &message).unwrap_err(), OpenError::Commitment);
        }
        let header = Header::from_bytes(&message[..HEADER_LEN]).unwrap();
        assert_eq!(header.to_bytes()[..], message[..HEADER_LEN]);
        assert_eq!(Header::from_bytes(&message[..HEADER_LEN - 1]), None);
        assert_eq!(Header::from_bytes(&message[..=HEADER_LEN]), None);
    }
}

#[test]
#[should_panic(expected = "only the last chunk is short")]
fn sealing_a_part_of_a_chunk_is_a_bug() {
    Sealer::new(CryptoProvider::best(), &[1; 32], b"", [2; 24]).seal_chunks(&[0; 100], &mut [0; 116]);
}

#[test]
#[should_panic(expected = "the last chunk is short")]
fn ending_with_a_whole_chunk_is_a_bug() {
    let mut out = vec![0; SEALED_CHUNK_LEN];
    Sealer::new(CryptoProvider::best(), &[1; 32], b"", [2; 24]).seal_last(&[0; CHUNK_LEN], &mut out);
}

#[test]
#[should_panic(expected = "no more")]
fn a_buffer_of_another_length_is_a_bug() {
    let mut out = vec![0; SEALED_CHUNK_LEN + 1];
    Sealer::new(CryptoProvider::best(), &[1; 32], b"", [2; 24]).seal_chunks(&[0; CHUNK_LEN], &mut out);
}
