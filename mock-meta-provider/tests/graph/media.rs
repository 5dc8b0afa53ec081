//! What can be downloaded.

use mock_meta_provider::WhatsappBehaviour;
use serde_json::json;

use super::{Graph, error};
use crate::support::Answer;

impl Graph {
    async fn locate(&self, id: &str) -> Answer {
        let url = format!("{}/v26.0/{id}", self.provider.mock.url());
        Answer::read(self.provider.client.get(url).bearer_auth("token-1")).await
    }
}

#[tokio::test]
async fn a_customers_picture_can_be_downloaded_with_the_token() {
    let graph = Graph::calm().await;
    let change = graph.arrives(json!({ "type": "image" })).await;
    let image = &change["value"]["messages"][0]["image"];
    let found = graph.locate(image["id"].as_str().unwrap()).await.body;
    assert_eq!(
        (&found["sha256"], &found["mime_type"]),
        (&image["sha256"], &json!("image/jpeg"))
    );
    assert_eq!(found["id"], image["id"]);
    let url = found["url"].as_str().unwrap();
    let client = &graph.provider.client;
    assert_eq!(client.get(url).send().await.unwrap().status(), 401);
    let answer = client.get(url).bearer_auth("token-1").send().await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["content-type"].to_str().unwrap()
        ),
        (200, "image/jpeg")
    );
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(json!(bytes.len()), found["file_size"]);
    let forged = client
        .get(url.replace("ext=", "ext=9"))
        .bearer_auth("token-1");
    assert_eq!(forged.send().await.unwrap().status(), 404);
    assert_eq!(error(&graph.locate("1").await), (400, 100));
    let unasked = client.get(format!("{}/v26.0/1", graph.provider.mock.url()));
    assert_eq!(error(&Answer::read(unasked).await), (401, 190));
}

#[tokio::test]
async fn an_url_goes_stale() {
    let graph = Graph::behaving(WhatsappBehaviour {
        media_url_ttl_ms: 0,
        ..WhatsappBehaviour::CALM
    })
    .await;
    let answer = graph
        .provider
        .post("/simulate/media", json!({ "mimeType": "image/png" }))
        .await;
    let found = graph.locate(answer.body["id"].as_str().unwrap()).await.body;
    let request = graph.provider.client.get(found["url"].as_str().unwrap());
    assert_eq!(
        request
            .bearer_auth("token-1")
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}

#[tokio::test]
async fn media_are_what_they_are_made_to_be() {
    let graph = Graph::calm().await;
    let make = async |request| graph.provider.post("/simulate/media", request).await;
    let made =
        make(json!({ "id": "77", "mimeType": "text/html", "data": "PGI+", "sha256": "wrong" }))
            .await;
    let expected = json!({ "success": true, "id": "77", "mimeType": "text/html", "sha256": "wrong", "fileSize": 3 });
    assert_eq!(made.body, expected);
    let found = graph.locate("77").await.body;
    assert_eq!(
        (&found["sha256"], &found["file_size"]),
        (&json!("wrong"), &json!(3))
    );
    let large = make(json!({ "mimeType": "video/mp4", "size": 1_000_000 })).await;
    assert_eq!(large.body["fileSize"], 1_000_000);
    assert_eq!(
        make(json!({ "mimeType": "a/b", "data": "?" })).await.status,
        400
    );
    assert_eq!(
        make(json!({ "mimeType": "a/b", "size": 1_000_000_000 }))
            .await
            .status,
        400
    );
    let change = graph
        .arrives(json!({ "type": "document", "mediaId": "77", "fileName": "a.html" }))
        .await;
    assert_eq!(
        change["value"]["messages"][0]["document"]["filename"],
        "a.html"
    );
    assert_eq!(
        graph.locate("77").await.body["file_size"],
        3,
        "an own one stays"
    );
}
