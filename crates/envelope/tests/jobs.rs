//! Small sealed objects and jobs: what opens them, what they refuse to be, and any bytes at all.

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, StoreId};
use bulla_envelope::job::{Claim, Horizon, JOB_KIND, Job, OpenJobError, Row, Sweep};
use bulla_envelope::object::{OpenObjectError, SealedObject};
use bulla_envelope::{DecodeError, MAX_OBJECT_LEN};
use proptest::prelude::*;

use crate::cbor_value::Cbor;
use crate::samples;
use crate::support::providers;

pub(crate) const NAME: &str = "sweep:1:store-key:wcy3fm5uww3lpofzxk53zpn6x4";

pub(crate) fn sweep() -> Job {
    let mut sweep = Sweep { waited: true, ..Sweep::new() };
    sweep.rows[0] = Row { next: 16, claim: None, rewrapped: 70_000, failed: 2 };
    let claim = Claim { node: [7; 16], until: samples::CREATED };
    sweep.rows[9] = Row { next: 3, claim: Some(claim), rewrapped: 12, failed: 0 };
    Job::Sweep(Box::new(sweep))
}

pub(crate) fn seal(job: &Job) -> Vec<u8> {
    let key = samples::root().meta_key();
    job.seal(CryptoProvider::rust_crypto(), &key, samples::header(), NAME, samples::salt()).unwrap()
}

fn open(object: &[u8]) -> Result<Job, OpenJobError> {
    open_as(samples::header(), NAME, object)
}

fn open_as(header: EnvelopeHeader, name: &str, object: &[u8]) -> Result<Job, OpenJobError> {
    Job::open(CryptoProvider::rust_crypto(), &samples::root().meta_key(), header, name, object)
}

/// A job object with any content, as a broken or later writer would make it.
pub(crate) fn with_content(content: &[u8]) -> Vec<u8> {
    let (crypto, key) = (CryptoProvider::rust_crypto(), samples::root().meta_key());
    let (header, name) = (samples::header(), NAME.as_bytes());
    SealedObject::seal(crypto, &key, header, JOB_KIND, name, content, samples::salt()).unwrap().encode()
}

#[test]
fn jobs_come_back_as_they_were() {
    let horizon = Job::Horizon(Horizon { before: samples::CREATED });
    for job in [sweep(), Job::Sweep(Box::default()), horizon] {
        assert_eq!(open(&seal(&job)), Ok(job));
    }
}

// FORMAT-J1
#[test]
fn an_object_has_the_frame_and_is_sealed_as_the_format_says() {
    let mut object = Cbor::decode(&seal(&sweep()));
    let [Cbor::Uint(1), Cbor::Bytes(header), Cbor::Bytes(sealed)] = object.items_mut().as_slice() else {
        panic!("not [1, header, sealed]")
    };
    let parts = [
        Cbor::text("Cobblestone-256"),
        Cbor::bytes(samples::store_id().as_bytes()),
        Cbor::bytes(samples::root_id().as_bytes()),
    ];
    assert_eq!(*header, Cbor::Array(parts.to_vec()).encode());
    let context = bulla_envelope::context::meta_context(header, "job", NAME.as_bytes());
    for crypto in providers() {
        let key = samples::root().meta_key();
        let plaintext = bulla_envelope::cobblestone::open(crypto, key.expose(), &context, sealed).unwrap();
        let mut inside = Cbor::decode(&plaintext);
        assert_eq!(*inside.field(1), Cbor::text("job"));
        assert_eq!(*inside.field(2), Cbor::bytes(NAME.as_bytes()));
        assert!(matches!(inside.field(3), Cbor::Bytes(_)));
        assert_eq!(inside.entries().len(), 3);
    }
}

// FORMAT-J1
#[test]
fn an_object_opens_as_itself_only() {
    let object = seal(&sweep());
    let not_authentic = || Err(OpenJobError::Open(OpenObjectError::NotAuthentic));
    assert_eq!(open_as(samples::header(), "sweep:2", &object), not_authentic());
    let crypto = CryptoProvider::rust_crypto();
    let other = samples::new_root().meta_key();
    assert_eq!(Job::open(crypto, &other, samples::header(), NAME, &object), not_authentic());
    let decoded = SealedObject::decode(&object).unwrap();
    let key = samples::root().meta_key();
    assert_eq!(
        decoded.open(crypto, &key, "tag", NAME.as_bytes()).unwrap_err(),
        OpenObjectError::NotAuthentic
    );
    let headers = [
        EnvelopeHeader { store: StoreId::from_bytes([0; 16]), ..samples::header() },
        EnvelopeHeader { root: RootId::from_bytes([0; 16]), ..samples::header() },
    ];
    for header in headers {
        assert_eq!(open_as(header, NAME, &object), Err(OpenJobError::Foreign));
        // Nor does it help to say so in the object.
        let moved = SealedObject { header, ..decoded.clone() }.encode();
        assert_eq!(open_as(header, NAME, &moved), not_authentic());
    }
}

// FORMAT-J1
#[test]
fn a_writer_that_mixes_names_up_is_noticed() {
    let (crypto, key, header) =
        (CryptoProvider::rust_crypto(), samples::root().meta_key(), samples::header());
    let inside = |kind: &str, name: &str| {
        Cbor::Map(vec![(1, Cbor::text(kind)), (2, Cbor::bytes(name.as_bytes())), (3, Cbor::bytes(b""))])
            .encode()
    };
    let header_bytes = Cbor::decode(&seal(&sweep())).items()[1].as_bytes().to_vec();
    for (kind, name) in [("tag", NAME), (JOB_KIND, "another")] {
        let context = bulla_envelope::context::meta_context(&header_bytes, JOB_KIND, NAME.as_bytes());
        let sealed = bulla_envelope::cobblestone::seal(
            crypto,
            key.expose(),
            &context,
            samples::salt(),
            &inside(kind, name),
        );
        let object = SealedObject { header, sealed };
        assert_eq!(
            object.open(crypto, &key, JOB_KIND, NAME.as_bytes()).unwrap_err(),
            OpenObjectError::WrongName
        );
    }
}

// FORMAT-J1
#[test]
fn no_flipped_bit_and_no_cut_of_a_job_opens() {
    let object = seal(&sweep());
    for bit in 0..object.len() * 8 {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..object.len() {
        assert!(open(&object[..len]).is_err(), "{len} of {} bytes", object.len());
    }
}

#[test]
fn a_kind_is_short_and_an_object_fits_1_mib() {
    let (crypto, key) = (CryptoProvider::rust_crypto(), samples::root().meta_key());
    let seal = |kind: &str, len: usize| {
        SealedObject::seal(crypto, &key, samples::header(), kind, b"n", &vec![0; len], samples::salt())
    };
    for kind in ["", "two words", "réplica", &"k".repeat(33)] {
        assert_eq!(seal(kind, 0).unwrap_err().rule(), "a kind is 1 to 32 printable characters");
    }
    assert_eq!(seal("k", MAX_OBJECT_LEN).unwrap_err().rule(), "an object is at most 1 MiB");
}

// FORMAT-J2
#[test]
fn a_job_has_one_key_that_says_its_name_to_who_has_the_root() {
    let names = samples::root().name_key(JOB_KIND);
    let key = names.job_key(NAME);
    let component = key.strip_prefix("jobs/").unwrap();
    assert_eq!(names.open_name(JOB_KIND, "jobs", component).unwrap(), NAME.as_bytes());
    assert_eq!(names.seal_name(JOB_KIND, "jobs", NAME.as_bytes()), component);
}

// FORMAT-J3
#[test]
fn contents_that_break_a_rule_are_refused() {
    let row =
        |next: u64, claim: Cbor| Cbor::Array(vec![Cbor::Uint(next), claim, Cbor::Uint(0), Cbor::Uint(0)]);
    let claim = |until: u64| Cbor::Array(vec![Cbor::bytes(&[7; 16]), Cbor::Uint(until)]);
    let sweep = |waited: u64, rows: Vec<Cbor>| {
        Cbor::Array(vec![Cbor::Uint(0), Cbor::Uint(waited), Cbor::Array(rows)])
    };
    let idle = || vec![row(0, Cbor::Null); 16];
    let with = |first: Cbor| [vec![first], vec![row(0, Cbor::Null); 15]].concat();
    assert!(open(&with_content(&sweep(1, idle()).encode())).is_ok());
    let horizon = |before: u64| Cbor::Array(vec![Cbor::Uint(1), Cbor::Uint(before)]);
    let bad = [
        sweep(2, idle()),
        sweep(0, idle()[1..].to_vec()),
        sweep(0, [idle(), idle()].concat()),
        sweep(0, with(row(17, Cbor::Null))),
        sweep(0, with(row(16, claim(1)))),
        sweep(0, with(row(256, Cbor::Null))),
        sweep(0, with(row(3, claim(253_402_300_800_000)))),
        horizon(253_402_300_800_000),
        Cbor::Array(vec![Cbor::Uint(2), Cbor::Uint(0), Cbor::Uint(0)]),
        Cbor::Array(vec![Cbor::Uint(1)]),
        Cbor::Array(vec![Cbor::Uint(1), Cbor::Uint(0), Cbor::Uint(0)]),
        Cbor::Raw([sweep(0, idle()).encode(), vec![0]].concat()),
        Cbor::Raw(vec![0x82, 0x01, 0x18, 0x05]),
    ];
    for content in bad {
        assert!(
            matches!(open(&with_content(&content.encode())), Err(OpenJobError::Decode(_))),
            "{content:?}"
        );
    }
}

#[test]
fn a_job_that_breaks_a_rule_is_not_written() {
    let mut sweep = Sweep::new();
    sweep.rows[3] = Row { next: 16, claim: Some(Claim { node: [0; 16], until: 0 }), ..Row::default() };
    let (crypto, key) = (CryptoProvider::rust_crypto(), samples::root().meta_key());
    let sealed = Job::Sweep(Box::new(sweep)).seal(crypto, &key, samples::header(), NAME, samples::salt());
    assert_eq!(sealed.unwrap_err().rule(), "nobody claims a row that is done");
}

#[test]
fn a_job_of_a_later_version_is_refused_by_its_number() {
    let mut object = Cbor::decode(&seal(&sweep()));
    object.items_mut()[0] = Cbor::Uint(2);
    assert_eq!(open(&object.encode()), Err(OpenJobError::Decode(DecodeError::UnknownVersion(2))));
}

proptest! {
    #[test]
    fn any_bytes_are_refused(object in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(open(&object).is_err());
    }

    #[test]
    fn any_content_gives_a_job_or_an_error(content in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(job) = open(&with_content(&content)) {
            prop_assert_eq!(open(&seal(&job)), Ok(job));
        }
    }
}
