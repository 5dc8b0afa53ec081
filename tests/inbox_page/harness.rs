//! The tests' own tools: what they say is wrong, is.

use crate::gate::Gate;
use crate::stage::without_gateway;
use crate::support::{Client, mock};
use crate::{axe, chromium};

fn document(body: &str) -> String {
    format!(
        "data:text/html,<!doctype html><html lang=en><title>A page</title><main><h1>A</h1>{body}</main>"
    )
}

#[tokio::test]
async fn what_a_policy_forbids_and_what_the_console_says_is_a_complaint() {
    without_gateway(async |page| {
        let url = "data:text/html,<!doctype html><meta http-equiv=Content-Security-Policy content=\"img-src 'none'\"><img src=\"http://127.0.0.1:1/\">";
        page.go_to(url).await;
        page.until("it is noted", "return window.violations.length > 0")
            .await;
        page.eval("console.warn('a warning')").await;
        let complaints = page.complaints().await.join("\n");
        assert!(complaints.contains("img-src"), "{complaints}");
        assert!(complaints.contains("a warning"), "{complaints}");
        page.go_to("about:blank").await;
    })
    .await;
}

#[tokio::test]
async fn a_moved_clock_is_another_time_and_its_timers_are_due() {
    without_gateway(async |page| {
        page.go_to(&document("<p id=p>")).await;
        page.eval(
            "window.begun = new Date();
         window.timer = setTimeout(() => { p.textContent += 'hour '; }, 3_500_000);
         clearTimeout(setTimeout(() => { p.textContent += 'never '; }, 1000));
         setInterval(() => { p.textContent += 'minute '; }, 60_000);",
        )
        .await;
        page.time_passes(3600).await;
        let text = page.eval("return p.textContent").await;
        assert_eq!(text, "minute hour ");
        let passed = page
            .eval("return Math.round((Date.now() - begun) / 60_000)")
            .await;
        assert_eq!(passed, 60);
        page.time_passes(3600).await;
        assert_eq!(
            page.eval("return p.textContent").await,
            "minute hour minute "
        );
    })
    .await;
}

#[tokio::test]
async fn a_page_can_be_hidden_and_shown() {
    without_gateway(async |page| {
        page.go_to(&document("")).await;
        page.hide().await;
        assert_eq!(page.eval("return document.hasFocus()").await, false);
        page.show().await;
    })
    .await;
}

#[tokio::test]
async fn axe_finds_what_has_no_name() {
    without_gateway(async |page| {
        page.go_to(&document("<p>Text</p>")).await;
        let faults = axe::faults(page).await;
        assert!(faults.is_empty(), "{faults:#?}");
        page.go_to(&document("<button></button>")).await;
        let faults = axe::faults(page).await;
        let can_look = chromium::is_on_path("npm");
        assert_eq!(faults.len(), usize::from(can_look), "{faults:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_gate_holds_loses_refuses_and_cuts() {
    let mock = mock().await;
    let gate = Gate::before(&mock.url()).await;
    // A new one each time: one that has been cut off may notice it late.
    let ask = async || {
        let client = Client::new(gate.url());
        client.call(client.http.get(client.url("/health"))).await
    };
    ask().await.unwrap().expect(200);

    let held = gate.hold("GET /health");
    let (answer, ()) = tokio::join!(ask(), async {
        held.arrived().await;
        Client::new(gate.url()).get("/stats").await.expect(200);
        held.pass();
    });
    answer.unwrap().expect(200);

    let held = gate.hold("GET /health");
    let (answer, ()) = tokio::join!(ask(), async {
        held.arrived().await;
        held.lose();
    });
    assert!(answer.is_err(), "{answer:?}");
    ask().await.unwrap().expect(200);

    gate.refuse();
    ask().await.unwrap().expect(503);
    gate.cut();
    assert!(ask().await.is_err());
    gate.open();
    ask().await.unwrap().expect(200);
    assert_eq!(gate.count("GET /health"), 6);
    assert_eq!(gate.count("GET /stats"), 1);
}
