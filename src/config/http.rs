//! The HTTP servers: where they listen, what clients may do, and how they stop.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::edge::{AllowedHosts, listen_address};
use crate::process::environment;

/// The options for the address to listen on.
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

/// The options for the address of a worker's metrics.
#[derive(Debug, Clone, Args)]
pub struct MetricsArgs {
    /// Where to serve /metrics, /health and /ready, such as 127.0.0.1:9100, localhost:9100, :9100
    /// or 0.0.0.0; unset: nowhere
    #[arg(long, env = "METRICS_ADDR", value_name = "ADDRESS", value_parser = metrics_addr)]
    metrics_addr: Option<MetricsAddr>,
    #[command(flatten)]
    listen: ListenArgs,
}

impl MetricsArgs {
    /// That address, if it is asked for. HOST and PORT fill in what it leaves out.
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

/// The options that limit clients.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// How long a client may take to send a request's headers, or to take 16 KiB of its answer (or
    /// the rest), in milliseconds
    #[arg(long, env = "CLIENT_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=600_000), value_name = "MS")]
    client_timeout_ms: u64,
    /// Addresses, and networks such as 10.0.0.0/8, comma-separated, of proxies that callers come
    /// through: any other address has at most a quarter of the connections; unset: this machine's
    /// own, which always count as proxies
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "NETWORKS", value_parser = networks)]
    trusted_proxies: Option<Networks>,
}

impl ClientArgs {
    /// How long a client may take.
    #[must_use]
    pub fn client_timeout(&self) -> Duration {
        Duration::from_millis(self.client_timeout_ms)
    }

    /// The networks of proxies.
    #[must_use]
    pub fn proxies(&self) -> Vec<IpNet> {
        let Networks(proxies) = self.trusted_proxies.clone().unwrap_or_default();
        proxies
    }
}

#[derive(Debug, Clone, Default)]
struct Networks(Vec<IpNet>);

/// Networks or single addresses. Empty items are ignored.
fn networks(text: &str) -> Result<Networks, &'static str> {
    let network = |item: &str| {
        let address = item.parse::<IpAddr>().map(IpNet::from);
        address.or_else(|_| item.parse::<IpNet>())
    };
    let networks: Result<_, _> = environment::items(text).map(network).collect();
    networks
        .map(Networks)
        .map_err(|_| "must be addresses or networks, such as 10.0.0.7, 10.0.0.0/8 or fd00::/8")
}

/// The options for the names and origins that callers may use.
#[derive(Debug, Clone, Args)]
pub struct HostArgs {
    /// Host names, comma-separated and without ports, that requests may be addressed to beside
    /// localhost, where neither keys nor signatures are required; *.example.com: its subdomains, *:
    /// any; unset: on a loopback address none, else any
    #[arg(long, env = "ALLOWED_HOSTS", value_name = "NAMES", value_delimiter = ',', value_parser = AllowedHosts::parse_name)]
    allowed_hosts: Vec<String>,
    /// Origins of the gateway's own pages, comma-separated, such as `https://gateway.example`, for
    /// a proxy that changes Host: pages of other origins are refused, without keys and by cookie
    #[arg(long, env = "PUBLIC_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = AllowedHosts::parse_origin)]
    public_origins: Vec<String>,
}

impl HostArgs {
    /// Those names and origins, for a listener on this address.
    #[must_use]
    pub fn hosts(&self, address: IpAddr) -> AllowedHosts {
        AllowedHosts::new(address, &self.allowed_hosts, &self.public_origins)
    }
}

/// Whether other machines can connect to a listener on this address.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    !address.to_canonical().is_loopback()
}

/// The options for stopping.
#[derive(Debug, Clone, Args)]
pub struct ShutdownArgs {
    /// How long running work may take to finish after SIGTERM or Ctrl-C, in milliseconds
    #[arg(long, env = "SHUTDOWN_TIMEOUT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(0..=600_000), value_name = "MS")]
    shutdown_timeout_ms: u64,
}

impl ShutdownArgs {
    /// How long running work may take to finish.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms)
    }
}
