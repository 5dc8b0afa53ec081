//! What a caller prefers, as RFC 7240 writes it in the header `Prefer`.

use axum::http::HeaderMap;

/// Whether the caller prefers this, which has no value. What cannot be read is ignored, and of one
/// preference that is there more than once the first counts.
#[must_use]
pub fn prefers(headers: &HeaderMap, preference: &str) -> bool {
    let values = headers.get_all("prefer").iter();
    let mut all = values.flat_map(|value| split(value.as_bytes(), b','));
    let value = all.find_map(|one| {
        // Behind the preference there may be parameters.
        let one = split(one, b';').next()?;
        let (name, value) = match one.iter().position(|&byte| byte == b'=') {
            Some(at) => (&one[..at], &one[at + 1..]),
            None => (one, &one[one.len()..]),
        };
        let is_it = name
            .trim_ascii()
            .eq_ignore_ascii_case(preference.as_bytes());
        is_it.then(|| value.trim_ascii())
    });
    // An empty value is none.
    value.is_some_and(|value| value.is_empty() || value == b"\"\"")
}

/// The parts between separators that are not quoted.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |&byte| {
        let separates = byte == separator && !is_quoted;
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
        separates
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn is_async(values: &[&[u8]]) -> bool {
        let name = || HeaderName::from_static("prefer");
        let values = values.iter().map(|value| {
            let value = HeaderValue::from_bytes(value).unwrap();
            (name(), value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value);
        }
        prefers(&headers, "respond-async")
    }

    #[test]
    fn a_preference_is_found_in_every_spelling_of_the_list() {
        for values in [
            &["respond-async"][..],
            &["Respond-ASYNC"],
            &["  respond-async\t"],
            &["respond-async="],
            &["respond-async = \"\""],
            &["respond-async; wait=10; x"],
            &["respond-async, wait=10"],
            &["wait=10,, ,respond-async"],
            &["handling=lenient;a=\"b,c\" , respond-async"],
            &["a=\"\\\"\", respond-async"],
            &["return=minimal", "respond-async"],
            &["a=\"never closed", "respond-async"],
            &["=;\"\", \u{e9}=\u{ff}, respond-async"],
            &["respond-async", "respond-async=no"],
        ] {
            let bytes: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            assert!(is_async(&bytes), "{values:?}");
        }
    }

    #[test]
    fn nothing_else_is_the_preference() {
        for values in [
            &[""][..],
            &["respond_async"],
            &["respond-asynchronously"],
            &["respond async"],
            &["\"respond-async\""],
            &["wait; respond-async"],
            &["a=\"b, respond-async\""],
            &["a=\"b\\\", respond-async, c\""],
            &["a=\"never closed, respond-async"],
            &["respond-async=no"],
            &["respond-async=false, respond-async"],
        ] {
            let bytes: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            assert!(!is_async(&bytes), "{values:?}");
        }
        assert!(!is_async(&[]));
    }
}
