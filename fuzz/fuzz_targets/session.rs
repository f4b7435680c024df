//! Any content of an upload session, sealed by somebody who holds the keys: what opens seals to the same bytes again.
#![no_main]

use bulla_envelope::cobblestone;
use bulla_envelope::context::upload_context;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, SessionId, StoreId};
use bulla_envelope::object::SealedObject;
use bulla_envelope::secret::Root;
use bulla_envelope::session::SessionRecord;
use libfuzzer_sys::fuzz_target;

const SALT: [u8; 24] = [3; 24];

fuzz_target!(|content: &[u8]| {
    let crypto = CryptoProvider::rust_crypto();
    let key = Root::from_slice(&[1; 32]).expect("32 bytes").upload_key();
    let header = EnvelopeHeader {
        store: StoreId::from_slice(&[4; 16]).expect("16 bytes"),
        root: RootId::from_slice(&[5; 16]).expect("16 bytes"),
    };
    let id = SessionId::from_slice(&[6; 16]).expect("16 bytes");
    // The header's encoding, as FORMAT.md has it: array(3), the suite, two ids.
    let mut encoded = b"\x83\x6fCobblestone-256\x50".to_vec();
    encoded.extend([4; 16]);
    encoded.push(0x50);
    encoded.extend([5; 16]);
    // And the map around the content: kind, name, content.
    let mut plaintext = b"\xa3\x01\x66upload\x02\x50".to_vec();
    plaintext.extend([6; 16]);
    plaintext.push(0x03);
    plaintext.extend(match u16::try_from(content.len()) {
        Ok(len @ ..24) => vec![0x40 | len.to_le_bytes()[0]],
        Ok(len @ ..256) => vec![0x58, len.to_le_bytes()[0]],
        Ok(len) => [&[0x59], &len.to_be_bytes()[..]].concat(),
        Err(_) => return,
    });
    plaintext.extend(content);
    let context = upload_context(&encoded, id.as_bytes());
    let sealed = cobblestone::seal(crypto, key.expose(), &context, SALT, &plaintext);
    let object = SealedObject { header, sealed }.encode();
    let Ok(record) = SessionRecord::open(crypto, &key, header, &id, &object) else { return };
    let again =
        record.seal(crypto, &key, header, &id, SALT).expect("a session that was read obeys the rules");
    assert_eq!(again, object, "one session, one encoding");
});
