//! Ids as the outside sees them: a prefix and the 32 lower-case hex digits of a UUID (version 7).
//! No other spelling is an id.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// Makes an id type: a UUID in the database, `<prefix><32 hex digits>` everywhere else.
macro_rules! id {
    ($(#[doc = $doc:literal])* $name:ident, $prefix:literal) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A new id, greater than every earlier one of this process.
            #[must_use]
            #[allow(clippy::new_without_default)] // two defaults would not be equal
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownSpelling;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse(text, $prefix).map(Self)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                schema(concat!($($doc)*), $prefix)
            }
        }

        impl utoipa::ToSchema for $name {}

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

id!(
    /// A conversation's id, `conv_…`.
    ConversationId,
    "conv_"
);

id!(
    /// A message's id, `msg_…`; also its idempotency key at the provider.
    MessageId,
    "msg_"
);

/// A text that is no id, and so names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct UnknownSpelling;

fn parse(text: &str, prefix: &str) -> Result<uuid::Uuid, UnknownSpelling> {
    let digits = text.strip_prefix(prefix).ok_or(UnknownSpelling)?;
    let canonical = digits.len() == 32
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !canonical {
        return Err(UnknownSpelling);
    }
    uuid::Uuid::try_parse(digits).map_err(|_| UnknownSpelling)
}

/// The spelling, for the OpenAPI document.
fn schema(description: &str, prefix: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description.trim()))
        .pattern(Some(format!("^{prefix}[0-9a-f]{{32}}$")))
        .examples([format!("{prefix}01941f297c0070008000000000000001")])
        .into()
}

#[cfg(test)]
mod tests {
    use super::MessageId;

    #[test]
    fn an_id_has_one_spelling() {
        let id = MessageId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        let digits = &id.to_string()[4..];
        for other in [
            String::new(),
            "msg_".into(),
            digits.into(),
            format!("conv_{digits}"),
            format!("msg_{}", digits.to_uppercase().replace('0', "A")),
            format!("msg_{}", uuid::Uuid::now_v7()),
            format!("msg_{digits}0"),
            format!("MSG_{digits}"),
        ] {
            assert!(other.parse::<MessageId>().is_err(), "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_an_id_is_spelled_as_it_is_shown(text in "(msg_|conv_|)([0-9a-fA-F]{31,33}|\\PC{0,40})") {
            if let Ok(id) = text.parse::<MessageId>() {
                proptest::prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
