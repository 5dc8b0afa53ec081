//! Who is at the other end of a channel.

use utoipa::ToSchema;

use crate::http::field::{Fault, Field, identifier};

/// The participant, as the channel names them: 1 to 160 characters, none a control character.
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 160,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
    example = "user-123"
)]
pub struct Participant(pub String);

impl Field for Participant {
    fn parse(text: &str) -> Result<Self, Fault> {
        identifier(text, 160).map(Self)
    }
}
