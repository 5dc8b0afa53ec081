//! WhatsApp's wire in a run: who takes part, and how Meta's statuses misbehave.

use mock_meta_provider::{Whatsapp, WhatsappBehaviour};

use super::scenario::Scenario;

/// Meta's id for the number of a system of our own.
pub const PHONE_NUMBER_ID: &str = "106540352242922";
/// Who is written to while statuses are waited for: as long as statuses come for somebody, what
/// none came for was not accepted.
pub const WITNESS: &str = "4711000000";
/// How the participants' numbers begin.
pub const PREFIX: &str = "49";
/// One participant in so many has no number, only an id that the business knows them by.
const NUMBERLESS: usize = 5;
/// How late statuses are that come late, in milliseconds.
const LATE_MS: u64 = 1500;

/// How the provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// The mock's own.
    MockMeta,
    /// WhatsApp's Cloud API.
    Whatsapp,
}

/// A participant's number, or the id of one who has none.
pub fn participant(prefix: &str, scenario: Scenario, number: usize) -> String {
    let digits = format!("{prefix}{:02}{number:06}", scenario as u8);
    if number % NUMBERLESS == NUMBERLESS - 1 {
        format!("DE.{digits}")
    } else {
        digits
    }
}

/// What the provider's side is started with.
pub fn provider(access_token: &str, app_secret: &str) -> Whatsapp {
    Whatsapp {
        phone_number_id: Some(PHONE_NUMBER_ID.to_owned()),
        access_token: Some(access_token.to_owned().into()),
        app_secret: Some(app_secret.to_owned().into()),
        ..Whatsapp::calm()
    }
}

/// How statuses come during a scenario.
pub fn behaviour(scenario: Scenario) -> WhatsappBehaviour {
    // None is late or missing while answers are lost: what is sent again after its wait, and was
    // accepted all the same, would arrive twice, and nobody can promise otherwise.
    let disorder = WhatsappBehaviour {
        status_delay_max_ms: 100,
        status_early_rate: 0.3,
        status_duplicate_rate: 0.2,
        status_out_of_order_rate: 0.3,
        status_batch_rate: 0.2,
        status_foreign_rate: 0.2,
        status_bare_rate: 0.1,
        status_user_id_rate: 0.1,
        ..WhatsappBehaviour::CALM
    };
    match scenario {
        Scenario::BurstOfEvents | Scenario::BurstOfSends => WhatsappBehaviour::CALM,
        Scenario::Statuses => WhatsappBehaviour {
            status_late_rate: 0.2,
            status_late_ms: LATE_MS,
            ..disorder
        },
        Scenario::Undelivered => WhatsappBehaviour {
            status_failed_rate: 1.0,
            ..disorder
        },
        Scenario::Silence => WhatsappBehaviour {
            status_never_rate: 1.0,
            ..disorder
        },
        _ => disorder,
    }
}

/// How far a message of a scenario must have come in the end, as `deliveryStatus` has it.
pub fn last_step(scenario: Scenario) -> Option<&'static str> {
    match scenario {
        Scenario::Silence => None,
        Scenario::Undelivered => Some("failed"),
        _ => Some("read"),
    }
}

/// The place of a step among those that may follow one another.
pub fn rank(step: Option<&str>) -> usize {
    let steps = ["sent", "failed", "delivered", "read", "played"];
    let place = |step| steps.iter().position(|known| *known == step);
    step.and_then(place).map_or(0, |place| place + 1)
}
