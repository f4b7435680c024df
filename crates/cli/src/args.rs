//! The command line. The usage is part of the interface: scripts rely on it.

use clap::{Parser, Subcommand};

use crate::{
    attach, completions, gc, get, init, ls, put, quickstart, rm, rotate, stat, status, vault, verify,
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
    /// Print JSON for scripts; errors become one JSON object on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more: causes of errors and logs on stderr (-vv: more logs)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What words stand for, where settings come from, and the table of exit codes.
const AFTER_HELP: &str = "\
STORE is a folder or a URL (file:, memory:, s3:, az:, gs:; credentials come from AWS_…, AZURE_…, GOOGLE_…).
KEY_ID is vault+file:///DIR/keys/NAME[/VERSION]; without a version, the newest.

Environment:
  BULLA_STORE             the store, where STORE is left out
  BULLA_CONFIG_DIR        what this machine remembers (default: $XDG_CONFIG_HOME/bulla, else ~/.config/bulla)
  BULLA_VAULT_PASSPHRASE  the local vault's passphrase; or BULLA_VAULT_PASSPHRASE_FILE, or a prompt
  RUST_LOG                logs to stderr, for example RUST_LOG=bulla=debug

Exit codes:
    0  done
    1  internal      a bug: report it
    2  invalid       fix the command line, the configuration or the key
    3  not found     no such blob, store, vault or key
    4  revoked       the key's owner has taken the key away: restore it
    5  unavailable   key vault, object store or disk can't be reached: retry later
    6  throttled     too many requests: retry after the time given
    7  conflict      somebody else was first, or it exists already
    8  corrupt       stored data or the store's identity does not check out
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
    Rotate(rotate::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Vault(vault::Args),
    Completions(completions::Args),
}
