//! Meta's codes: their titles, and the HTTP statuses that they have been seen with.

/// A code as Meta documents it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) code: u32,
    pub(crate) title: &'static str,
    /// The usual status, and another one that it comes with too.
    pub(crate) statuses: [u16; 2],
}

const fn known(code: u32, title: &'static str, statuses: [u16; 2]) -> Known {
    Known {
        code,
        title,
        statuses,
    }
}

const KNOWN: &[Known] = &[
    known(0, "AuthException", [401, 401]),
    known(1, "API Unknown", [400, 500]),
    known(2, "API Service", [503, 503]),
    known(3, "API Method", [500, 500]),
    known(4, "API Too Many Calls", [429, 400]),
    known(10, "Permission Denied", [403, 403]),
    known(33, "Parameter value is not valid", [400, 400]),
    known(100, "Invalid parameter", [400, 400]),
    known(190, "Access token has expired", [401, 401]),
    known(200, "API Permission", [403, 403]),
    known(
        368,
        "Temporarily blocked for policies violations",
        [403, 403],
    ),
    known(
        613,
        "Calls to this api have exceeded the rate limit.",
        [400, 429],
    ),
    known(80007, "Rate limit issues", [400, 429]),
    known(130_429, "Rate limit hit", [429, 400]),
    known(
        130_472,
        "User's number is part of an experiment",
        [400, 400],
    ),
    known(
        130_497,
        "Business account is restricted from messaging users in this country.",
        [403, 403],
    ),
    known(131_000, "Something went wrong", [500, 500]),
    known(131_005, "Access denied", [403, 403]),
    known(131_008, "Required parameter is missing", [400, 400]),
    known(131_009, "Parameter value is not valid", [400, 400]),
    known(131_016, "Service unavailable", [500, 503]),
    known(131_021, "Recipient cannot be sender", [400, 400]),
    known(131_026, "Message undeliverable", [400, 400]),
    known(
        131_030,
        "Recipient phone number not in allowed list",
        [400, 400],
    ),
    known(131_031, "Account has been locked", [403, 403]),
    known(
        131_037,
        "WhatsApp provided number needs display name approval before message can be sent.",
        [400, 400],
    ),
    known(131_042, "Business eligibility payment issue", [400, 400]),
    known(131_045, "Incorrect certificate", [500, 500]),
    known(131_047, "Re-engagement message", [400, 400]),
    known(131_048, "Spam rate limit hit", [429, 400]),
    known(
        131_049,
        "This message was not delivered to maintain healthy ecosystem engagement.",
        [400, 400],
    ),
    known(131_050, "User has stopped marketing messages", [400, 400]),
    known(131_051, "Message type unknown", [400, 400]),
    known(131_052, "Media download error", [400, 400]),
    known(131_053, "Media upload error", [400, 400]),
    known(
        131_056,
        "(Business Account, Consumer Account) pair rate limit hit",
        [400, 403],
    ),
    known(131_057, "Account in maintenance mode", [500, 500]),
    known(131_060, "This message is currently unavailable", [400, 400]),
    known(132_000, "Template Param Count Mismatch", [400, 400]),
    known(132_001, "Template does not exist", [404, 400]),
    known(132_015, "Template is Paused", [400, 400]),
    known(133_004, "Server Temporarily Unavailable", [503, 503]),
    known(133_010, "Phone number Not Registered", [400, 400]),
    known(
        133_016,
        "Account register deregister rate limit exceeded",
        [400, 400],
    ),
    known(134_102, "Template unavailable for use", [500, 500]),
    known(135_000, "Generic user error", [400, 400]),
];

/// What is known of a code; of others only that they are wrong.
pub(crate) fn of(code: u32) -> Known {
    let found = KNOWN.iter().find(|known| known.code == code);
    let usual = match code {
        200..300 => [403, 403],
        _ => [400, 400],
    };
    found
        .copied()
        .unwrap_or(known(code, "Unknown error", usual))
}

/// Whether Meta says that the same call may succeed later.
pub(crate) fn is_transient(code: u32) -> bool {
    matches!(code, 1 | 2 | 4 | 131_000 | 131_016 | 131_057 | 133_004)
}

/// The type that goes with a code.
pub(crate) fn type_of(code: u32) -> &'static str {
    match code {
        33 => "GraphMethodException",
        _ => "OAuthException",
    }
}
