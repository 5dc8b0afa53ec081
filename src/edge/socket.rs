//! A client's connection. It is closed if it is idle for long, slow with a request's headers, or
//! takes too little of an answer; and it notices when the client goes away.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep_until};

use super::framing::{Ambiguous, Head, Seen};

/// How long a connection may be idle, before the first request and between two. Longer than the 60
/// s after which common load balancers open a new one.
pub const IDLE: Duration = Duration::from_secs(75);

/// How much of an answer a client must take within its timeout, in bytes; or all that is left, if
/// that is less.
const LEAST_TAKEN: usize = 16 * 1024;
/// How much of an answer the kernel keeps that its client has not taken, in bytes. Linux doubles
/// it, for its own needs.
const SEND_BUFFER: usize = 128 * 1024;
/// When an idle connection is closed, the kernel may keep an answer up to this size, in bytes.
const SMALL: usize = 64 * 1024;
/// How much of a refused request a client may still send before it reads the answer: in bytes, and
/// for how long.
const LEFTOVER: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);
/// A client takes what the kernel keeps in this many steps of [`LEAST_TAKEN`].
const MOST_TIMES: u32 = 16;

/// Limits what the kernel keeps for each connection of this listener.
pub fn bound(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).set_send_buffer_size(SEND_BUFFER)
}

/// A connection that a server reads requests from, one after the other.
#[derive(Debug)]
pub struct Socket {
    peer: Peer,
    /// How long the headers of a request may take, and each [`LEAST_TAKEN`] of an answer.
    client_timeout: Duration,
    /// The turn that the timer is for. A new turn begins idle.
    turn: u64,
    is_idle: bool,
    timer: Pin<Box<Sleep>>,
    /// What has arrived of this turn's request.
    head: Head,
    /// While the kernel takes no more of an answer: until when the client has time.
    taking: Option<Pin<Box<Sleep>>>,
    /// How much the client has taken of the current [`LEAST_TAKEN`], in bytes.
    taken: usize,
}

/// A handle on a [`Socket`] for whoever serves its requests.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    /// Counts up when a request has arrived and when its answer is there: odd while one is being
    /// served.
    turn: AtomicU64,
    /// What was seen of the head of the current request.
    seen: Seen,
    /// Since when the client must send the rest of a request, or take some of an answer, as in
    /// [`now`]. 0: it need not.
    silent_since: AtomicU64,
    /// Whether a request was answered before its whole body had arrived.
    has_leftover: AtomicBool,
    /// How much of answers was written since something was last read, in bytes.
    answered: AtomicUsize,
}

/// The time since the start of this process, in milliseconds, and never 0.
fn now() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX) + 1
}

impl Socket {
    /// Takes a connection that was just accepted.
    #[must_use]
    pub fn new(stream: TcpStream, client_timeout: Duration) -> Self {
        Self {
            peer: Peer(Arc::new(Shared {
                stream,
                turn: AtomicU64::new(0),
                seen: Seen::default(),
                silent_since: AtomicU64::new(now()),
                has_leftover: AtomicBool::new(false),
                answered: AtomicUsize::new(0),
            })),
            client_timeout,
            turn: 0,
            is_idle: true,
            timer: Box::pin(sleep_until(Instant::now() + IDLE)),
            head: Head::default(),
            taking: None,
            taken: 0,
        }
    }

    /// Another handle on it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// Limits the time between two requests. False: the time is over.
    fn check_time(&mut self, cx: &mut Context<'_>, read: &[u8], is_waiting: bool) -> bool {
        let turn = self.peer.0.turn.load(Ordering::Relaxed);
        if turn % 2 == 1 {
            // A body has its own limits.
            return true;
        }
        if turn != self.turn {
            self.turn = turn;
            self.is_idle = true;
            self.head = Head::default();
            self.timer.as_mut().reset(Instant::now() + IDLE);
        }
        if !read.is_empty() {
            self.peer.0.answered.store(0, Ordering::Relaxed);
            self.head.read(read);
            self.peer.0.seen.set(turn, &self.head);
            if self.is_idle {
                self.is_idle = false;
                self.timer
                    .as_mut()
                    .reset(Instant::now() + self.client_timeout);
            }
        }
        if !is_waiting || self.timer.as_mut().poll(cx).is_pending() {
            return true;
        }
        if self.peer.0.answered.load(Ordering::Relaxed) > SMALL {
            // A client that has not read it by now has lost it: the kernel must not keep it.
            self.peer.reset();
        }
        false
    }

    /// Writes some of an answer, as long as the client takes enough of it.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        attempt: impl Fn(&TcpStream) -> io::Result<usize>,
        attempt_now: impl Fn(&SockRef<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let shared = Arc::clone(&self.peer.0);
        let poll_ready = |cx: &mut Context<'_>| shared.stream.poll_write_ready(cx);
        loop {
            let mut written = poll_io(cx, poll_ready, || attempt(&shared.stream));
            if written.is_pending() {
                let ends_at = Instant::now() + self.client_timeout;
                let taking = self
                    .taking
                    .get_or_insert_with(|| Box::pin(sleep_until(ends_at)));
                if taking.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                // The kernel wakes a writer only when much of its buffer is free. The client may
                // have taken less.
                written = match attempt_now(&SockRef::from(&shared.stream)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                    written => Poll::Ready(written),
                };
                if let Poll::Ready(Ok(bytes)) = written {
                    self.taken += bytes;
                }
                if self.taken < LEAST_TAKEN && !matches!(written, Poll::Ready(Err(_))) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                taking.as_mut().reset(ends_at);
                self.taken = 0;
            } else if let Poll::Ready(Ok(bytes)) = written
                && self.taking.is_some()
            {
                self.taken += bytes;
            }
            if let Poll::Ready(written) = written {
                if let Ok(bytes) = written {
                    shared.answered.fetch_add(bytes, Ordering::Relaxed);
                    shared.still_reads();
                }
                return Poll::Ready(written);
            }
        }
    }
}

impl Shared {
    /// Reads what has arrived. If that fills less than the buffer, it is all, and the kernel need
    /// not be asked again.
    fn read(&self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut read = Err(io::ErrorKind::WouldBlock.into());
        let all = self.stream.try_io(Interest::READABLE, || {
            read = self.stream.try_read_buf(buf).map(drop);
            if buf.remaining() > 0 && read.is_ok() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        drop(all);
        read
    }

    /// The client takes its answer, so it is not silent.
    fn still_reads(&self) {
        if self.silent_since.load(Ordering::Relaxed) != 0 {
            self.silent_since.store(now(), Ordering::Relaxed);
        }
    }
}

impl Peer {
    /// Serves one request. The limits on time apply only between two.
    pub async fn serve<T>(&self, request: impl Future<Output = T>) -> T {
        self.0.turn.fetch_add(1, Ordering::Relaxed);
        let answer = request.await;
        self.0.turn.fetch_add(1, Ordering::Relaxed);
        self.0.silent_since.store(now(), Ordering::Relaxed);
        answer
    }

    /// The body of a request. The client counts as silent until the last of it has arrived.
    pub fn receive(&self, body: Incoming) -> Body {
        self.0.has_leftover.store(false, Ordering::Relaxed);
        if body.is_end_stream() {
            self.receive_nothing();
            return Body::empty();
        }
        self.0.silent_since.store(now(), Ordering::Relaxed);
        Body::new(Arriving {
            body,
            peer: self.clone(),
        })
    }

    /// Nothing more is expected from the client.
    pub(super) fn receive_nothing(&self) {
        self.0.silent_since.store(0, Ordering::Relaxed);
    }

    /// Since when the client must send or take something.
    pub(super) fn silent_since(&self) -> Option<u64> {
        let since = self.0.silent_since.load(Ordering::Relaxed);
        (since != 0).then_some(since)
    }

    /// Why the end of this request could be taken for another request.
    #[must_use]
    pub fn ambiguous(&self, headers: &HeaderMap) -> Option<Ambiguous> {
        let turn = self.0.turn.load(Ordering::Relaxed);
        self.0.seen.ambiguous(turn, headers)
    }

    /// Closes the connection. Whoever serves it sees its end.
    pub(super) fn close(&self) {
        self.reset();
        if let Err(error) = SockRef::from(&self.0.stream).shutdown(Shutdown::Both) {
            tracing::debug!(%error, "a connection was gone before it was closed");
        }
    }

    /// Waits after the last answer. A client that still sends a refused request may finish, up to a
    /// limit: a reset would lose the answer. And a client may take the rest of a large answer,
    /// which the kernel would otherwise keep for as long as the client likes. The usual timeout
    /// applies to each part of it.
    pub async fn linger(&self, client_timeout: Duration) {
        let is_large = self.0.answered.load(Ordering::Relaxed) > SMALL;
        if !is_large && !self.0.has_leftover.load(Ordering::Relaxed) {
            return;
        }
        let limit = if !is_large {
            LINGER
        } else if self.has_left() {
            // It cannot be seen when the client has taken all of it.
            client_timeout
        } else {
            client_timeout * MOST_TIMES
        };
        let left = async {
            self.discard().await;
            if is_large && limit == client_timeout {
                self.gone().await;
            }
        };
        if tokio::time::timeout(limit, left).await.is_err() {
            self.reset();
        }
    }

    /// Reads and drops data until the client has finished, or has sent too much.
    async fn discard(&self) {
        let stream = &self.0.stream;
        // Not inside the future, where each connection would pay for it all the time.
        let (mut left, mut bytes) = (LEFTOVER, vec![0; 4096]);
        while left > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    }

    /// Waits until the client is certainly gone: the connection was reset. A client that has closed
    /// looks like one that has only finished sending, until it answers something with a reset.
    pub async fn gone(&self) {
        let stream = &self.0.stream;
        while matches!(stream.ready(Interest::ERROR).await, Ok(ready) if !ready.is_error()) {}
    }

    /// Waits until the client is gone, or has finished sending and may be gone.
    pub async fn left(&self) {
        if let Ok(1..) = self.0.stream.peek(&mut [0]).await {
            // The next request is there already, and hides what follows it.
            self.gone().await;
        }
    }

    /// Whether the client has finished sending.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let stream = &self.0.stream;
        // If nothing has arrived since the last of it was read, the kernel need not be asked.
        let peeked = stream.try_io(Interest::READABLE, || {
            SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
        });
        matches!(peeked, Ok(0))
    }

    /// Makes the next close a reset: the kernel keeps nothing for a client that does not read.
    pub fn reset(&self) {
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
            || self.peer.0.read(buf),
        );
        if self.check_time(cx, &buf.filled()[before..], read.is_pending()) {
            read
        } else {
            Poll::Ready(Err(io::Error::other("no request came in time")))
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write(buf), |now| now.send(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(
            cx,
            |stream| stream.try_write_vectored(bufs),
            |now| now.send_vectored(bufs),
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All of it is written. The next answer has its own time.
        self.taking = None;
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&self.peer.0.stream).shutdown(Shutdown::Write))
    }
}

/// A body that is still arriving.
struct Arriving {
    body: Incoming,
    peer: Peer,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.peer.receive_nothing();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let is_whole = self.peer.silent_since().is_none();
        self.peer.0.has_leftover.store(!is_whole, Ordering::Relaxed);
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
