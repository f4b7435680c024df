//! Many nodes, one bucket, one key service, one seed.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() {}
//! // #[test]
//! fn a_store_survives() {
//!     bulla_testkit::simulation::for_each_seed(1000, async |sim| {
//!         let node = sim.node("a");
//!         node.set_faults(bulla_testkit::faults::Faults::mixed(sim.random()));
//!         node.run(async { /* open a store on node.store(), work, assert */ }).await;
//!     });
//! }
//! ```

use std::cell::{Cell, RefCell};
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bulla_kek::Runtime;
use object_store::ObjectStore;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bucket::SimBucket;
use crate::faults::Faults;
use crate::provider::SimProvider;
use crate::runtime::{SeededRandom, SimRuntime};
use crate::store::SimStore;
use crate::trace::Trace;

/// No scenario takes this long in virtual time unless it waits for what never comes.
const HUNG: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// One run of a scenario.
#[derive(Debug)]
pub struct Simulation {
    seed: u64,
    start: Instant,
    random: Arc<SeededRandom>,
    bucket: SimBucket,
    trace: Trace,
    made: Cell<u64>,
    runtimes: RefCell<Vec<SimRuntime>>,
}

/// A machine: its clock, its tasks, its connection to the bucket. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct SimNode {
    runtime: SimRuntime,
    store: SimStore,
    trace: Trace,
}

impl Simulation {
    fn new(seed: u64, print: bool) -> Self {
        let start = Instant::now();
        let random = Arc::new(SeededRandom::new(seed));
        let trace = Trace::new(start, print);
        let bucket = SimBucket::new(start, random.chance(500));
        let (made, runtimes) = (Cell::new(0), RefCell::default());
        Self { seed, start, random, bucket, trace, made, runtimes }
    }

    /// The seed that everything comes from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the scenario draws its own decisions from.
    pub fn random(&self) -> &Arc<SeededRandom> {
        &self.random
    }

    /// The bucket behind every node's connection.
    pub fn bucket(&self) -> &SimBucket {
        &self.bucket
    }

    /// A new machine, or, under the name of one that was killed, the same machine started again.
    pub fn node(&self, name: &str) -> SimNode {
        let runtime = self.runtime(name);
        let store = SimStore::new(&self.bucket, &runtime, &self.random, &self.trace);
        SimNode { runtime, store, trace: self.trace.clone() }
    }

    /// A key service with the key `name`. It is on no machine, so that no crash hits it;
    /// [`for_node`](SimProvider::for_node) gives a node its own way to it.
    pub fn provider(&self, name: &str) -> SimProvider {
        SimProvider::new(&self.runtime("key service"), name)
    }

    fn runtime(&self, name: &str) -> SimRuntime {
        self.made.set(self.made.get() + 1);
        // An odd factor: different for every node of every seed, and never the scenario's own.
        let seed = self.seed.wrapping_add(self.made.get().wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let runtime = SimRuntime::named(name, self.start, seed);
        self.runtimes.borrow_mut().push(runtime.clone());
        runtime
    }

    /// Lets virtual time pass.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What happened so far; scenarios add to it.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }
}

impl SimNode {
    /// Clock, tasks and randomness.
    pub fn runtime(&self) -> &SimRuntime {
        &self.runtime
    }

    /// The same for an engine.
    pub fn shared_runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.runtime.clone())
    }

    /// The connection to the bucket.
    pub fn store(&self) -> &SimStore {
        &self.store
    }

    /// The same for an engine.
    pub fn shared_store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.store.clone())
    }

    /// What goes wrong between this node and the bucket from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.store.set_faults(faults);
    }

    /// Kills the node when it has sent `more` more requests.
    pub fn crash_after(&self, more: u64) {
        self.store.crash_after(more);
    }

    /// kill -9.
    pub fn kill(&self) {
        self.trace.note(format_args!("{}: killed", self.runtime.name()));
        self.runtime.kill();
    }

    /// Runs `work` as a task of this node. `None` if the node was killed before it was done.
    ///
    /// # Panics
    /// If `work` panics.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (result, done) = oneshot::channel();
        self.runtime.spawn(Box::pin(async move {
            // Nobody waits any more if the scenario was given up.
            let _ = result.send(work.await);
        }));
        match done.await {
            Ok(value) => Some(value),
            Err(_) if self.runtime.is_killed() => None,
            Err(_) => panic!("a task of node {} panicked", self.runtime.name()),
        }
    }
}

/// Runs `scenario` once under `seed` and returns its result and the fingerprint of all that happened.
///
/// # Panics
/// If the scenario, or any task of its nodes, does; and if it waits for what never comes.
pub fn run_seed<T>(seed: u64, scenario: impl AsyncFnOnce(&Simulation) -> T) -> (T, u64) {
    run_printing(seed, false, scenario)
}

fn run_printing<T>(seed: u64, print: bool, scenario: impl AsyncFnOnce(&Simulation) -> T) -> (T, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system");
    runtime.block_on(async {
        let sim = Simulation::new(seed, print);
        let Ok(result) = tokio::time::timeout(HUNG, scenario(&sim)).await else {
            panic!(
                "the scenario waits for what never comes; the last events:\n{}",
                sim.trace.last_lines().join("\n")
            );
        };
        for runtime in sim.runtimes.borrow().iter() {
            assert!(!runtime.has_panicked(), "a background task of node {} panicked", runtime.name());
        }
        (result, sim.trace.fingerprint())
    })
}

/// The seeds to run: `BULLA_SIM_SEED` alone if it is set (to replay a failure), else `BULLA_SIM_SEEDS` or else `count`
/// of them, from `BULLA_SIM_START` or 0 on.
///
/// # Panics
/// If one of the variables is no number.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is no number")))
    };
    if let Some(seed) = number("BULLA_SIM_SEED") {
        return seed..seed + 1;
    }
    let start = number("BULLA_SIM_START").unwrap_or(0);
    start..start + number("BULLA_SIM_SEEDS").unwrap_or(count)
}

/// Runs `scenario` under each of the [`seeds`], on every core. On failure prints the command that replays it;
/// a replay prints every event.
///
/// # Panics
/// If the scenario fails under any seed.
pub fn for_each_seed(count: u64, scenario: impl AsyncFn(&Simulation) + Sync) {
    let seeds = seeds(count);
    let print = env::var_os("BULLA_SIM_SEED").is_some();
    let test = thread::current().name().unwrap_or("NAME").to_owned();
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let failures = Mutex::new(Vec::new());
    let work = || {
        while !failed.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= seeds.end {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| run_printing(seed, print, &scenario))).is_err() {
                failed.store(true, Ordering::SeqCst);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(seed) = failures.iter().min() {
        panic!("seed {seed} fails; to replay it:\n\n    {}\n", replay(*seed, &test));
    }
}

/// The command that runs this test alone under this seed.
fn replay(seed: u64, test: &str) -> String {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "PACKAGE".into());
    let program = env::current_exe().unwrap_or_default();
    let stem = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let target = stem.rsplit_once('-').map_or(&*stem, |(target, _hash)| target);
    let target =
        if target == package.replace('-', "_") { "--lib".into() } else { format!("--test {target}") };
    format!("BULLA_SIM_SEED={seed} cargo test -p {package} {target} -- --exact {test} --nocapture")
}

#[cfg(test)]
mod tests;
