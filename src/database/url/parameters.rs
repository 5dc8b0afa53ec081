//! The parameters of a `DATABASE_URL`, and libpq's variables that stand in for them.

use std::fs::File;
use std::net::IpAddr;

use sqlx::postgres::PgSslMode;

use super::parts::NAME;

/// libpq's words for which of several servers to use. All of these mean the same here: the gateway
/// always uses the writable one.
const SESSIONS: [&str; 3] = ["any", "primary", "read-write"];
/// Parameters that only libpq knows, each with the values that change nothing here.
const HARMLESS: [(&str, &[&str]); 5] = [
    ("channel_binding", &["prefer", "disable"]),
    ("gssencmode", &["prefer", "disable"]),
    ("load_balance_hosts", &["disable"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
];
/// Files: their parameters, and the variable that stands in for them.
const FILES: [(&[&str], &str); 3] = [
    (&["sslrootcert", "ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT"),
    (&["sslcert", "ssl-cert"], "PGSSLCERT"),
    (&["sslkey", "ssl-key"], "PGSSLKEY"),
];

/// Whether a parameter has an effect. An unknown one is refused: it may be something that the
/// operator relies on.
pub(super) fn is_asked_for(url: &str, name: &str, value: &str) -> Result<bool, String> {
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
        // The end of a password may be behind an @.
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

/// Refuses variables that sqlx would ignore silently.
pub(super) fn check_variables(asked_for: &[(String, String)]) -> Result<(), String> {
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

/// Checks that the files for TLS are there and can be opened.
pub(super) fn check_files(parameters: &[(String, String)]) -> Result<(), String> {
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
            // Not a path, but the contents of such a file.
            continue;
        }
        // A pipe can be read only once: by the connection.
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

/// A variable of the environment that is not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
