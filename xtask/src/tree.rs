//! Questions about the dependency tree, asked of cargo.

use std::collections::BTreeSet;

use crate::sh::{self, Outcome};

/// The libraries that must work, and be tested, without AWS-LC.
pub(crate) const PURE_RUST: [&str; 5] =
    ["bulla-envelope", "bulla-kek", "bulla-vault", "bulla-kek-pkcs11", "bulla"];

/// What is built without default features must have none of AWS-LC in its tree: the feature is the only way in.
pub(crate) fn no_aws_lc_without_the_feature() -> Outcome {
    for package in [
        "bulla",
        "bulla-vault",
        "bulla-listener",
        "bulla-vault-server",
        "bulla-kek-azure",
        "bulla-kek-pkcs11",
        "bulla-registry",
        "bulla-cli",
    ] {
        let line = format!("cargo tree --locked -p {package} -e normal,build --no-default-features");
        let names = names(&line)?;
        if let Some(found) = names.iter().find(|name| name.starts_with("aws-lc")) {
            return Err(format!(
                "{package} without default features still depends on {found}; see `{line} -i {found}`"
            ));
        }
        println!("{package}: {} crates without default features, no AWS-LC among them", names.len());
    }
    Ok(())
}

/// The names of the crates that a `cargo tree` command lists.
pub(crate) fn names(line: &str) -> Outcome<BTreeSet<String>> {
    let printed = sh::read(sh::command(line).args(["--prefix", "none", "--format", "{p}"]))?;
    Ok(printed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}
