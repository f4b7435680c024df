//! A second implementation, in Python and from FORMAT.md alone (`tests/interop/`), reads what we write and writes what we read.
//! Its Cobblestone-256, AES-KW, AES-SIV, HKDF and RSA are those of PyPI's `cryptography`, its CBOR is `cbor2`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

use bulla_envelope::crypto::RsaPublicKey;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::support::{Seeded, bytes, providers, skipped};
use crate::vectors::{self, run};

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A Python with `cryptography` and `cbor2`: `$BULLA_PYTHON`, or the one that `cargo xtask test` installs.
fn python() -> Option<PathBuf> {
    let python = match env::var_os("BULLA_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => workspace_root().join("target/venv/bin/python"),
    };
    let import = ["-c", "import cbor2, cryptography.cobblestone"];
    match Command::new(&python).args(import).output() {
        Ok(output) if output.status.success() => return Some(python),
        Ok(output) => skipped(&format!(
            "{} has no cryptography 50 or no cbor2: {}",
            python.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => {
            skipped(&format!("no Python at {}: {error}; `cargo xtask test` installs it", python.display()))
        }
    }
    None
}

fn interop(python: &Path, command: &str, directory: &Path) {
    let script = workspace_root().join("tests/interop/cobblestone_interop.py");
    // `-B`: no compiled copies in the source tree.
    let output = Command::new(python).arg("-B").arg(script).arg(command).arg(directory).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A directory of this test's own, removed again if the test passes.
fn scratch(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn unhex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// Every vector: opened if it opens, and refused at the same step if not.
#[test]
fn foreign_code_reads_our_vectors() {
    if let Some(python) = python() {
        interop(&python, "read", &vectors::directory());
    }
}

#[test]
fn we_read_what_foreign_code_makes() {
    let Some(python) = python() else { return };
    let directory = scratch("foreign");
    interop(&python, "make", &directory);
    let files: Vec<PathBuf> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 9, "{files:?}");
    for file in &files {
        for crypto in providers() {
            assert_eq!(run::run(crypto, &read(file)), Ok(()), "{}", file.display());
        }
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn rsa_oaep_256_goes_both_ways() {
    let Some(python) = python() else { return };
    let random = Seeded::new(2048);
    for crypto in providers() {
        let directory = scratch(&format!("rsa-{}", crypto.name));
        let pkcs8 = crypto.rsa.generate(2048, &random).unwrap();
        let private = crypto.rsa.private_key(&pkcs8).unwrap();
        let spki = private.public_key().to_spki_der().unwrap();
        let public = RsaPublicKey::from_spki_der(&spki).unwrap();
        let secret = bytes(7, 32);
        let wrapped = crypto.rsa.wrap(&public, &secret, &random).unwrap();
        let to_python = json!({
            "pkcs8": HEXLOWER.encode(&pkcs8),
            "spki": HEXLOWER.encode(&spki),
            "wrapped": HEXLOWER.encode(&wrapped),
            "secret": HEXLOWER.encode(&secret),
        });
        fs::write(directory.join("to-python.json"), to_python.to_string()).unwrap();
        interop(&python, "rsa", &directory);
        let answer = read(&directory.join("from-python.json"));
        let unwrapped = private.unwrap(&unhex(&answer["wrapped"]), &random).unwrap();
        assert_eq!(*unwrapped, unhex(&answer["secret"]));
        fs::remove_dir_all(directory).unwrap();
    }
}
