//! Writes `fuzz/seeds`: well-formed inputs from which the fuzz targets start. `cargo xtask corpus` runs it.
//!
//! Keys and ids are fixed, so that it writes the same bytes every time.

use std::path::Path;
use std::{fs, io};

use bulla_envelope::audit::{
    Action, Batch, Checkpoint, Entry, Export, Outcome, Proof, SigningKey, StoreLogMark, SweepCount,
};
use bulla_envelope::cobblestone::{self, CHUNK_LEN, Header};
use bulla_envelope::context::{audit_context, envelope_context, upload_context};
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest, Hasher};
use bulla_envelope::envelope::{BlobRecord, Envelope, EnvelopeHeader, Extent, Wrap};
use bulla_envelope::ids::{BlobId, ExtentName, RootId, SessionId, StoreId, StoreKeyId};
use bulla_envelope::job::{Claim, Horizon, JOB_KIND, Job, Row, Sweep};
use bulla_envelope::meta::{MetaKeys, MetaKind, MetaRecord};
use bulla_envelope::object::SealedObject;
use bulla_envelope::random::RandomSource;
use bulla_envelope::record::{
    KekEntry, KekState, LogRecord, Managed, Mode, PartyEntry, RootEntry, RootState, SignedRecord,
    StoreKeyEntry, StoreKeyState,
};
use bulla_envelope::secret::{Dek, Root};
use bulla_envelope::session::{SessionRecord, StoredExtent};

const KEK: &str = "https://contoso.vault.azure.net/keys/registry/0123456789abcdef0123456789abcdef";
const SHARE: &str = "vault:aaaaaaaaaaaaaaaaaaaaaaaaaa/keys/registry/fedcba9876543210fedcba9876543210";
/// The kind and depth that the target `meta_object` opens.
const TAG: MetaKind = MetaKind::new("tag", 2);

fn main() -> io::Result<()> {
    envelopes()?;
    log_records()?;
    cobblestone_open()?;
    range_arithmetic()?;
    key_ids()?;
    sealed_objects()?;
    manifests()?;
    references()?;
    audit_log()
}

fn envelopes() -> io::Result<()> {
    let crypto = CryptoProvider::rust_crypto();
    let key = Root::from_slice(&[1; 32]).expect("32 bytes").envelope_key();
    let dek = Dek::from_slice(&[2; 32]).expect("32 bytes");
    let header = EnvelopeHeader { store: store(), root: root(5) };
    // The digest for which the target `blob_record` opens.
    let digest = Digest::of(Algorithm::Sha256, b"");
    let by_store_key = Wrap::under_store_key(&store_key(6), [7; 40]);
    let by_kek = Wrap { kid: KEK.into(), alg: "RSA-OAEP-256".into(), value: vec![8; 256] };
    let plain = BlobRecord {
        digest,
        size: 0,
        blob: BlobId::from_slice(&[9; 16]).expect("16 bytes"),
        extents: Vec::new(),
        inline: Some(Vec::new()),
        created: 1_700_000_000_000,
        dek_root: root(5),
        expires: None,
        there_since: None,
    };
    let extent = |byte, len| Extent {
        name: ExtentName::from_slice(&[byte; 16]).expect("16 bytes"),
        len,
        header: Header { salt: [byte; 24], commitment: [byte; 32] },
    };
    let inline = BlobRecord {
        size: 300,
        inline: Some(vec![10; 300]),
        expires: Some(1_800_000_000_000),
        ..plain.clone()
    };
    let one = BlobRecord { size: 70_000, inline: None, extents: vec![extent(11, 70_000)], ..plain.clone() };
    let several = vec![extent(12, 1 << 30), extent(13, 1 << 30), extent(14, 1)];
    let several = BlobRecord { size: (2 << 30) + 1, inline: None, extents: several, ..plain.clone() };
    for (name, record, wraps) in [
        ("empty", plain, vec![by_store_key.clone()]),
        ("inline_expiring", inline, vec![by_store_key.clone()]),
        ("one_extent", one, vec![by_kek.clone()]),
        ("several_extents", several, vec![by_store_key, by_kek]),
    ] {
        let sealed =
            Envelope::seal(crypto, &key, header.clone(), wraps, &dek, &record, [3; 24]).expect("well-formed");
        write("envelope", name, &sealed.encode())?;
        // What is inside, by opening the message without reading the record.
        let mut encoded = b"\x83\x6fCobblestone-256\x50".to_vec();
        encoded.extend(header.store.as_bytes());
        encoded.push(0x50);
        encoded.extend(header.root.as_bytes());
        let context = envelope_context(&encoded, &record.digest);
        let inside = cobblestone::open(crypto, key.with_dek(&dek).expose(), &context, &sealed.sealed);
        write("blob_record", name, &inside.expect("it was just sealed"))?;
    }
    Ok(())
}

fn log_records() -> io::Result<()> {
    let (old, new) =
        (Root::from_slice(&[1; 32]).expect("32 bytes"), Root::from_slice(&[2; 32]).expect("32 bytes"));
    let wrap = |kid: &str, alg: &str, len| Wrap { kid: kid.into(), alg: alg.into(), value: vec![8; len] };
    let kek = |kid: &str, alg: &str, state| KekEntry {
        kid: kid.into(),
        alg: alg.into(),
        state,
        since: 1_700_000_000_000,
    };
    let by_rsa = vec![wrap(KEK, "RSA-OAEP-256", 384)];
    let first = LogRecord {
        number: 1,
        history: Vec::new(),
        store: store(),
        mode: Mode::Hierarchical,
        revocation_bound_ms: 60_000,
        identity: "system".into(),
        key_id: "https://contoso.vault.azure.net/keys/registry".into(),
        keks: vec![kek(KEK, "RSA-OAEP-256", KekState::Active)],
        roots: vec![RootEntry {
            id: root(5),
            state: RootState::Active,
            groups: vec![by_rsa.clone()],
            parent: None,
        }],
        store_keys: vec![store_key_entry(6, StoreKeyState::Active, 5)],
        created: 1_700_000_000_000,
        rotated: None,
        managed: Managed::Customer,
        written: 1_700_000_000_000,
        other_parties: Vec::new(),
    };
    let signed = |record: &LogRecord| record.sign(&old.record_key()).expect("well-formed");
    write_record("first", &signed(&first))?;

    let mut rotating = first.clone();
    rotating.number = 3;
    rotating.history = vec![[1; 32], [2; 32]];
    rotating.keks[0].state = KekState::Retiring;
    rotating.keks.push(kek(SHARE, "A256KW", KekState::Active));
    rotating.roots[0].groups.push(vec![wrap(SHARE, "A256KW", 40)]);
    rotating.rotated = Some(1_700_000_100_000);
    rotating.store_keys.insert(0, store_key_entry(7, StoreKeyState::Retiring, 5));
    write_record("rotating", &signed(&rotating))?;

    let mut shared = rotating.clone();
    shared.roots[0].groups = vec![vec![wrap(KEK, "RSA-OAEP-256", 384), wrap(SHARE, "A256KW", 40)]];
    shared.other_parties = vec![PartyEntry {
        identity: "escrow".into(),
        key_id: "vault:aaaaaaaaaaaaaaaaaaaaaaaaaa/keys/registry".into(),
    }];
    write_record("two_parties", &signed(&shared))?;

    let mut direct = rotating.clone();
    direct.mode = Mode::Direct;
    direct.managed = Managed::Service;
    write_record("direct", &signed(&direct))?;

    let mut pending = first.clone();
    pending.roots.push(RootEntry {
        id: root(15),
        state: RootState::Pending,
        groups: vec![by_rsa],
        parent: None,
    });
    pending.roots.push(RootEntry {
        id: root(16),
        state: RootState::Retiring,
        groups: vec![],
        parent: Some([1; 40]),
    });
    let pending = pending.sign_pending(&old.record_key(), &new.record_key()).expect("well-formed");
    write_record("pending_and_retiring_roots", &pending)?;
    write("log_record", "stub", &bulla_envelope::record::stub())
}

/// The contents of meta objects, jobs and sessions. The targets seal them again.
fn sealed_objects() -> io::Result<()> {
    let crypto = CryptoProvider::rust_crypto();
    let keys = Root::from_slice(&[1; 32]).expect("32 bytes");
    let (meta, names, header) = (keys.meta_key(), keys.name_key(TAG.name()), header());
    for (name, payload) in [("empty", vec![]), ("small", b"a payload".to_vec()), ("longest", vec![7; 65_536])]
    {
        let path = ["example/app", "latest"].map(str::to_owned).to_vec();
        let record = MetaRecord { path, nonce: [9; 16], payload };
        let object = record.seal(crypto, MetaKeys { meta: &meta, names: &names }, header, TAG, [3; 24]);
        let object = SealedObject::decode(&object.expect("well-formed")).expect("it was just made");
        let key = names.meta_key(&header.root, TAG, &["example/app", "latest"]);
        let content = object.open(crypto, &meta, TAG.name(), key.as_bytes()).expect("it was just sealed");
        write("meta_object", name, &content)?;
    }
    let mut begun = Sweep { waited: true, ..Sweep::new() };
    begun.rows[0] = Row { next: 16, claim: None, rewrapped: 70_000, failed: 2 };
    let claim = Claim { node: [7; 16], until: 1_700_000_000_000 };
    begun.rows[9] = Row { next: 3, claim: Some(claim), rewrapped: 12, failed: 0 };
    for (name, job) in [
        ("horizon", Job::Horizon(Horizon { before: 1_700_000_000_000 })),
        ("sweep", Job::Sweep(Box::new(begun))),
        ("sweep_new", Job::Sweep(Box::default())),
    ] {
        let object = job.seal(crypto, &meta, header, "gc", [3; 24]).expect("well-formed");
        let object = SealedObject::decode(&object).expect("it was just made");
        write("job", name, &object.open(crypto, &meta, JOB_KIND, b"gc").expect("it was just sealed"))?;
    }
    sessions()
}

fn sessions() -> io::Result<()> {
    let crypto = CryptoProvider::rust_crypto();
    let (key, id) = (
        Root::from_slice(&[1; 32]).expect("32 bytes").upload_key(),
        SessionId::from_slice(&[6; 16]).expect("16 bytes"),
    );
    let extent = |byte, len| StoredExtent {
        extent: Extent {
            name: ExtentName::from_slice(&[byte; 16]).expect("16 bytes"),
            len,
            header: Header { salt: [byte; 24], commitment: [byte; 32] },
        },
        stored: 1_700_000_000_000,
    };
    let session = |algorithm, extents: Vec<StoredExtent>, tail: &[u8]| {
        let mut hasher = Hasher::new(algorithm);
        for stored in &extents {
            hasher.update(&vec![0; usize::try_from(stored.extent.len).expect("small")]);
        }
        hasher.update(tail);
        SessionRecord {
            wraps: vec![Wrap::under_store_key(&store_key(6), [7; 40])],
            blob: BlobId::from_slice(&[9; 16]).expect("16 bytes"),
            dek_root: root(5),
            extents,
            tail: tail.to_vec(),
            hash: hasher.state(),
            created: 1_700_000_000_000,
            touched: 1_700_000_000_000,
            revision: [8; 16],
            owner: b"example/app".to_vec(),
            horizon: 1_600_000_000_000,
            committing: None,
        }
    };
    let two = vec![extent(11, 100), extent(12, 50)];
    let committing = SessionRecord {
        committing: Some(Digest::of(Algorithm::Sha256, b"")),
        ..session(Algorithm::Sha256, two.clone(), b"")
    };
    for (name, record) in [
        ("new", session(Algorithm::Sha256, vec![], b"")),
        ("tail", session(Algorithm::Sha512, vec![], b"a tail")),
        ("two_extents", session(Algorithm::Sha512, two, b"a tail")),
        ("committing", committing),
    ] {
        let object = record.seal(crypto, &key, header(), &id, [3; 24]).expect("well-formed");
        let object = SealedObject::decode(&object).expect("it was just made");
        let context = upload_context(&encoded_header(), id.as_bytes());
        let inside = cobblestone::open(crypto, key.expose(), &context, &object.sealed);
        // After the map's head, the kind, the id, and the head of the content, which is long enough for two bytes of length.
        let inside = inside.expect("it was just sealed");
        let start = 1 + 1 + 7 + 1 + 17 + 1;
        let head = if inside[start] == 0x58 { 2 } else { 3 };
        write("session", name, &inside[start + head..])?;
    }
    Ok(())
}

/// Batches, entries, and texts for auditors.
fn audit_log() -> io::Result<()> {
    let crypto = CryptoProvider::rust_crypto();
    let key = Root::from_slice(&[1; 32]).expect("32 bytes").audit_key();
    let entry = |count| Entry {
        first: 1_700_000_000_000,
        last: 1_700_000_000_000 + count,
        count,
        node: "node-1".into(),
        action: Action::Unwrap,
        outcome: Outcome::Denied,
        reason: Some("Forbidden".into()),
        identity: Some("system".into()),
        keys: vec![KEK.into()],
        store_key: None,
        log: None,
        swept: None,
        latency_us: 1500,
    };
    let full = Entry {
        action: Action::SweepEnd,
        outcome: Outcome::Done,
        reason: None,
        store_key: Some(store_key(6)),
        log: Some(StoreLogMark { number: 7, hash: [7; 32] }),
        swept: Some(SweepCount { seen: 1_000_000, left: 0, failed: 0 }),
        ..entry(1)
    };
    let entries: Vec<Vec<u8>> =
        [entry(1), full, entry(300)].iter().map(|entry| entry.encode().expect("well-formed")).collect();
    for (number, entry) in entries.iter().enumerate() {
        write("audit_batch", &format!("entry_{number}"), entry)?;
    }
    let batch = Batch { number: 3, first: 40, previous: Some([9; 32]), entries: entries.clone() };
    let object = batch.seal(crypto, &key, header(), [3; 24]).expect("well-formed");
    let object = SealedObject::decode(&object).expect("it was just made");
    let context = audit_context(&encoded_header(), 3);
    let inside =
        cobblestone::open(crypto, key.expose(), &context, &object.sealed).expect("it was just sealed");
    write("audit_batch", "batch", &inside)?;

    let name = Checkpoint::origin_of(&store());
    let signer = SigningKey::generate(&name, &Fixed).expect("a key's name");
    let log = StoreLogMark { number: 7, hash: [7; 32] };
    let (export, _) = Export::new(entries, log, &signer).expect("entries");
    write("audit_text", "export", export.encode().as_bytes())?;
    write("audit_text", "checkpoint", export.note().as_bytes())?;
    write("audit_text", "public_key", signer.public_key().to_string().as_bytes())?;
    let proof = Proof::of(&export, 1).expect("it has three entries");
    write("audit_text", "proof", proof.encode().as_bytes())
}

struct Fixed;

impl RandomSource for Fixed {
    fn fill(&self, dest: &mut [u8]) {
        dest.fill(0x11);
    }
}

fn header() -> EnvelopeHeader {
    EnvelopeHeader { store: store(), root: root(5) }
}

/// As FORMAT.md has it: array(3), the suite, two ids.
fn encoded_header() -> Vec<u8> {
    [b"\x83\x6fCobblestone-256\x50", &[4; 16][..], b"\x50", &[5; 16]].concat()
}

/// See the target for how its input is read.
fn cobblestone_open() -> io::Result<()> {
    for length in [0_u16, 1, 16_383, 16_384, 40_000] {
        for operation in 0..8_u8 {
            let mut input = length.to_le_bytes().to_vec();
            input.push(operation);
            input.extend(60_u32.to_le_bytes());
            input.extend([0xa5; 3]);
            write("cobblestone_open", &format!("{length}_{operation}"), &input)?;
        }
    }
    let message =
        cobblestone::seal(CryptoProvider::rust_crypto(), &[1; 32], b"fuzz", [2; 24], b"a whole message");
    write("cobblestone_open", "message", &message)
}

/// See the target for how its input is read.
fn range_arithmetic() -> io::Result<()> {
    let chunk = CHUNK_LEN as u64;
    let cases: [(&str, u64, u64, u8, &[u64]); 6] = [
        ("inside_a_chunk", 20_000, 10, 64, &[100_000]),
        ("to_an_exact_end", 0, 2 * chunk, 2, &[2 * chunk]),
        ("over_extents", chunk - 1, 3 * chunk, 1, &[2 * chunk, 1, 5 * chunk + 7]),
        ("past_the_end", 10, u64::MAX, 16, &[100]),
        ("impossible_lengths", 0, 100, 0, &[u64::MAX, 1]),
        ("nothing", 0, 0, 1, &[]),
    ];
    for (name, start, length, per_piece, extents) in cases {
        let mut input = start.to_le_bytes().to_vec();
        input.extend(length.to_le_bytes());
        input.push(per_piece);
        extents.iter().for_each(|len| input.extend(len.to_le_bytes()));
        write("range_arithmetic", name, &input)?;
    }
    Ok(())
}

/// A line with the client's word for it, then the manifest.
fn manifests() -> io::Result<()> {
    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let digest = |text: &[u8]| Digest::of(Algorithm::Sha256, text);
    let part = |kind: &str, text: &[u8]| {
        format!(r#"{{"mediaType":"{kind}","digest":"{}","size":{}}}"#, digest(text), text.len())
    };
    let (config, layer) =
        (part("application/vnd.oci.image.config.v1+json", b"{}"), part("a/layer", b"layer"));
    let foreign = format!(
        r#"{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{}","urls":["https://a.example"]}}"#,
        Digest::of(Algorithm::Sha512, b"elsewhere")
    );
    let subject = part(OCI, b"subject");
    for (name, kind, text) in [
        (
            "image",
            OCI,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{config},"layers":[{layer},{foreign}],"annotations":{{"k":"v"}}}}"#
            ),
        ),
        ("untyped", "", format!(r#"{{"schemaVersion":2,"config":{config},"layers":null,"x":[[{{}}]]}}"#)),
        (
            "artifact",
            "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
            format!(
                r#"{{"schemaVersion":2,"artifactType":"a/b","config":{config},"layers":[],"subject":{subject}}}"#
            ),
        ),
        ("index", INDEX, format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{subject}]}}"#)),
        (
            "orphan",
            "application/vnd.oci.artifact.manifest.v1+json",
            format!(r#"{{"blobs":[{layer}],"subject":{subject}}}"#),
        ),
        ("schema_1", "", r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#.to_owned()),
        ("list", "a/b", format!(r#"[2,"{OCI}",null,{config},[]]"#)),
        (
            "huge_size",
            OCI,
            r#"{"schemaVersion":2,"config":{"digest":"","size":1e999},"layers":[]}"#.to_owned(),
        ),
    ] {
        write("manifest", name, format!("{kind}\n{text}").as_bytes())?;
    }
    Ok(())
}

fn references() -> io::Result<()> {
    let (sha256, sha512) = (Digest::of(Algorithm::Sha256, b""), Digest::of(Algorithm::Sha512, b""));
    for (name, text) in [
        ("name", "library/a.b_c__d-e---f/0"),
        ("traversal", "a/../b"),
        ("tag", "v1.0-rc.1_x"),
        ("signature", &format!("{sha256}.sig").replace(':', "-")),
        ("sha256", &sha256.to_string()),
        ("sha512", &sha512.to_string()),
        ("other_algorithm", "sha384+b64u.x:00"),
        ("upper", &sha256.to_string().to_uppercase()),
    ] {
        write("reference", name, text.as_bytes())?;
    }
    Ok(())
}

fn key_ids() -> io::Result<()> {
    for (name, text) in [
        ("key_vault", KEK),
        ("key_vault_versionless", "https://Contoso.Vault.Azure.NET/keys/My-Key"),
        ("key_vault_port", "https://[::1]:8443/keys/k"),
        ("vault", SHARE),
        ("vault_folder", "vault+file:///srv/my%20vault/keys/k/0123456789abcdef0123456789abcdef"),
        ("pkcs11", "pkcs11:token=T(1);object=a%20b;id=%01%aB"),
        ("pkcs11_pin", "pkcs11:token=T;object=K?pin-value=1234"),
        ("identity", "system"),
    ] {
        write("key_id", name, text.as_bytes())?;
    }
    Ok(())
}

fn store_key_entry(byte: u8, state: StoreKeyState, of: u8) -> StoreKeyEntry {
    StoreKeyEntry { id: store_key(byte), state, root: root(of), value: [byte; 40], since: 1_700_000_000_000 }
}

fn store() -> StoreId {
    StoreId::from_slice(&[4; 16]).expect("16 bytes")
}

fn root(byte: u8) -> RootId {
    RootId::from_slice(&[byte; 16]).expect("16 bytes")
}

fn store_key(byte: u8) -> StoreKeyId {
    StoreKeyId::from_slice(&[byte; 16]).expect("16 bytes")
}

fn write_record(name: &str, record: &SignedRecord) -> io::Result<()> {
    write("log_record", name, record.object())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}
