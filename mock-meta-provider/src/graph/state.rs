//! What WhatsApp's side is made of.

use secrecy::SecretString;

use super::behaviour::WhatsappBehaviour;
use super::pair::Pairs;
use super::settings::Whatsapp;
use super::store::MediaStore;

/// What stays as long as it runs.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) phone_number_id: Option<String>,
    pub(crate) app_secret: Option<SecretString>,
    pub(crate) verify_token: Option<SecretString>,
}

/// What changes while it runs.
#[derive(Debug)]
pub(crate) struct GraphState {
    pub(crate) behaviour: WhatsappBehaviour,
    pub(crate) access_token: Option<SecretString>,
    pub(crate) pairs: Pairs,
    pub(crate) media: MediaStore,
}

impl Graph {
    pub(crate) fn new(settings: &Whatsapp) -> Self {
        Self {
            phone_number_id: settings.phone_number_id.clone(),
            app_secret: settings.app_secret.clone(),
            verify_token: settings.verify_token.clone(),
        }
    }
}

impl GraphState {
    pub(crate) fn new(settings: Whatsapp) -> Self {
        Self {
            behaviour: settings.behaviour,
            access_token: settings.access_token,
            pairs: Pairs::default(),
            media: MediaStore::default(),
        }
    }
}
