//! A progress bar on a terminal, for what takes longer than a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shorter work shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Bytes,
    Blobs,
    /// Shares of the work, with a message.
    Parts,
}

#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    unit: Unit,
    total: Option<u64>,
    done: u64,
    wanted: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` in bytes, where it is known. `quiet`: never shown.
    pub(crate) fn new(total: Option<u64>, quiet: bool) -> Self {
        Self::of(Unit::Bytes, total, quiet)
    }

    /// Counts blobs instead of bytes.
    pub(crate) fn of_blobs(quiet: bool) -> Self {
        Self::of(Unit::Blobs, None, quiet)
    }

    /// Counts shares of the work, and says what is done.
    pub(crate) fn of_parts(quiet: bool) -> Self {
        Self::of(Unit::Parts, None, quiet)
    }

    fn of(unit: Unit, total: Option<u64>, quiet: bool) -> Self {
        let wanted = !quiet && std::io::stderr().is_terminal();
        Self { started: Instant::now(), unit, total, done: 0, wanted, bar: None }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.set(self.done + bytes as u64, self.total);
    }

    pub(crate) fn set(&mut self, done: u64, total: Option<u64>) {
        (self.done, self.total) = (done, total);
        if let Some(bar) = self.shown() {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
    }

    /// Says what is done at the moment, where no number of it is known beforehand.
    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(bar) = self.shown() {
            bar.set_message(what());
            bar.tick();
        }
    }

    /// Says at once that it waits, and goes on saying so by itself.
    pub(crate) fn wait(&mut self, what: String) {
        if self.wanted {
            let bar = bar(self.unit, None).with_message(what);
            bar.enable_steady_tick(Duration::from_millis(100));
            self.bar = Some(bar);
        }
    }

    /// Prints something while the bar is out of the way.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn shown(&mut self) -> Option<&ProgressBar> {
        if self.bar.is_none() && self.wanted && self.started.elapsed() >= PATIENCE {
            self.bar = Some(bar(self.unit, self.total).with_elapsed(self.started.elapsed()));
        }
        self.bar.as_ref()
    }
}

/// The bar goes with the work, also when that fails.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(unit: Unit, total: Option<u64>) -> ProgressBar {
    let template = match (unit, total.is_some()) {
        (Unit::Bytes, true) => "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        (Unit::Bytes, false) => "{spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}",
        (Unit::Blobs, true) => "{wide_bar} {human_pos}/{human_len} blobs {per_sec} {eta}",
        (Unit::Parts, true) => "{msg} {wide_bar} {percent}% {eta}",
        (Unit::Blobs | Unit::Parts, false) => "{spinner} {msg} {elapsed}",
    };
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
