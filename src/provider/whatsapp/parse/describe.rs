//! What messages say that are no text: places, contacts, choices, orders.

use super::value::{Object, Value};

/// The most contacts that are named.
const MOST_NAMES: usize = 20;

/// Where it is.
pub(super) fn location(own: &Object) -> String {
    let place = ["name", "address"].map(|field| own.string(field).as_deref().and_then(line));
    let place: Vec<String> = place.into_iter().flatten().collect();
    let coordinate = |field| {
        let value = own.get(field).filter(|value| value.number().is_some());
        value?.word().as_deref().and_then(line)
    };
    let coordinates = || {
        Some(format!(
            "{}, {}",
            coordinate("latitude")?,
            coordinate("longitude")?
        ))
    };
    let place = Some(place.join(", ")).filter(|place| !place.is_empty());
    tagged("location", place.or_else(coordinates))
}

/// Whose they are. None: they are no contacts.
pub(super) fn contacts(own: Value) -> Option<String> {
    let contacts: Vec<Object> = own.elements().filter_map(Value::object).collect();
    let names = contacts.iter().filter_map(contact_name).take(MOST_NAMES);
    let names: Vec<String> = names.collect();
    let names = Some(names.join(", ")).filter(|names| !names.is_empty());
    (!contacts.is_empty()).then(|| tagged("contact", names))
}

fn contact_name(contact: &Object) -> Option<String> {
    let name = contact.object("name").unwrap_or_default();
    let part = |field| name.string(field).as_deref().and_then(line);
    let parts = || {
        let parts: Vec<String> = ["first_name", "last_name"]
            .into_iter()
            .filter_map(part)
            .collect();
        Some(parts.join(" ")).filter(|name| !name.is_empty())
    };
    let company = || line(&contact.object("org")?.string("company")?);
    let phone = || {
        let mut phones = contact.each("phones").filter_map(Value::object);
        line(&phones.find_map(|phone| phone.string("phone"))?)
    };
    part("formatted_name")
        .or_else(parts)
        .or_else(company)
        .or_else(phone)
}

/// What was chosen; of one that the business sent, what it asks.
pub(super) fn interactive(own: &Object) -> Option<String> {
    let title = |field| own.object(field)?.filled("title");
    let form = || {
        let reply = own.object("nfm_reply")?;
        Some(reply.filled("body").unwrap_or_else(|| "[form]".into()))
    };
    let call = || {
        let reply = own.object("call_permission_reply")?;
        let response = reply.string("response").as_deref().and_then(line);
        Some(match response {
            Some(response) => format!("[call permission: {response}]"),
            None => "[call permission]".into(),
        })
    };
    let asked = || own.object("body")?.filled("text");
    title("button_reply")
        .or_else(|| title("list_reply"))
        .or_else(form)
        .or_else(call)
        .or_else(asked)
}

/// How much was ordered.
pub(super) fn order(own: &Object) -> String {
    let products: Vec<Object> = own
        .each("product_items")
        .filter_map(Value::object)
        .collect();
    if products.is_empty() {
        return "[order]".into();
    }
    let quantity = |product: &Object| {
        let quantity = product
            .get("quantity")
            .and_then(Value::integer)
            .unwrap_or(1);
        i32::try_from(quantity).unwrap_or(1)
    };
    let count: i64 = products
        .iter()
        .map(|product| i64::from(quantity(product)))
        .sum();
    let items = if count == 1 { "item" } else { "items" };
    let price = |product: &Object| {
        let price = product.get("item_price")?.number()?;
        Some(price * f64::from(quantity(product)))
    };
    let total: Option<f64> = products.iter().map(price).sum();
    let currency = |product: &Object| product.string("currency").as_deref().and_then(line);
    let first = currency(&products[0]);
    let is_one = products.iter().all(|product| currency(product) == first);
    let total = total
        .zip(first)
        .filter(|(total, _)| is_one && total.abs() < 1e12);
    match total {
        Some((total, currency)) => format!("[order] {count} {items}, {total:.2} {currency}"),
        None => format!("[order] {count} {items}"),
    }
}

/// A text of which it must be seen what it is.
pub(super) fn tagged(tag: &str, text: Option<String>) -> String {
    match text {
        Some(text) => format!("[{tag}] {text}"),
        None => format!("[{tag}]"),
    }
}

/// A text in one line, if there is anything in it.
fn line(text: &str) -> Option<String> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_control() || c.is_whitespace())
        .collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::render::tests::assert_rendered;

    #[test]
    fn places_and_contacts_are_named() {
        assert_rendered(&[
            (
                "location",
                r#"{"latitude":37.48,"longitude":-122.1500}"#,
                "[location] 37.48, -122.1500",
            ),
            (
                "location",
                r#"{"latitude":"37.48","longitude":"-122.15"}"#,
                "[location] 37.48, -122.15",
            ),
            (
                "location",
                r#"{"latitude":1,"longitude":2,"name":"The\nCafé","address":"1 Main St"}"#,
                "[location] The Café, 1 Main St",
            ),
            (
                "location",
                r#"{"latitude":1,"longitude":2,"name":" ","address":"1 Main St"}"#,
                "[location] 1 Main St",
            ),
            (
                "location",
                r#"{"latitude":"north","longitude":2}"#,
                "[location]",
            ),
            ("location", "{}", "[location]"),
            (
                "contacts",
                r#"[{"name":{"formatted_name":"Ann B","first_name":"Ann"},"phones":[]},{"name":{"first_name":"Cem","last_name":"D"}}]"#,
                "[contact] Ann B, Cem D",
            ),
            (
                "contacts",
                r#"[{"org":{"company":"Acme"}},{"phones":[{"wa_id":"1"},{"phone":"+1 650"}]},{}]"#,
                "[contact] Acme, +1 650",
            ),
            (
                "contacts",
                r#"{"name":{"formatted_name":"Ann"}}"#,
                "[contact] Ann",
            ),
            ("contacts", r#"[{"name":"Ann"}]"#, "[contact]"),
        ]);
    }

    #[test]
    fn what_was_chosen_or_filled_in_is_read() {
        assert_rendered(&[
            (
                "interactive",
                r#"{"type":"button_reply","button_reply":{"id":"1","title":"Yes"}}"#,
                "Yes",
            ),
            (
                "interactive",
                r#"{"type":"list_reply","list_reply":{"id":"1","title":"Tea"}}"#,
                "Tea",
            ),
            (
                "interactive",
                r#"{"list_reply":{"id":"1","title":"Tea","description":"hot"}}"#,
                "Tea",
            ),
            (
                "interactive",
                r#"{"type":"nfm_reply","nfm_reply":{"name":"flow","body":"Sent","response_json":"{\"a\":1}"}}"#,
                "Sent",
            ),
            (
                "interactive",
                r#"{"type":"nfm_reply","nfm_reply":{"name":"flow","body":"Sent","response_json":"[1"}}"#,
                "Sent",
            ),
            (
                "interactive",
                r#"{"type":"nfm_reply","nfm_reply":{"name":"address_message"}}"#,
                "[form]",
            ),
            (
                "interactive",
                r#"{"type":"call_permission_reply","call_permission_reply":{"response":"accept","is_permanent":false}}"#,
                "[call permission: accept]",
            ),
            (
                "interactive",
                r#"{"type":"call_permission_reply","call_permission_reply":{}}"#,
                "[call permission]",
            ),
            // What the business asks, in an echo.
            (
                "interactive",
                r#"{"type":"flow","header":{"type":"text","text":"Book"},"body":{"text":"Choose a day."},"action":{}}"#,
                "Choose a day.",
            ),
            ("button", r#"{"text":"No","payload":"no-1"}"#, "No"),
            ("button", r#"{"payload":"no-1"}"#, "no-1"),
            (
                "template",
                r#"{"name":"summer_sale","language":{"code":"en_US"}}"#,
                "[template] summer_sale",
            ),
            ("template", "{}", "[template]"),
        ]);
    }

    #[test]
    fn an_order_is_counted() {
        assert_rendered(&[
            (
                "order",
                r#"{"catalog_id":"1","text":"Please","product_items":[{"quantity":1}]}"#,
                "Please",
            ),
            (
                "order",
                r#"{"product_items":[{"quantity":2,"item_price":9.5,"currency":"USD"},{"quantity":"1","item_price":"0.49","currency":"USD"}]}"#,
                "[order] 3 items, 19.49 USD",
            ),
            (
                "order",
                r#"{"product_items":[{"quantity":1,"item_price":30,"currency":"EUR"}]}"#,
                "[order] 1 item, 30.00 EUR",
            ),
            (
                "order",
                r#"{"product_items":[{"quantity":1,"item_price":30,"currency":"EUR"},{"item_price":1,"currency":"USD"}]}"#,
                "[order] 2 items",
            ),
            (
                "order",
                r#"{"product_items":[{"quantity":"two"},{}]}"#,
                "[order] 2 items",
            ),
            (
                "order",
                r#"{"product_items":[{"quantity":1e300,"item_price":1e300,"currency":"EUR"}],"text":""}"#,
                "[order] 1 item",
            ),
            ("order", r#"{"product_items":[]}"#, "[order]"),
            ("order", "{}", "[order]"),
        ]);
    }
}
