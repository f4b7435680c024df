//! The layer rules of ARCHITECTURE.md, held against the manifests, the dependency trees and the sources.
//!
//! Arrows only point down. A manifest says what a crate may import, so cargo itself holds source and manifest
//! together; the words looked for in sources are for what a crate can reach without naming it as a dependency.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::sh::{self, Outcome};
use crate::tree;

struct Layer {
    package: &'static str,
    /// The crates of this workspace that it may depend on, development dependencies aside.
    below: &'static [&'static str],
    /// Crates that must be nowhere in its tree, without default features.
    never_in_tree: &'static [&'static str],
    /// What its own code must not say, tests aside.
    never_in_source: &'static [&'static str],
}

const LAYERS: &[Layer] = &[
    // Never awaits, does no I/O, has neither clock nor randomness of its own; is built for wasm32.
    Layer {
        package: "bulla-envelope",
        below: &[],
        never_in_tree: &["tokio", "futures", "futures-util", "object_store", "getrandom", "rustix", "libc"],
        never_in_source: &[
            "async fn",
            "async move",
            ".await",
            "tokio",
            "object_store",
            "getrandom",
            "std::fs",
            "std::net",
            "std::env",
            "std::time",
            "std::thread",
        ],
    },
    // Never sees an object store.
    Layer {
        package: "bulla-kek",
        below: &["bulla-envelope"],
        never_in_tree: &["object_store", "reqwest", "hyper"],
        never_in_source: &["object_store", "std::fs", "TcpStream", "UdpSocket"],
    },
    Layer {
        package: "bulla-vault",
        below: &["bulla-envelope", "bulla-kek"],
        never_in_tree: &["object_store", "reqwest", "hyper"],
        never_in_source: &["object_store", "TcpStream", "UdpSocket"],
    },
    Layer {
        package: "bulla-kek-pkcs11",
        below: &["bulla-envelope", "bulla-kek"],
        never_in_tree: &["object_store", "reqwest", "hyper"],
        never_in_source: &["object_store", "TcpStream", "UdpSocket", "std::env"],
    },
    // Talks to key vaults, and neither keeps nor stores anything.
    Layer {
        package: "bulla-kek-azure",
        below: &["bulla-envelope", "bulla-kek"],
        never_in_tree: &["object_store"],
        never_in_source: &["object_store", "std::fs", "getrandom", "tokio"],
    },
    // Connections and certificates; knows neither keys nor stores.
    Layer {
        package: "bulla-listener",
        below: &[],
        never_in_tree: &["object_store", "reqwest"],
        never_in_source: &["object_store"],
    },
    // The vault on a network; knows nothing of stores.
    Layer {
        package: "bulla-vault-server",
        below: &["bulla-envelope", "bulla-kek", "bulla-listener", "bulla-vault"],
        never_in_tree: &["object_store", "reqwest"],
        never_in_source: &["object_store"],
    },
    // Pages of memory; the only unsafe code.
    Layer {
        package: "bulla-pages",
        below: &[],
        never_in_tree: &["tokio", "object_store"],
        never_in_source: &["std::net", "async fn"],
    },
    // Knows providers only through `bulla_kek`, and time, tasks and randomness only through its runtime seam.
    Layer {
        package: "bulla",
        below: &["bulla-envelope", "bulla-kek", "bulla-pages"],
        never_in_tree: &[],
        never_in_source: &[
            "bulla_vault",
            "bulla_kek_pkcs11",
            "tokio::time",
            "tokio::task",
            "tokio::spawn",
            "tokio::fs",
            "tokio::net",
            "getrandom",
        ],
    },
    Layer {
        package: "bulla-testkit",
        below: &["bulla-envelope", "bulla-kek", "bulla"],
        never_in_tree: &[],
        never_in_source: &["getrandom", "SystemTime::now", "std::time::Instant"],
    },
    // HTTP over a store; knows no key, no provider and no bucket.
    Layer {
        package: "bulla-registry",
        below: &["bulla", "bulla-listener"],
        never_in_tree: &[],
        never_in_source: &["object_store", "bulla_vault", "bulla_kek", "bulla_envelope"],
    },
    // Injects the providers and talks to stores through the engine.
    Layer {
        package: "bulla-cli",
        below: &[
            "bulla-envelope",
            "bulla-kek",
            "bulla-vault",
            "bulla-vault-server",
            "bulla-kek-azure",
            "bulla-kek-pkcs11",
            "bulla",
            "bulla-registry",
        ],
        never_in_tree: &[],
        never_in_source: &["object_store"],
    },
];

/// The only packages that may name `object_store`: the engine, and what tests or measures it.
const OBJECT_STORE: &[&str] = &["bulla", "bulla-testkit", "bulla-tests", "bulla-benches"];

/// The only package with lints of its own, for what it does can't be done without unsafe code.
const UNSAFE: &str = "bulla-pages";

/// The crates that take time and randomness through the seam only; each switches the lint for it on.
const SEAM: &[&str] = &["bulla-envelope", "bulla-kek", "bulla"];

pub(crate) fn check() -> Outcome {
    let metadata = sh::read(&mut sh::command("cargo metadata --locked --format-version 1 --no-deps"))?;
    let metadata: Value =
        serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut faults = Vec::new();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    for package in packages {
        manifest(package, &ours, &mut faults)?;
    }
    for layer in LAYERS.iter().filter(|layer| !layer.never_in_tree.is_empty()) {
        let line = format!("cargo tree --locked -p {} -e normal --no-default-features", layer.package);
        let tree = tree::names(&line)?;
        for name in layer.never_in_tree.iter().filter(|name| tree.contains(**name)) {
            faults.push(format!("{} depends on {name}; see `{line} -i {name}`", layer.package));
        }
    }
    if faults.is_empty() {
        println!("{} packages keep the layer rules", packages.len());
        return Ok(());
    }
    Err(format!("layer rules broken:\n  {}", faults.join("\n  ")))
}

fn manifest(package: &Value, ours: &BTreeSet<&str>, faults: &mut Vec<String>) -> Outcome {
    let name = package["name"].as_str().unwrap_or_default();
    let path = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    if name != UNSAFE && !read(path)?.contains("[lints]\nworkspace = true") {
        faults.push(format!("{name}: the manifest lacks `[lints] workspace = true`"));
    }
    let layer = LAYERS.iter().find(|layer| layer.package == name);
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let on = dependency["name"].as_str().unwrap_or_default();
        if on == "object_store" && !OBJECT_STORE.contains(&name) {
            faults.push(format!("{name} depends on object_store; only the engine does object I/O"));
        }
        let arrow = ours.contains(on) && dependency["kind"].as_str() != Some("dev");
        if arrow && layer.is_some_and(|layer| !layer.below.contains(&on)) {
            faults.push(format!("{name} depends on {on}, which is not below it"));
        }
    }
    let source = path.with_file_name("src");
    if SEAM.contains(&name) && !read(&source.join("lib.rs"))?.contains("clippy::disallowed_methods") {
        faults.push(format!("{name}: lib.rs lacks `#![warn(clippy::disallowed_methods)]`, see clippy.toml"));
    }
    let Some(layer) = layer else { return Ok(()) };
    for file in rust_files(&source)? {
        let text = read(&file)?;
        for (number, line) in (1..).zip(code_lines(&text)) {
            for word in layer.never_in_source.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{}:{number}: `{word}` does not belong in {name}", file.display()));
            }
        }
    }
    Ok(())
}

/// Lines without comments, up to the tests, which come last in a file.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.trim_start().starts_with("#[cfg(test)]"))
        .map(|line| line.split("//").next().unwrap_or_default())
}

fn rust_files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let cannot = |error| format!("cannot list {}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.is_dir() {
            // `tests/` below `src` holds tests only, as does `tests.rs`.
            if path.file_name().is_some_and(|name| name != "tests") {
                found.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|is| is == "rs")
            && path.file_stem().is_some_and(|is| is != "tests")
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::code_lines;

    #[test]
    fn comments_and_tests_are_not_code() {
        let text = "use a; // tokio\n//! tokio\nfn f() {}\n#[cfg(test)]\nmod tests { use tokio; }\n";
        assert!(!code_lines(text).any(|line| line.contains("tokio")));
        assert_eq!(code_lines(text).count(), 3);
    }
}
