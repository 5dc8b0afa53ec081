//! What happens to the database, and when service could be back.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

use crate::stage::Stage;

/// How long it takes until somebody sees that a primary is gone, as a cluster's manager would.
const NOTICE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Scenario {
    /// The primary is killed, and the standby promoted
    Kill,
    /// The primary is stopped in an orderly way, the standby promoted, and the old one made its
    /// standby
    Switch,
    /// The primary is put to sleep, the standby promoted, all connections are cut; the old one
    /// wakes up, out of reach
    Sleep,
    /// The same, but connections stay: the old one wakes up as a second primary
    Kept,
    /// All connections are cut and lead to the standby for a while, whose replay is paused, and
    /// stay there
    Landed,
    /// The standby is put to sleep for a while: commits wait
    Alone,
    /// The standby sleeps, the primary crashes and restarts; then it is killed, and the standby
    /// promoted
    Twice,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "primary killed, standby promoted",
            Self::Switch => "planned switch",
            Self::Sleep => "primary asleep, connections cut",
            Self::Kept => "primary asleep, connections kept",
            Self::Landed => "connections land on the standby",
            Self::Alone => "standby asleep: commits wait",
            Self::Twice => "standby asleep, primary crashes twice",
        }
    }

    /// What can be had without a proxy.
    pub fn needs_proxy(self) -> bool {
        !matches!(self, Self::Kill | Self::Switch)
    }

    /// Whether a read may be answered by a server that is primary no more: it is reached still, and
    /// nothing tells.
    pub fn may_read_stale(self) -> bool {
        self == Self::Kept
    }

    /// Does it to the database; the moment since when service could be back.
    pub async fn strike(self, stage: &mut Stage) -> Instant {
        match self {
            Self::Kill => {
                stage.cluster.primary.kill().await;
                tokio::time::sleep(NOTICE).await;
                stage.promote().await;
            }
            Self::Switch => {
                stage.cluster.primary.stop().await;
                stage.promote().await;
            }
            Self::Sleep => {
                stage.cluster.primary.sleep();
                tokio::time::sleep(NOTICE).await;
                stage.promote().await;
                stage.proxy.cut();
            }
            Self::Kept => {
                stage.cluster.primary.sleep();
                tokio::time::sleep(NOTICE).await;
                stage.promote().await;
                let promoted = Instant::now();
                // Before the gateway loses patience: what it has asked for meanwhile is done now,
                // by a primary of the past.
                tokio::time::sleep(NOTICE).await;
                stage.cluster.standby.wake();
                return promoted;
            }
            Self::Landed => {
                stage
                    .cluster
                    .standby
                    .run("select pg_wal_replay_pause()")
                    .await;
                stage.proxy.lead_to(stage.cluster.standby.port);
                stage.proxy.cut();
                tokio::time::sleep(NOTICE * 3).await;
                stage.proxy.lead_to(stage.cluster.primary.port);
            }
            Self::Alone => {
                stage.cluster.standby.sleep();
                // Longer than callers are kept waiting.
                tokio::time::sleep(NOTICE * 7).await;
                stage.cluster.standby.wake();
            }
            Self::Twice => {
                stage.cluster.standby.sleep();
                tokio::time::sleep(NOTICE).await;
                // It comes back with what it has never acknowledged, and is asked again.
                stage.cluster.primary.kill().await;
                stage.cluster.restart_primary().await;
                tokio::time::sleep(NOTICE * 4).await;
                stage.cluster.primary.kill().await;
                // Nor does the standby find it in what it has not read yet.
                stage.cluster.restart_standby().await;
                stage.promote().await;
            }
        }
        Instant::now()
    }

    /// Makes it a primary with a synchronous standby again.
    pub async fn restore(self, stage: &mut Stage) {
        match self {
            Self::Kill | Self::Switch | Self::Kept | Self::Twice => {
                stage.cluster.replace_standby().await;
            }
            Self::Sleep => {
                stage.cluster.standby.wake();
                stage.cluster.replace_standby().await;
            }
            Self::Landed => {
                stage
                    .cluster
                    .standby
                    .run("select pg_wal_replay_resume()")
                    .await;
            }
            Self::Alone => {}
        }
    }
}
