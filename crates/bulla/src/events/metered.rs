//! Events as metrics, for whatever recorder the embedder installs.

use metrics::Unit;

use super::Event;

const EVENTS: &str = "bulla_events_total";
const SECONDS: &str = "bulla_event_seconds";

/// Says to the installed recorder of [`metrics`] what the engine's metrics are, for those that show it.
pub fn describe_metrics() {
    metrics::describe_counter!(
        EVENTS,
        Unit::Count,
        "What happened to keys and blobs, by action, outcome and, of denials, the provider's reason"
    );
    metrics::describe_histogram!(
        SECONDS,
        Unit::Seconds,
        "How long what happened took, such as a call of the key provider, by action, in seconds"
    );
}

pub(super) fn count(event: &Event) {
    let (action, outcome) = (event.action.as_str(), event.outcome.as_str());
    let reason = event.reason.map_or("", bulla_kek::DenyReason::code);
    metrics::counter!(EVENTS, "action" => action, "outcome" => outcome, "reason" => reason).increment(1);
    if !event.latency.is_zero() {
        metrics::histogram!(SECONDS, "action" => action).record(event.latency);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::time::Duration;

    use bulla_kek::{DenyReason, TokioRuntime};
    use metrics::{
        Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
        Unit,
    };

    use crate::audit::AuditMode;
    use crate::events::{Action, Events, Outcome};

    /// Writes down what is recorded.
    #[derive(Debug, Default)]
    struct Recorded(Arc<Mutex<Vec<String>>>);

    #[derive(Debug)]
    struct Line(String, Arc<Mutex<Vec<String>>>);

    impl CounterFn for Line {
        fn increment(&self, value: u64) {
            self.1.lock().unwrap().push(format!("{} +{value}", self.0));
        }

        fn absolute(&self, _: u64) {}
    }

    impl HistogramFn for Line {
        fn record(&self, value: f64) {
            self.1.lock().unwrap().push(format!("{} {value}", self.0));
        }
    }

    impl Recorded {
        fn line(&self, key: &Key) -> Arc<Line> {
            let labels: Vec<String> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            Arc::new(Line(format!("{}{{{}}}", key.name(), labels.join(",")), Arc::clone(&self.0)))
        }
    }

    impl Recorder for Recorded {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.line(key))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(self.line(key))
        }
    }

    #[test]
    fn an_event_is_a_count_and_a_time() {
        let recorded = Recorded::default();
        let lines = Arc::clone(&recorded.0);
        let events = Events::new(None, Arc::new(TokioRuntime), "n".into(), AuditMode::Off);
        metrics::with_local_recorder(&recorded, || {
            let mut event = events.event(Action::Unwrap, Outcome::Denied);
            event.reason = Some(DenyReason::Disabled);
            event.latency = Duration::from_millis(250);
            events.emit(&event);
            events.emit(&events.event(Action::Restore, Outcome::Done));
        });
        assert_eq!(
            *lines.lock().unwrap(),
            [
                "bulla_events_total{action=unwrap,outcome=denied,reason=Disabled} +1",
                "bulla_event_seconds{action=unwrap} 0.25",
                "bulla_events_total{action=restore,outcome=done,reason=} +1",
            ]
        );
    }
}
