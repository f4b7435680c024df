//! What this machine remembers of the store, and who else may read or change it.

use std::ffi::OsStr;
use std::path::Path;

use bulla::StoreUrl;

use super::report::Report;
use crate::exit::{Failure, Kind, Result};
use crate::known::KnownStore;

/// What this machine knows of the store. `planned`: a key was named, so that there need not be a store yet.
pub(super) fn configuration(
    report: &mut Report<'_>,
    url: &StoreUrl,
    planned: bool,
) -> Result<Option<KnownStore>> {
    const CHECK: &str = "configuration";
    let path = report.ctx.config.path();
    let known = match report.ctx.config.store(url.canonical()) {
        Ok(known) => known,
        Err(failure) => {
            report.failed(CHECK, &failure)?;
            return Ok(None);
        }
    };
    match &known {
        Some(known) => match known.anchor().and_then(|anchor| known.mark().map(|mark| (anchor, mark))) {
            Ok((_, mark)) => report.ok(
                CHECK,
                format!(
                    "{} knows the store {url}, its anchor, and record {} as the newest seen",
                    path.display(),
                    mark.number
                ),
            )?,
            Err(failure) => report.failed(CHECK, &failure)?,
        },
        None if planned => report.ok(CHECK, format!("{} does not know a store at {url} yet", path.display()))?,
        None => report.problem(
            CHECK,
            Kind::Invalid,
            format!("{} does not know a store at {url}", path.display()),
            format!(
                "`bulla init {url}` makes one; for one that another machine made, `bulla attach {url} --kek KEY_ID --anchor A` \
                 with the anchor that `bulla init` printed there; if it should be known, see that BULLA_CONFIG_DIR is right"
            ),
        )?,
    }
    Ok(known)
}

/// What others may do with a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Nobody else reads it: there is a secret in it.
    Secret,
    /// Better nobody else reads it; nobody changes it.
    Private,
    /// Nobody else changes it.
    Unchanged,
}

/// Files and folders of this machine that the store depends on.
pub(super) fn permissions(report: &mut Report<'_>, url: &StoreUrl, known: Option<&KnownStore>) -> Result<()> {
    let config = report.ctx.config.clone();
    let mut paths = vec![
        (config.path(), Keep::Private, "it decides which store is believed"),
        (config.dir().to_owned(), Keep::Unchanged, "what is in it decides which store is believed"),
    ];
    for place in known.iter().flat_map(|known| known.vaults.values()) {
        paths.push((
            place.dir.clone(),
            Keep::Private,
            "a copy of a vault lets others guess at its passphrase",
        ));
        paths.extend(
            place.passphrase_file.clone().map(|file| (file, Keep::Secret, "it opens the service's vault")),
        );
    }
    paths.extend(
        url.folder().map(|dir| (dir.to_owned(), Keep::Unchanged, "who writes there can destroy blobs")),
    );
    for (variable, keep, why) in [
        ("BULLA_VAULT_PASSPHRASE_FILE", Keep::Secret, "it opens the vault"),
        ("BULLA_PKCS11_PIN_FILE", Keep::Secret, "it opens the token"),
        ("BULLA_PKCS11_MODULE", Keep::Unchanged, "it is loaded into the command"),
        ("BULLA_KEYVAULT_CA_FILE", Keep::Unchanged, "it decides which key vaults are believed"),
    ] {
        let set = std::env::var_os(variable).filter(|value| !value.is_empty());
        paths.extend(set.map(|path| (path.into(), keep, why)));
    }
    let mut fine = 0_usize;
    for (path, keep, why) in paths {
        fine += usize::from(permission(report, &path, keep, why)?);
    }
    if fine > 0 {
        report.ok("permissions", format!("{fine} files and folders are their owners' alone"))?;
    }
    Ok(())
}

/// Whether it is there and as it should be.
#[cfg(unix)]
fn permission(report: &mut Report<'_>, path: &Path, keep: Keep, why: &str) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    const CHECK: &str = "permissions";
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        // What is missing is said where it is needed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            report.failed(CHECK, &Failure::file("look at", path, error))?;
            return Ok(false);
        }
    };
    let mode = meta.permissions().mode();
    let shown = path.display();
    // In a folder with the sticky bit others can't touch what is not theirs.
    let sticky = meta.is_dir() && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        let who = if mode & 0o002 != 0 { "everybody" } else { "its group" };
        let fix =
            format!("chmod {} {}", if keep == Keep::Unchanged { "go-w" } else { "go-rwx" }, quoted(path));
        report.problem(CHECK, Kind::Invalid, format!("{who} can write to {shown}: {why}"), fix)?;
        return Ok(false);
    }
    if mode & 0o044 == 0 || keep == Keep::Unchanged {
        return Ok(true);
    }
    let fix = format!("chmod go-rwx {}", quoted(path));
    if mode & 0o004 == 0 {
        report.warning(CHECK, format!("its group can read {shown}: {why}"), fix)?;
    } else if keep == Keep::Secret {
        report.problem(CHECK, Kind::Invalid, format!("everybody can read {shown}: {why}"), fix)?;
    } else {
        report.warning(CHECK, format!("everybody can read {shown}: {why}"), fix)?;
    }
    Ok(false)
}

#[cfg(not(unix))]
fn permission(_: &mut Report<'_>, _: &Path, _: Keep, _: &str) -> Result<bool> {
    Ok(false)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    let text = OsStr::to_string_lossy(path.as_os_str());
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
