//! What is understood of a `DATABASE_URL`: all of it, or it is refused, naming what is wrong and never a secret.

use std::fs::File;
use std::net::IpAddr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// The variable that messages name, also for its option.
const NAME: &str = "DATABASE_URL";
/// Parameters that only libpq knows, each with the values that ask for what happens anyway.
const HARMLESS: [(&str, &[&str]); 6] = [
    ("channel_binding", &["prefer", "disable"]),
    ("gssencmode", &["prefer", "disable"]),
    ("load_balance_hosts", &["disable"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
    ("target_session_attrs", &["any"]),
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
pub fn parse(text: &str) -> Result<PgConnectOptions, String> {
    check_shape(text)?;
    let mut url = reqwest::Url::parse(text).map_err(|_| not_a_url())?;
    let mut parameters = Vec::new();
    for (name, value) in url.query_pairs() {
        if is_asked_for(text, &name, &value)? {
            parameters.push((name.into_owned(), value.into_owned()));
        }
    }
    check_variables(&url, &parameters)?;
    let names_host = parameters
        .iter()
        .any(|(name, value)| matches!(&**name, "host" | "hostaddr") && !value.is_empty());
    let host = url.host_str().unwrap_or_default();
    if !names_host && let Some(address) = host.strip_prefix('[') {
        // The brackets belong to the URL, not to the address.
        let address = address.trim_end_matches(']').to_owned();
        parameters.push(("host".to_owned(), address));
    }
    let names_host = names_host || !host.is_empty() || has("PGHOSTADDR") || has("PGHOST");
    url.set_query(None);
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(&parameters);
    }
    let options = PgConnectOptions::from_url(&url).map_err(|_| not_a_url())?;
    if options.get_host().contains(',') {
        return several_hosts();
    }
    // Without any of these it is where a socket was found.
    if !names_host && !options.get_host().starts_with('/') {
        return Err(format!("{NAME} names neither a host nor a socket"));
    }
    if !matches!(
        options.get_ssl_mode(),
        PgSslMode::Disable | PgSslMode::Allow
    ) {
        check_files(&parameters)?;
    }
    Ok(options)
}

/// Refuses what a URL's parser takes for something else than was meant.
fn check_shape(text: &str) -> Result<(), String> {
    let scheme = text.split_once("://").filter(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("postgres") || scheme.eq_ignore_ascii_case("postgresql")
    });
    let Some((_, rest)) = scheme else {
        return Err(format!(
            "{NAME} must begin with postgres:// or postgresql://, such as postgres://user:password@host:5432/database"
        ));
    };
    if rest.contains('#') {
        return Err(format!("{NAME} has a #: in a password, write it as %23"));
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if host.contains(',') {
        return several_hosts();
    }
    let path = rest.split('?').next().unwrap_or_default();
    if path.contains('@') || (rest.starts_with('?') && rest.contains('@')) {
        return Err(format!(
            "{NAME} has an @ behind its host: in a password, write / as %2F and ? as %3F"
        ));
    }
    Ok(())
}

/// Whether a parameter asks for something; one that is not understood is refused: it may be a promise.
fn is_asked_for(url: &str, name: &str, value: &str) -> Result<bool, String> {
    let must_be = |what: &str| Err(format!("{NAME}: {name} must be {what}"));
    match name {
        "sslmode" | "ssl-mode" if value.parse::<PgSslMode>().is_err() => {
            must_be("disable, allow, prefer, require, verify-ca or verify-full")
        }
        "host" | "hostaddr" | "port" if value.contains(',') => several_hosts(),
        "hostaddr" if value.parse::<IpAddr>().is_err() => must_be("an IP address"),
        "port" if !is_port(value) => must_be("from 1 to 65535"),
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
fn check_variables(url: &reqwest::Url, parameters: &[(String, String)]) -> Result<(), String> {
    let given = |names: &[&str]| {
        parameters
            .iter()
            .any(|(name, _)| names.contains(&name.as_str()))
    };
    let variable = |name| std::env::var(name).ok();
    if !given(&["sslmode", "ssl-mode"])
        && variable("PGSSLMODE").is_some_and(|mode| mode.parse::<PgSslMode>().is_err())
    {
        return Err(
            "PGSSLMODE must be disable, allow, prefer, require, verify-ca or verify-full"
                .to_owned(),
        );
    }
    if url.port().is_none()
        && !given(&["port"])
        && variable("PGPORT").is_some_and(|port| !is_port(&port))
    {
        return Err("PGPORT must be from 1 to 65535".to_owned());
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

fn has(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn several_hosts<T>() -> Result<T, String> {
    Err(format!(
        "{NAME} names several hosts, and only one is supported"
    ))
}

fn not_a_url() -> String {
    format!(
        "{NAME} is not a URL such as postgres://user:password@host:5432/database; in a user or a password, write % : / ? # and @ as %25 %3A %2F %3F %23 and %40"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let refusal = parse(url).expect_err(url);
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
            ("postgres://u:1/s3cret@h/db", "%2F"),
            ("postgres://u:1?s3cret@h/db", "%3F"),
            ("postgres://u:1/2?s3cret=tail@h/db", "%3F"),
            ("postgres://u:s3cret?tail@h/db", "%3F"),
            ("postgres://u:s3cret:tail", "not a URL"),
            ("postgres://u:s3cret@h:99999/db", "not a URL"),
            ("postgres://u:s3cret@h 1/db", "not a URL"),
            ("postgres://u:s3cret%ff@h/db", "not a URL"),
            ("postgres://u:s3cret@h1:5432,h2:5433/db", "several hosts"),
            ("postgres://u:s3cret@h1,h2/db", "several hosts"),
            ("postgres://u:s3cret@/db?host=h1,h2", "not a URL"),
            ("postgres:///db?host=h1,h2", "several hosts"),
            ("postgres://h/db?port=1,2", "several hosts"),
            (
                "postgres://u:s3cret@h/db?sslmode=no-verify",
                "sslmode must be disable",
            ),
            ("postgres://u:s3cret@h/db?ssl-mode=", "ssl-mode must be"),
            (
                "postgres://h/db?hostaddr=h",
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
                "postgres://h/db?target_session_attrs=read-write",
                "target_session_attrs",
            ),
            ("postgres://h/db?channel_binding=require", "channel_binding"),
            ("postgres://h/db?connect_timeout=s3cret", "connect_timeout"),
            ("postgres://h/db?Password=s3cret", "Password"),
        ] {
            let refusal = refusal(url);
            assert!(refusal.contains(said), "{url}: {refusal}");
        }
    }

    #[test]
    fn what_is_understood_is_taken() {
        for (url, host, socket) in [
            ("postgres://h/db", "h", None),
            ("POSTGRESQL://u:p@h:5433/db?sslmode=verify-full", "h", None),
            ("postgres://u:p@ss@h/db", "h", None),
            ("postgres://u:%23%2F%3F%40@h/db", "h", None),
            ("postgres://[::1]:5432/db", "::1", None),
            (
                "postgres://u:p@[2001:db8::1]/db?sslmode=disable",
                "2001:db8::1",
                None,
            ),
            ("postgres://[::1]/db?host=other", "other", None),
            ("postgres://u@%2Frun%2Fpg/db", "", Some("/run/pg")),
            ("postgres://localhost/db?host=/run/pg", "", Some("/run/pg")),
            ("postgres:///db?host=h&password=p@ss", "h", None),
            ("postgres://h/db?hostaddr=::1&port=1", "::1", None),
            (
                "postgres://h/db?target_session_attrs=any&channel_binding=prefer",
                "h",
                None,
            ),
            (
                "postgres://h/db?options[search_path]=a&options=-c%20b=c",
                "h",
                None,
            ),
            (
                "postgres://h/db?sslmode=disable&sslrootcert=/no/such.pem",
                "h",
                None,
            ),
        ] {
            let options = parse(url).expect(url);
            match socket {
                None => assert_eq!(options.get_host(), host, "{url}"),
                Some(path) => assert_eq!(options.get_socket().unwrap().as_os_str(), path, "{url}"),
            }
        }
    }
}
