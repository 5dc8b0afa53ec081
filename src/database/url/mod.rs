//! Reads a `DATABASE_URL`. Everything in it is understood, or it is refused: the message names what
//! is wrong, and never a secret.

mod parameters;
mod parts;
mod places;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use self::parameters::{check_files, check_variables, is_asked_for};
use self::parts::{NOWHERE, UrlParts};
use self::places::places;
use super::target::Target;

/// How to connect to the database at this URL. What it leaves open, libpq's variables say.
///
/// # Errors
/// What is wrong with the URL, or with one of those variables.
pub fn parse(text: &str) -> Result<Target, String> {
    let parts = UrlParts::of(text)?;
    let mut asked_for = Vec::new();
    for (name, value) in parts.url(NOWHERE)?.query_pairs() {
        if is_asked_for(text, &name, &value)? {
            asked_for.push((name.into_owned(), value.into_owned()));
        }
    }
    let places = places(&parts, &asked_for)?;
    check_variables(&asked_for)?;
    let servers: Result<Vec<_>, _> = places
        .into_iter()
        .map(|place| place.server(&parts, &asked_for))
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
