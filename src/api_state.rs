//! The state that handlers share.

use std::ops::Deref;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::edge::AllowedHosts;
use crate::feed::places::Places;
use crate::http::auth::Secrets;
use crate::http::route;
use crate::inbox::demo::Demo;
use crate::media::fetch::Media;

/// A route whose handler works with [`ApiState`].
pub type Route = route::Route<ApiState>;

/// The state that handlers share.
#[derive(Debug, Clone)]
pub struct ApiState(Arc<Parts>);

/// The parts of the state.
#[derive(Debug)]
pub struct Parts {
    /// The running gateway.
    pub app: Arc<App>,
    /// Cancelled when the process stops: then it refuses requests.
    pub stopping: CancellationToken,
    /// What callers must know.
    pub secrets: Arc<Secrets>,
    /// The names of this machine that callers may use, where they need no secret.
    pub hosts: Arc<AllowedHosts>,
    /// Lets a made-up customer write; only where the mock provider is built in.
    pub demo: Option<Demo>,
    /// Fetches files of messages; only where WhatsApp is connected.
    pub media: Option<Arc<Media>>,
    /// The places for streams of the feed.
    pub places: Arc<Places>,
    /// The metrics of this process.
    pub metrics: PrometheusHandle,
}

impl From<Parts> for ApiState {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for ApiState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
