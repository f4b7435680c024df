//! What `rewrap` and `rotate` show of work over all envelopes, and how it is slowed down.

use std::collections::BTreeMap;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulla::{Count, SweepEvent, SweepOptions, SweepPhase, SweepProgress};
use bulla_kek::KeyId;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::context::Context;
use crate::known::KnownStore;
use crate::progress::Progress;
use crate::rotate::shown;

/// One line of progress per second is enough for scripts.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// How fast it may be.
#[derive(Debug, clap::Args)]
pub(crate) struct SweepArgs {
    /// At most so many envelopes per second, to leave the object store and the key service to others
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// So many envelopes at once (default: 16 in folders and in direct mode, else 64)
    #[arg(long, value_name = "N")]
    concurrency: Option<NonZeroUsize>,
}

impl SweepArgs {
    pub(crate) fn options(&self) -> SweepOptions {
        SweepOptions { rate: self.rate.map(|rate| rate.0), concurrency: self.concurrency }
    }
}

/// `500/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate(NonZeroU32);

#[derive(Debug)]
struct NotARate;

impl std::fmt::Display for NotARate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a rate is a number per second, at least 1, such as 500/s")
    }
}

impl std::error::Error for NotARate {}

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        text.strip_suffix("/s").unwrap_or(text).parse().map(Self).map_err(|_| NotARate)
    }
}

/// Shows events as they come: a bar for people, a line each for scripts.
pub(crate) struct Show<'a> {
    ctx: &'a Context,
    known: &'a KnownStore,
    state: Mutex<State>,
    begun: watch::Sender<bool>,
}

struct State {
    progress: Progress,
    phase: Option<SweepPhase>,
    /// When the phase began, and when its last line was printed.
    since: Instant,
    printed: Option<Instant>,
    /// The first line that could not be printed.
    unprinted: Option<io::Error>,
}

impl<'a> Show<'a> {
    pub(crate) fn new(ctx: &'a Context, known: &'a KnownStore) -> Self {
        let (progress, since) = (Progress::of_parts(ctx.quiet), Instant::now());
        let state = State { progress, phase: None, since, printed: None, unprinted: None };
        Self { ctx, known, state: Mutex::new(state), begun: watch::Sender::new(false) }
    }

    pub(crate) fn event(&self, event: &SweepEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            SweepEvent::Started { .. } => {
                self.begun.send_replace(true);
            }
            SweepEvent::Waiting(wait) => state.progress.wait(format!(
                "waiting {} until every node has seen the new key",
                humantime::format_duration(Duration::from_secs(wait.as_secs().max(1)))
            )),
            SweepEvent::Progress(at) => state.progress(self.ctx.quiet, at),
            _ => {}
        }
        if self.ctx.json
            && let Some(line) = state.line(event, self.known)
            && let Err(error) = self.ctx.out.json(&line).and_then(|()| self.ctx.out.flush())
        {
            state.unprinted.get_or_insert(error);
        }
    }

    /// Returns once a sweep has begun: from then on work can be interrupted at any moment.
    pub(crate) async fn begun(&self) {
        // The sender lives as long as this.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Ends the bar.
    pub(crate) fn end(self) -> io::Result<()> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.unprinted.map_or(Ok(()), Err)
    }
}

impl State {
    fn progress(&mut self, quiet: bool, at: &SweepProgress) {
        if self.phase != Some(at.phase) {
            self.phase = Some(at.phase);
            (self.since, self.printed) = (Instant::now(), None);
            self.progress = Progress::of_parts(quiet);
        }
        self.progress.set(u64::from(at.done), Some(u64::from(at.total)));
        self.progress.say(|| said(at));
    }

    /// What a script reads; `None` for what comes too often.
    fn line(&mut self, event: &SweepEvent, known: &KnownStore) -> Option<Value> {
        if let SweepEvent::Progress(at) = event {
            let now = Instant::now();
            let due = self.printed.is_none_or(|printed| now - printed >= LINE_EVERY);
            if !due && at.done < at.total {
                return None;
            }
            self.printed = Some(now);
        }
        Some(line(event, known, self.since.elapsed()))
    }
}

fn said(at: &SweepProgress) -> String {
    let doing = match at.phase {
        SweepPhase::Rewrap => "wrapping data keys again",
        _ => "counting",
    };
    let failed = if at.failed > 0 { format!(", {} can't be opened", at.failed) } else { String::new() };
    format!("{doing}: {} envelopes{failed}", at.envelopes)
}

fn line(event: &SweepEvent, known: &KnownStore, elapsed: Duration) -> Value {
    match event {
        SweepEvent::Started { from, to, resumed } => json!({
            "event": "started",
            "from": from.iter().map(|kid| key(known, kid)).collect::<Vec<_>>(),
            "to": key(known, to),
            "resumed": resumed,
        }),
        SweepEvent::Waiting(wait) => json!({ "event": "waiting", "seconds": wait.as_secs_f64() }),
        SweepEvent::Progress(at) => json!({
            "event": "progress",
            "phase": at.phase.to_string(),
            "done": at.done,
            "total": at.total,
            "envelopes": at.envelopes,
            "rewrapped": at.rewrapped,
            "failed": at.failed,
            "etaSeconds": eta(at, elapsed),
        }),
        SweepEvent::RowDone(row) => json!({ "event": "rowDone", "row": row }),
        SweepEvent::Failed { key, error } => json!({ "event": "failed", "object": key, "error": error }),
        SweepEvent::Counted(count) => {
            let mut line = counted(known, count);
            line["event"] = json!("counted");
            line
        }
        SweepEvent::Retired(kids) => json!({
            "event": "retired",
            "keys": kids.iter().map(|kid| key(known, kid)).collect::<Vec<_>>(),
        }),
        _ => json!({ "event": "other" }),
    }
}

/// Names are spread evenly over the prefixes, so time is too.
fn eta(at: &SweepProgress, elapsed: Duration) -> Option<f64> {
    (at.done > 0).then(|| elapsed.as_secs_f64() * f64::from(at.total - at.done) / f64::from(at.done))
}

/// A count, for scripts.
pub(crate) fn counted(known: &KnownStore, count: &Count) -> Value {
    let under: BTreeMap<String, u64> =
        count.under.iter().map(|(kid, envelopes)| (key(known, kid), *envelopes)).collect();
    json!({
        "envelopes": count.envelopes,
        "under": under,
        "failed": count.failed,
        "failures": count.failures,
        "sessions": count.sessions,
    })
}

/// A store key as it is, a KEK as its owner would type it.
pub(crate) fn key(known: &KnownStore, kid: &str) -> String {
    match kid.parse::<KeyId>() {
        Ok(key) => shown(known, &key),
        Err(_) => kid.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let rate = |n| Rate(NonZeroU32::new(n).unwrap());
        assert_eq!("500/s".parse::<Rate>().unwrap(), rate(500));
        assert_eq!("7".parse::<Rate>().unwrap(), rate(7));
        for bad in ["0/s", "-1/s", "1/m", "/s", "fast", "4294967296/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
