//! Where to listen, and what is borne from whoever calls.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use mock_meta_provider::Hosts;

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

/// What is borne from clients.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// How long a client may take for a request's headers, or to take some of its answer, in milliseconds
    #[arg(long, env = "CLIENT_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=600_000), value_name = "MS")]
    client_timeout_ms: u64,
}

impl ClientArgs {
    /// How long.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.client_timeout_ms)
    }
}

/// Which names callers may use.
#[derive(Debug, Clone, Args)]
pub struct HostArgs {
    /// Host names, comma-separated and without ports, that requests may be addressed to beside localhost, where neither keys nor
    /// signatures are asked for; *.example.com: its subdomains, *: any; unset: on a loopback address none, else any
    #[arg(long, env = "ALLOWED_HOSTS", value_name = "NAMES", value_delimiter = ',', value_parser = Hosts::check)]
    allowed_hosts: Vec<String>,
}

impl HostArgs {
    /// Them, for a listener on this address.
    #[must_use]
    pub fn hosts(&self, address: IpAddr) -> Hosts {
        Hosts::new(address, &self.allowed_hosts)
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
    mock_meta_provider::listen_address(text)
        .ok_or_else(|| "must be an IP address or localhost".to_owned())
}
