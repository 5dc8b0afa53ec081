//! What is understood of a `DATABASE_URL`: all of it, or it is refused, naming what is wrong and never a secret.

use std::fs::File;
use std::net::IpAddr;

use reqwest::Url;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::target::Target;

/// The variable that messages name, also for its option.
const NAME: &str = "DATABASE_URL";
/// The most servers of one database.
const MAX_SERVERS: usize = 16;
/// Stands where a host is, until it is known.
const NOWHERE: &str = "localhost";
/// The parameters that say where a server is.
const PLACE: [&str; 3] = ["host", "hostaddr", "port"];
/// Which of several servers is used, in libpq's words: they mean the same here, since none is that cannot be written to.
const SESSIONS: [&str; 3] = ["any", "primary", "read-write"];
/// Parameters that only libpq knows, each with the values that ask for what happens anyway.
const HARMLESS: [(&str, &[&str]); 5] = [
    ("channel_binding", &["prefer", "disable"]),
    ("gssencmode", &["prefer", "disable"]),
    ("load_balance_hosts", &["disable"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
];
/// Files, by their parameters and the variable that stands in for them.
const FILES: [(&[&str], &str); 3] = [
    (&["sslrootcert", "ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT"),
    (&["sslcert", "ssl-cert"], "PGSSLCERT"),
    (&["sslkey", "ssl-key"], "PGSSLKEY"),
];

/// How to connect to the database at this URL; what it leaves open, libpq's variables say.
///
/// # Errors
/// What is wrong with it, or with one of those.
pub fn parse(text: &str) -> Result<Target, String> {
    let shape = Shape::of(text)?;
    let mut asked_for = Vec::new();
    for (name, value) in shape.url(NOWHERE)?.query_pairs() {
        if is_asked_for(text, &name, &value)? {
            asked_for.push((name.into_owned(), value.into_owned()));
        }
    }
    let places = places(&shape, &asked_for)?;
    check_variables(&asked_for)?;
    let servers: Result<Vec<_>, _> = places
        .into_iter()
        .map(|place| place.server(&shape, &asked_for))
        .collect();
    let servers = servers?;
    let may_encrypt = |server: &PgConnectOptions| {
        !matches!(server.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow)
    };
    if servers.iter().any(may_encrypt) {
        check_files(&asked_for)?;
    }
    Ok(Target::new(servers))
}

/// A URL's text, taken apart where there may be several hosts.
struct Shape<'a> {
    /// Up to the hosts.
    before: &'a str,
    /// With their ports.
    hosts: &'a str,
    after: &'a str,
}

impl<'a> Shape<'a> {
    /// Refuses what a URL's parser takes for something else than was meant.
    fn of(text: &'a str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if !["postgres", "postgresql"].contains(&&*scheme.to_ascii_lowercase()) {
            return Err(format!(
                "{NAME} must begin with postgres:// or postgresql://, such as postgres://user:password@host:5432/database"
            ));
        }
        if rest.contains('#') {
            return Err(format!("{NAME} has a #: in a password, write it as %23"));
        }
        let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let hosts = authority
            .rsplit_once('@')
            .map_or(authority, |(_, hosts)| hosts);
        let path = after.split('?').next().unwrap_or_default();
        if path.contains('@') || (after.starts_with('?') && after.contains('@')) {
            return Err(format!(
                "{NAME} has an @ behind its host: in a password, write / as %2F and ? as %3F"
            ));
        }
        let before = &text[..text.len() - after.len() - hosts.len()];
        Ok(Self {
            before,
            hosts,
            after,
        })
    }

    /// The URL with this host instead.
    fn url(&self, host: &str) -> Result<Url, String> {
        let Self { before, after, .. } = self;
        Url::parse(&format!("{before}{host}{after}")).map_err(|_| not_a_url())
    }
}

/// Where one server is.
#[derive(Default)]
struct Place {
    /// As it is in the URL, with its port.
    authority: Option<String>,
    /// An address, a name, or a socket's directory; wins over the URL's.
    host: Option<String>,
    /// Wins over the URL's.
    port: Option<String>,
}

impl Place {
    fn server(
        self,
        shape: &Shape<'_>,
        asked_for: &[(String, String)],
    ) -> Result<PgConnectOptions, String> {
        let mut url = shape.url(self.authority.as_deref().unwrap_or(NOWHERE))?;
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

/// Where the servers are: what the parameters say, else the URL itself, else libpq's variables, else a socket that is found.
fn places(shape: &Shape<'_>, asked_for: &[(String, String)]) -> Result<Vec<Place>, String> {
    let given = |names: &[&str]| {
        let is_one =
            |(name, value): &&(String, String)| names.contains(&name.as_str()) && !value.is_empty();
        asked_for.iter().rfind(is_one).map(|(_, value)| &**value)
    };
    let listed = |hosts: &str| -> Vec<Place> {
        let place = |host: &str| Place {
            host: Some(host.to_owned()),
            ..Place::default()
        };
        hosts.split(',').map(place).collect()
    };
    let mut places = if let Some(hosts) = given(&["host", "hostaddr"]) {
        listed(hosts)
    } else if !shape.hosts.is_empty() {
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
        shape.hosts.split(',').map(place).collect()
    } else if let Some(hosts) = variable("PGHOSTADDR").or_else(|| variable("PGHOST")) {
        listed(&hosts)
    } else {
        let found = PgConnectOptions::new_without_pgpass();
        if !found.get_host().starts_with('/') {
            return Err(format!("{NAME} names neither a host nor a socket"));
        }
        listed(found.get_host())
    };
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
    // Also where a parameter names other hosts, the ports are those of the URL.
    let own: Vec<Option<&str>> = shape.hosts.split(',').map(port_of).collect();
    if own.len() != 1 && own.len() != places.len() {
        return Err(format!("{NAME} must name as many hosts as its parameter"));
    }
    for (place, port) in places.iter_mut().zip(own.iter().cycle()) {
        place.port = port.map(str::to_owned);
    }
    let (source, ports) = match given(&["port"]) {
        Some(ports) => (format!("{NAME}: port"), ports.to_owned()),
        None => match variable("PGPORT") {
            Some(ports) => ("PGPORT".to_owned(), ports),
            None => return Ok(places),
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
        // A variable is for what the URL leaves open.
        if given(&["port"]).is_some() || place.port.is_none() {
            place.port = Some((*port).to_owned());
        }
    }
    Ok(places)
}

/// The port behind a host, where one is there.
fn port_of(authority: &str) -> Option<&str> {
    let behind = authority.rsplit(']').next()?;
    let (_, port) = behind.rsplit_once(':')?;
    (!port.is_empty()).then_some(port)
}

/// Whether a parameter asks for something; one that is not understood is refused: it may be a promise.
fn is_asked_for(url: &str, name: &str, value: &str) -> Result<bool, String> {
    let must_be = |what: &str| Err(format!("{NAME}: {name} must be {what}"));
    match name {
        "sslmode" | "ssl-mode" if value.parse::<PgSslMode>().is_err() => {
            must_be("disable, allow, prefer, require, verify-ca or verify-full")
        }
        "hostaddr" if !value.split(',').all(|it| it.parse::<IpAddr>().is_ok()) => {
            must_be("an IP address")
        }
        "target_session_attrs" if SESSIONS.contains(&value) => Ok(false),
        "target_session_attrs" => must_be(
            "read-write, primary or any: the server is used that can be written to, and no other",
        ),
        "statement-cache-capacity" if value.parse::<usize>().is_err() => must_be("a whole number"),
        "sslrootcert" | "ssl-root-cert" | "ssl-ca" if value == "system" => Err(format!(
            "{NAME}: {name}=system is not supported; without it, the public authorities that are built in count"
        )),
        "sslmode"
        | "ssl-mode"
        | "sslrootcert"
        | "ssl-root-cert"
        | "ssl-ca"
        | "sslcert"
        | "ssl-cert"
        | "sslkey"
        | "ssl-key"
        | "statement-cache-capacity"
        | "host"
        | "hostaddr"
        | "port"
        | "dbname"
        | "user"
        | "password"
        | "application_name"
        | "options" => Ok(true),
        _ if name.starts_with("options[") && name.ends_with(']') => Ok(true),
        _ if is_harmless(name, value) => Ok(false),
        // Behind an @ there may be the end of a password.
        _ if url.contains('?')
            && url
                .rsplit('?')
                .next()
                .is_some_and(|query| query.contains('@')) =>
        {
            Err(format!(
                "{NAME} has a parameter that is not supported, and an @: in a password, write ? as %3F"
            ))
        }
        _ => Err(format!("{NAME}: the parameter {name} is not supported")),
    }
}

fn is_harmless(name: &str, value: &str) -> bool {
    HARMLESS
        .iter()
        .any(|(known, values)| *known == name && values.contains(&value))
}

/// What would be passed over in silence otherwise.
fn check_variables(asked_for: &[(String, String)]) -> Result<(), String> {
    let given = |names: &[&str]| {
        asked_for
            .iter()
            .any(|(name, _)| names.contains(&name.as_str()))
    };
    if !given(&["sslmode", "ssl-mode"])
        && variable("PGSSLMODE").is_some_and(|mode| mode.parse::<PgSslMode>().is_err())
    {
        return Err(
            "PGSSLMODE must be disable, allow, prefer, require, verify-ca or verify-full"
                .to_owned(),
        );
    }
    if variable("PGTARGETSESSIONATTRS").is_some_and(|value| !SESSIONS.contains(&&*value)) {
        return Err("PGTARGETSESSIONATTRS must be read-write, primary or any".to_owned());
    }
    if variable("PGCHANNELBINDING").is_some_and(|value| value == "require") {
        return Err("PGCHANNELBINDING=require is not supported".to_owned());
    }
    Ok(())
}

/// That what the connection is secured with is there, as far as a look can tell.
fn check_files(parameters: &[(String, String)]) -> Result<(), String> {
    for (names, variable) in FILES {
        let given = parameters
            .iter()
            .rfind(|(name, _)| names.contains(&name.as_str()));
        let (source, value) = match given {
            Some((name, value)) => (format!("{NAME}: {name}"), value.clone()),
            None => match std::env::var(variable) {
                Ok(value) => (variable.to_owned(), value),
                Err(_) => continue,
            },
        };
        if value.contains("-----") {
            // Not a file, but what would be in it.
            continue;
        }
        // A pipe can be read once only: by whoever connects.
        let is_missing = match std::fs::metadata(&value) {
            Ok(found) if found.is_file() => File::open(&value).err(),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = is_missing {
            return Err(format!("{source}: {value}: {error}"));
        }
    }
    Ok(())
}

fn is_port(value: &str) -> bool {
    value.parse::<u16>().is_ok_and(|port| port > 0)
}

/// What the environment says, where it says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn not_a_url() -> String {
    format!(
        "{NAME} is not a URL such as postgres://user:password@host:5432/database; in a user or a password, write % : / ? # and @ as %25 %3A %2F %3F %23 and %40"
    )
}

#[cfg(test)]
mod tests {
    use super::super::target::name;
    use super::*;

    fn refusal(url: &str) -> String {
        let refusal = parse(url).map(drop).expect_err(url);
        for secret in ["s3cret", "tail"] {
            assert!(!refusal.contains(secret), "{url}: {refusal}");
        }
        refusal
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name_and_without_secrets() {
        for (url, said) in [
            ("", "postgres://"),
            ("host:5432/db", "postgres://"),
            ("jdbc:postgresql://u:s3cret@h/db", "postgres://"),
            ("mysql://u:s3cret@h/db", "postgres://"),
            ("postgres:/u:s3cret@h/db", "postgres://"),
            ("postgres+ssl://u:s3cret@h/db", "postgres://"),
            ("postgres://u:s3cret#tail@h/db", "%23"),
            ("postgres://u:s3cret@h/db#tail", "%23"),
            ("postgres://u:s3cret/tail@h/db", "%2F"),
            ("postgres://u:s3cret/tail@h1,h2/db", "%2F"),
            ("postgres://u:1/s3cret@h/db", "%2F"),
            ("postgres://u:1?s3cret@h/db", "%3F"),
            ("postgres://u:1/2?s3cret=tail@h/db", "%3F"),
            ("postgres://u:s3cret?tail@h/db", "%3F"),
            ("postgres://u:s3cret:tail", "not a URL"),
            ("postgres://u:s3cret@h:99999/db", "not a URL"),
            ("postgres://u:s3cret@h1,h2:99999/db", "not a URL"),
            ("postgres://u:s3cret@h 1/db", "not a URL"),
            ("postgres://u:s3cret@h,[::1/db", "not a URL"),
            ("postgres://u:s3cret%ff@h/db", "not a URL"),
            ("postgres://u:s3cret@h1,,h3/db", "host that is empty"),
            ("postgres://u:s3cret@h1:1,/db", "host that is empty"),
            ("postgres:///db?host=,h2", "host that is empty"),
            ("postgres://h1,h2/db?port=1,2,3", "one for each"),
            ("postgres://h/db?port=1,2", "one for each"),
            ("postgres://h1,h2/db?port=1,x", "port must be"),
            ("postgres://h1,h2/db?host=a,b,c", "as many hosts"),
            ("postgres://a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q/db", "16"),
            (
                "postgres://u:s3cret@h/db?sslmode=no-verify",
                "sslmode must be disable",
            ),
            ("postgres://u:s3cret@h/db?ssl-mode=", "ssl-mode must be"),
            (
                "postgres://h/db?hostaddr=::1,h",
                "hostaddr must be an IP address",
            ),
            ("postgres://h/db?port=0", "port must be"),
            (
                "postgres://h/db?statement-cache-capacity=-1",
                "statement-cache-capacity",
            ),
            ("postgres://h/db?sslrootcert=system", "sslrootcert=system"),
            (
                "postgres://h/db?sslrootcert=/no/such.pem",
                "sslrootcert: /no/such.pem: No such",
            ),
            (
                "postgres://h/db?sslmode=require&sslkey=/no/key",
                "sslkey: /no/key",
            ),
            (
                "postgres://h1,h2/db?target_session_attrs=standby",
                "target_session_attrs must be read-write",
            ),
            (
                "postgres://h/db?target_session_attrs=prefer-standby",
                "target_session_attrs",
            ),
            ("postgres://h/db?channel_binding=require", "channel_binding"),
            ("postgres://h/db?sslnegotiation=direct", "sslnegotiation"),
            (
                "postgres://h1,h2/db?load_balance_hosts=random",
                "load_balance_hosts",
            ),
            ("postgres://h/db?connect_timeout=s3cret", "connect_timeout"),
            ("postgres://h/db?keepalives_idle=1", "keepalives_idle"),
            ("postgres://h/db?Password=s3cret", "Password"),
        ] {
            let refusal = refusal(url);
            assert!(refusal.contains(said), "{url}: {refusal}");
        }
    }

    #[test]
    fn what_is_understood_is_taken() {
        for (url, servers) in [
            ("postgres://h/db", "h:5432"),
            ("POSTGRESQL://u:p@h:5433/db?sslmode=verify-full", "h:5433"),
            ("postgres://u:p@ss@h/db", "h:5432"),
            ("postgres://u:%23%2F%3F%40@h/db", "h:5432"),
            ("postgres://[::1]:5432/db", "[::1]:5432"),
            (
                "postgres://u:p@[2001:db8::1]/db?sslmode=disable",
                "[2001:db8::1]:5432",
            ),
            ("postgres://[::1]/db?host=other", "other:5432"),
            ("postgres://u@%2Frun%2Fpg/db", "/run/pg"),
            ("postgres://localhost/db?host=/run/pg", "/run/pg"),
            ("postgres:///db?host=h&password=p@ss", "h:5432"),
            ("postgres://h/db?hostaddr=::1&port=1", "[::1]:1"),
            (
                "postgres://h/db?target_session_attrs=any&channel_binding=prefer",
                "h:5432",
            ),
            (
                "postgres://h/db?options[search_path]=a&options=-c%20b=c",
                "h:5432",
            ),
            (
                "postgres://h/db?sslmode=disable&sslrootcert=/no/such.pem",
                "h:5432",
            ),
            // Several servers.
            (
                "postgres://u:p,1@h1:5432,h2:5433/db?target_session_attrs=read-write",
                "h1:5432 h2:5433",
            ),
            (
                "postgres://h1,h2:1/db?target_session_attrs=primary",
                "h1:5432 h2:1",
            ),
            (
                "postgres://[::1]:1,10.0.0.1,[2001:db8::1]/db",
                "[::1]:1 10.0.0.1:5432 [2001:db8::1]:5432",
            ),
            ("postgres://u:p@/db?host=h1,h2", "h1:5432 h2:5432"),
            ("postgres://u@localhost:6432/db?host=h", "h:6432"),
            ("postgres://[::1]:1,b:2/db?host=c,d", "c:1 d:2"),
            ("postgres:///db?host=h1,h2&port=1", "h1:1 h2:1"),
            ("postgres:///db?host=h1,/run/pg&port=1,2", "h1:1 /run/pg"),
            ("postgres://h1:7,h2:7/db?port=1,2", "h1:1 h2:2"),
            (
                "postgres:///db?hostaddr=10.0.0.1,::1",
                "10.0.0.1:5432 [::1]:5432",
            ),
            ("postgres://%2Frun%2Fa,%2Frun%2Fb/db", "/run/a /run/b"),
        ] {
            let target = parse(url).map_err(|error| format!("{url}: {error}"));
            let names: Vec<_> = target.unwrap().servers().iter().map(name).collect();
            assert_eq!(names.join(" "), servers, "{url}");
        }
    }

    #[test]
    fn all_servers_have_what_the_url_says_of_them() {
        let url = "postgres://u:p@h1,[::1]:2/db?application_name=shop&sslmode=require";
        for server in parse(url).unwrap().servers() {
            assert_eq!(server.get_username(), "u");
            assert_eq!(server.get_database(), Some("db"));
            assert_eq!(server.get_application_name(), Some("shop"));
            assert!(matches!(server.get_ssl_mode(), PgSslMode::Require));
        }
        let unnamed = parse("postgres://h/db").unwrap();
        let name = unnamed.servers()[0].get_application_name();
        assert_eq!(name, Some("gateway"));
    }
}
