//! Where to listen.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use crate::edge::listen_address;

/// Where to listen.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// The address to listen on
    #[arg(long, env = "HOST", default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,
    /// The port to listen on; 0: any that is free
    #[arg(long, env = "PORT", default_value_t = 3000)]
    port: u16,
}

impl ListenArgs {
    /// The address and the port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

/// Where a worker shows its metrics.
#[derive(Debug, Clone, Args)]
pub struct MetricsArgs {
    /// Where to serve /metrics, /health and /ready, such as 127.0.0.1:9100, localhost:9100, :9100 or 0.0.0.0; unset: nowhere
    #[arg(long, env = "METRICS_ADDR", value_name = "ADDRESS", value_parser = metrics_addr)]
    metrics_addr: Option<MetricsAddr>,
    #[command(flatten)]
    listen: ListenArgs,
}

impl MetricsArgs {
    /// There, where it is asked for; what it does not say is said by HOST and PORT.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let MetricsAddr { host, port } = self.metrics_addr?;
        let ListenArgs {
            host: usual_host,
            port: usual_port,
        } = self.listen;
        Some(SocketAddr::new(
            host.unwrap_or(usual_host),
            port.unwrap_or(usual_port),
        ))
    }

    /// Where a process with this environment answers /health and /ready.
    #[must_use]
    pub fn probes(&self) -> SocketAddr {
        self.address().unwrap_or_else(|| self.listen.address())
    }
}

#[derive(Debug, Clone, Copy)]
struct MetricsAddr {
    host: Option<IpAddr>,
    port: Option<u16>,
}

fn metrics_addr(text: &str) -> Result<MetricsAddr, String> {
    if let Ok(host) = host(text) {
        let (host, port) = (Some(host), None);
        return Ok(MetricsAddr { host, port });
    }
    let wrong = || "must be an IP address or localhost, a port behind a colon, or both".to_owned();
    let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    Ok(MetricsAddr {
        host: match name {
            "" => None,
            name => Some(host(name).map_err(|_| wrong())?),
        },
        port: Some(port.parse().map_err(|_| wrong())?),
    })
}

fn host(text: &str) -> Result<IpAddr, String> {
    listen_address(text).ok_or_else(|| "must be an IP address or localhost".to_owned())
}
