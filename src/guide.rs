//! The guide: how a gateway behaves, is run and is kept safe. It is the same text as in `src/docs`.

/// Where the pages' links lead among these modules: the first definition of a link wins, so the
/// files' own, which GitHub follows,
/// count only there.
macro_rules! links {
    () => {
        "
[README.md]: crate
[SCHEMA.md]: crate::guide::schema
[mock provider]: mock_meta_provider
[alerts.yml]: crate::guide::alerts
[configuration]: crate::guide::configuration
[more than one machine]: crate::guide::more_than_one_machine
[compared]: crate::guide::more_than_one_machine#backups-and-a-restore-to-a-point-in-time
[a primary and standbys]: crate::guide::operations#a-primary-and-standbys
[connections]: crate::guide::operations#connections
[many gateways]: crate::guide::operations#many-gateways
[networks]: crate::guide::operations#networks
[poolers]: crate::guide::operations#poolers
[live feed]: crate::guide::feed
[retention]: crate::guide::operations#retention
[traces]: crate::guide::operations#traces
[security]: crate::guide::security
[whatsapp]: crate::guide::whatsapp
[a lost answer]: crate::guide::whatsapp#a-lost-answer
[fairness]: crate::guide::security#fairness
[web pages]: crate::guide::security#web-pages

"
    };
}

#[doc = links!()]
#[doc = include_str!("docs/guarantees.md")]
pub mod guarantees {}

#[doc = links!()]
#[doc = include_str!("docs/configuration.md")]
pub mod configuration {}

#[doc = links!()]
#[doc = include_str!("docs/feed.md")]
pub mod feed {}

#[doc = links!()]
#[doc = include_str!("docs/operations.md")]
pub mod operations {}

/// Alerts for Prometheus, one for each promise.
///
/// ```yaml
#[doc = include_str!("docs/alerts.yml")]
/// ```
pub mod alerts {}

#[doc = links!()]
#[doc = include_str!("docs/more-than-one-machine.md")]
pub mod more_than_one_machine {}

#[doc = links!()]
#[doc = include_str!("docs/whatsapp.md")]
pub mod whatsapp {}

#[doc = links!()]
#[doc = include_str!("docs/security.md")]
pub mod security {}

#[doc = links!()]
#[doc = include_str!("../SCHEMA.md")]
pub mod schema {}
