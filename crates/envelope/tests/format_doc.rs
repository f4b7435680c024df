//! FORMAT.md and the tests agree: every requirement is cited by a test, and every citation is of a requirement.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::support::skipped;

/// What an id begins with; split so that this file cites nothing.
const PREFIX: &str = concat!("FORMAT", "-");

pub(crate) fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The ids in `text`: the prefix, a capital letter, a number.
fn ids(text: &str) -> impl Iterator<Item = String> {
    text.match_indices(PREFIX).filter_map(|(at, _)| {
        let rest = &text[at + PREFIX.len()..];
        let section = rest.chars().next().filter(char::is_ascii_uppercase)?;
        let digits: String = rest[1..].chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then(|| format!("{PREFIX}{section}{digits}"))
    })
}

/// The requirements: `- **ID** …` in FORMAT.md.
fn requirements() -> BTreeSet<String> {
    let text = fs::read_to_string(workspace_root().join("FORMAT.md")).unwrap();
    let mut found = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("- **")) {
        let id = line.split("**").next().unwrap();
        if id.starts_with(PREFIX) {
            assert_eq!(ids(id).next().as_deref(), Some(id));
            assert!(found.insert(id.to_owned()), "{id} is defined twice");
        }
    }
    assert!(found.len() > 40, "the requirements were not found");
    found
}

pub(crate) fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Id ↦ a file that cites it; in tests only, or everywhere.
///
/// A citation is in a comment, in a file of a `tests` directory, in a `tests.rs`, or below `mod tests` of a source file.
fn citations(tests_only: bool) -> BTreeMap<String, PathBuf> {
    let root = workspace_root();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut cited = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(&root).unwrap();
        let is_test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
        let text = if is_test || !tests_only {
            text.as_str()
        } else {
            text.split_once("\nmod tests {").map_or("", |(_, tests)| tests)
        };
        for comment in text.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment)) {
            cited.extend(ids(comment).map(|id| (id, path.to_owned())));
        }
    }
    cited
}

fn is_protocol(id: &str) -> bool {
    id.strip_prefix(PREFIX).unwrap().starts_with('P')
}

#[test]
fn every_requirement_is_cited_by_a_test() {
    let cited = citations(true);
    let missing: Vec<String> =
        requirements().into_iter().filter(|id| !is_protocol(id) && !cited.contains_key(id)).collect();
    assert!(missing.is_empty(), "no test cites {missing:?}");
}

/// The requirements on the protocol are proven by the engine's tests.
#[test]
fn every_requirement_on_the_protocol_is_cited_by_a_test() {
    let cited = citations(true);
    let (found, missing): (Vec<String>, Vec<String>) =
        requirements().into_iter().filter(|id| is_protocol(id)).partition(|id| cited.contains_key(id));
    if found.is_empty() {
        skipped("no test of the engine is here that cites a requirement on the protocol");
        return;
    }
    assert!(missing.is_empty(), "no test cites {missing:?}");
}

#[test]
fn every_citation_is_of_a_requirement() {
    let requirements = requirements();
    for (id, file) in citations(false) {
        assert!(requirements.contains(&id), "{} cites {id}, which FORMAT.md does not define", file.display());
    }
}
