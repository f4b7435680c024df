//! The command line. The usage is part of the interface: scripts rely on it.

use clap::{Parser, Subcommand};

use crate::exit::EXIT_CODES;
use crate::{attach, completions, get, init, ls, put, quickstart, rm, rotate, stat, status, vault};

/// Keeps container-registry blobs encrypted under a key that you control
#[derive(Debug, Parser)]
#[command(
    name = "bulla",
    version,
    arg_required_else_help = true,
    after_help = concat!(
        "STORE is a folder or a URL (file:, memory:, s3:, az:, gs:; credentials come from AWS_…, AZURE_…, GOOGLE_…).\n",
        "KEY_ID is vault+file:///DIR/keys/NAME[/VERSION]; without a version the newest is followed.\n\n",
        "Environment:\n",
        "  BULLA_STORE                  the store, where STORE is left out\n",
        "  BULLA_CONFIG_DIR             what this machine remembers (default: $XDG_CONFIG_HOME/bulla or ~/.config/bulla)\n",
        "  BULLA_VAULT_PASSPHRASE       the local vault's passphrase; or BULLA_VAULT_PASSPHRASE_FILE, or a prompt\n",
        "  RUST_LOG                     logs to stderr, for example RUST_LOG=bulla=debug\n\n",
    ),
    after_long_help = EXIT_AND_START
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

/// `--help` shows the long form of everything; `-h` the short one.
const EXIT_AND_START: &str = EXIT_CODES;

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
    Vault(vault::Args),
    Completions(completions::Args),
}
