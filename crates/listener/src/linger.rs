//! The end of a connection: what a client still sends is thrown away for a moment, so that it gets to read its answer.
//!
//! ```text
//! answer ─► FIN ─► read and drop … until the client's FIN, a second of silence, 64 MiB, or the end of patience ─► close
//! ```
//!
//! Who is refused in the middle of a body is answered at once, but mostly goes on to write. A socket that is closed with bytes
//! unread is reset, and a reset takes from the client what it has not read yet: the answer (RFC 9112 §9.6). hyper closes; this
//! is below it and below TLS, so that it holds for any framing, for heads that hyper refuses itself, and costs no decryption. Of
//! HTTP/2, where a stream ends and the connection goes on, `unread.rs` does the same.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Who sends nothing for so long has stopped, and has the answer if it is to get it.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);
/// More than usual clients send without looking whether they are answered.
pub(crate) const MOST: u64 = 64 << 20;
/// What is dropped at once.
const PIECE: usize = 16 << 10;

/// A stream whose shutdown waits for the other side to stop sending.
#[derive(Debug)]
pub(crate) struct Lingering<S> {
    stream: S,
    patience: Duration,
    /// Since the end was said.
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Ending {
    last: Instant,
    left: u64,
    silence: Pin<Box<Sleep>>,
}

impl<S> Lingering<S> {
    /// Who sends without end is cut after `patience`, or [`MOST`].
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, ending: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, patience, ending } = &mut *self;
        let ending = match ending {
            Some(ending) => ending,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                let (now, first) = (Instant::now(), SILENCE.min(*patience));
                let silence = Box::pin(tokio::time::sleep(first));
                let last = now.checked_add(*patience).unwrap_or(now + SILENCE);
                ending.insert(Ending { last, left: MOST, silence })
            }
        };
        let mut piece = [0; PIECE];
        while ending.left > 0 && ending.silence.as_mut().poll(context).is_pending() {
            let mut piece = ReadBuf::new(&mut piece);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut piece)) {
                Ok(()) if !piece.filled().is_empty() => {}
                // Its FIN, or it has reset the connection itself.
                _ => break,
            }
            ending.left = ending.left.saturating_sub(piece.filled().len() as u64);
            ending.silence.as_mut().reset(ending.last.min(Instant::now() + SILENCE));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
