//! A client's connection: closed when it is idle for long, or slow with a request's headers, and watched for a client that goes
//! away. The gateway serves on it too.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may be idle before the first request, and after each: longer than the 60 s after which common load
/// balancers take another one.
pub const IDLE: Duration = Duration::from_secs(75);

/// A connection that a server reads requests from, one after the other.
#[derive(Debug)]
pub struct Socket {
    peer: Peer,
    /// How long the headers of a request may take.
    patience: Duration,
    /// The turn that the timer is for; a new one begins with an idle time.
    turn: u64,
    is_idle: bool,
    timer: Pin<Box<Sleep>>,
}

/// The other side of a [`Socket`].
#[derive(Debug, Clone)]
pub struct Peer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    /// Grows when a request has come and when its answer is there: odd while one is being served.
    turn: AtomicU64,
}

impl Socket {
    /// Takes a connection that was just accepted.
    #[must_use]
    pub fn new(stream: TcpStream, patience: Duration) -> Self {
        let turn = AtomicU64::new(0);
        Self {
            peer: Peer(Arc::new(Shared { stream, turn })),
            patience,
            turn: 0,
            is_idle: true,
            timer: Box::pin(sleep_until(Instant::now() + IDLE)),
        }
    }

    /// Its other side.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// Sees to it that what is waited for between two requests comes in time.
    fn check_time(&mut self, cx: &mut Context<'_>, has_read: bool, is_waiting: bool) -> bool {
        let turn = self.peer.0.turn.load(Ordering::Relaxed);
        if turn % 2 == 1 {
            // A body, which has limits of its own.
            return true;
        }
        if turn != self.turn {
            self.turn = turn;
            self.is_idle = true;
            self.timer.as_mut().reset(Instant::now() + IDLE);
        }
        if has_read && self.is_idle {
            self.is_idle = false;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
        !is_waiting || self.timer.as_mut().poll(cx).is_pending()
    }
}

impl Peer {
    /// Serves one request; only between two is there a limit to the time in which something must come.
    pub async fn serve<T>(&self, request: impl Future<Output = T>) -> T {
        self.0.turn.fetch_add(1, Ordering::Relaxed);
        let answer = request.await;
        self.0.turn.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Waits until it is certain that nobody is there any more: the connection was reset. A client that has closed it cannot be
    /// told from one that has only finished sending, until it answers something with a reset.
    pub async fn gone(&self) {
        let stream = &self.0.stream;
        while matches!(stream.ready(Interest::ERROR).await, Ok(ready) if !ready.is_error()) {}
    }

    /// Waits until the client is gone, or has finished sending and may be.
    pub async fn left(&self) {
        if let Ok(1..) = self.0.stream.peek(&mut [0]).await {
            // The next request is there already: whatever follows it cannot be seen.
            self.gone().await;
        }
    }

    /// Whether the client has finished sending.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let peeked = SockRef::from(&self.0.stream).peek(&mut [MaybeUninit::uninit()]);
        matches!(peeked, Ok(0))
    }

    /// Makes the coming close a reset.
    pub(crate) fn reset(&self) {
        if let Err(error) = self.0.stream.set_zero_linger() {
            tracing::debug!(%error, "cannot reset, closed instead");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = poll_io(
            cx,
            |cx| self.peer.0.stream.poll_read_ready(cx),
            || self.peer.0.stream.try_read_buf(buf),
        );
        let has_read = buf.filled().len() > before;
        if self.check_time(cx, has_read, read.is_pending()) {
            read.map_ok(drop)
        } else {
            Poll::Ready(Err(io::Error::other("no request came in time")))
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = &self.peer.0.stream;
        poll_io(
            cx,
            |cx| stream.poll_write_ready(cx),
            || stream.try_write(buf),
        )
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &self.peer.0.stream;
        let write = || stream.try_write_vectored(bufs);
        poll_io(cx, |cx| stream.poll_write_ready(cx), write)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&self.peer.0.stream).shutdown(Shutdown::Write))
    }
}

fn poll_io<T>(
    cx: &mut Context<'_>,
    poll_ready: impl Fn(&mut Context<'_>) -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(poll_ready(cx))?;
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}
