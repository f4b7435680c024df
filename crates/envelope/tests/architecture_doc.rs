//! ARCHITECTURE.md and the tests agree: every test that its table of details cites is there, in the module that it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::format_doc::{rust_files, workspace_root};

/// What the last column of a table has in backticks and can be a test's path: `module::name`, or a name alone that is long
/// enough to be none of something else. A `*` stands for the rest.
fn cited() -> BTreeSet<String> {
    let text = fs::read_to_string(workspace_root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let tests = rows
        .filter_map(|row| row.rsplit_once(" | "))
        .flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2));
    let is_path = |text: &&str| {
        let is_name = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | ':' | '*');
        text.chars().all(is_name) && (text.contains("::") || text.matches('_').count() > 2)
    };
    let found: BTreeSet<String> = tests.filter(is_path).map(str::to_owned).collect();
    assert!(found.len() > 300, "the tables were not found");
    found
}

/// Functions ↦ the modules that have one of that name, as paths of files without their extension.
fn functions() -> BTreeMap<String, Vec<String>> {
    let mut files = Vec::new();
    rust_files(&workspace_root(), &mut files);
    let mut functions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let module = module(&file);
        for rest in fs::read_to_string(&file).unwrap().split("fn ").skip(1) {
            let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            functions.entry(name.to_owned()).or_default().push(module.clone());
        }
    }
    functions
}

fn module(file: &Path) -> String {
    let path = file.with_extension("");
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    format!("::{}", parts.join("::"))
}

#[test]
fn every_cited_test_is_there() {
    let functions = functions();
    let is_there = |path: &String| {
        let (module, name) = path.rsplit_once("::").unwrap_or(("", path));
        let is_named = |found: &str| match name.split_once('*') {
            Some((start, end)) => found.starts_with(start) && found.ends_with(end),
            None => found == name,
        };
        let mut modules =
            functions.iter().filter(|(found, _)| is_named(found)).flat_map(|(_, modules)| modules);
        modules.any(|found| module.is_empty() || found.ends_with(&format!("::{module}")))
    };
    let missing: Vec<String> = cited().into_iter().filter(|path| !is_there(path)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md cites tests that are not there: {missing:#?}");
}
