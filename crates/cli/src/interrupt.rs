//! Ctrl-C and SIGTERM: the first asks the command to clean up and end, the second ends it.

use tokio::sync::watch;

use crate::exit::{Failure, Kind};

/// Becomes known to every holder at the first signal.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    signal: watch::Receiver<Option<Kind>>,
}

impl Interrupt {
    /// Starts listening. Call once, inside the runtime.
    pub(crate) fn listen() -> Self {
        let (send, signal) = watch::channel(None);
        tokio::spawn(async move {
            let kind = next_signal().await;
            let _ = send.send(Some(kind));
            let again = next_signal().await;
            // Cleaning up takes too long for the user; what stays is removed by gc.
            std::process::exit(i32::from(again.code()));
        });
        Self { signal }
    }

    /// Waits for a signal, forever if none comes.
    pub(crate) async fn wait(&self) -> Failure {
        let mut signal = self.signal.clone();
        match signal.wait_for(Option::is_some).await {
            Ok(kind) => failure(kind.unwrap_or(Kind::Interrupted)),
            Err(_) => std::future::pending().await,
        }
    }
}

fn failure(kind: Kind) -> Failure {
    Failure::new(kind, "interrupted; nothing half-done is visible, run it again")
}

#[cfg(unix)]
async fn next_signal() -> Kind {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return ctrl_c().await };
    tokio::select! {
        kind = ctrl_c() => kind,
        Some(()) = terminate.recv() => Kind::Terminated,
    }
}

#[cfg(not(unix))]
async fn next_signal() -> Kind {
    ctrl_c().await
}

async fn ctrl_c() -> Kind {
    match tokio::signal::ctrl_c().await {
        Ok(()) => Kind::Interrupted,
        // No signals on this system: nobody can interrupt politely.
        Err(_) => std::future::pending().await,
    }
}
