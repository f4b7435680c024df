//! How slowly a request's body may come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Bodies that are slower are cut off. Only the time that the server waits for the client counts, never the time that the
/// client waits for the server.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Pace {
    /// The longest silence.
    pub idle: Duration,
    /// Bytes per second that a body must come to on the whole, after [`Pace::allowance`]: who sends a byte now and then does not
    /// hold a place for ever.
    pub bytes_per_second: u32,
    /// For how long a body may be slower than that.
    pub allowance: Duration,
}

impl Default for Pace {
    /// A silence of 30 s, and 1 KiB/s after the first minute.
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), bytes_per_second: 1 << 10, allowance: Duration::from_secs(60) }
    }
}

/// A body that fails when it is too slow.
pub(crate) struct Paced {
    body: Body,
    pace: Pace,
    received: u64,
    waited: Duration,
    /// Since when the client is waited for, and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(crate) fn new(body: Body, pace: Pace) -> Self {
        Self { body, pace, received: 0, waited: Duration::ZERO, waiting: None }
    }

    /// How much longer the client may take for what comes next.
    fn left(&self) -> Duration {
        let earned = Duration::from_secs(self.received / u64::from(self.pace.bytes_per_second.max(1)));
        self.pace.idle.min(self.pace.allowance.saturating_add(earned).saturating_sub(self.waited))
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some((since, _)) = this.waiting.take() {
                this.waited += since.elapsed();
            }
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                this.received += data.len() as u64;
            }
            return Poll::Ready(frame);
        }
        let left = this.left();
        let (_, end) =
            this.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        ready!(end.as_mut().poll(context));
        let slow = io::Error::new(io::ErrorKind::TimedOut, "the request's body comes too slowly");
        Poll::Ready(Some(Err(axum::Error::new(slow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
