//! Reactions, edits and deletions: they change the message that they are about, whatever comes
//! first, and only for whoever may.

use serde_json::{Value, json};

use crate::support::System;
use crate::support::whatsapp::{
    ANN, BOB, deletion, echo, echoes, edit, messages, reaction, start, text,
};

/// All orders of these.
fn orders(items: &[Value]) -> Vec<Vec<Value>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let each = (0..items.len()).flat_map(|n| {
        let mut rest = items.to_vec();
        let first = rest.remove(n);
        orders(&rest).into_iter().map(move |mut order| {
            order.insert(0, first.clone());
            order
        })
    });
    each.collect()
}

/// What of a message they may change.
fn shown(message: &Value) -> Value {
    let fields = [
        "type",
        "text",
        "content",
        "reactions",
        "editedAt",
        "deletedAt",
    ];
    fields
        .iter()
        .map(|field| (*field, message[*field].clone()))
        .collect()
}

async fn preview(system: &System, participant: &str) -> String {
    let conversation = system.client.conversation(participant).await;
    conversation["lastMessagePreview"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_message_looks_the_same_in_whatever_order_it_and_what_is_about_it_comes() {
    let system = start().await;
    let items = [
        text("TARGET", ANN, 0, "Helo"),
        reaction("A", ANN, 5, "TARGET", "👍"),
        reaction("B", ANN, 7, "TARGET", "🎉"),
        edit("C", ANN, 6, "TARGET", "Hello"),
        edit("D", ANN, 8, "TARGET", "Hello!"),
    ];
    let expected = json!({
        "type": "text", "text": "Hello!", "content": { "body": "Hello!" },
        "reactions": [{ "from": ANN, "emoji": "🎉", "at": "2025-01-01T12:00:07.000Z" }],
        "editedAt": "2025-01-01T12:00:08.000Z", "deletedAt": null,
    });
    let named = |order: &[Value], n: usize| -> Vec<Value> {
        let text = Value::from(order).to_string();
        let text = ["TARGET", "A", "B", "C", "D"]
            .iter()
            .fold(text, |text, name| {
                text.replace(&format!("\"{name}\""), &format!("\"w-{n}-{name}\""))
            });
        serde_json::from_str(&text).unwrap()
    };
    for (n, order) in orders(&items).iter().enumerate() {
        let order = named(order, n);
        // Together, and one after the other.
        if n % 2 == 0 {
            system.receives(&order).await;
        } else {
            for item in &order {
                system.receives(std::slice::from_ref(item)).await;
            }
        }
        let message = system.by_wamid(&format!("w-{n}-TARGET")).await;
        assert_eq!(shown(&message), expected, "{order:?}");
    }
    assert_eq!(preview(&system, ANN).await, "Hello!");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn an_edit_that_nobody_understands_is_seen_and_hides_nothing() {
    let system = start().await;
    system.receives(&[text("w1", ANN, 0, "Readable")]).await;
    let mut hologram = edit("w2", ANN, 1, "w1", "");
    hologram["edit"]["message"] = json!({ "type": "hologram", "hologram": { "id": "1" } });
    let mut without_text = edit("w3", ANN, 2, "w1", "");
    without_text["edit"]["message"] = json!({ "type": "text" });
    let items = [
        hologram.clone(),
        without_text,
        edit("w4", ANN, 3, "w1", "Edited"),
    ];
    system.receives(&items[..2]).await;
    let message = system.by_wamid("w1").await;
    assert_eq!(
        (&message["text"], &message["editedAt"]),
        (&json!("Readable"), &Value::Null)
    );
    let unsupported = system.by_wamid("w2").await;
    assert_eq!(unsupported["type"], "unsupported");
    assert_eq!(unsupported["content"], hologram);
    system.receives(&items[2..]).await;
    assert_eq!(
        system.texts(ANN).await,
        ["Edited", "[unsupported message]", "[unsupported message]"]
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_deletion_is_final_and_empties_the_message_also_when_it_comes_first() {
    let system = start().await;
    let items = [
        text("w1", ANN, 0, "Secret"),
        edit("w2", ANN, 9, "w1", "Still secret"),
        deletion("w3", ANN, 5, "w1"),
    ];
    for (n, order) in orders(&items).iter().enumerate() {
        let text = Value::from(order.as_slice()).to_string();
        let text = text.replace("\"w", &format!("\"o{n}-w"));
        let order: Vec<Value> = serde_json::from_str(&text).unwrap();
        for item in &order {
            system.receives(std::slice::from_ref(item)).await;
        }
        let message = system.by_wamid(&format!("o{n}-w1")).await;
        assert_eq!(message["text"], "[deleted]", "{order:?}");
        assert_eq!(message["content"], Value::Null);
        assert_eq!(message["deletedAt"], "2025-01-01T12:00:05.000Z");
        assert_eq!(preview(&system, ANN).await, "[deleted]");
    }
    // An older message is not the preview.
    system
        .receives(&[text("a1", ANN, 20, "One"), text("a2", ANN, 21, "Two")])
        .await;
    system
        .receives(&[
            deletion("a3", ANN, 22, "a1"),
            edit("a4", ANN, 23, "a2", "2"),
        ])
        .await;
    assert_eq!(preview(&system, ANN).await, "2");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_reaction_is_taken_back_and_each_sender_has_one() {
    let system = start().await;
    system
        .receives(&[text("w1", ANN, 0, "Hi"), reaction("r1", ANN, 1, "w1", "👍")])
        .await;
    let ours = echoes(&[echo(reaction("r2", "", 2, "w1", "❤️"), ANN)]);
    system.takes(&ours, [1, 0, 0]).await;
    let reactions = system.by_wamid("w1").await["reactions"].clone();
    assert_eq!(reactions.as_array().unwrap().len(), 2, "{reactions}");
    let names: Vec<&Value> = reactions
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["from"])
        .collect();
    assert_eq!(names, ["business", ANN]);
    system.receives(&[reaction("r3", ANN, 3, "w1", "")]).await;
    // What is older changes nothing any more.
    system.receives(&[reaction("r4", ANN, 2, "w1", "😡")]).await;
    let mut removed = reaction("r5", "", 4, "w1", "");
    removed["reaction"].as_object_mut().unwrap().remove("emoji");
    system
        .takes(&echoes(&[echo(removed, ANN)]), [1, 0, 0])
        .await;
    assert_eq!(system.by_wamid("w1").await["reactions"], json!([]));
    // Of one second the later in the body counts.
    let both = [
        reaction("r6", ANN, 9, "w1", "👎"),
        reaction("r7", ANN, 9, "w1", "👍"),
    ];
    system.receives(&both).await;
    assert_eq!(system.by_wamid("w1").await["reactions"][0]["emoji"], "👍");
}

#[tokio::test]
async fn nobody_changes_a_message_of_another_conversation_or_of_the_other_side() {
    let system = start().await;
    system.receives(&[text("w1", ANN, 0, "Anns words")]).await;
    system
        .takes(
            &echoes(&[echo(text("w2", "", 1, "Our words"), ANN)]),
            [1, 0, 0],
        )
        .await;
    let sent = system.send(ANN, "The agents words").await;
    let bind = format!(
        "insert into receipts (provider_message_id, message_id) values ('w3', '{}')",
        &crate::support::id(&sent)[4..]
    );
    system.database.execute(&bind).await;
    let before = system.thread(ANN).await;
    let by_bob = ["w1", "w2", "w3"].iter().flat_map(|target| {
        [
            reaction(&format!("b1-{target}"), BOB, 5, target, "😡"),
            edit(&format!("b2-{target}"), BOB, 5, target, "Bobs words"),
            deletion(&format!("b3-{target}"), BOB, 5, target),
        ]
    });
    system
        .takes(&messages(&by_bob.collect::<Vec<_>>()), [9, 0, 9])
        .await;
    // Ann may react to ours, but not change it; nor may the business change hers.
    let by_ann = ["w2", "w3"].iter().flat_map(|target| {
        [
            edit(&format!("a2-{target}"), ANN, 5, target, "Anns words"),
            deletion(&format!("a3-{target}"), ANN, 5, target),
        ]
    });
    system
        .takes(&messages(&by_ann.collect::<Vec<_>>()), [4, 0, 4])
        .await;
    let ours = [
        echo(edit("e1", "", 5, "w1", "Our words"), ANN),
        echo(deletion("e2", "", 5, "w1"), ANN),
    ];
    system.takes(&echoes(&ours), [2, 0, 2]).await;
    assert_eq!(system.thread(ANN).await, before);

    // What came before the message was known is kept, and no more allowed.
    system
        .receives(&[
            deletion("b4", BOB, 6, "w4"),
            edit("b5", BOB, 6, "w4", "Bobs words"),
            reaction("b6", BOB, 6, "w4", "😡"),
        ])
        .await;
    system.receives(&[text("w4", ANN, 7, "More of Ann")]).await;
    let message = system.by_wamid("w4").await;
    assert_eq!(message["text"], "More of Ann");
    assert_eq!(message["reactions"], json!([]));
    system.receives(&[reaction("a4", ANN, 8, "w3", "👍")]).await;
    let sent = system.message(crate::support::id(&sent)).await;
    assert_eq!(sent["reactions"][0]["emoji"], "👍", "{sent}");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn what_the_business_takes_back_in_its_app_is_deleted_whoever_sent_it() {
    let system = start().await;
    system
        .takes(&echoes(&[echo(text("w1", "", 0, "Typo"), ANN)]), [1, 0, 0])
        .await;
    let items = [echo(edit("e1", "", 1, "w1", "Fixed"), ANN)];
    system.takes(&echoes(&items), [1, 0, 0]).await;
    assert_eq!(system.by_wamid("w1").await["text"], "Fixed");
    system
        .takes(
            &echoes(&[echo(deletion("e2", "", 2, "w1"), ANN)]),
            [1, 0, 0],
        )
        .await;
    let message = system.by_wamid("w1").await;
    assert_eq!(
        (&message["text"], &message["status"]),
        (&json!("[deleted]"), &json!("SENT"))
    );
}

#[tokio::test]
async fn what_is_said_once_more_changes_no_revision() {
    let system = start().await;
    let items = [
        text("w1", ANN, 0, "Hi"),
        reaction("r1", ANN, 1, "w1", "👍"),
        edit("e1", ANN, 2, "w1", "Hi!"),
    ];
    system.receives(&items).await;
    let before = (
        system.by_wamid("w1").await,
        system.client.conversation(ANN).await,
    );
    system.takes(&messages(&items), [3, 3, 0]).await;
    // An older reaction, and an older edit.
    system
        .receives(&[
            reaction("r2", ANN, 0, "w1", "👎"),
            edit("e2", ANN, 1, "w1", "Old"),
        ])
        .await;
    let after = (
        system.by_wamid("w1").await,
        system.client.conversation(ANN).await,
    );
    assert_eq!(after, before);
    let changes = "select count(*) from changes";
    let told = system.database.count(changes).await;
    system.takes(&messages(&items), [3, 3, 0]).await;
    assert_eq!(system.database.count(changes).await, told);
}

#[tokio::test]
async fn what_was_cut_short_before_it_was_written_into_the_message_is_made_good_by_the_next_delivery()
 {
    let system = start().await;
    let items = [text("w1", ANN, 0, "Hi"), edit("e1", ANN, 2, "w1", "Hi!")];
    system.receives(&items).await;
    // As it was before `apply`.
    system
        .database
        .execute("update messages set text = 'Hi', edited_at = null; update conversations set last_message_preview = 'Hi'")
        .await;
    system.takes(&messages(&items[1..]), [1, 1, 0]).await;
    assert_eq!(system.by_wamid("w1").await["text"], "Hi!");
    assert_eq!(preview(&system, ANN).await, "Hi!");
}
