//! `bulla completions`: scripts for shells.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Result;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla completions bash > ~/.local/share/bash-completion/completions/bulla
  bulla completions zsh > \"${fpath[1]}/_bulla\"
  bulla completions fish > ~/.config/fish/completions/bulla.fish")]
pub(crate) struct Args {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(ctx: &Context, args: Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bulla", &mut script);
    ctx.out.bytes(&script)?;
    Ok(())
}
