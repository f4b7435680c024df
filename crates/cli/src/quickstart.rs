//! `bulla quickstart`: the main job from end to end, as a story. Nothing is mocked: every step is the command that it
//! shows, run in this process; only the revocation is watched through one open store, as a registry would hold it.

mod layer;
mod scene;
mod search;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde_json::json;

use self::scene::Scene;
use crate::config::Config;
use crate::context::Context;
use crate::durable;
use crate::exit::{Failure, Kind, Result};
use crate::output::{self, Output};
use crate::passphrase::Passphrases;

/// See it all at work in a minute: a vault, a store, real files, rotation, revocation
///
/// Everything happens in a folder of its own, without network and without touching what this machine remembers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulla quickstart
  bulla quickstart --layer ./rootfs --layer ./big.img
  bulla quickstart --keep --dir ./try")]
pub(crate) struct Args {
    /// What to pack into the layer (default: this repository's files, this binary, and more until there are 50 MB)
    #[arg(long, value_name = "DIR|FILE", num_args = 1..)]
    layer: Vec<PathBuf>,
    /// Leave everything in place to play with
    #[arg(long)]
    keep: bool,
    /// Where (default: a new folder among the system's temporary files)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<()> {
    let before = std::env::current_dir().map_err(|error| Failure::file("find", Path::new("."), error))?;
    let files = layer::choose(&before, &args.layer)?;
    let place = Place::new(&args, ctx.json, before)?;
    let inner = Context {
        config: Config::at(place.dir.join("config")),
        passphrases: Passphrases::File(place.dir.join("passphrase")),
        out: Arc::new(Output::memory()),
        interrupt: ctx.interrupt.clone(),
        store: Some(place.dir.join("store").display().to_string()),
        json: false,
        verbose: 0,
        quiet: true,
        vaults: std::sync::Mutex::default(),
        key_vault: std::sync::OnceLock::new(),
        tokens: std::sync::Mutex::default(),
    };
    make_passphrase(&place.dir.join("passphrase"))?;
    let mut scene = Scene::new(ctx, inner, &place.dir);
    steps::tell(&mut scene, &files).await.map_err(|mut failure| {
        failure.message = format!("quickstart stopped: {}", failure.message);
        failure
    })?;
    end(ctx, &scene, &place)
}

/// The timings, and what can be done with what is left.
fn end(ctx: &Context, scene: &Scene<'_>, place: &Place) -> Result<()> {
    if ctx.json {
        let timings: Vec<_> = scene
            .timings()
            .iter()
            .map(|(step, time)| json!({ "step": step, "seconds": time.as_secs_f64() }))
            .collect();
        let dir = place.keep.then(|| place.dir.display().to_string());
        ctx.out.json(&json!({ "timings": timings, "kept": dir }))?;
        return Ok(());
    }
    scene.summary()?;
    let dir = place.dir.display();
    if place.keep {
        scene.say("\nKept. To go on from here:\n")?;
        for line in [
            format!("export BULLA_CONFIG_DIR={dir}/config BULLA_STORE={dir}/store"),
            format!("export BULLA_VAULT_PASSPHRASE_FILE={dir}/passphrase"),
            "bulla ls --long".to_owned(),
            "bulla status --verbose".to_owned(),
            format!("bulla vault key disable {dir}/vault --name registry   # and enable"),
            format!("rm -r {dir}   # when done"),
        ] {
            scene.say(&format!("  {line}"))?;
        }
    } else {
        scene.say("\nEverything was removed again; --keep leaves it to play with.")?;
    }
    Ok(())
}

fn make_passphrase(path: &Path) -> Result<()> {
    let mut random = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(&mut *random).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    let text = zeroize::Zeroizing::new(HEXLOWER.encode(&*random));
    durable::replace_private(path, text.as_bytes()).map_err(|error| Failure::file("write", path, error))
}

/// The folder of it all; it goes at the end, also after Ctrl-C, unless it is to be kept.
struct Place {
    dir: PathBuf,
    keep: bool,
    json: bool,
    before: PathBuf,
}

impl Place {
    fn new(args: &Args, json: bool, before: PathBuf) -> Result<Self> {
        let dir = match &args.dir {
            Some(dir) => {
                if fs::read_dir(dir).is_ok_and(|mut names| names.next().is_some()) {
                    return Err(Failure::new(
                        Kind::Conflict,
                        format!("{} is not empty; name a new folder with --dir", dir.display()),
                    ));
                }
                durable::private_folder(dir).map_err(|error| Failure::file("make", dir, error))?;
                dir.clone()
            }
            None => tempfile::Builder::new()
                .prefix("bulla-quickstart-")
                .tempdir()
                .map_err(|error| Failure::file("make a folder in", &std::env::temp_dir(), error))?
                .keep(),
        };
        let dir = fs::canonicalize(&dir).map_err(|error| Failure::file("find", &dir, error))?;
        let place = Self { dir, keep: args.keep, json, before };
        // So that the commands shown, with their relative names, are exactly the ones that are run.
        std::env::set_current_dir(&place.dir).map_err(|error| Failure::file("enter", &place.dir, error))?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::env::set_current_dir(&self.before);
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            output::aside(self.json, "note", format!("{} could not be removed: {error}", self.dir.display()));
        }
    }
}

/// `123.4 MiB/s`
fn speed(bytes: u64, time: std::time::Duration) -> String {
    let nanos = time.as_nanos().max(1);
    let per_second = u128::from(bytes) * 1_000_000_000 / nanos;
    format!("{}/s", output::size(u64::try_from(per_second).unwrap_or(u64::MAX)))
}
