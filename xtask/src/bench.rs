//! Benches: run them, and read from criterion's JSON how near ours comes to the limit.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::outside;
use crate::sh::{self, Outcome};

/// In this group, `ours` must reach this share of what `limit` reaches, per core.
struct Goal {
    group: &'static str,
    limit: &'static str,
    ours: &'static str,
    share: f64,
}

const GOALS: &[Goal] = &[
    Goal { group: "put", limit: "sha256+seal", ours: "bulla", share: 0.8 },
    Goal { group: "get", limit: "aws-lc open", ours: "bulla", share: 0.7 },
];

/// A noisy machine may lose this part of a goal before `--check` calls it missed.
const TOLERANCE: f64 = 0.05;

/// With the command's package beside the benches', cargo chooses the same features for what both depend on, and so
/// uses most of the quickstart's build again.
const BENCH: &str = "cargo bench --locked -p bulla-cli -p bulla-benches --bench bulla --";

/// The registry beside another one; the same choice of packages.
const REGISTRY: &str = "cargo bench --locked -p bulla-cli -p bulla-benches --bench registry --";

/// Every bench once, measured shortly: that they build, run, and give numbers of the right size.
pub(crate) fn briefly() -> Outcome {
    sh::run(sh::command(BENCH).args(["--quick", "--noplot"]))?;
    sh::run(sh::command(REGISTRY).arg("--quick").env("BULLA_DOCKER_REGISTRY", outside::docker_registry()?))?;
    report(false)
}

/// Every bench at full length; the goals must be met.
pub(crate) fn fully() -> Outcome {
    sh::run(sh::command(BENCH).arg("--noplot"))?;
    sh::run(sh::command(REGISTRY).env("BULLA_DOCKER_REGISTRY", outside::docker_registry()?))?;
    report(true)
}

/// One line of the report: what criterion measured last.
struct Measured {
    group: String,
    function: String,
    nanoseconds: f64,
    /// Bytes in one iteration; none for what is counted in operations.
    bytes: Option<f64>,
    /// Operations in one iteration, where there are several.
    elements: Option<f64>,
}

/// Prints a table of the last run, and the goals with how they were met.
pub(crate) fn report(check: bool) -> Outcome {
    let mut measured = Vec::new();
    collect(Path::new("target/criterion"), &mut measured)?;
    if measured.is_empty() {
        return Err("target/criterion has no results; run `cargo bench -p bulla-benches` first".into());
    }
    measured.sort_by(|a, b| a.group.cmp(&b.group).then(a.nanoseconds.total_cmp(&b.nanoseconds)));
    let mut group = "";
    for one in measured.iter().filter(|one| one.group != "rotate") {
        if one.group != group {
            println!("\n{}", one.group);
            group = &one.group;
        }
        let rate = match one.bytes {
            Some(bytes) => format!("{:>8.2} GB/s", bytes / one.nanoseconds),
            None => format!("{:>8.0} /s", one.elements.unwrap_or(1.0) * 1e9 / one.nanoseconds),
        };
        println!("  {:<28} {:>12.1} µs {rate}", one.function, one.nanoseconds / 1e3);
    }
    plot_rotations(&measured);
    print_calls(Path::new("target/criterion/calls.json"))?;
    let mut missed = String::new();
    print_registries(Path::new("target/criterion/registry.json"), &mut missed)?;
    println!();
    for goal in GOALS {
        let time = |function: &str| {
            measured
                .iter()
                .find(|one| one.group == goal.group && one.function == function)
                .map(|one| one.nanoseconds)
        };
        let (Some(limit), Some(ours)) = (time(goal.limit), time(goal.ours)) else {
            let _ =
                write!(missed, "\n  {}: `{}` or `{}` was not measured", goal.group, goal.limit, goal.ours);
            continue;
        };
        let share = limit / ours;
        println!("{}: {share:.2} of {} (goal: at least {:.2})", goal.group, goal.limit, goal.share);
        if share < goal.share * (1.0 - TOLERANCE) {
            let _ =
                write!(missed, "\n  {}: {share:.2} of {}, goal {:.2}", goal.group, goal.limit, goal.share);
        }
    }
    if check && !missed.is_empty() {
        return Err(format!("goals missed:{missed}"));
    }
    Ok(())
}

/// The time of a rotation by the number of envelopes: a bar each, all of one scale. It is to be flat.
fn plot_rotations(measured: &[Measured]) {
    const WIDTH: f64 = 50.0;
    let mut rotations: Vec<(u64, f64)> = measured
        .iter()
        .filter(|one| one.group == "rotate")
        .filter_map(|one| Some((one.function.parse().ok()?, one.nanoseconds)))
        .collect();
    rotations.sort_unstable_by_key(|(envelopes, _)| *envelopes);
    let longest = rotations.iter().map(|(_, time)| *time).fold(0.0, f64::max);
    if longest > 0.0 {
        println!("\nrotate, by the number of envelopes");
    }
    for (envelopes, time) in rotations {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width")]
        let bar = "#".repeat((time / longest * WIDTH).round() as usize);
        println!("  {envelopes:>9} {:>9.1} µs {bar}", time / 1e3);
    }
}

/// How often the provider was asked while a million blobs were read.
fn print_calls(counted: &Path) -> Outcome {
    if !counted.exists() {
        return Ok(());
    }
    println!("\nprovider calls per million gets of a small blob");
    for run in json(counted.to_path_buf())?.as_array().into_iter().flatten() {
        println!("  R = {:>2} s: {:>3}, in {} s", run["bound_s"], run["calls"], run["seconds"]);
    }
    Ok(())
}

/// A single stream out of the page cache goes as fast as one core can copy. The other registry does nothing else; ours opens
/// what it read, too, and comes out equal within the noise of three rounds.
const ONE_LARGE_PULL: f64 = 0.9;

/// Pushes and pulls of ours beside another registry's: ours, which seals and makes durable, must be as fast.
fn print_registries(measured: &Path, missed: &mut String) -> Outcome {
    if !measured.exists() {
        return Ok(());
    }
    println!("\nregistry, over loopback, 8 at a time      ours       docker-registry");
    for line in json(measured.to_path_buf())?.as_array().into_iter().flatten() {
        let seconds = |name: &str| line[name].as_f64().unwrap_or(f64::NAN);
        let (ours, theirs) = (seconds("ours_s"), seconds("theirs_s"));
        let what = format!(
            "{} {} × {}",
            line["what"].as_str().unwrap_or_default(),
            line["blobs"],
            bytes(line["len"].as_u64().unwrap_or_default())
        );
        if theirs == 0.0 {
            println!("  {what:<28} {ours:>12.3} s   (not measured)");
            continue;
        }
        println!("  {what:<28} {ours:>12.3} s {theirs:>12.3} s   {:>5.2} × as fast", theirs / ours);
        let goal = if line["what"] == "pull" && line["blobs"] == 1 { ONE_LARGE_PULL } else { 1.0 };
        if theirs / ours < goal * (1.0 - TOLERANCE) {
            let _ = write!(missed, "\n  registry: {what}: {ours:.3} s, docker-registry {theirs:.3} s");
        }
    }
    Ok(())
}

fn bytes(count: u64) -> String {
    if count >= 1 << 20 { format!("{} MiB", count >> 20) } else { format!("{} KiB", count >> 10) }
}

/// `…/new/benchmark.json` says what it is, `…/new/estimates.json` what was measured.
fn collect(folder: &Path, measured: &mut Vec<Measured>) -> Outcome {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        if path.ends_with("new") {
            let (what, estimates) = (json(path.join("benchmark.json"))?, json(path.join("estimates.json"))?);
            measured.push(Measured {
                group: what["group_id"].as_str().unwrap_or_default().to_owned(),
                // A parameter alone is the number of what is measured.
                function: what["function_id"]
                    .as_str()
                    .or(what["value_str"].as_str())
                    .unwrap_or_default()
                    .to_owned(),
                nanoseconds: estimates["median"]["point_estimate"].as_f64().unwrap_or(f64::NAN),
                bytes: what["throughput"]["Bytes"].as_f64(),
                elements: what["throughput"]["Elements"].as_f64(),
            });
        } else {
            collect(&path, measured)?;
        }
    }
    Ok(())
}

fn json(path: PathBuf) -> Outcome<Value> {
    let cannot = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(&path).map_err(|error| cannot(&error))?;
    serde_json::from_str(&text).map_err(|error| cannot(&error))
}
