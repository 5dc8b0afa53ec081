//! Any bytes as the body of a webhook.

use gateway::provider::whatsapp::events::{Ignored, Item, NotAnObject};
use serde_json::value::RawValue;

use crate::bounds::found;
use crate::reference::{Count, count};

/// Nothing fails; in valid JSON each item is found once, and nothing else is.
pub fn check(body: &[u8]) {
    let items = found(body);
    if let Ok(expected) = count(body) {
        let told = items.as_deref().ok().map(told);
        assert_eq!(told, expected);
    }
    let of = |items: &[Item], why| items.iter().filter(|it| **it == Item::Ignored(why)).count();
    let unmarked = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let text = String::from_utf8_lossy(unmarked);
    let is_valid = serde_json::from_str::<&RawValue>(&text).is_ok();
    match &items {
        // Every item is as good as the whole.
        Ok(items) if is_valid => {
            assert_eq!(of(items, Ignored::Broken), 0);
            items.iter().for_each(assert_raw);
        }
        // What is found is followed by the word that there may be more.
        Ok(items) => {
            assert_eq!(of(items, Ignored::Broken), 1);
            assert_eq!(items.last(), Some(&Item::Ignored(Ignored::Broken)));
            assert!(items.iter().any(|it| !matches!(it, Item::Ignored(_))));
        }
        Err(NotAnObject) => {}
    }
}

fn told(items: &[Item]) -> Count {
    let is_other = |item: &&Item| **item == Item::Ignored(Ignored::OtherNumber);
    Count {
        items: items.len(),
        of_others: items.iter().filter(is_other).count(),
    }
}

fn assert_raw(item: &Item) {
    let raw = match item {
        Item::Message(message) => &message.raw,
        Item::Amendment(amendment) => &amendment.raw,
        _ => return,
    };
    serde_json::from_slice::<&RawValue>(raw).unwrap();
}
