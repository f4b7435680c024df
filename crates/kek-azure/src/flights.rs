//! One request for all who ask the same at the same time.
//!
//! Who comes while a request is out does not get its answer: that request was sent before they asked, and a lease counts
//! from before its unwrap was sent. They share the next one instead, which leaves when the first is back. So a crowd of
//! any size makes two requests, or one if it comes together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulla_kek::BoxFuture;
use futures::FutureExt;
use futures::future::{Shared, WeakShared};

/// Requests by what they ask.
#[derive(Debug)]
pub(crate) struct Flights<K, V: Clone> {
    gates: Mutex<BTreeMap<K, Gate<V>>>,
}

#[derive(Debug)]
struct Gate<V: Clone> {
    /// Held while a request is out.
    runway: Arc<futures::lock::Mutex<()>>,
    /// The request that waits to leave, if any.
    boarding: Option<WeakShared<BoxFuture<'static, V>>>,
}

impl<K, V: Clone> Default for Flights<K, V> {
    fn default() -> Self {
        Self { gates: Mutex::new(BTreeMap::new()) }
    }
}

impl<K, V> Flights<K, V>
where
    K: Ord + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The answer to `key`, by a request that is sent after this was called: `call`, or somebody else's.
    ///
    /// # Cancel safety
    /// Dropping the future is safe; the request goes on for whoever else waits for it, else it is dropped too.
    pub(crate) async fn join<F>(self: &Arc<Self>, key: K, call: impl FnOnce() -> F + Send + 'static) -> V
    where
        F: Future<Output = V> + Send + 'static,
    {
        // Dropped last, whether the answer came or nobody waits for it any more.
        let _clear = Clear { flights: self, key: &key };
        let flight = self.board(&key, call);
        flight.await
    }

    fn board<F>(
        self: &Arc<Self>,
        key: &K,
        call: impl FnOnce() -> F + Send + 'static,
    ) -> Shared<BoxFuture<'static, V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut gates = self.lock();
        let gate =
            gates.entry(key.clone()).or_insert_with(|| Gate { runway: Arc::default(), boarding: None });
        if let Some(flight) = gate.boarding.as_ref().and_then(WeakShared::upgrade) {
            return flight;
        }
        let (runway, flights, key) = (Arc::clone(&gate.runway), Arc::clone(self), key.clone());
        let flight: BoxFuture<'static, V> = Box::pin(async move {
            let _runway = runway.lock().await;
            if let Some(gate) = flights.lock().get_mut(&key) {
                gate.boarding = None;
            }
            call().await
        });
        let flight = flight.shared();
        gate.boarding = flight.downgrade();
        flight
    }

    /// Forgets the gate if nobody uses it.
    fn clear(&self, key: &K) {
        let mut gates = self.lock();
        let unused = |gate: &Gate<V>| {
            Arc::strong_count(&gate.runway) == 1
                && gate.boarding.as_ref().and_then(WeakShared::upgrade).is_none()
        };
        if gates.get(key).is_some_and(unused) {
            gates.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Gate<V>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a gate that nobody uses.
struct Clear<'a, K, V>
where
    K: Ord + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    flights: &'a Flights<K, V>,
    key: &'a K,
}

impl<K, V> Drop for Clear<'_, K, V>
where
    K: Ord + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.flights.clear(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::channel::oneshot;
    use futures::future::{join_all, poll_immediate};

    use super::*;

    fn counted(calls: &Arc<AtomicU32>) -> impl FnOnce() -> BoxFuture<'static, u32> + Send + 'static {
        let calls = Arc::clone(calls);
        move || {
            Box::pin(async move {
                let number = calls.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::task::yield_now().await;
                number
            })
        }
    }

    #[tokio::test]
    async fn who_comes_together_shares_one_request() {
        let (flights, calls) = (Arc::new(Flights::default()), Arc::new(AtomicU32::new(0)));
        let answers = join_all((0..100).map(|_| flights.join("key", counted(&calls)))).await;
        // Polled one after the other: the first leaves before the second comes.
        assert!(answers.iter().all(|&answer| answer <= 2), "{answers:?}");
        assert!(calls.load(Ordering::SeqCst) <= 2);
        assert!(flights.lock().is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn who_comes_later_never_gets_an_answer_to_an_earlier_request() {
        let (flights, calls) = (Arc::new(Flights::default()), Arc::new(AtomicU32::new(1)));
        let (land, landing) = oneshot::channel::<()>();
        let mut first = Box::pin(flights.join("key", move || async move {
            landing.await.unwrap();
            1
        }));
        assert_eq!(poll_immediate(&mut first).await, None, "the first is out");
        let mut later: Vec<_> = (0..50).map(|_| Box::pin(flights.join("key", counted(&calls)))).collect();
        for waiting in &mut later {
            assert_eq!(poll_immediate(waiting).await, None, "they wait for the runway");
        }
        land.send(()).unwrap();
        assert_eq!(first.await, 1);
        assert_eq!(join_all(later).await, [2; 50], "one request for all of them, sent after they asked");
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_request_outlives_whoever_began_it() {
        let (flights, calls) = (Arc::new(Flights::default()), Arc::new(AtomicU32::new(0)));
        let (land, landing) = oneshot::channel::<()>();
        let mut first = Box::pin(flights.join("key", move || async move { landing.await.map_or(0, |()| 7) }));
        assert_eq!(poll_immediate(&mut first).await, None);
        let mut second = Box::pin(flights.join("key", counted(&calls)));
        let mut third = Box::pin(flights.join("key", counted(&calls)));
        assert_eq!(poll_immediate(&mut second).await, None);
        assert_eq!(poll_immediate(&mut third).await, None);
        drop(first);
        drop(second);
        drop(land);
        assert_eq!(
            third.await,
            1,
            "the runway is free, and the request that the second began is the third's"
        );
        assert!(flights.lock().is_empty(), "nothing is kept for those who went");
    }

    #[tokio::test]
    async fn other_keys_do_not_wait() {
        let (flights, calls) = (Arc::new(Flights::default()), Arc::new(AtomicU32::new(0)));
        let mut hanging = Box::pin(flights.join("a", std::future::pending));
        assert_eq!(poll_immediate(&mut hanging).await, None);
        assert_eq!(flights.join("b", counted(&calls)).await, 1);
    }
}
