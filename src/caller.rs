//! Who asks, as far as that decides what may be seen, and how much may be taken.

use std::sync::Arc;

/// Whoever makes a request: the holder of a key, or anybody where there are none.
#[derive(Debug, Clone)]
pub struct Caller(Option<Holder>);

#[derive(Debug, Clone)]
struct Holder {
    place: usize,
    name: Option<Arc<str>>,
    sees_all: bool,
}

impl Caller {
    /// Anybody: there are no keys.
    pub const ANYBODY: Self = Self(None);

    /// The holder of a key: its place among the keys, its name, and whether it sees what others have sent, and what came in.
    #[must_use]
    pub fn key(place: usize, name: Option<Arc<str>>, sees_all: bool) -> Self {
        Self(Some(Holder {
            place,
            name,
            sees_all,
        }))
    }

    /// Which of this process's keys it has.
    #[must_use]
    pub fn place(&self) -> Option<usize> {
        self.0.as_ref().map(|holder| holder.place)
    }

    /// The name that its messages keep.
    #[must_use]
    pub fn name(&self) -> Option<&Arc<str>> {
        self.0.as_ref()?.name.as_ref()
    }

    /// By whom a message must have been sent for it to see it; none: it sees all.
    #[must_use]
    pub fn only(&self) -> Option<&str> {
        let holder = self.0.as_ref().filter(|holder| !holder.sees_all)?;
        // Nobody has the empty name.
        Some(holder.name.as_deref().unwrap_or_default())
    }

    /// Whether it may see a message that was sent by this one.
    #[must_use]
    pub fn sees(&self, sent_by: Option<&str>) -> bool {
        self.only().is_none_or(|only| sent_by == Some(only))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_see_all_sees_what_it_has_sent_itself() {
        let caller = |name: Option<&str>, sees_all| Caller::key(0, name.map(Arc::from), sees_all);
        let sent_by = [Some("shop"), Some("shop2"), Some(""), None];
        let seen_by = |caller: Caller| sent_by.map(|name| name != Some("") && caller.sees(name));
        assert_eq!(seen_by(Caller::ANYBODY), [true, true, false, true]);
        assert_eq!(seen_by(caller(None, true)), [true, true, false, true]);
        let all = caller(Some("shop"), true);
        assert_eq!(seen_by(all), [true, true, false, true]);
        let own = caller(Some("shop"), false);
        assert_eq!(seen_by(own), [true, false, false, false]);
        assert_eq!(seen_by(caller(None, false)), [false; 4]);
    }
}
