//! The providers of a process: which channel leads to which.

use std::time::Duration;

use super::client::Client;
use super::whatsapp::Account;
use crate::channel::Channel;

/// The providers that are connected, one at least.
#[derive(Debug, Clone)]
pub struct Providers {
    /// That of every channel that has none of its own.
    usual: Option<Client>,
    whatsapp: Option<Whatsapp>,
}

/// WhatsApp's own.
#[derive(Debug, Clone)]
struct Whatsapp {
    client: Client,
    account: Account,
}

impl Providers {
    /// One provider for all channels.
    #[must_use]
    pub fn usual(client: Client) -> Self {
        Self {
            usual: Some(client),
            whatsapp: None,
        }
    }

    /// WhatsApp by its Cloud API; the other channels by this client, if there is one.
    #[must_use]
    pub fn with_whatsapp(usual: Option<Client>, client: Client, account: Account) -> Self {
        let whatsapp = Some(Whatsapp { client, account });
        Self { usual, whatsapp }
    }

    /// The provider of a channel. None: nothing can be sent there.
    #[must_use]
    pub fn of(&self, channel: Channel) -> Option<&Client> {
        match (channel, &self.whatsapp) {
            (Channel::Whatsapp, Some(whatsapp)) => Some(&whatsapp.client),
            _ => self.usual.as_ref(),
        }
    }

    /// Whether something can be sent there.
    #[must_use]
    pub fn has(&self, channel: Channel) -> bool {
        self.of(channel).is_some()
    }

    /// The names of the channels that lead somewhere.
    #[must_use]
    pub fn channels(&self) -> &'static [&'static str] {
        match self.usual {
            Some(_) => &["instagram", "whatsapp"],
            None => &["whatsapp"],
        }
    }

    /// The account of WhatsApp's Cloud API, where the channel is connected to that.
    #[must_use]
    pub fn whatsapp(&self) -> Option<&Account> {
        self.whatsapp.as_ref().map(|whatsapp| &whatsapp.account)
    }

    /// Whether a channel speaks to WhatsApp's Cloud API.
    #[must_use]
    pub fn is_whatsapp(&self, channel: Channel) -> bool {
        channel == Channel::Whatsapp && self.whatsapp.is_some()
    }

    /// The channels whose provider cannot tell that a message is one that it has accepted before.
    #[must_use]
    pub fn keyless(&self) -> &'static [Channel] {
        match self.whatsapp {
            Some(_) => &[Channel::Whatsapp],
            None => &[],
        }
    }

    /// Whether the mock's wire is connected.
    #[must_use]
    pub fn has_mock_meta(&self) -> bool {
        self.usual.is_some()
    }

    /// Whether what is sent can be read on the way.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        self.clients().any(Client::is_in_the_clear)
    }

    /// The most time that an attempt takes.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.clients()
            .map(Client::timeout)
            .max()
            .unwrap_or_default()
    }

    fn clients(&self) -> impl Iterator<Item = &Client> {
        let whatsapp = self.whatsapp.as_ref().map(|whatsapp| &whatsapp.client);
        self.usual.iter().chain(whatsapp)
    }
}
