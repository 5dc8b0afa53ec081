//! The configuration: every setting is an option with an environment variable and a limit. Secrets
//! are read from the environment or from files only.

mod backends;
mod database;
mod delivery;
mod feed;
mod http;
mod mock;
mod otel;
mod retention;
mod secrets;
mod usage;
mod whatsapp;

pub use self::backends::Backends;
pub use self::database::{Database, DatabaseArgs};
pub use self::delivery::{AmbiguousPolicy, DeliveryArgs, DeliveryOrder, ProviderArgs, WorkerArgs};
pub use self::feed::FeedArgs;
pub use self::http::{ClientArgs, HostArgs, ListenArgs, MetricsArgs, ShutdownArgs, is_public};
pub use self::mock::MockArgs;
pub use self::otel::TraceArgs;
pub use self::retention::RetentionArgs;
pub use self::secrets::{credentials, secrets};
pub use self::whatsapp::{WhatsappArgs, check_exposure};
