//! Running other programs: echo what runs, stop at what fails, count the tests that ran.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `Err` is one line that says what failed.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A program with its arguments, one word each: `command("cargo fmt --check")`.
pub(crate) fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    // `cargo run` describes xtask in the environment; another cargo must not take that for its own,
    // and `cargo +nightly` must be able to choose.
    for name in ["RUSTUP_TOOLCHAIN", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs it, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let line = shown(command);
    println!("$ {line}");
    let status = command.status().map_err(|error| format!("`{line}` cannot start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed: {status}")) }
}

/// Runs it and returns what it printed on standard output.
pub(crate) fn read(command: &mut Command) -> Outcome<String> {
    let line = shown(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("`{line}` cannot start: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{line}` failed: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{line}` printed something that is not UTF-8"))
}

/// True if it can be run and succeeds; says nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// What `cargo test` counted.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Counted {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// `test result: ok. 12 passed; 0 failed; 1 ignored; …`
    fn of_line(line: &str) -> Self {
        let mut counted = Self::default();
        let Some(rest) = line.strip_prefix("test result: ") else { return counted };
        for part in rest.split(['.', ';']) {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            match what {
                "passed" => counted.passed = number,
                "failed" => counted.failed = number,
                "ignored" => counted.ignored = number,
                _ => {}
            }
        }
        counted
    }
}

/// Runs `cargo test …`, its output shown as it comes, and adds up its results. An `Err` if any test failed.
pub(crate) fn run_tests(command: &mut Command) -> Outcome<Counted> {
    let line = shown(command);
    println!("$ {line}");
    let cannot = |error| format!("`{line}` cannot run: {error}");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(cannot)?;
    let mut counted = Counted::default();
    if let Some(stdout) = child.stdout.take() {
        let mut ours = std::io::stdout().lock();
        for printed in BufReader::new(stdout).split(b'\n') {
            let mut printed = printed.map_err(cannot)?;
            counted.add(Counted::of_line(&String::from_utf8_lossy(&printed)));
            printed.push(b'\n');
            ours.write_all(&printed).map_err(cannot)?;
        }
    }
    let status = child.wait().map_err(cannot)?;
    if status.success() { Ok(counted) } else { Err(format!("`{line}` failed: {status}")) }
}

fn shown(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(line, "{}={} ", name.display(), value.display());
        }
    }
    line.push_str(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.display());
    }
    line
}

/// Named steps with their times: stops at the first that fails, and sums up at the end.
pub(crate) struct Steps {
    started: Instant,
    done: Vec<(&'static str, Duration)>,
    notices: Vec<String>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), done: Vec::new(), notices: Vec::new() }
    }

    /// Something that was not checked here, and why. Shown now and again in the summary.
    pub(crate) fn notice(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("NOTICE: {text}");
        self.notices.push(text);
    }

    pub(crate) fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<T> {
        println!("\n━━ {name}");
        let started = Instant::now();
        let outcome = work(self);
        self.done.push((name, started.elapsed()));
        match outcome {
            Ok(value) => {
                println!("━━ {name}: ok, {:.1} s", started.elapsed().as_secs_f64());
                Ok(value)
            }
            Err(failure) => {
                self.summary("FAILED");
                Err(format!("step {name} failed: {failure}"))
            }
        }
    }

    pub(crate) fn summary(&self, last: &str) {
        println!("\n━━ summary");
        for (index, (name, time)) in self.done.iter().enumerate() {
            let verdict = if index + 1 == self.done.len() { last } else { "ok" };
            println!("{name:<12} {:>8.1} s  {verdict}", time.as_secs_f64());
        }
        println!("{:<12} {:>8.1} s", "total", self.started.elapsed().as_secs_f64());
        for notice in &self.notices {
            println!("NOTICE: {notice}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counted;

    #[test]
    fn a_result_line_is_counted() {
        let counted = Counted::of_line(
            "test result: ok. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.50s",
        );
        assert_eq!((counted.passed, counted.failed, counted.ignored), (12, 3, 1));
        assert_eq!(Counted::of_line("test tests::ok ... ok").passed, 0);
    }
}
