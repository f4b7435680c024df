//! The help of the command. Being here, it also makes `cargo test --workspace` build the command, which the tests of
//! the package `bulla-tests` run.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::Command;

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bulla")).args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        "quickstart",
        "init",
        "attach",
        "put",
        "get",
        "ls",
        "stat",
        "rm",
        "status",
        "doctor",
        "rotate",
        "audit",
        "audit start",
        "audit keygen",
        "audit checkpoint",
        "audit export",
        "audit prove",
        "audit verify",
        "gc",
        "verify",
        "serve",
        "adopt",
        "import",
        "export",
        "vault",
        "completions",
        "vault create",
        "vault key",
        "vault key create",
        "vault key list",
        "vault key show",
        "vault key enable",
        "vault key disable",
        "vault key set-attributes",
        "vault key delete",
        "vault key recover",
        "vault key purge",
        "vault set-policy",
        "vault delete-policy",
        "vault serve",
        "vault token",
        "vault network-rule",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let text = help(&arguments);
        assert!(text.contains("Examples:"), "{command}: no examples\n{text}");
        assert!(text.contains(&format!("bulla {command}")), "{command}: not in its own examples\n{text}");
    }
}

#[test]
fn the_help_has_the_table_of_exit_codes() {
    let text = help(&[]);
    for line in ["0  done", "2  invalid", "4  revoked", "8  corrupt", "130  interrupted", "BULLA_STORE"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
