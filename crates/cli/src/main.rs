//! The command `bulla`.
//!
//! ```text
//! args ─► one module per command ─► open (known, vaults) ─► bulla::Store
//!                                └► output · exit · progress · passphrase · interrupt
//! ```

#![forbid(unsafe_code)]
// What is said there goes through `output` and `exit`, which heed --json.
#![warn(clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod adopt;
mod args;
mod attach;
mod audit;
mod completions;
mod config;
mod context;
mod doctor;
mod durable;
mod encryption;
mod exit;
mod export;
mod gc;
mod get;
mod host;
mod import;
mod init;
mod interrupt;
mod key_vault;
mod known;
mod ls;
mod open;
mod output;
mod passphrase;
mod progress;
mod put;
mod quickstart;
mod range;
mod rewrap;
mod rm;
mod rotate;
mod serve;
mod service;
mod stat;
mod status;
mod sweep;
mod tokens;
mod vault;
mod vaults;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::exit::{Failure, Kind, Result, one_line};
use crate::interrupt::Interrupt;

/// How long idle threads may take to end.
const SHUTDOWN: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    // Before there is anything to hide.
    host::prevent_core_dumps();
    host::lock_secrets();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let causes = cli.verbose > 0 || std::env::var_os("RUST_LOG").is_some();
    let json = cli.json;
    log(
        json,
        cli.verbose,
        match &cli.command {
            Command::Vault(args) => args.serves(),
            Command::Serve(_) => true,
            _ => false,
        },
    );
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new(Kind::Unavailable, format!("no threads can be started: {error}"));
            return failure.report(json, causes);
        }
    };
    let done = runtime.block_on(async {
        let context = Context::from_environment(Interrupt::listen(), cli.json, cli.verbose)?;
        let done = dispatch(&context, cli.command).await;
        // What was printed before an error is printed all the same.
        let flushed = context.out.flush().map_err(Failure::from);
        done.and(flushed)
    });
    // Threads that are idle end now: one that ends while the process exits would run a PKCS#11 module's destructors twice. One
    // that reads standard input, or hangs in a module, is not waited for.
    runtime.shutdown_timeout(SHUTDOWN);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json, causes),
    }
}

/// Runs a command. Those that must not stop half-way (`init`, `rotate`), or clean up by themselves (`put`, `serve`, `vault serve`), or
/// have something to say (`verify`), look at interrupts themselves; the others are dropped.
async fn dispatch(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Init(args) => init::run(context, args).await,
        Command::Rotate(args) => rotate::run(context, args).await,
        Command::Put(args) => put::run(context, args).await,
        Command::Serve(args) => serve::run(context, args).await,
        Command::Vault(args) => vault::run(context, args).await,
        Command::Verify(args) => verify::run(context, args).await,
        command => tokio::select! {
            biased;
            interrupted = context.interrupt.wait() => Err(interrupted),
            done = droppable(context, command) => done,
        },
    }
}

async fn droppable(context: &Context, command: Command) -> Result<()> {
    match command {
        Command::Quickstart(args) => quickstart::run(context, args).await,
        Command::Attach(args) => attach::run(context, args).await,
        Command::Audit(args) => audit::run(context, args).await,
        Command::Get(args) => get::run(context, args).await,
        Command::Ls(args) => ls::run(context, args).await,
        Command::Stat(args) => stat::run(context, args).await,
        Command::Rm(args) => rm::run(context, args).await,
        Command::Status(args) => status::run(context, args).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Rewrap(args) => rewrap::run(context, args).await,
        Command::Gc(args) => gc::run(context, args).await,
        Command::Adopt(args) => adopt::run(context, args).await,
        Command::Import(args) => import::run(context, args).await,
        Command::Export(args) => export::run(context, args).await,
        Command::Completions(args) => completions::run(context, args),
        Command::Init(_)
        | Command::Rotate(_)
        | Command::Put(_)
        | Command::Serve(_)
        | Command::Vault(_)
        | Command::Verify(_) => Err(Failure::new(Kind::Internal, "this command is not droppable")),
    }
}

/// Help and version go to standard output; a wrong command line is an error like all others, in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(Kind::Invalid.code());
    }
    let text = error.render().to_string();
    let message = text.split("For more information").next().unwrap_or(&text);
    let message = one_line(message.trim_start_matches("error: "));
    let message = message.replace(" Usage: ", "; usage: ").replace(" tip: ", "; ");
    let json = std::env::args_os().any(|argument| argument == "--json");
    Failure::invalid(message).report(json, false)
}

/// Logs to stderr: nothing unless asked for, because errors are printed once, in one line. Only a server has trouble that it
/// survives. With --json they are lines of JSON too, as collectors of logs take them.
fn log(json: bool, verbose: u8, serves: bool) {
    let default = match verbose {
        0 if serves => "bulla=warn,bulla_listener=warn,bulla_registry=warn,bulla_vault_server=warn",
        0 => "off",
        1 if serves => "bulla=info,bulla_listener=info,bulla_registry=info,bulla_vault_server=info",
        1 => "bulla=info",
        2 => {
            "bulla=debug,bulla_kek=debug,bulla_vault=debug,bulla_listener=debug,bulla_registry=debug,bulla_vault_server=debug"
        }
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!json && std::io::stderr().is_terminal());
    if json { log.json().init() } else { log.init() }
}
