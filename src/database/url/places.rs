//! Where the servers of a database are.

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::parameters::variable;
use super::parts::{NAME, NOWHERE, UrlParts, not_a_url};

/// The most servers of one database.
const MAX_SERVERS: usize = 16;
/// The parameters that say where a server is.
const PLACE: [&str; 3] = ["host", "hostaddr", "port"];

/// Where one server is.
#[derive(Default)]
pub(super) struct Place {
    /// As in the URL, with its port.
    authority: Option<String>,
    /// An address, a name, or the directory of a socket. It wins over the URL's.
    host: Option<String>,
    /// It wins over the URL's.
    port: Option<String>,
}

impl Place {
    pub(super) fn server(
        self,
        parts: &UrlParts<'_>,
        asked_for: &[(String, String)],
    ) -> Result<PgConnectOptions, String> {
        let mut url = parts.url(self.authority.as_deref().unwrap_or(NOWHERE))?;
        let others = asked_for
            .iter()
            .filter(|(name, _)| !PLACE.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let place = [("host", &self.host), ("port", &self.port)];
        let place = place
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)));
        url.set_query(None);
        url.query_pairs_mut().extend_pairs(others.chain(place));
        PgConnectOptions::from_url(&url).map_err(|_| not_a_url())
    }
}

/// Where the servers are: what the parameters say, else the URL itself, else libpq's variables,
/// else a socket that is found.
pub(super) fn places(
    parts: &UrlParts<'_>,
    asked_for: &[(String, String)],
) -> Result<Vec<Place>, String> {
    let mut places = hosts(parts, asked_for)?;
    let is_empty = |place: &Place| {
        let authority = place.authority.as_deref();
        authority.or(place.host.as_deref()) == Some("")
    };
    if places.iter().any(is_empty) {
        return Err(format!("{NAME} names a host that is empty"));
    }
    if places.len() > MAX_SERVERS {
        return Err(format!("{NAME} names more than {MAX_SERVERS} hosts"));
    }
    set_ports(&mut places, parts, asked_for)?;
    Ok(places)
}

fn hosts(parts: &UrlParts<'_>, asked_for: &[(String, String)]) -> Result<Vec<Place>, String> {
    let listed = |hosts: &str| -> Vec<Place> {
        let place = |host: &str| Place {
            host: Some(host.to_owned()),
            ..Place::default()
        };
        hosts.split(',').map(place).collect()
    };
    if let Some(hosts) = last_given(asked_for, &["host", "hostaddr"]) {
        return Ok(listed(hosts));
    }
    if !parts.hosts.is_empty() {
        let place = |authority: &str| {
            // The brackets belong to the URL, not to the address.
            let address = authority
                .strip_prefix('[')
                .and_then(|it| it.split_once(']'));
            Place {
                authority: Some(authority.to_owned()),
                host: address.map(|(address, _)| address.to_owned()),
                port: None,
            }
        };
        return Ok(parts.hosts.split(',').map(place).collect());
    }
    if let Some(hosts) = variable("PGHOSTADDR").or_else(|| variable("PGHOST")) {
        return Ok(listed(&hosts));
    }
    let found = PgConnectOptions::new_without_pgpass();
    if !found.get_host().starts_with('/') {
        return Err(format!("{NAME} names neither a host nor a socket"));
    }
    Ok(listed(found.get_host()))
}

fn set_ports(
    places: &mut [Place],
    parts: &UrlParts<'_>,
    asked_for: &[(String, String)],
) -> Result<(), String> {
    // The ports are those of the URL even if a parameter names other hosts.
    let own: Vec<Option<&str>> = parts.hosts.split(',').map(port_of).collect();
    if own.len() != 1 && own.len() != places.len() {
        return Err(format!("{NAME} must name as many hosts as its parameter"));
    }
    for (place, port) in places.iter_mut().zip(own.iter().cycle()) {
        place.port = port.map(str::to_owned);
    }
    let parameter = last_given(asked_for, &["port"]);
    let (source, ports) = match parameter {
        Some(ports) => (format!("{NAME}: port"), ports.to_owned()),
        None => match variable("PGPORT") {
            Some(ports) => ("PGPORT".to_owned(), ports),
            None => return Ok(()),
        },
    };
    let ports: Vec<&str> = ports.split(',').collect();
    if !ports.iter().all(|port| is_port(port)) {
        return Err(format!("{source} must be from 1 to 65535"));
    }
    if ports.len() != 1 && ports.len() != places.len() {
        return Err(format!(
            "{source} must be one for all hosts, or one for each"
        ));
    }
    for (place, port) in places.iter_mut().zip(ports.iter().cycle()) {
        // A variable only fills in what the URL leaves open.
        if parameter.is_some() || place.port.is_none() {
            place.port = Some((*port).to_owned());
        }
    }
    Ok(())
}

/// The last of these parameters that is not empty.
fn last_given<'a>(asked_for: &'a [(String, String)], names: &[&str]) -> Option<&'a str> {
    let is_one =
        |(name, value): &&(String, String)| names.contains(&name.as_str()) && !value.is_empty();
    asked_for.iter().rfind(is_one).map(|(_, value)| &**value)
}

/// The port behind a host, if there is one.
fn port_of(authority: &str) -> Option<&str> {
    let behind = authority.rsplit(']').next()?;
    let (_, port) = behind.rsplit_once(':')?;
    (!port.is_empty()).then_some(port)
}

fn is_port(value: &str) -> bool {
    value.parse::<u16>().is_ok_and(|port| port > 0)
}
