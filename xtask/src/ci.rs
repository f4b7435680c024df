//! What CI runs, in the order of what fails soonest and cheapest.
//!
//! Cold, most of the time goes into compiling dependencies, so the order also shares what is compiled: lints and
//! docs check one tree; tests build one with and one without AWS-LC; the quickstart and the benches share the
//! optimized one. No step sets RUSTFLAGS, which would rebuild everything.

use crate::sh::{self, Counted, Outcome, Steps};
use crate::{bench, fuzz, layers, outside, test, tree};

type Step = (&'static str, fn(&mut Steps) -> Outcome<Counted>);

const STEPS: &[Step] = &[
    ("fmt", fmt),
    ("layers", |_| layers::check().map(none)),
    ("aws-lc", |_| tree::no_aws_lc_without_the_feature().map(none)),
    ("deny", deny),
    ("clippy", clippy),
    ("clippy-pure", clippy_pure),
    ("wasm32", wasm32),
    ("msrv", msrv),
    ("doc", doc),
    ("setup", |_| outside::setup().map(|_| Counted::default())),
    ("test", |_| test::workspace(&outside::setup()?)),
    ("test-pure", |_| test::pure_rust(&outside::setup()?)),
    ("quickstart", quickstart),
    ("bench", |_| bench::briefly().map(none)),
    ("fuzz", fuzz_briefly),
];

/// `cargo xtask ci [STEP…]`.
pub(crate) fn run(only: &[String]) -> Outcome {
    if only.iter().any(|name| name == "list") {
        STEPS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    if let Some(unknown) = only.iter().find(|name| !STEPS.iter().any(|(step, _)| step == name)) {
        return Err(format!("no step is called `{unknown}`; `cargo xtask ci list` names them"));
    }
    let mut steps = Steps::new();
    let mut counted = Counted::default();
    for (name, work) in STEPS {
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            counted.add(steps.step(name, work)?);
        }
    }
    steps.summary("ok");
    if only.is_empty() || counted.passed > 0 {
        test::closing(counted);
    }
    Ok(())
}

fn none((): ()) -> Counted {
    Counted::default()
}

fn cargo(line: &str) -> Outcome<Counted> {
    sh::run(&mut sh::command(line)).map(none)
}

fn fmt(_: &mut Steps) -> Outcome<Counted> {
    cargo("cargo fmt --all --check")?;
    cargo("cargo fmt --manifest-path fuzz/Cargo.toml --check")
}

/// Advisories are left out: their database is a git repository, which not every CI machine can reach.
/// Where it can be reached, `cargo deny check` checks them too.
fn deny(_: &mut Steps) -> Outcome<Counted> {
    let deny = outside::cargo_tool("cargo-deny")?;
    let mut command = sh::command(&deny.display().to_string());
    sh::run(command.args(["--all-features", "--locked", "check", "licenses", "bans", "sources"])).map(none)
}

fn clippy(_: &mut Steps) -> Outcome<Counted> {
    cargo("cargo clippy --workspace --all-targets --locked -- -D warnings")
}

fn clippy_pure(_: &mut Steps) -> Outcome<Counted> {
    let mut line = String::from("cargo clippy --all-targets --locked --no-default-features");
    for package in tree::PURE_RUST {
        line.push_str(" -p ");
        line.push_str(package);
    }
    cargo(&format!("{line} -- -D warnings"))
}

/// The envelope layer is for browsers and plug-ins too.
fn wasm32(steps: &mut Steps) -> Outcome<Counted> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let libraries = sh::read(&mut sh::command(&format!("rustc --print target-libdir --target {TARGET}")))?;
    let line = format!("-p bulla-envelope --no-default-features --locked --target {TARGET}");
    if std::path::Path::new(libraries.trim()).is_dir() {
        return cargo(&format!("cargo check {line}"));
    }
    // What breaks that build in practice is a dependency that needs an operating system.
    let names = tree::names(&format!("cargo tree -e normal {line}"))?;
    if let Some(name) =
        names.iter().find(|name| ["getrandom", "libc", "rustix", "tokio"].contains(&name.as_str()))
    {
        return Err(format!(
            "bulla-envelope depends on {name} on {TARGET}; see `cargo tree {line} -i {name}`"
        ));
    }
    steps.notice(format!(
        "{TARGET} is not installed: bulla-envelope's dependencies there were checked, not its build"
    ));
    Ok(Counted::default())
}

/// The oldest compiler that the manifests promise.
fn msrv(steps: &mut Steps) -> Outcome<Counted> {
    let root = std::fs::read_to_string("Cargo.toml").map_err(|error| format!("Cargo.toml: {error}"))?;
    let promised =
        root.lines().find_map(|line| line.strip_prefix("rust-version = ")).map(|v| v.trim_matches('"'));
    let promised = promised.ok_or("Cargo.toml has no rust-version")?;
    let current = sh::read(&mut sh::command("rustc --version"))?;
    if current.contains(&format!(" {promised}.")) {
        println!("the compiler of every other step is the promised {promised}: {}", current.trim());
    } else if sh::succeeds(&mut sh::command(&format!("cargo +{promised} --version"))) {
        cargo(&format!("cargo +{promised} check --workspace --locked"))?;
    } else {
        steps.notice(format!("Rust {promised} is not installed: rust-version was not checked"));
    }
    Ok(Counted::default())
}

fn doc(_: &mut Steps) -> Outcome<Counted> {
    let mut command = sh::command("cargo doc --workspace --no-deps --locked");
    sh::run(command.env("RUSTDOCFLAGS", "-D warnings")).map(none)
}

/// The README's first command.
fn quickstart(_: &mut Steps) -> Outcome<Counted> {
    cargo("cargo run --release --locked -- quickstart")
}

fn fuzz_briefly(steps: &mut Steps) -> Outcome<Counted> {
    if fuzz::has_nightly() {
        return fuzz::run(fuzz::BRIEFLY).map(none);
    }
    steps.notice("no nightly compiler: the fuzz targets were type-checked, not run");
    fuzz::check().map(none)
}
