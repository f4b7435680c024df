//! The stage: shows a command, runs it through the same code as the shell would, shows what it printed.

use std::fmt::Write as _;
use std::future::Future;
use std::io::IsTerminal;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::args::Cli;
use crate::context::Context;
use crate::exit::{Failure, Kind, Result};

/// Longer outputs are cut where they are shown.
const LINES: usize = 12;

pub(super) struct Scene<'a> {
    outer: &'a Context,
    /// What the commands run in.
    pub(super) inner: Context,
    dir: String,
    step: usize,
    bold: bool,
    timings: Vec<(String, Duration)>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(outer: &'a Context, inner: Context, dir: &Path) -> Self {
        let bold = std::io::stdout().is_terminal() && !outer.json;
        Self { outer, inner, dir: dir.display().to_string(), step: 0, bold, timings: Vec::new() }
    }

    pub(super) fn timings(&self) -> &[(String, Duration)] {
        &self.timings
    }

    /// A line of the story.
    pub(super) fn say(&self, line: &str) -> Result<()> {
        if !self.outer.json {
            self.outer.out.line(line)?;
            self.outer.out.flush()?;
        }
        Ok(())
    }

    /// A new step begins.
    pub(super) fn step(&mut self, title: &str) -> Result<()> {
        self.step += 1;
        let heading = format!("{}. {title}", self.step);
        let heading = if self.bold { format!("\x1b[1m{heading}\x1b[0m") } else { heading };
        self.say(&format!("\n{heading}"))
    }

    /// What was found, and how long it took.
    pub(super) fn fact(&self, text: &str) -> Result<()> {
        self.say(&format!("  ✓ {text}"))
    }

    pub(super) fn note_time(&mut self, what: &str, time: Duration) {
        self.timings.push((what.to_owned(), time));
    }

    /// A command line as the user would type it.
    pub(super) fn show(&self, command: &str) -> Result<()> {
        let command = command.replace(&self.dir, "$PWD");
        self.say(&format!("  $ {command}"))
    }

    /// Runs `bulla ARGUMENTS`, which must succeed, and shows what it prints.
    pub(super) async fn run(&mut self, arguments: &[&str]) -> Result<Ran> {
        let ran = self.quietly(arguments).await?;
        self.print(&ran.text())?;
        Ok(ran)
    }

    /// As [`run`](Self::run), and shows only lines that have one of these words.
    pub(super) async fn run_showing(&mut self, arguments: &[&str], words: &[&str]) -> Result<Ran> {
        let ran = self.quietly(arguments).await?;
        let text = ran.text();
        let lines: Vec<&str> =
            text.lines().filter(|line| words.iter().any(|word| line.contains(word))).collect();
        self.print(&lines.join("\n"))?;
        Ok(ran)
    }

    /// Runs `bulla ARGUMENTS`, which must succeed, and shows only the command.
    pub(super) async fn quietly(&mut self, arguments: &[&str]) -> Result<Ran> {
        self.show(&shown(arguments))?;
        let started = Instant::now();
        self.dispatch(arguments).await?;
        Ok(Ran { output: self.inner.out.taken(), time: started.elapsed() })
    }

    /// Runs `bulla ARGUMENTS`, which must be refused with this kind of error, and shows the error line.
    pub(super) async fn refused(&mut self, arguments: &[&str], kind: Kind) -> Result<()> {
        self.show(&shown(arguments))?;
        match self.dispatch(arguments).await {
            Err(failure) if failure.kind == kind => {
                self.print(&format!("error: {failure}"))?;
                self.say(&format!("  (exit code {})", kind.code()))
            }
            Err(failure) => Err(failure),
            Ok(()) => Err(Failure::new(Kind::Internal, format!("`{}` was not refused", shown(arguments)))),
        }
    }

    async fn dispatch(&self, arguments: &[&str]) -> Result<()> {
        let cli = Cli::try_parse_from(std::iter::once(&"bulla").chain(arguments))
            .map_err(|error| Failure::new(Kind::Internal, "a command of the story").with_source(error))?;
        // Boxed: this very future is inside the one of `quickstart`.
        let future: Pin<Box<dyn Future<Output = Result<()>> + '_>> =
            Box::pin(crate::dispatch(&self.inner, cli.command));
        future.await
    }

    fn print(&self, text: &str) -> Result<()> {
        let text = text.replace(&self.dir, "$PWD");
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().take(LINES) {
            self.say(&format!("    {line}"))?;
        }
        if lines.len() > LINES {
            self.say("    …")?;
        }
        Ok(())
    }

    /// Every timing, one a line.
    pub(super) fn summary(&self) -> Result<()> {
        self.say("\nTimings")?;
        let width = self.timings.iter().map(|(what, _)| what.chars().count()).max().unwrap_or_default();
        for (what, time) in &self.timings {
            self.say(&format!("  {what:width$}  {:>8.3} s", time.as_secs_f64()))?;
        }
        Ok(())
    }
}

/// A command that succeeded.
pub(super) struct Ran {
    pub(super) output: Vec<u8>,
    pub(super) time: Duration,
}

impl Ran {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

fn shown(arguments: &[&str]) -> String {
    arguments.iter().fold("bulla".to_owned(), |mut line, argument| {
        let plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:+,=@".contains(c));
        let quote = if plain { "" } else { "'" };
        let _ = write!(line, " {quote}{argument}{quote}");
        line
    })
}
