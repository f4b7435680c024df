//! Answers that no healthy vault gives, for tests of its clients.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bulla_listener::DropConnection;

use crate::reply::Refusal;

/// Makes requests fail. Clones share what is to come.
///
/// Only requests that bring a token count, so that the first one of a client, which asks for the challenge, does not use
/// a fault up.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

/// What happens to a request instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This status and error body. The operation does not happen.
    Answer {
        /// The HTTP status.
        status: u16,
        /// `error.code`
        code: String,
        /// `error.innererror.code`
        inner: Option<String>,
        /// `Retry-After`
        retry_after: Option<Duration>,
    },
    /// No answer, until the client goes away.
    Hang,
    /// The connection closes without an answer.
    Drop,
    /// The operation happens, and then the connection closes without an answer.
    DropAnswer,
}

#[derive(Debug, Default)]
struct State {
    next: VecDeque<Fault>,
    always: Option<Fault>,
}

impl Fault {
    /// 429 `Throttled`.
    pub fn throttled(retry_after: Option<Duration>) -> Self {
        Self::Answer { status: 429, code: "Throttled".into(), inner: None, retry_after }
    }

    /// A status with this error code.
    pub fn answer(status: u16, code: &str) -> Self {
        Self::Answer { status, code: code.into(), inner: None, retry_after: None }
    }

    /// A status with this error code and this inner one.
    pub fn inner(status: u16, code: &str, inner: &str) -> Self {
        Self::Answer { status, code: code.into(), inner: Some(inner.into()), retry_after: None }
    }
}

impl Faults {
    /// None, for now.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next `times` requests fail so, after those that are to fail already.
    pub fn next(&self, times: usize, fault: &Fault) {
        self.state().next.extend(std::iter::repeat_n(fault.clone(), times));
    }

    /// From now on every request fails so.
    pub fn always(&self, fault: Fault) {
        self.state().always = Some(fault);
    }

    /// From now on none fails.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    pub(crate) fn take(&self) -> Option<Fault> {
        let mut state = self.state();
        state.next.pop_front().or_else(|| state.always.clone())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the client gets; never returns for [`Fault::Hang`].
pub(crate) async fn happen(fault: Fault) -> Response {
    match fault {
        Fault::Answer { status, code, inner, retry_after } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let refusal =
                Refusal { status, code, inner, message: "A fault that was asked for.".into(), retry_after };
            refusal.into_response()
        }
        Fault::Hang => std::future::pending().await,
        Fault::Drop | Fault::DropAnswer => dropped(),
    }
}

pub(crate) fn dropped() -> Response {
    let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
    response.extensions_mut().insert(DropConnection);
    response
}
