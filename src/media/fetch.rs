//! The calls to Meta for a file: where it is, and the file. The token goes to Graph and to the one
//! host that asks for it, and only addresses of Meta's files are called at all.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::AUTHORIZATION;
use reqwest::{RequestBuilder, Response, Url};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::places::{Place, Places};
use super::stream::{Broken, File, MOST_BYTES};
use super::{Attachment, MediaError, MediaId};
use crate::peer::{IDLE_TIMEOUT, Peer, PeerError, USER_AGENT, http_url, is_loopback};
use crate::provider::whatsapp::Account;

/// How long until a connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long until Meta has answered one call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long until a file begins to arrive: two calls, twice.
pub const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that is read of an answer of Graph's, in bytes.
const MOST_ANSWER: usize = 64 * 1024;
/// The one host of files that asks for the token.
const TOKEN_HOST: &str = "lookaside.fbsbx.com";
/// What the hosts of other files end in.
const FILE_HOSTS: &str = ".fbcdn.net";

/// Fetches files of messages from Meta.
#[derive(Debug)]
pub struct Media {
    account: Account,
    graph: reqwest::Client,
    /// None where Graph is this machine: then it has the files too.
    files: Option<reqwest::Client>,
    places: Places,
}

/// A file that has begun to arrive.
pub struct Fetched {
    pub file: File,
    /// What Meta says that it is.
    pub mime_type: Option<String>,
    /// What the sender called it.
    pub file_name: Option<String>,
    pub place: Place,
}

/// What Graph says of a file.
#[derive(Deserialize)]
struct Found {
    url: String,
    mime_type: Option<String>,
    sha256: Option<String>,
    file_size: Option<Value>,
}

impl Media {
    /// The files of this number.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(account: Account) -> Result<Self, PeerError> {
        let graph = Peer::at(Url::clone(&account.graph_url));
        let files = http_url(&format!("https://{TOKEN_HOST}")).expect("this is a URL");
        let files = (!is_this_machine(&account.graph_url)).then(|| Peer::at(files));
        Ok(Self {
            graph: client(&graph)?,
            files: files.as_ref().map(client).transpose()?,
            account,
            places: Places::default(),
        })
    }

    /// Begins to fetch a file, for the holder of this key.
    ///
    /// # Errors
    /// Why it is not handed out.
    pub async fn open(
        &self,
        attachment: Attachment,
        key: Option<usize>,
    ) -> Result<Fetched, MediaError> {
        let place = self.places.take(key).await.ok_or(MediaError::Busy)?;
        let begun = timeout(BEGIN_TIMEOUT, self.begin(&attachment)).await;
        let (file, mime_type) = begun.unwrap_or_else(|_| Err(late()))?;
        Ok(Fetched {
            file,
            mime_type: mime_type.or(attachment.mime_type),
            file_name: attachment.file_name,
            place,
        })
    }

    async fn begin(&self, attachment: &Attachment) -> Result<(File, Option<String>), MediaError> {
        let mut is_second = false;
        loop {
            let found = self.find(attachment).await?;
            if found.size().is_some_and(|size| size > MOST_BYTES) {
                return Err(Broken::TooLarge.into());
            }
            let sha256 = [found.sha256.as_deref(), attachment.sha256.as_deref()];
            let sha256 = sha256.into_iter().flatten().find_map(digest);
            let sha256 = sha256.ok_or_else(|| MediaError::failed("its hash is not told"))?;
            let response = answered(self.file(&found.url)?).await?;
            match response.status().as_u16() {
                200 => return Ok((File::begin(response, sha256).await?, found.mime_type)),
                // An address holds for five minutes.
                404 | 410 if !is_second => is_second = true,
                404 | 410 => return Err(MediaError::Gone),
                429 => return Err(MediaError::Throttled),
                status => {
                    return Err(MediaError::failed(format!("its address answers {status}")));
                }
            }
        }
    }

    /// Asks Graph where a file is.
    async fn find(&self, attachment: &Attachment) -> Result<Found, MediaError> {
        let url = self.url_of(&attachment.id);
        let response = answered(self.with_token(self.graph.get(url))).await?;
        let status = response.status().as_u16();
        let read = timeout(ANSWER_TIMEOUT, read(response)).await;
        let body = read.map_err(|_| late())??;
        if status != 200 {
            return Err(refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|_| MediaError::failed("its answer cannot be read"))
    }

    fn url_of(&self, id: &MediaId) -> Url {
        let account = &self.account;
        let path = format!("/{}/{id}", account.graph_version);
        let mut url = Url::clone(&account.proven(&path));
        url.query_pairs_mut()
            .append_pair("phone_number_id", &account.phone_number_id);
        url
    }

    /// The call for a file at the address that Graph has named.
    fn file(&self, url: &str) -> Result<RequestBuilder, MediaError> {
        let foreign = || MediaError::failed("it names an address that is none of its files'");
        let url = Url::parse(url).map_err(|_| foreign())?;
        let graph: &Url = &self.account.graph_url;
        let Some(files) = &self.files else {
            let is_graphs = url.origin() == graph.origin() && has_no_user(&url);
            let call = is_graphs.then(|| self.with_token(self.graph.get(url)));
            return call.ok_or_else(foreign);
        };
        let host = url.host_str().unwrap_or_default();
        if url.scheme() != "https" || url.port().is_some() || !has_no_user(&url) {
            return Err(foreign());
        }
        if host == TOKEN_HOST {
            Ok(self.with_token(files.get(url)))
        } else if host.ends_with(FILE_HOSTS) {
            Ok(files.get(url))
        } else {
            Err(foreign())
        }
    }

    fn with_token(&self, call: RequestBuilder) -> RequestBuilder {
        let token = self.account.access_token.expose_secret();
        call.header(AUTHORIZATION, format!("Bearer {token}"))
    }
}

impl Found {
    fn size(&self) -> Option<u64> {
        let size = self.file_size.as_ref()?;
        let of_text = || size.as_str().and_then(|text| text.parse().ok());
        size.as_u64().or_else(of_text)
    }
}

fn client(peer: &Peer) -> Result<reqwest::Client, PeerError> {
    let client = peer
        .client()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT);
    peer.built(client.build())
}

fn is_this_machine(url: &Url) -> bool {
    is_loopback(url.host_str().unwrap_or_default())
}

fn has_no_user(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// The head of the answer.
async fn answered(call: RequestBuilder) -> Result<Response, MediaError> {
    let answer = timeout(ANSWER_TIMEOUT, call.send()).await;
    answer.map_err(|_| late())?.map_err(|error| {
        if error.is_timeout() {
            late()
        } else {
            MediaError::failed("it cannot be reached")
        }
    })
}

async fn read(mut response: Response) -> Result<Vec<u8>, MediaError> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        let Some(chunk) = chunk.map_err(|_| Broken::Connection)? else {
            return Ok(body);
        };
        if body.len() + chunk.len() > MOST_ANSWER {
            return Err(MediaError::failed("its answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
}

fn late() -> MediaError {
    MediaError::failed("it did not answer in time")
}

/// What Graph's refusal means: its code decides, and its texts are not repeated.
fn refusal(status: u16, body: &[u8]) -> MediaError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = answer.pointer("/error/code").and_then(Value::as_i64);
    match (code, status) {
        (Some(4 | 17 | 32 | 341 | 613 | 80007 | 130_429), _) | (_, 429) => MediaError::Throttled,
        (Some(code @ (0 | 3 | 10 | 104 | 190 | 200..=299 | 131_005)), _) => {
            MediaError::failed(format!("it refuses the access token (code {code})"))
        }
        (Some(33 | 100 | 131_052), _) | (None, 404) => MediaError::Gone,
        (Some(code), _) => MediaError::failed(format!("it answers {status} (code {code})")),
        (None, _) => MediaError::failed(format!("it answers {status}")),
    }
}

/// A SHA-256 as Meta writes it: base64, or hex.
fn digest(text: &str) -> Option<[u8; 32]> {
    let decoded = if text.len() == 64 {
        hex::decode(text).ok()
    } else {
        BASE64.decode(text).ok()
    };
    decoded?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_base64_or_hex() {
        let hash = [0xFB; 32];
        assert_eq!(digest(&BASE64.encode(hash)), Some(hash));
        assert_eq!(digest(&hex::encode(hash)), Some(hash));
        assert_eq!(digest(&hex::encode_upper(hash)), Some(hash));
        for other in ["", "IMAGE_HASH", "+/s=", &"g".repeat(64)] {
            assert_eq!(digest(other), None, "{other}");
        }
    }

    fn media(graph_url: &str) -> Media {
        Media::new(Account {
            phone_number_id: "1".to_owned(),
            access_token: "EAAtoken".to_owned().into(),
            app_secrets: Vec::new(),
            verify_tokens: Vec::new(),
            graph_url: Url::parse(graph_url).unwrap().into(),
            graph_version: "v26.0".to_owned(),
        })
        .unwrap()
    }

    /// Whether a call to this address is made, and if it is, with the token.
    fn called(media: &Media, url: &str) -> Option<bool> {
        let call = media.file(url).ok()?.build().unwrap();
        Some(call.headers().contains_key(AUTHORIZATION))
    }

    #[test]
    fn only_addresses_of_metas_files_are_called_and_only_one_of_them_gets_the_token() {
        let media = media("https://graph.facebook.com");
        for (url, expected) in [
            (
                "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1",
                Some(true),
            ),
            ("https://LOOKASIDE.fbsbx.com:443/", Some(true)),
            ("https://mmg.whatsapp.fbcdn.net/v/t62?ccb=1", Some(false)),
            ("https://scontent.xx.fbcdn.net/", Some(false)),
            ("http://lookaside.fbsbx.com/", None),
            ("https://lookaside.fbsbx.com:8443/", None),
            ("https://lookaside.fbsbx.com./", None),
            ("https://a.lookaside.fbsbx.com/", None),
            ("https://user@lookaside.fbsbx.com/", None),
            ("https://:secret@lookaside.fbsbx.com/", None),
            ("https://lookaside.fbsbx.com@evil.example/", None),
            ("https://evil.example/lookaside.fbsbx.com", None),
            ("https://fbcdn.net/", None),
            ("https://evilfbcdn.net/", None),
            ("https://a.fbcdn.net.evil.example/", None),
            ("https://graph.facebook.com/v26.0/me", None),
            ("https://127.0.0.1/", None),
            ("http://169.254.169.254/latest/meta-data", None),
            ("file:///etc/passwd", None),
            ("//lookaside.fbsbx.com/", None),
            ("", None),
        ] {
            assert_eq!(called(&media, url), expected, "{url}");
        }
    }

    #[test]
    fn where_graph_is_this_machine_its_own_origin_has_the_files_and_no_other() {
        let media = media("http://127.0.0.1:4000");
        for (url, expected) in [
            ("http://127.0.0.1:4000/media/1", Some(true)),
            ("http://127.0.0.1:4001/media/1", None),
            ("http://localhost:4000/media/1", None),
            ("http://user@127.0.0.1:4000/", None),
            ("https://127.0.0.1:4000/", None),
            ("https://lookaside.fbsbx.com/", None),
        ] {
            assert_eq!(called(&media, url), expected, "{url}");
        }
    }

    #[test]
    fn graphs_code_says_why_there_is_no_file() {
        let refused = |status, body: &str| refusal(status, body.as_bytes());
        let code = |code: i64| format!(r#"{{"error":{{"message":"EAAtoken","code":{code}}}}}"#);
        for (status, code, expected) in [
            (400, code(100), MediaError::Gone),
            (404, String::new(), MediaError::Gone),
            (400, code(80007), MediaError::Throttled),
            (500, code(4), MediaError::Throttled),
            (429, "<html>".to_owned(), MediaError::Throttled),
        ] {
            assert_eq!(refused(status, &code), expected);
        }
        for (status, code, says) in [
            (401, code(190), "the access token (code 190)"),
            (403, code(200), "the access token (code 200)"),
            (500, code(131_000), "it answers 500 (code 131000)"),
            (404, code(1), "it answers 404 (code 1)"),
            (503, "busy".to_owned(), "it answers 503"),
        ] {
            let error = refused(status, &code).to_string();
            assert!(error.ends_with(says), "{error}");
            assert!(!error.contains("EAA"), "{error}");
        }
    }
}
