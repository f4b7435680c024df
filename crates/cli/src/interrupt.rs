//! Ctrl-C and SIGTERM: the first asks the command to clean up and end, the second ends it.

#[cfg(unix)]
use tokio::signal::unix;
use tokio::sync::watch;

use crate::exit::{Failure, Kind};

/// Becomes known to every holder at the first signal.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    signal: watch::Receiver<Option<Kind>>,
}

impl Interrupt {
    /// Starts listening. Call once, inside the runtime, before there is anything to clean up.
    pub(crate) fn listen() -> Self {
        let (send, signal) = watch::channel(None);
        // Here, not when the task first runs: until then a signal would end the process on the spot.
        let mut signals = Signals::install();
        tokio::spawn(async move {
            let kind = signals.next().await;
            let _ = send.send(Some(kind));
            let again = signals.next().await;
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

/// The signals that end a command. Where there are none, nobody can interrupt politely.
#[cfg(unix)]
struct Signals {
    interrupt: Option<unix::Signal>,
    terminate: Option<unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn install() -> Self {
        let install = |kind| unix::signal(kind).ok();
        Self {
            interrupt: install(unix::SignalKind::interrupt()),
            terminate: install(unix::SignalKind::terminate()),
        }
    }

    async fn next(&mut self) -> Kind {
        async fn one(signal: &mut Option<unix::Signal>) -> Option<()> {
            signal.as_mut()?.recv().await
        }
        tokio::select! {
            Some(()) = one(&mut self.interrupt) => Kind::Interrupted,
            Some(()) = one(&mut self.terminate) => Kind::Terminated,
            else => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn install() -> Self {
        Self
    }

    async fn next(&mut self) -> Kind {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Kind::Interrupted,
            Err(_) => std::future::pending().await,
        }
    }
}
