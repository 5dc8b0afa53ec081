//! What stands between the program and whoever it calls: an HTTP proxy, and a relay.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// A proxy that answers everything by itself, and keeps the first line of what it was asked.
pub struct Proxy {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One that gives this answer, which ends with the connection.
    pub async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, Arc::clone(&kept)));
            }
        });
        Self { address, asked }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answer: &str, asked: Arc<Mutex<Vec<String>>>) {
    // Also a connection that asks nothing is one.
    let place = {
        let mut asked = asked.lock().unwrap();
        asked.push(String::new());
        asked.len() - 1
    };
    let mut bytes = Vec::new();
    loop {
        let ended = stream.read_buf(&mut bytes).await.unwrap_or(0) == 0;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        asked.lock().unwrap()[place] = text.lines().next().map(str::to_owned).unwrap_or_default();
        if ended {
            return;
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse().unwrap())
        });
        if body.len() >= length.unwrap_or(0) {
            break;
        }
    }
    stream.write_all(answer.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

/// Makes a server on a unix socket one on a TCP port of this address; the port.
pub async fn relay(address: &str, socket: PathBuf) -> u16 {
    relay_to(address, Arc::new(Mutex::new(socket))).await
}

/// The same, for whichever server it is when a client connects.
pub async fn relay_to(address: &str, socket: Arc<Mutex<PathBuf>>) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = socket.lock().unwrap().clone();
            tokio::spawn(async move {
                let mut server = UnixStream::connect(socket).await.unwrap();
                copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    port
}
