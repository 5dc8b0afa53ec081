//! Between a gateway and its database: passes everything on, and cuts connections where it hurts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

/// Share of the statements that write at which the connection is cut.
const CUT_RATE: f64 = 0.02;

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// The server does not get the statement.
    Before,
    /// The server has got it, and may be working on it still while it is repeated.
    During,
    /// The server has committed it: its answer, that it is ready for the next one, is swallowed.
    AfterCommit,
}

impl Cut {
    pub const ALL: [Self; 3] = [Self::Before, Self::During, Self::AfterCommit];

    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before the statement was passed on",
            Self::During => "while the statement ran",
            Self::AfterCommit => "after the commit, answer swallowed",
        }
    }
}

/// How often each statement was cut at, and where.
pub type Cuts = BTreeMap<(Cut, String), u64>;

/// A listener that gateways take for their database.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    socket: PathBuf,
    rng: Mutex<StdRng>,
    cuts: Mutex<Cuts>,
    over: AtomicBool,
}

impl Proxy {
    /// In front of the server that listens on this socket.
    pub async fn start(socket: PathBuf, rng: &mut StdRng) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            socket,
            rng: Mutex::new(StdRng::from_rng(rng)),
            cuts: Mutex::default(),
            over: AtomicBool::new(false),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared }
    }

    /// Cuts nothing from now on.
    pub fn calm(&self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }

    pub fn cuts(&self) -> Cuts {
        self.shared.cuts.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // However it ends, both sides are closed, and see that.
            if let Ok(server) = UnixStream::connect(&shared.socket).await {
                pass_on(client, server, &shared).await.ok();
            }
        });
    }
}

/// The statements whose answers a connection waits for: the name of one whose answer is to be
/// swallowed.
type Awaited = Mutex<VecDeque<Option<String>>>;

async fn pass_on(client: TcpStream, server: UnixStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    // The one message that has no type; it is answered like a statement.
    let length = from_client.read_u32().await?;
    let mut startup = vec![0; usize::try_from(length).unwrap() - 4];
    from_client.read_exact(&mut startup).await?;
    to_server.write_u32(length).await?;
    to_server.write_all(&startup).await?;
    let awaited = Awaited::new(VecDeque::from([None]));
    let asking = async {
        let mut messages = FramedRead::new(from_client, messages());
        let mut statement = Statement::default();
        while let Some(message) = messages.next().await {
            if !statement.add(&message?) {
                continue;
            }
            let cut = shared.choose_cut(&statement.name);
            if cut == Some(Cut::Before) {
                shared.count(Cut::Before, &statement.name);
                break;
            }
            let swallowed = (cut == Some(Cut::AfterCommit)).then(|| statement.name.clone());
            awaited.lock().unwrap().push_back(swallowed);
            to_server.write_all(&statement.bytes).await?;
            statement.bytes.clear();
            if cut == Some(Cut::During) {
                shared.count(Cut::During, &statement.name);
                break;
            }
        }
        Ok(())
    };
    let answering = async {
        let mut messages = FramedRead::new(from_server, messages());
        let mut answer = BytesMut::new();
        let mut failed = false;
        while let Some(message) = messages.next().await {
            let message = message?;
            answer.extend_from_slice(&message);
            // ErrorResponse.
            failed |= message[0] == b'E';
            // ReadyForQuery: unless it has failed, the statement is committed.
            if message[0] == b'Z' {
                let swallowed = awaited.lock().unwrap().pop_front().flatten();
                if let Some(statement) = swallowed.filter(|_| !failed) {
                    shared.count(Cut::AfterCommit, &statement);
                    return Ok(());
                }
                to_client.write_all(&answer).await?;
                answer.clear();
                failed = false;
            }
        }
        // What a server says when it ends is followed by nothing.
        to_client.write_all(&answer).await
    };
    tokio::select! {
        asked = asking => asked,
        answered = answering => answered,
    }
}

/// PostgreSQL's messages: a type, and a length that counts itself but not the type.
fn messages() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_offset(1)
        .length_adjustment(1)
        .num_skip(0)
        .max_frame_length(64 << 20)
        .new_codec()
}

/// What a client has sent since its last statement was complete, and which one it is.
#[derive(Default)]
struct Statement {
    bytes: BytesMut,
    /// Such as `message::enqueue`; empty where nothing is executed.
    name: String,
    prepared: HashMap<Vec<u8>, String>,
}

impl Statement {
    /// Adds a message; true when the server answers now.
    fn add(&mut self, message: &[u8]) -> bool {
        if self.bytes.is_empty() {
            self.name.clear();
        }
        self.bytes.extend_from_slice(message);
        let mut texts = message[5..].split(|byte| *byte == 0);
        match message[0] {
            // Parse: the name that is given to it, and its text, which says where it stands.
            b'P' => {
                let (name, sql) = (texts.next().unwrap(), texts.next().unwrap());
                let first = sql.split(|byte| *byte == b'\n').next().unwrap();
                let header = String::from_utf8_lossy(first);
                let header = header.strip_prefix("-- ").unwrap_or_default().to_owned();
                self.prepared.insert(name.to_vec(), header);
            }
            // Bind: to which portal, and what.
            b'B' => {
                let name = self.prepared.get(texts.nth(1).unwrap());
                self.name = name.cloned().unwrap_or_default();
            }
            _ => {}
        }
        // Sync, Query, Terminate.
        matches!(message[0], b'S' | b'Q' | b'X')
    }
}

impl Shared {
    /// Whether and where this statement is cut: only where that can leave something half done.
    fn choose_cut(&self, statement: &str) -> Option<Cut> {
        const WRITING: [&str; 7] = [
            "webhook::ingest",
            "message::enqueue",
            "delivery::claim",
            "delivery::mark_sent",
            "delivery::mark_failed",
            "delivery::release",
            "channel::pause",
        ];
        if !WRITING.contains(&statement) || self.over.load(Ordering::Relaxed) {
            return None;
        }
        let mut rng = self.rng.lock().unwrap();
        if !rng.random_bool(CUT_RATE) {
            return None;
        }
        Some(Cut::ALL[rng.random_range(0..Cut::ALL.len())])
    }

    fn count(&self, cut: Cut, statement: &str) {
        let mut cuts = self.cuts.lock().unwrap();
        *cuts.entry((cut, statement.to_owned())).or_default() += 1;
    }
}
