//! Who makes a request: that decides what it may see, and how much it may take up.

use std::fmt;
use std::sync::Arc;

/// Who makes a request: the holder of a key, or anybody where there are no keys.
#[derive(Debug, Clone)]
pub struct Caller(Option<Holder>);

/// Which session a browser's request belongs to: the hash of what its cookie holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 32]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

#[derive(Debug, Clone)]
struct Holder {
    key_index: usize,
    key_name: Option<Arc<str>>,
    sees_all: bool,
    session: Option<SessionId>,
}

impl Caller {
    /// The caller where there are no keys.
    pub const ANYBODY: Self = Self(None);

    /// The holder of a key. One that does not see all sees only what a key of its name has sent.
    #[must_use]
    pub fn holder(key_index: usize, key_name: Option<Arc<str>>, sees_all: bool) -> Self {
        Self(Some(Holder {
            key_index,
            key_name,
            sees_all,
            session: None,
        }))
    }

    /// The same holder of a key, by a session that a browser began with it.
    #[must_use]
    pub fn by_session(mut self, session: SessionId) -> Self {
        if let Some(holder) = &mut self.0 {
            holder.session = Some(session);
        }
        self
    }

    /// Its session; none for a request with a key of its own.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.0.as_ref()?.session
    }

    /// The index of its key among this process's keys.
    #[must_use]
    pub fn key_index(&self) -> Option<usize> {
        self.0.as_ref().map(|holder| holder.key_index)
    }

    /// The name of its key, which its messages keep as `sent_by`.
    #[must_use]
    pub fn key_name(&self) -> Option<&Arc<str>> {
        self.0.as_ref()?.key_name.as_ref()
    }

    /// The one sender whose messages it may see; none: it may see all messages.
    #[must_use]
    pub fn only_sender(&self) -> Option<&str> {
        let holder = self.0.as_ref().filter(|holder| !holder.sees_all)?;
        // No key has the empty name, so that a key without a name sees nothing.
        Some(holder.key_name.as_deref().unwrap_or_default())
    }

    /// Whether it may see a message of this sender.
    #[must_use]
    pub fn may_see(&self, sent_by: Option<&str>) -> bool {
        self.only_sender().is_none_or(|only| sent_by == Some(only))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_does_not_see_all_sees_what_it_has_sent_itself() {
        let caller =
            |name: Option<&str>, sees_all| Caller::holder(0, name.map(Arc::from), sees_all);
        let sent_by = [Some("shop"), Some("shop2"), Some(""), None];
        let seen_by = |caller: Caller| sent_by.map(|name| name != Some("") && caller.may_see(name));
        assert_eq!(seen_by(Caller::ANYBODY), [true, true, false, true]);
        assert_eq!(seen_by(caller(None, true)), [true, true, false, true]);
        let all = caller(Some("shop"), true);
        assert_eq!(seen_by(all), [true, true, false, true]);
        let own = caller(Some("shop"), false);
        assert_eq!(seen_by(own), [true, false, false, false]);
        assert_eq!(seen_by(caller(None, false)), [false; 4]);
    }
}
