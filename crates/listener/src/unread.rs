//! Bodies of requests that were answered before they were read. Over HTTP/1.1 the connection ends, and the answer says so. Over
//! HTTP/2 hyper resets the stream, which some clients (curl 7.88 among them) take for a failure, with the answer in hand; so what
//! still comes is thrown away for a moment first, as in `linger.rs`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

use crate::linger::{MOST, SILENCE};

/// What is shorter hyper throws away itself, if it has come, and the connection goes on.
const SHORT: u64 = 8 << 10;

/// A body that may be dropped at any time.
pub(crate) struct Unread {
    body: Body,
    ended: bool,
    otherwise: Otherwise,
}

/// What to do about a body that is dropped too early.
pub(crate) enum Otherwise {
    /// Tell that the connection can't go on.
    Tell(Arc<AtomicBool>),
    /// Read on for so long.
    Drain(Duration),
}

impl Unread {
    pub(crate) fn new(body: Body, otherwise: Otherwise) -> Self {
        Self { body, ended: false, otherwise }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if self.ended || self.body.is_end_stream() {
            return;
        }
        match &self.otherwise {
            Otherwise::Tell(unread) => {
                if self.body.size_hint().exact().is_none_or(|rest| rest > SHORT) {
                    unread.store(true, Ordering::Relaxed);
                }
            }
            Otherwise::Drain(patience) => {
                // It ends with its connection.
                drop(tokio::spawn(drain(std::mem::take(&mut self.body), *patience)));
            }
        }
    }
}

async fn drain(mut body: Body, patience: Duration) {
    let draining = async {
        let mut next = async || poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let mut left = MOST;
        while let Ok(Some(Ok(frame))) = timeout(SILENCE, next()).await
            && left > 0
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
    };
    // Who sends on is cut by the reset.
    let _ = timeout(patience, draining).await;
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
