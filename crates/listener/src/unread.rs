//! Whether a request was answered before its body was read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// What is shorter hyper throws away itself, if it has come, and the connection goes on.
const SHORT: u64 = 8 << 10;

/// A body that tells when it is dropped too early for the connection to go on.
pub(crate) struct Unread {
    body: Body,
    ended: bool,
    tell: Arc<AtomicBool>,
}

impl Unread {
    pub(crate) fn new(body: Body, tell: Arc<AtomicBool>) -> Self {
        Self { body, ended: false, tell }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let rest = self.body.size_hint().exact();
        if !self.ended && !self.body.is_end_stream() && rest.is_none_or(|rest| rest > SHORT) {
            self.tell.store(true, Ordering::Relaxed);
        }
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.ended |= frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
