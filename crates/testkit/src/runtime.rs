//! One node's runtime under virtual time.
//!
//! Time is tokio's, paused: it goes on when every task waits, or when a test advances it. Each node has its own offsets, so
//! that one can be suspended or have its clock set.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_envelope::random::RandomSource;
use bulla_kek::{BoxFuture, Now, Runtime};
use futures::FutureExt;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Virtual time starts here: 2026-01-01T00:00:00Z.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// A node's clock, tasks and randomness. Cheap to clone; clones are the same node.
#[derive(Clone)]
pub struct SimRuntime {
    name: Arc<str>,
    start: Instant,
    node: Arc<Mutex<Node>>,
    random: Arc<SeededRandom>,
}

struct Node {
    boot_offset: Duration,
    boot_behind: Duration,
    wall_ahead: Duration,
    wall_behind: Duration,
    tasks: Vec<AbortHandle>,
    killed: bool,
    panicked: bool,
}

impl SimRuntime {
    /// A node of the simulation whose virtual time began at `start`. Must be made on a paused tokio runtime.
    pub fn new(start: Instant, seed: u64) -> Self {
        Self::named("node", start, seed)
    }

    /// As [`new`](Self::new), with a name to tell it from others.
    pub fn named(name: &str, start: Instant, seed: u64) -> Self {
        let node = Node {
            // Room for being set back.
            boot_offset: Duration::from_secs(100_000),
            boot_behind: Duration::ZERO,
            wall_ahead: Duration::ZERO,
            wall_behind: Duration::ZERO,
            tasks: Vec::new(),
            killed: false,
            panicked: false,
        };
        Self {
            name: name.into(),
            start,
            node: Arc::new(Mutex::new(node)),
            random: Arc::new(SeededRandom::new(seed)),
        }
    }

    /// The machine sleeps: both clocks go on, nothing else does.
    pub fn suspend(&self, duration: Duration) {
        let mut node = self.lock();
        node.boot_offset += duration;
        node.wall_ahead += duration;
    }

    /// Somebody sets the wall clock back.
    pub fn set_wall_back(&self, by: Duration) {
        self.lock().wall_behind += by;
    }

    /// Somebody sets the wall clock forward.
    pub fn set_wall_forward(&self, by: Duration) {
        self.lock().wall_ahead += by;
    }

    /// The machine is put back to a snapshot, or moved: its boot clock goes back.
    pub fn set_boot_back(&self, by: Duration) {
        self.lock().boot_behind += by;
    }

    /// A suspend that only the boot clock saw.
    pub fn set_boot_forward(&self, by: Duration) {
        self.lock().boot_offset += by;
    }

    /// kill -9: every task of the node stops where it is, and no new one starts.
    pub fn kill(&self) {
        let mut node = self.lock();
        node.killed = true;
        for task in node.tasks.drain(..) {
            task.abort();
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the node was killed.
    pub fn is_killed(&self) -> bool {
        self.lock().killed
    }

    /// Whether one of the node's tasks panicked, which nobody may have waited for.
    pub fn has_panicked(&self) -> bool {
        self.lock().panicked
    }

    fn lock(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        let node = self.lock();
        let wall = UNIX_EPOCH + EPOCH + elapsed + node.wall_ahead - node.wall_behind;
        Now { boot: (elapsed + node.boot_offset).saturating_sub(node.boot_behind), wall }
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut node = self.lock();
        if node.killed {
            return;
        }
        node.tasks.retain(|task| !task.is_finished());
        let this = Arc::clone(&self.node);
        let watched = async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                this.lock().unwrap_or_else(PoisonError::into_inner).panicked = true;
            }
        };
        node.tasks.push(tokio::spawn(watched).abort_handle());
    }

    fn offload(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        // Inline: other threads would bring back the order of the real world.
        Box::pin(async move { work() })
    }

    fn random(&self) -> &dyn RandomSource {
        &*self.random
    }
}

/// The virtual start of time as a bucket's clock shows it.
pub fn epoch() -> SystemTime {
    UNIX_EPOCH + EPOCH
}

/// Randomness that comes back with its seed. For tests only.
pub struct SeededRandom(Mutex<ChaCha12Rng>);

impl SeededRandom {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(ChaCha12Rng::seed_from_u64(seed)))
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&self, n: u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64() % n
    }

    /// Whether something happens that does `permille` times in a thousand.
    pub fn chance(&self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// A duration of up to `longest`, in whole milliseconds.
    pub fn duration(&self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.below(longest + 1))
    }

    /// One of `all`, which is not empty.
    ///
    /// # Panics
    /// If `all` is empty.
    pub fn pick<'a, T>(&self, all: &'a [T]) -> &'a T {
        let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
        &all[usize::try_from(self.below(count)).unwrap_or(0)]
    }
}

impl RandomSource for SeededRandom {
    fn fill(&self, dest: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(dest);
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom(…)")
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimRuntime({})", self.name)
    }
}
