//! What happened, in order: proof that a seed repeats itself, and a story to read when it fails.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::bucket::hash;

/// The last lines are kept for reading.
const LINES: usize = 300;

/// The events of one simulation. Cheap to clone; clones are the same trace.
#[derive(Clone, Debug)]
pub struct Trace {
    start: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    hash: u64,
    lines: VecDeque<String>,
    print: bool,
}

impl Trace {
    /// An empty trace; with `print`, events are printed as they happen.
    pub fn new(start: Instant, print: bool) -> Self {
        Self { start, state: Arc::new(Mutex::new(State { hash: 0, lines: VecDeque::new(), print })) }
    }

    /// Notes an event.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        let line = format!("{:>10.3} {event}", self.start.elapsed().as_secs_f64());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.hash = state.hash.rotate_left(5) ^ hash(line.as_bytes());
        if state.print {
            eprintln!("{line}");
        }
        if state.lines.len() == LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
    }

    /// The same for two runs in which the same happened at the same times.
    pub fn fingerprint(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).hash
    }

    /// The last events.
    pub fn last_lines(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }
}
