//! What plays: a PostgreSQL of its own with a journal of every lease, the proxy in front of it, the
//! mock provider.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use mock_meta_provider::{Behaviour, WhatsappBehaviour};
use rand::rngs::StdRng;
use sqlx::{ConnectOptions, PgPool};
use tokio_util::sync::CancellationToken;

use crate::load::{ACCEPTED, Order, Role, Scene, Wire};
use crate::proxy::Proxy;
use crate::support::{Database, Postgres, Run, Stopped, eventually, socket_of};
use crate::{Break, Options};

/// What goes wrong at the provider. Few 429: each pauses its whole channel, for as long as that
/// message would wait.
const BEHAVIOUR: Behaviour = Behaviour {
    server_error_rate: 0.08,
    rate_limit_rate: 0.01,
    lost_answer_rate: 0.04,
    unreadable_rate: 0.02,
    reset_rate: 0.04,
    hang_rate: 0.005,
    hang_ms: 2000,
    delay_max_ms: 60,
    ..Behaviour::CALM
};
/// On WhatsApp each of these that is ambiguous costs a wait for the status.
const WHATSAPP: Behaviour = Behaviour {
    server_error_rate: 0.02,
    lost_answer_rate: 0.03,
    unreadable_rate: 0.01,
    reset_rate: 0.02,
    hang_rate: 0.002,
    ..BEHAVIOUR
};
/// What its statuses are like; each message has some.
const STATUSES: WhatsappBehaviour = WhatsappBehaviour {
    status_delay_max_ms: 100,
    status_early_rate: 0.2,
    status_duplicate_rate: 0.2,
    status_out_of_order_rate: 0.2,
    status_batch_rate: 0.2,
    status_foreign_rate: 0.1,
    status_bare_rate: 0.1,
    ..WhatsappBehaviour::CALM
};
/// Remembers who held which lease.
const JOURNAL: &str = "
    create table leases (
      token uuid, message_id uuid, life integer not null, ends_at timestamptz not null, taken_over_at timestamptz,
      primary key (message_id, token));
    create function keep() returns trigger language plpgsql as $$ begin
      if tg_op = 'UPDATE' and old.lease_token is not null and new.lease_token is distinct from old.lease_token and new.lease_token is not null then
        update leases set taken_over_at = clock_timestamp() where message_id = old.message_id and token = old.lease_token;
      end if;
      if new.lease_token is not null and (tg_op = 'INSERT' or new.lease_token is distinct from old.lease_token) then
        insert into leases (token, message_id, life, ends_at)
        values (new.lease_token, new.message_id, current_setting('crash.life')::integer, new.due_at);
      end if;
      return new;
    end $$;
    create trigger keep after insert or update on deliveries for each row execute function keep()";

/// How a process was killed: of which kind of moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    Random,
    Point(gateway::crash::Point),
    /// Together with all others and the database.
    Blackout,
}

/// A kill, and the number of the process's life that it ended.
#[derive(Debug, Clone, Copy)]
pub struct Kill {
    pub role: Role,
    pub moment: Moment,
    pub life: i32,
    pub at: DateTime<Utc>,
}

/// Everything that processes and callers share.
pub struct Stage {
    pub scene: Arc<Scene>,
    pub proxy: Proxy,
    pub kills: Mutex<Vec<Kill>>,
    /// When the database was killed, and when it was back.
    pub outages: Mutex<Vec<(DateTime<Utc>, DateTime<Utc>)>>,
    /// Nothing is killed or cut any more.
    pub calm: CancellationToken,
    lives: AtomicU32,
    /// Whether messages are sent again without waiting for a status.
    impatient: bool,
    // Dropped before its server.
    pub database: Database,
    postgres: Postgres,
}

impl Stage {
    pub async fn set(options: &Options, order: Order, wire: Wire, rng: &mut StdRng) -> Self {
        let postgres = Postgres::start().await;
        let database = postgres.database().await;
        database.migrate().await;
        database.execute(ACCEPTED).await;
        database.execute(JOURNAL).await;
        let socket = socket_of(&postgres);
        let impatient = options.broken == Some(Break::Reconcile);
        let behaviour = Behaviour {
            dedupe: options.broken != Some(Break::Dedupe),
            ..match wire {
                Wire::MockMeta => BEHAVIOUR,
                // So that it is noticed for certain.
                Wire::Whatsapp if impatient => Behaviour {
                    lost_answer_rate: 0.3,
                    ..WHATSAPP
                },
                Wire::Whatsapp => WHATSAPP,
            }
        };
        let (seed, pause) = (options.random_seed, Duration::ZERO);
        let scene = Scene::set(
            (behaviour, STATUSES),
            seed,
            options.servers,
            (order, wire),
            pause,
        )
        .await;
        Self {
            scene: Arc::new(scene),
            proxy: Proxy::start(socket, rng).await,
            kills: Mutex::default(),
            outages: Mutex::default(),
            calm: CancellationToken::new(),
            lives: AtomicU32::new(0),
            impatient,
            database,
            postgres,
        }
    }

    pub fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    /// A process and the number of its life, which its connections tell the journal.
    pub fn process(&self, role: Role) -> (Run, i32) {
        let life = i32::try_from(self.lives.fetch_add(1, Ordering::Relaxed)).unwrap();
        let options = self.database.options();
        let url = format!(
            "postgres://{}@127.0.0.1:{}/{}?sslmode=disable&options[crash.life]={life}",
            options.get_username(),
            self.proxy.port,
            options.get_database().unwrap()
        );
        // Few enough at once that workers get something to do, too.
        let run = self.scene.process(role, &url).envs(&[
            ("SEND_CONCURRENCY", "8"),
            ("SEND_WAIT_MS", "150"),
            ("WORKER_CONCURRENCY", "16"),
        ]);
        let run = if self.impatient {
            run.envs(&[("AMBIGUOUS_POLICY", "retry"), ("RECONCILE_WAIT_MS", "1")])
        } else {
            run
        };
        (run, life)
    }

    /// Kills all processes of PostgreSQL, and waits until it is back by itself.
    pub async fn restart_database(&self) {
        let killed_at = Utc::now();
        Stopped::all_of(&self.postgres).kill();
        let options = self.database.options();
        // Not through the pool, which waits longer and longer between its tries.
        eventually("PostgreSQL is back", async || options.connect().await.ok()).await;
        self.outages.lock().unwrap().push((killed_at, Utc::now()));
    }

    /// Watches how much is unsent, until the end.
    pub async fn watch(&self) {
        let mut said_at = Instant::now();
        loop {
            // While the database is away, the last number stands.
            self.read_unsent().await;
            if said_at.elapsed() > Duration::from_secs(5) {
                said_at = Instant::now();
                self.say();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// How many messages are not sent yet; none while the database is away.
    pub async fn read_unsent(&self) -> Option<i64> {
        let unsent = sqlx::query_scalar("select count(*) from deliveries where due_at is not null");
        let unsent = unsent.fetch_one(self.pool()).await.ok()?;
        self.scene.unsent.store(unsent, Ordering::Relaxed);
        Some(unsent)
    }

    fn say(&self) {
        let kills = self.kills.lock().unwrap().len();
        let cuts: u64 = self.proxy.cuts().values().sum();
        let restarts = self.outages.lock().unwrap().len();
        let sent = self.scene.mock.stats().total_messages;
        let unsent = self.scene.unsent.load(Ordering::Relaxed);
        eprintln!(
            "{kills} kills, {cuts} cuts, {restarts} restarts of PostgreSQL; {sent} messages delivered, {unsent} to go"
        );
    }
}
