//! What handlers work with.

use std::ops::Deref;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::edge::AllowedHosts;
use crate::http::auth::Secrets;

/// What handlers work with: one for all of them.
#[derive(Debug, Clone)]
pub struct ApiState(Arc<Parts>);

/// What it is made of.
#[derive(Debug)]
pub struct Parts {
    /// The running gateway.
    pub app: Arc<App>,
    /// Cancelled when the process stops: nothing new is taken.
    pub stopping: CancellationToken,
    /// Who may call.
    pub secrets: Arc<Secrets>,
    /// The names that callers may address it by, where they need no secret.
    pub hosts: Arc<AllowedHosts>,
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
