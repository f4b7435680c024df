//! A progress bar on a terminal, for what takes longer than a second.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shorter work shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    total: Option<u64>,
    done: u64,
    wanted: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` in bytes, where it is known. `quiet`: never shown.
    pub(crate) fn new(total: Option<u64>, quiet: bool) -> Self {
        let wanted = !quiet && std::io::stderr().is_terminal();
        Self { started: Instant::now(), total, done: 0, wanted, bar: None }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.wanted && self.started.elapsed() >= PATIENCE {
            let bar = bar(self.total).with_elapsed(self.started.elapsed());
            bar.set_position(self.done);
            self.bar = Some(bar);
        }
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

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        ),
        None => (ProgressBar::no_length(), "{spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
