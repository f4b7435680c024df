//! Checkpoints and exports: what verifies them, what does not, and that others read them too.

use bulla_envelope::audit::{
    Checkpoint, CheckpointError, Entry, Export, NoteError, ParseKeyError, Proof, ProofError, PublicKey,
    SigningKey, StoreLogMark, VerifyError, root_of,
};
use proptest::prelude::*;
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{Hash, node_hash, record_hash};

use crate::audit::entry;
use crate::samples;
use crate::support::Seeded;

const LOG: StoreLogMark = StoreLogMark { number: 7, hash: [0xab; 32] };

fn origin() -> String {
    Checkpoint::origin_of(&samples::store_id())
}

pub(crate) fn key(seed: u64) -> SigningKey {
    SigningKey::generate(&origin(), &Seeded::new(seed)).unwrap()
}

fn leaves(count: u64) -> Vec<Vec<u8>> {
    (1..=count).map(|count| entry(count).encode().unwrap()).collect()
}

pub(crate) fn export(count: u64) -> (Export, Checkpoint) {
    Export::new(leaves(count), LOG, &key(1)).unwrap()
}

/// The export's text with its entries' lines changed.
fn with_lines(count: u64, change: impl FnOnce(&mut Vec<String>)) -> Export {
    let text = export(count).0.encode();
    let (entries, note) = text.split_once("\n\n").unwrap();
    let mut lines: Vec<String> = entries.split('\n').map(str::to_owned).collect();
    change(&mut lines);
    Export::decode(&format!("{}\n\n{note}", lines.join("\n"))).unwrap()
}

fn verify(export: &Export) -> Result<Vec<Entry>, VerifyError> {
    export.verify(&key(1).public_key(), None).map(|verified| verified.entries)
}

// FORMAT-T6
#[test]
fn an_export_is_verified_with_the_public_key_alone() {
    let (export, checkpoint) = export(9);
    let read = Export::decode(&export.encode()).unwrap();
    assert_eq!(read, export);
    let public: PublicKey = key(1).public_key().to_string().parse().unwrap();
    let verified = read.verify(&public, None).unwrap();
    assert_eq!(verified.checkpoint, checkpoint);
    assert_eq!(verified.entries, (1..=9).map(entry).collect::<Vec<_>>());
}

// FORMAT-T6
#[test]
fn an_export_with_one_event_removed_altered_reordered_added_or_truncated_is_refused() {
    for at in 1..=9 {
        let removed = with_lines(9, |lines| drop(lines.remove(at)));
        assert_eq!(verify(&removed), Err(VerifyError::Count { found: 8, signed: 9 }));
        let altered = with_lines(9, |lines| {
            let mut other = entry(u64::try_from(at).unwrap());
            other.node = "node-2".into();
            lines[at] = data_encoding::BASE64.encode(&other.encode().unwrap());
        });
        assert_eq!(verify(&altered), Err(VerifyError::Altered));
        let doubled = with_lines(9, |lines| lines.insert(at, lines[at].clone()));
        assert_eq!(verify(&doubled), Err(VerifyError::Count { found: 10, signed: 9 }));
        let truncated = with_lines(9, |lines| lines.truncate(at));
        assert!(matches!(verify(&truncated), Err(VerifyError::Count { .. })));
        for with in 1..at {
            let reordered = with_lines(9, |lines| lines.swap(at, with));
            assert_eq!(verify(&reordered), Err(VerifyError::Altered));
        }
    }
}

// FORMAT-T6
#[test]
fn a_removed_event_is_noticed_even_if_the_count_is_made_to_fit() {
    let text = with_lines(9, |lines| drop(lines.remove(4))).encode();
    let forged = Export::decode(&text.replace("\n9\n", "\n8\n")).unwrap();
    let error = verify(&forged).unwrap_err();
    assert_eq!(error, VerifyError::Checkpoint(CheckpointError::Note(NoteError::Signature)));
    // Nor does another's key help.
    let (other, _) = Export::new(leaves(8), LOG, &key(2)).unwrap();
    let error = verify(&other).unwrap_err();
    assert_eq!(error, VerifyError::Checkpoint(CheckpointError::Note(NoteError::OtherKey)));
}

// FORMAT-T6
#[test]
fn an_export_continues_the_log_of_an_earlier_checkpoint_or_is_refused() {
    let (now, _) = export(9);
    let public = key(1).public_key();
    for size in 1..=9 {
        let (_, earlier) = export(size);
        assert_eq!(now.verify(&public, Some(&earlier)).unwrap().earlier, Some(size));
        let rewritten = Checkpoint { root: [1; 32], ..earlier.clone() };
        assert_eq!(now.verify(&public, Some(&rewritten)), Err(VerifyError::Rewritten));
        let rolled_back = Checkpoint { log: StoreLogMark { number: 8, ..LOG }, ..earlier };
        assert_eq!(now.verify(&public, Some(&rolled_back)), Err(VerifyError::Rewritten));
    }
    let (_, newer) = export(12);
    assert_eq!(now.verify(&public, Some(&newer)), Err(VerifyError::Older { found: 9, earlier: 12 }));
}

// FORMAT-T5
#[test]
fn checkpoints_are_notes_that_others_verify() {
    let (export, checkpoint) = export(5);
    let vkey = key(1).public_key().to_string();
    let verifiers = VerifierList::new(vec![Box::new(StandardVerifier::new(&vkey).unwrap())]);
    let note = Note::from_bytes(export.note().as_bytes()).unwrap();
    let (verified, unverified) = note.verify(&verifiers).unwrap();
    assert_eq!((verified.len(), unverified.len()), (1, 0));
    let read = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    assert_eq!((read.origin(), read.size(), read.hash().0), (&*origin(), 5, checkpoint.root));
    assert!(read.extension().starts_with("bulla-log 7 "));
}

// FORMAT-T5
#[test]
fn checkpoints_that_others_sign_are_read_and_keys_are_exchanged() {
    let skey = key(1).encode();
    let signer = StandardSigner::new(&skey).unwrap();
    let (_, checkpoint) = export(5);
    let text = Note::from_bytes(checkpoint.sign(&key(1)).as_bytes()).unwrap().text().to_vec();
    let mut note = Note::new(&text, &[]).unwrap();
    let (witness, _) = signed_note::generate_key(&mut rand_core_06(), "witness.example.com/w");
    note.add_sigs(&[&StandardSigner::new(&witness).unwrap(), &signer]).unwrap();
    let note = String::from_utf8(note.to_bytes()).unwrap();
    assert_eq!(Checkpoint::open(&note, &key(1).public_key()), Ok(checkpoint));
    assert_eq!(SigningKey::parse(&skey).unwrap().public_key(), key(1).public_key());
}

/// What `signed_note` draws keys with: the older trait of that name.
fn rand_core_06() -> impl rand_core_06::CryptoRngCore {
    struct Counting(u64);
    impl rand_core_06::RngCore for Counting {
        fn next_u32(&mut self) -> u32 {
            u32::try_from(self.next_u64() & 0xffff_ffff).unwrap()
        }
        fn next_u64(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.0
        }
        fn fill_bytes(&mut self, dest: &mut [u8]) {
            rand_core_06::impls::fill_bytes_via_next(self, dest);
        }
        fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core_06::Error> {
            self.fill_bytes(dest);
            Ok(())
        }
    }
    impl rand_core_06::CryptoRng for Counting {}
    Counting(7)
}

// FORMAT-T5
#[test]
fn a_checkpoint_has_one_spelling_and_is_of_its_keys_log() {
    let note = export(9).0.note().to_owned();
    let public = key(1).public_key();
    let text = &note[..note.find("\n\n").unwrap() + 1];
    // Signed, but not what a checkpoint looks like.
    let bad = [
        text.replace("\n9\n", "\n09\n"),
        text.replace("\n9\n", "\n+9\n"),
        text.replace("\n9\n", "\n0\n"),
        text.replace("bulla-log 7", "bulla-log 0"),
        text.replace("bulla-log 7", "bulla-log 07"),
        text.replace("bulla-log 7", "other-log 7"),
        format!("{text}more\n"),
        text.lines().take(3).map(|line| format!("{line}\n")).collect(),
    ];
    let skey = key(1).encode();
    let signer = StandardSigner::new(&skey).unwrap();
    let sign = |text: &str| {
        let mut note = Note::new(text.as_bytes(), &[]).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        String::from_utf8(note.to_bytes()).unwrap()
    };
    for text in &bad {
        assert_ne!(text, &format!("{text}\u{0}"));
        assert_eq!(Checkpoint::open(&sign(text), &public), Err(CheckpointError::Malformed), "{text}");
    }
    let elsewhere = text.replace(&origin(), "bulla-audit/another");
    assert_eq!(Checkpoint::open(&sign(&elsewhere), &public), Err(CheckpointError::Origin));
    for note in ["", "\n\n", "a\n\n\u{2014} x y\n", &note.replace('\u{2014}', "-"), &note[..note.len() - 1]] {
        assert!(matches!(Checkpoint::open(note, &public), Err(CheckpointError::Note(_))), "{note:?}");
    }
}

#[test]
fn keys_have_one_spelling_and_their_id_checks_them() {
    let public = key(1).public_key().to_string();
    assert_eq!(public.parse::<PublicKey>().unwrap().to_string(), public);
    let other = key(2).public_key().to_string();
    let [name, id, _] = public.splitn(3, '+').collect::<Vec<_>>()[..] else { panic!("{public}") };
    let other_key = other.splitn(3, '+').last().unwrap();
    assert_eq!(format!("{name}+{id}+{other_key}").parse::<PublicKey>(), Err(ParseKeyError::Id));
    assert_eq!(public.replace("bulla-audit", "other").parse::<PublicKey>(), Err(ParseKeyError::Id));
    for bad in ["", "a", "a+b", "a+00000000+AQ==", "+00000000+AAAA", &key(1).encode(), &format!("{public} ")]
    {
        assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
    }
    assert_eq!(SigningKey::parse(&public).unwrap_err(), ParseKeyError::Malformed);
    assert_eq!(SigningKey::generate("a+b", &Seeded::new(1)).unwrap_err(), ParseKeyError::Name);
    let shown = format!("{:?}", key(1));
    assert_eq!(shown, format!("SigningKey({}, …)", origin()));
}

#[test]
fn what_is_no_export_is_refused_by_line() {
    assert_eq!(Export::decode(""), Err(VerifyError::Malformed { line: 1 }));
    assert_eq!(Export::decode("other\n\nnote"), Err(VerifyError::Malformed { line: 1 }));
    let text = export(3).0.encode();
    let broken = text.replacen("\njg", "\n!g", 1);
    assert_ne!(broken, text);
    assert!(matches!(Export::decode(&broken), Err(VerifyError::Malformed { line: 2 })));
    // Two encodings, one after the other.
    let joined = text.replacen("\njg", "\njg==jg", 1);
    assert_eq!(Export::decode(&joined), Err(VerifyError::Malformed { line: 2 }));
}

// FORMAT-T7
#[test]
fn one_entry_is_proven_with_the_public_key_alone() {
    let public: PublicKey = key(1).public_key().to_string().parse().unwrap();
    for size in [1, 2, 3, 7, 8, 9] {
        let (export, checkpoint) = export(size);
        for index in 0..size {
            let text = Proof::of(&export, index).unwrap().encode();
            assert!(Proof::is_one(&text) && !Proof::is_one(&export.encode()));
            let proof = Proof::decode(&text).unwrap();
            assert_eq!(proof.encode(), text);
            let proven = proof.verify(&public).unwrap();
            assert_eq!((proven.index, &proven.checkpoint), (index, &checkpoint));
            assert_eq!(proven.entry, entry(index + 1));
        }
        assert_eq!(Proof::of(&export, size), None);
    }
}

// FORMAT-T7
#[test]
fn a_proof_of_another_entry_place_path_or_checkpoint_is_refused() {
    let public = key(1).public_key();
    let (nine, _) = export(9);
    let good = Proof::of(&nine, 4).unwrap().encode();
    let refused = |text: &str| Proof::decode(text).unwrap().verify(&public).unwrap_err();
    let lines: Vec<&str> = good.lines().collect();
    let changed = |at: usize, to: &str| {
        let mut lines = lines.clone();
        lines[at] = to;
        lines.join("\n") + "\n"
    };
    let other = Proof::of(&nine, 5).unwrap().encode();
    let other: Vec<&str> = other.lines().collect();
    for (at, to) in
        [(1, other[1]), (2, "index 5"), (2, "index 9"), (2, "index 18446744073709551615"), (3, other[3])]
    {
        assert_eq!(refused(&changed(at, to)), ProofError::Absent, "{to}");
    }
    let mut shorter = lines.clone();
    shorter.remove(4);
    assert_eq!(refused(&(shorter.join("\n") + "\n")), ProofError::Absent);
    let (proof, _) = good.split_once("\n\n").unwrap();
    assert_eq!(refused(&format!("{proof}\n\n{}", export(8).0.note())), ProofError::Absent);
    let (others, _) = Export::new(leaves(9), LOG, &key(2)).unwrap();
    let error = refused(&format!("{proof}\n\n{}", others.note()));
    assert_eq!(error, ProofError::Checkpoint(CheckpointError::Note(NoteError::OtherKey)));
    // Signed by the key's owner, for a tree that no log has.
    let huge = Checkpoint { origin: origin(), size: u64::MAX, root: [7; 32], log: LOG };
    assert_eq!(refused(&format!("{proof}\n\n{}", huge.sign(&key(1)))), ProofError::Absent);

    for (at, to) in
        [(0, "c2sp.org/tlog-proof@v2"), (1, "index 4"), (2, "index 04"), (2, "index +4"), (3, "AAAA")]
    {
        let decoded = Proof::decode(&changed(at, to));
        assert_eq!(decoded, Err(ProofError::Malformed { line: at + 1 }), "{to}");
    }
}

// FORMAT-T7
#[test]
fn proofs_are_those_of_others() {
    let leaves = leaves(11);
    let (export, checkpoint) = Export::new(leaves.clone(), LOG, &key(1)).unwrap();
    for (index, leaf) in (0..).zip(&leaves) {
        let text = Proof::of(&export, index).unwrap().encode();
        let path = text.lines().skip(3).take_while(|line| !line.is_empty());
        let path =
            path.map(|line| Hash(data_encoding::BASE64.decode(line.as_bytes()).unwrap().try_into().unwrap()));
        tlog_tiles::check_record(&path.collect(), 11, Hash(checkpoint.root), index, record_hash(leaf))
            .unwrap();
    }
}

proptest! {
    // The recursion of RFC 6962 §2.1, with the hashes of another implementation.
    #[test]
    fn the_tree_is_that_of_rfc_6962(count in 1_u64..300) {
        fn root(leaves: &[Vec<u8>]) -> Hash {
            match leaves {
                [leaf] => record_hash(leaf),
                _ => {
                    let split = leaves.len().next_power_of_two() / 2;
                    node_hash(root(&leaves[..split]), root(&leaves[split..]))
                }
            }
        }
        let leaves = leaves(count);
        prop_assert_eq!(root_of(leaves.iter().map(Vec::as_slice)), root(&leaves).0);
    }

    // FORMAT-C4
    #[test]
    fn any_text_is_an_export_or_an_error(text in "(bulla-audit-export-v1\n)?[A-Za-z0-9+/=\n\u{2014} ]{0,200}") {
        if let Ok(export) = Export::decode(&text) {
            prop_assert!(verify(&export).is_err());
        }
        prop_assert!(Checkpoint::open(&text, &key(1).public_key()).is_err());
    }

    // FORMAT-C4
    #[test]
    fn any_text_is_a_proof_or_an_error(text in "(c2sp.org/tlog-proof@v1\nextra [A-Z]{0,4}\nindex [0-9]{1,3}\n)?[A-Za-z0-9+/=\n\u{2014} ]{0,200}") {
        if let Ok(proof) = Proof::decode(&text) {
            prop_assert_eq!(proof.encode(), text);
            prop_assert!(proof.verify(&key(1).public_key()).is_err());
        }
    }
}
