//! The kinds of error that the API, the database and the metrics name.

/// Why an attempt failed, or why there is none any more.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    serde::Serialize,
    sqlx::Type,
    strum::IntoStaticStr,
    utoipa::ToSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[clap(rename_all = "snake_case")]
pub enum ErrorKind {
    /// 429, or a code that says so.
    RateLimited,
    /// 5xx, or a code that says so.
    ServerError,
    /// No answer in time: the provider may have accepted the message.
    Timeout,
    /// The connection could not be made, or broke.
    Connection,
    /// A success that cannot be read, or has no `providerMessageId`.
    Unreadable,
    /// Any other answer.
    Rejected,
    /// The token or the account is at fault: it concerns the whole channel.
    Unauthorized,
    /// The customer has not written for so long that the provider takes no free text for them.
    WindowClosed,
    /// An operator ended the attempts.
    Canceled,
    /// The process died during the attempt, again and again; on WhatsApp's own wire: once.
    Interrupted,
    /// A mistake of the gateway.
    Internal,
}

impl ErrorKind {
    /// Whether the provider may have accepted the message all the same, as far as the kind tells.
    #[must_use]
    pub fn is_ambiguous(self) -> bool {
        match self {
            Self::RateLimited
            | Self::Rejected
            | Self::Unauthorized
            | Self::WindowClosed
            | Self::Canceled => false,
            Self::ServerError
            | Self::Timeout
            | Self::Connection
            | Self::Unreadable
            | Self::Interrupted
            | Self::Internal => true,
        }
    }

    /// Its name, as in the API and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
