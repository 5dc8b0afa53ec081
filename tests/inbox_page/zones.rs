//! Days are those of the reader's own zone.

use serde_json::json;

use crate::stage::{Stage, play};

async fn days(stage: &Stage, zone: &str, times: &[&str]) -> usize {
    let mut conversation = String::new();
    let customer = uuid::Uuid::now_v7().to_string();
    for time in times {
        conversation = stage
            .writes_at(&customer, &format!("At {time}"), time)
            .await;
    }
    let page = &stage.page;
    page.in_zone(zone).await;
    page.open_at(&format!("/inbox#{conversation}")).await;
    let script = "return bubbles().length === given && document.querySelectorAll('[data-testid=messages] .day').length";
    let days = page
        .until_with("all are there", script, &json!(times.len()))
        .await;
    usize::try_from(days.as_u64().unwrap()).unwrap()
}

#[tokio::test]
async fn a_day_ends_at_midnight_where_the_reader_is() {
    play(async |stage| {
        // 23:59 and 00:01 in Auckland, in summer.
        let times = ["2025-01-01T10:59:00Z", "2025-01-01T11:01:00Z"];
        assert_eq!(days(stage, "Pacific/Auckland", &times).await, 2);
    })
    .await;
    play(async |stage| {
        // The same, on one morning in St. John's; and around a midnight there.
        let times = ["2025-01-01T10:59:00Z", "2025-01-01T11:01:00Z"];
        assert_eq!(days(stage, "America/St_Johns", &times).await, 1);
        let times = ["2025-01-02T03:29:00Z", "2025-01-02T03:31:00Z"];
        assert_eq!(days(stage, "America/St_Johns", &times).await, 2);
    })
    .await;
}

#[tokio::test]
async fn days_of_23_and_of_25_hours_are_days() {
    play(async |stage| {
        // 6 April 2025 in Auckland has 25 hours: 00:01, 23:59, and 00:01 of the 7th.
        let times = [
            "2025-04-05T11:01:00Z",
            "2025-04-06T11:59:00Z",
            "2025-04-06T12:01:00Z",
        ];
        assert_eq!(days(stage, "Pacific/Auckland", &times).await, 2);
    })
    .await;
    play(async |stage| {
        // 9 March 2025 in St. John's has 23: 00:01, 23:59, and 00:01 of the 10th.
        let times = [
            "2025-03-09T03:31:00Z",
            "2025-03-10T02:29:00Z",
            "2025-03-10T02:31:00Z",
        ];
        assert_eq!(days(stage, "America/St_Johns", &times).await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_time_that_is_far_ahead_is_shown_as_given_but_sorted_as_the_gateway_does() {
    play(async |stage| {
        let ahead = stage
            .writes_at("user-1", "From the future", "2099-12-31T12:00:00Z")
            .await;
        let page = &stage.page;
        page.in_zone("UTC").await;
        page.open().await;
        page.select(&ahead).await;
        let title = page
            .eval("return bubbles()[0].querySelector('time').title")
            .await;
        assert!(title.as_str().unwrap().contains("2099"), "{title}");
        let list = stage.system.client.get("/conversations").await.expect(200);
        stage.writes("user-2", "Now").await;
        page.until("both are there", "return rows().length === 2")
            .await;
        let list_after = stage.system.client.get("/conversations").await.expect(200);
        assert_eq!(list["data"][0]["id"], ahead.as_str());
        let ids = list_after["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| &row["id"]);
        let ids: Vec<_> = ids.collect();
        assert_eq!(
            page.eval("return rows().map((row) => row.id)").await,
            json!(ids)
        );
    })
    .await;
}

#[tokio::test]
async fn at_midnight_today_becomes_yesterday() {
    play(async |stage| {
        let conversation = stage.writes("user-1", "Hello").await;
        let page = &stage.page;
        page.open().await;
        page.select(&conversation).await;
        let day = "return document.querySelector('[data-testid=messages] .day').innerText";
        assert_eq!(page.eval(day).await, "Today");
        stage.gate.cut();
        page.time_passes(86_400).await;
        page.until("it is yesterday", &format!("{day} === 'Yesterday'"))
            .await;
        stage.gate.open();
        stage.page.expect("net::ERR_");
        stage.page.expect("Failed to load resource");
    })
    .await;
}
