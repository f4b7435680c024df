//! Where a vault's passphrase comes from: the environment, a file, or a prompt. Never echoed, wiped after use.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use bulla_vault::Passphrase;
use zeroize::{Zeroize, Zeroizing};

use crate::context::Context;
use crate::exit::{Failure, Kind, Result};

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) enum Passphrases {
    /// `BULLA_VAULT_PASSPHRASE`, else the file `BULLA_VAULT_PASSPHRASE_FILE`, else a prompt.
    Environment,
    /// A file; `quickstart` makes one of its own.
    File(PathBuf),
}

/// Whether the passphrase opens something or is a new one, which a prompt asks for twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Open,
    Create,
}

/// The passphrase of the vault in `dir`.
pub(crate) async fn of_vault(ctx: &Context, dir: &Path, purpose: Purpose) -> Result<Passphrase> {
    match &ctx.passphrases {
        Passphrases::File(path) => return from_file(path),
        Passphrases::Environment => {}
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(value) = set("BULLA_VAULT_PASSPHRASE") {
        return Ok(Passphrase::new(value.into_encoded_bytes()));
    }
    if let Some(path) = set("BULLA_VAULT_PASSPHRASE_FILE") {
        return from_file(Path::new(&path));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::invalid(format!(
            "the passphrase of the vault in {} is needed: set BULLA_VAULT_PASSPHRASE or BULLA_VAULT_PASSPHRASE_FILE",
            dir.display()
        )));
    }
    let dir = dir.to_owned();
    // On a thread of its own, so that Ctrl-C ends the command while the prompt waits.
    let asked = tokio::task::spawn_blocking(move || ask(&dir, purpose));
    tokio::select! {
        interrupted = ctx.interrupt.wait() => Err(interrupted),
        answer = asked => answer.unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "the prompt failed"))),
    }
}

/// The passphrase in a file, without the line end.
pub(crate) fn from_file(path: &Path) -> Result<Passphrase> {
    let mut bytes = Zeroizing::new(fs::read(path).map_err(|error| {
        Failure::file("read the passphrase from", path, error).with_fix("see BULLA_VAULT_PASSPHRASE_FILE")
    })?);
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(Failure::invalid(format!("{} is empty; put the passphrase into it", path.display())));
    }
    Ok(Passphrase::new(std::mem::take(&mut *bytes)))
}

fn ask(dir: &Path, purpose: Purpose) -> Result<Passphrase> {
    let prompt = |text: String| {
        rpassword::prompt_password(text).map(Zeroizing::new).map_err(|error| {
            Failure::invalid("the passphrase can't be asked for here; set BULLA_VAULT_PASSPHRASE_FILE")
                .with_source(error)
        })
    };
    let name = dir.display();
    if purpose == Purpose::Open {
        let mut answer = prompt(format!("Passphrase of the vault in {name}: "))?;
        return Ok(taken(&mut answer));
    }
    let mut answer = prompt(format!("New passphrase for the vault in {name}: "))?;
    let mut again = prompt("The same again: ".to_owned())?;
    let same = answer == again;
    again.zeroize();
    if !same {
        return Err(Failure::invalid("the two passphrases differ; try again"));
    }
    if answer.is_empty() {
        return Err(Failure::invalid("the passphrase is empty; an empty one protects nothing"));
    }
    Ok(taken(&mut answer))
}

fn taken(answer: &mut String) -> Passphrase {
    // Moved, not copied: the vault wipes it.
    Passphrase::new(std::mem::take(answer).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_line_end_does_not_count() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("p");
        for empty in ["", "\n", "\r\n"] {
            fs::write(&path, empty).unwrap();
            assert!(from_file(&path).is_err());
        }
        fs::write(&path, "open sesame\r\n").unwrap();
        assert!(!from_file(&path).unwrap().is_empty());
    }
}
