//! What stands before the database, as a balancer does: leads new connections to one server, and
//! keeps or cuts those that are.

use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A listener that gateways take for their database.
pub struct Proxy {
    pub port: u16,
    way: Arc<Mutex<Way>>,
}

struct Way {
    /// Where new connections lead.
    port: u16,
    /// Cuts those that are.
    cut: CancellationToken,
}

impl Proxy {
    /// Before the server on this port.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Arc::new(Mutex::new(Way {
            port,
            cut: CancellationToken::new(),
        }));
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            way: Arc::clone(&way),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (port, cut) = {
                    let way = way.lock().unwrap();
                    (way.port, way.cut.clone())
                };
                tokio::spawn(async move { cut.run_until_cancelled(pass_on(client, port)).await });
            }
        });
        proxy
    }

    /// Leads new connections there; those that are stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.way.lock().unwrap().port = port;
    }

    /// Cuts the connections that are.
    pub fn cut(&self) {
        let mut way = self.way.lock().unwrap();
        std::mem::take(&mut way.cut).cancel();
    }
}

/// However it ends, both sides are closed, and see that.
async fn pass_on(mut client: TcpStream, port: u16) {
    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
        client.set_nodelay(true).ok();
        server.set_nodelay(true).ok();
        copy_bidirectional(&mut client, &mut server).await.ok();
    }
}
