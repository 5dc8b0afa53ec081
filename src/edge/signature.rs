//! The signature of a body: HMAC-SHA256, as Meta's `X-Hub-Signature-256` has it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The value of the header for this body: `sha256=` and the signature in hex.
#[must_use]
pub fn sign(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", tag(secret, body))
}

/// The signature of this body in hex.
#[must_use]
pub fn tag(secret: &str, body: &[u8]) -> String {
    hex::encode(mac(secret, body).finalize().into_bytes())
}

/// Whether this is the body's signature by this secret, in constant time.
#[must_use]
pub fn verify(secret: &str, body: &[u8], signature: &[u8]) -> bool {
    mac(secret, body).verify_slice(signature).is_ok()
}

fn mac(secret: &str, body: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    mac.expect("HMAC takes a key of any length")
        .chain_update(body)
}
