//! Values that are never shown.

use std::fmt;
use std::ops::Deref;

/// A value that may hold a secret: its `Debug` does not show it. Not `secrecy`'s box, which takes
/// only what can be wiped, and so no URLs.
#[derive(Clone)]
pub struct Hidden<T>(T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl<T> From<T> for Hidden<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Hidden<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
