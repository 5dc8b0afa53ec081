//! What plays: a primary and its synchronous standby, the proxy before them, the mock provider, and
//! the processes of the gateway.

use std::sync::Arc;
use std::time::Duration;

use mock_meta_provider::{Behaviour, WhatsappBehaviour};
use sqlx::ConnectOptions as _;

use crate::load::{ACCEPTED, Role, Scene, Wire};
use crate::proxy::Proxy;
use crate::support::{Cluster, Program, Run, eventually};
use crate::{Break, Options, Way};

const BEHAVIOUR: Behaviour = Behaviour {
    server_error_rate: 0.05,
    lost_answer_rate: 0.03,
    reset_rate: 0.02,
    delay_max_ms: 100,
    ..Behaviour::CALM
};
/// How long a caller rests: the time without service is measured, not the speed.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Stage {
    pub scene: Arc<Scene>,
    pub proxy: Proxy,
    pub cluster: Cluster,
    way: Way,
}

impl Stage {
    pub async fn set(options: &Options, way: Way) -> Self {
        let cluster = Cluster::start_with(options.broken != Some(Break::Synchronous)).await;
        cluster.migrate().await;
        cluster.primary.run(ACCEPTED).await;
        let seed = options.random_seed;
        let scene = Scene::set(
            (BEHAVIOUR, WhatsappBehaviour::CALM),
            seed,
            options.servers,
            (options.order, Wire::MockMeta),
            PAUSE,
        )
        .await;
        Self {
            scene: Arc::new(scene),
            proxy: Proxy::start(cluster.primary.port).await,
            cluster,
            way,
        }
    }

    /// Starts the processes, and waits until they are ready.
    pub async fn start(&self, options: &Options) -> Vec<Program> {
        let servers = (0..options.servers).map(|_| self.process(Role::Server).start());
        let servers: Vec<Program> = servers.collect();
        let workers = (0..options.workers).map(|_| self.process(Role::Worker).start());
        let workers: Vec<Program> = workers.collect();
        for (server, place) in servers.iter().zip(self.scene.servers.iter()) {
            server.logged("ready").await;
            *place.lock().unwrap() = Some(server.url().to_owned());
        }
        for worker in &workers {
            worker.logged("working").await;
        }
        servers.into_iter().chain(workers).collect()
    }

    fn process(&self, role: Role) -> Run {
        let (primary, standby) = (self.cluster.primary.port, self.cluster.standby.port);
        let url = match self.way {
            Way::Proxy => Cluster::url(&format!("127.0.0.1:{}", self.proxy.port)),
            Way::Hosts => {
                let hosts = format!("127.0.0.1:{standby},127.0.0.1:{primary}");
                format!("{}&target_session_attrs=read-write", Cluster::url(&hosts))
            }
        };
        let run = self.scene.process(role, &url).env("SEND_WAIT_MS", "500");
        match role {
            Role::Server => run.args(&["--no-worker"]),
            Role::Worker => run,
        }
    }

    /// The standby's turn: what it lacks is lost.
    pub async fn promote(&mut self) {
        self.cluster.promote().await;
        self.proxy.lead_to(self.cluster.primary.port);
    }

    /// Waits until a server answers that nobody waits for.
    pub async fn read_unsent(&self) -> Option<i64> {
        let options = self.cluster.primary.options();
        eventually("the primary answers", async || options.connect().await.ok()).await;
        self.cluster
            .primary
            .try_count("select count(*) from deliveries")
            .await
    }
}
