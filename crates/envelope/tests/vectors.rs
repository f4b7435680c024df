//! Golden vectors: `crates/envelope/vectors/*.json`, one scenario each, described in FORMAT.md §15.
//!
//! The files are made here and compared byte by byte; `BULLA_BLESS=1 cargo test -p bulla-envelope vectors` writes them. Then
//! the files are read back and must behave as they say, whatever made them.

mod exports;
mod failing;
mod json;
mod passing;
pub(crate) mod run;
mod sealed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use bulla_envelope::crypto::CryptoProvider;
use serde_json::Value;

/// Name of the scenario ↦ contents of its file.
type Vectors = BTreeMap<String, Value>;

pub(crate) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// The scenarios in the files.
fn on_disk() -> Vectors {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert_eq!(path.extension(), Some("json".as_ref()), "{}", path.display());
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        })
        .collect()
}

/// The scenarios made from their inputs.
fn made() -> Vectors {
    let mut vectors = passing::all();
    for (name, vector) in failing::all() {
        assert!(vectors.insert(name.clone(), vector).is_none(), "two vectors are called {name}");
    }
    vectors
}

#[test]
fn vectors_are_made_again_byte_by_byte() {
    let made = made();
    if env::var_os("BULLA_BLESS").is_some() {
        for name in on_disk().keys().filter(|name| !made.contains_key(*name)) {
            fs::remove_file(directory().join(format!("{name}.json"))).unwrap();
        }
        for (name, vector) in &made {
            let text = format!("{}\n", serde_json::to_string_pretty(vector).unwrap());
            fs::write(directory().join(format!("{name}.json")), text).unwrap();
        }
    }
    let on_disk = on_disk();
    for (name, vector) in &made {
        assert!(on_disk.get(name) == Some(vector), "{name} differs from its file, or has none");
    }
    assert_eq!(made.len(), on_disk.len(), "there are files that no scenario makes");
}

#[test]
fn every_vector_behaves_as_it_says() {
    for crypto in [CryptoProvider::rust_crypto(), CryptoProvider::best()] {
        for (name, vector) in on_disk() {
            let outcome = run::run(crypto, &vector);
            match vector.get("fails") {
                None => assert_eq!(outcome, Ok(()), "{name}"),
                Some(step) => {
                    let (failed_at, error) = outcome.expect_err(&name);
                    assert_eq!(
                        (failed_at, error.as_str()),
                        (step.as_str().unwrap(), vector["error"].as_str().unwrap()),
                        "{name}"
                    );
                }
            }
        }
    }
}
