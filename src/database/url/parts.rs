//! The parts of a `DATABASE_URL`. It may name several hosts, which no URL parser expects.

use reqwest::Url;

/// The variable's name in messages, also for its option.
pub(super) const NAME: &str = "DATABASE_URL";
/// Stands in for the host until it is known.
pub(super) const NOWHERE: &str = "localhost";

/// The text of a URL, split around its hosts.
pub(super) struct UrlParts<'a> {
    /// Everything before the hosts.
    before: &'a str,
    /// The hosts with their ports.
    pub(super) hosts: &'a str,
    after: &'a str,
}

impl<'a> UrlParts<'a> {
    /// Refuses what a URL parser would take for something else than was meant.
    pub(super) fn of(text: &'a str) -> Result<Self, String> {
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
    pub(super) fn url(&self, host: &str) -> Result<Url, String> {
        let Self { before, after, .. } = self;
        Url::parse(&format!("{before}{host}{after}")).map_err(|_| not_a_url())
    }
}

pub(super) fn not_a_url() -> String {
    format!(
        "{NAME} is not a URL such as postgres://user:password@host:5432/database; in a user or a password, write % : / ? # and @ as %25 %3A %2F %3F %23 and %40"
    )
}
