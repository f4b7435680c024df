//! The command line. The usage is part of the interface: scripts rely on it.

use clap::{Parser, Subcommand};

use crate::{
    adopt, attach, audit, completions, doctor, export, gc, get, import, init, ls, put, quickstart, rewrap,
    rm, rotate, serve, stat, status, vault, verify,
};

/// Keeps container-registry blobs encrypted under a key that you control
#[derive(Debug, Parser)]
#[command(
    name = "bulla",
    version,
    arg_required_else_help = true,
    after_help = AFTER_HELP
)]
pub(crate) struct Cli {
    /// Print JSON for scripts; on stderr each error, warning, note and log entry is one line of JSON
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// Say more: causes of errors and logs on stderr (-vv: more logs)
    #[arg(short, long, global = true, display_order = 900, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What words stand for, where settings come from, and the table of exit codes.
const AFTER_HELP: &str = "\
STORE is a folder or a URL (file:, memory:, s3:, az:, gs:; credentials come from AWS_…, AZURE_…, GOOGLE_…).
KEY_ID is https://NAME.vault.azure.net/keys/KEY[/VERSION] (Azure Key Vault, Managed HSM),
pkcs11:token=TOKEN;object=LABEL[;id=%01] (a PKCS#11 token: an HSM, a smart card, SoftHSM) or
vault+file:///DIR/keys/NAME[/VERSION] (a local vault); without a version or id, the newest.

Environment:
  BULLA_STORE             the store, where STORE is left out
  BULLA_CONFIG_DIR        what this machine remembers (default: $XDG_CONFIG_HOME/bulla, else ~/.config/bulla)
  BULLA_VAULT_PASSPHRASE  the local vault's passphrase; or BULLA_VAULT_PASSPHRASE_FILE, or a prompt
  BULLA_AZURE_CREDENTIAL  to Key Vault as a `managed` or `workload` identity (default: which is there), or as the
                          `developer` who is signed in with `az login`
  BULLA_KEYVAULT_HOSTS    other hosts that may be asked as key vaults: HOST[:PORT],…
  BULLA_KEYVAULT_CA_FILE  certificates (PEM) to trust for them, beside the system's
  BULLA_PKCS11_MODULE     the library for PKCS#11 tokens, from their vendor; it is loaded into the command
  BULLA_PKCS11_PIN_FILE   a file with the token's user PIN; or BULLA_PKCS11_PIN, or a prompt
  BULLA_PKCS11_ALLOW_OAEP_SHA1
                          1: use RSA keys also with tokens that have no OAEP but with SHA-1
  RUST_LOG                logs to stderr, for example RUST_LOG=bulla=debug

Exit codes:
    0  done
    1  internal      a bug: report it
    2  invalid       fix the command line, the configuration or the key
    3  not found     no such blob, image, store, vault or key
    4  revoked       the key's owner has taken the key away: restore it
    5  unavailable   key vault, object store or disk can't be reached: retry later
    6  throttled     too many requests: retry after the time given
    7  conflict      somebody else was first, or it exists already
    8  corrupt       stored data, what is imported or adopted, or the store's identity does not check out
  130  interrupted   (143 by SIGTERM, 141 where nobody reads the output)";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Quickstart(quickstart::Args),
    Init(init::Args),
    Attach(attach::Args),
    Put(put::Args),
    Get(get::Args),
    Ls(ls::Args),
    Stat(stat::Args),
    Rm(rm::Args),
    Status(status::Args),
    Doctor(doctor::Args),
    Rotate(rotate::Args),
    Rewrap(rewrap::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Serve(serve::Args),
    Adopt(adopt::Args),
    Import(import::Args),
    Export(export::Args),
    Audit(audit::Args),
    Vault(vault::Args),
    Completions(completions::Args),
}
