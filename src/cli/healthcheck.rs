//! `gateway healthcheck`: for an image that has no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Url;

use crate::config::MetricsArgs;
use crate::peer::Peer;

/// Shorter than the time that the container files give the whole check.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Ask the gateway of this machine whether it is well; the exit code is 0 if it is
///
/// Asks the server at METRICS_ADDR, where a worker has its probes. Without it, asks the one at HOST
/// and PORT.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  gateway healthcheck\n  gateway healthcheck /ready")]
pub struct Args {
    /// What to ask: whether the process answers (/health), or whether it can work (/ready)
    #[arg(default_value = "/health", value_parser = ["/health", "/ready"])]
    path: String,
    #[command(flatten)]
    metrics: MetricsArgs,
}

pub async fn run(args: &Args) -> anyhow::Result<()> {
    let address = reachable(args.metrics.probes());
    let url: Url = format!("http://{address}{}", args.path).parse()?;
    let peer = Peer::at(url);
    let http = peer.built(peer.client().timeout(TIMEOUT).build())?;
    let answer = http.get(peer.url().clone()).send().await;
    let answer = answer.with_context(|| format!("no gateway answers at {address}"))?;
    let status = answer.status();
    ensure!(status.is_success(), "{} answers {status}", args.path);
    Ok(())
}

/// A server that listens on every address listens on loopback too.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
