//! The metrics of engine and registry, as Prometheus reads them.

use std::sync::Arc;
use std::time::Duration;

use bulla_registry::server::Exposition;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::exit::{Failure, Kind, Result};

/// Seconds: from an answer out of memory to a large push.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0];
/// How often what was recorded is added up, so that it does not pile up where nobody asks.
const ADD_UP: Duration = Duration::from_secs(5);

/// Records what happens from now on in this process.
pub(super) fn record() -> Result<Exposition> {
    let failed = |error| Failure::new(Kind::Internal, "metrics can't be recorded").with_source(error);
    let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS).map_err(failed)?;
    let handle = recorder.install_recorder().map_err(failed)?;
    bulla::describe_metrics();
    bulla_registry::server::describe_metrics();
    let shown = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(ADD_UP).await;
            handle.run_upkeep();
        }
    });
    Ok(Arc::new(move || shown.render()))
}
