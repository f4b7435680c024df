//! The rest of a body that nobody reads.
//!
//! An answer may be ready before the client has sent all: it had no credentials, or its chunk is not the next one. Closing
//! the connection then would reset it under the client, which loses the answer: many read it only when they have sent all. Of
//! HTTP/2 the stream alone is reset, without an error, and still some (curl 7.88) take that for a failure.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;

/// More than usual clients send without a look at what comes back.
const MOST: u64 = 64 << 20;

/// A body whose rest is taken and thrown away when it is dropped, for a while.
pub(crate) struct Rest {
    /// `None`: it has ended, or failed.
    body: Option<Body>,
    patience: Duration,
}

impl Rest {
    pub(crate) fn new(body: Body, patience: Duration) -> Self {
        Self { body: Some(body), patience }
    }
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let patience = self.patience;
        // It ends with its connection at the latest.
        runtime.spawn(async move {
            let taken = async {
                let mut left = MOST;
                while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
                    && left > 0
                {
                    left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
            };
            let _ = tokio::time::timeout(patience, taken).await;
        });
    }
}
