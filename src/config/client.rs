//! Limits on clients, and the names and origins that they may use.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::edge::AllowedHosts;
use crate::process::environment;

/// Limits on clients.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// How long a client may take for a request's headers, or to take 16 KiB of its answer (or the rest), in milliseconds
    #[arg(long, env = "CLIENT_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=600_000), value_name = "MS")]
    client_timeout_ms: u64,
    /// Addresses, and networks such as 10.0.0.0/8, comma-separated, of proxies that callers come through: any other address has at
    /// most a quarter of the connections; unset: this machine's own, which always count as proxies
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "NETWORKS", value_parser = networks)]
    trusted_proxies: Option<Networks>,
}

impl ClientArgs {
    /// How long.
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

/// Networks, or single addresses. Nothing between two commas is nobody.
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

/// Which names callers may use.
#[derive(Debug, Clone, Args)]
pub struct HostArgs {
    /// Host names, comma-separated and without ports, that requests may be addressed to beside localhost, where neither keys nor
    /// signatures are asked for; *.example.com: its subdomains, *: any; unset: on a loopback address none, else any
    #[arg(long, env = "ALLOWED_HOSTS", value_name = "NAMES", value_delimiter = ',', value_parser = AllowedHosts::parse_name)]
    allowed_hosts: Vec<String>,
    /// Origins of the gateway's own pages, comma-separated, such as `https://gateway.example`, where a proxy in front changes Host:
    /// without keys, pages of others are refused
    #[arg(long, env = "PUBLIC_ORIGINS", value_name = "ORIGINS", value_delimiter = ',', value_parser = AllowedHosts::parse_origin)]
    public_origins: Vec<String>,
}

impl HostArgs {
    /// Them, for a listener on this address.
    #[must_use]
    pub fn hosts(&self, address: IpAddr) -> AllowedHosts {
        AllowedHosts::new(address, &self.allowed_hosts, &self.public_origins)
    }
}

/// Whether others than this machine can connect to a listener on this address.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    !address.to_canonical().is_loopback()
}
