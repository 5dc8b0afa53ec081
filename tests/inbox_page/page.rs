//! A page in a browser of its own: what a person does there and sees.

use serde_json::{Value, json};
use thirtyfour::{By, Key, TypingData, WebDriver, WebElement};

use crate::chromium;

const HOOKS: &str = include_str!("hooks.js");
const WAIT: &str = include_str!("wait.js");
const BEGIN: &str = include_str!("begin.js");

/// One page. Tests end by `close`, which looks at what the browser complained of.
pub struct Page {
    pub driver: WebDriver,
    origin: String,
    /// Lines of the console that the test brings about.
    expected: Vec<&'static str>,
}

/// A row of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub id: String,
    pub unread: String,
    pub text: String,
    pub is_open: bool,
}

/// A bubble.
#[derive(Debug, Clone, PartialEq)]
pub struct Bubble {
    pub id: String,
    pub status: String,
    pub text: String,
}

impl Page {
    /// A browser that has not been anywhere, for the pages of this origin.
    pub async fn new(origin: &str) -> Self {
        let driver = chromium::start().await;
        let page = Self {
            driver,
            origin: origin.to_owned(),
            expected: Vec::new(),
        };
        page.prepare().await;
        page
    }

    async fn prepare(&self) {
        let begin = json!({ "source": BEGIN });
        self.tell("Page.addScriptToEvaluateOnNewDocument", begin)
            .await;
    }

    /// Has the browser do what only its developers' protocol can.
    pub async fn tell(&self, method: &str, parameters: Value) -> Value {
        let told = self.driver.cdp().send_raw(method, parameters).await;
        told.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// A line of the console that has this in it is no complaint.
    pub fn expect(&mut self, line: &'static str) {
        self.expected.push(line);
    }

    /// Goes to a path, and no further than to its document.
    pub async fn go(&self, path: &str) {
        self.go_to(&format!("{}{path}", self.origin)).await;
    }

    /// Goes anywhere.
    pub async fn go_to(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    /// Opens the inbox, and waits until it is there and live.
    pub async fn open(&self) {
        self.open_at("/inbox").await;
    }

    pub async fn open_at(&self, path: &str) {
        self.go(path).await;
        self.is_live().await;
    }

    /// Opens another tab of this browser there, and goes on in that.
    pub async fn tab(&self, path: &str) {
        let tab = self.driver.new_tab().await.unwrap();
        self.driver.switch_to_window(tab).await.unwrap();
        self.prepare().await;
        self.go(path).await;
    }

    pub async fn reload(&self) {
        self.driver.refresh().await.unwrap();
        self.is_live().await;
    }

    pub async fn is_live(&self) {
        self.until("the page is ready and live", "return isLive()")
            .await;
    }

    /// Waits until the page is back by itself; its clock goes on to the moment of its next try, so
    /// that the test need not wait for that.
    pub async fn comes_back(&self) {
        self.time_passes(72).await;
        self.is_live().await;
    }

    /// What a script returns that knows `hooks.js`.
    pub async fn eval(&self, script: &str) -> Value {
        self.eval_with(script, &Value::Null).await
    }

    /// The same for a script that uses `given`.
    pub async fn eval_with(&self, script: &str, given: &Value) -> Value {
        let script = format!("{HOOKS}\nconst [given] = arguments;\n{script}");
        let answer = self
            .driver
            .execute(script.clone(), vec![given.clone()])
            .await;
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{script}"));
        answer.json().clone()
    }

    /// Waits until a script returns something, which it does, by whatever the page does.
    #[track_caller]
    pub fn until(&self, what: &str, script: &str) -> impl Future<Output = Value> {
        self.until_with(what, script, &Value::Null)
    }

    #[track_caller]
    pub fn until_with(
        &self,
        what: &str,
        script: &str,
        given: &Value,
    ) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        let script = format!("{HOOKS}\nconst holds = () => {{ {script} }};\n{WAIT}");
        let given = given.clone();
        async move {
            let answer = self.driver.execute_async(script, vec![given]).await;
            let found = match answer {
                Ok(answer) => answer.json().clone(),
                Err(error) => {
                    let text = self.eval("return document.body.innerText").await;
                    panic!("{place}: never happened: {what}: {error}\nThe page:\n{text}");
                }
            };
            let thrown = found.get("thrown");
            assert!(thrown.is_none(), "{place}: {what}: {thrown:?}");
            found
        }
    }

    pub async fn rows(&self) -> Vec<Row> {
        let rows = self.eval("return rows()").await;
        let row = |row: &Value| Row {
            id: string(row, "id"),
            unread: string(row, "unread"),
            text: string(row, "text"),
            is_open: row["isOpen"] == true,
        };
        rows.as_array().unwrap().iter().map(row).collect()
    }

    pub async fn bubbles(&self) -> Vec<Bubble> {
        let bubbles = self.eval("return messages()").await;
        let bubble = |bubble: &Value| Bubble {
            id: string(bubble, "id"),
            status: string(bubble, "status"),
            text: string(bubble, "text"),
        };
        bubbles.as_array().unwrap().iter().map(bubble).collect()
    }

    /// The one element with this `data-testid`.
    pub async fn hook(&self, hook: &str) -> WebElement {
        self.find(&format!("[data-testid=\"{hook}\"]")).await
    }

    pub async fn find(&self, selector: &str) -> WebElement {
        let found = self.driver.find(By::Css(selector)).await;
        found.unwrap_or_else(|error| panic!("{selector}: {error}"))
    }

    /// Clicks the first of these that is shown.
    pub async fn click(&self, selector: &str) {
        let script = format!(
            "{HOOKS}\nconst isThere = (node) => isShown(node.closest('select') ?? node);\nreturn [...document.querySelectorAll(arguments[0])].find(isThere)"
        );
        let found = self.driver.execute(script, vec![json!(selector)]).await;
        let found = found.unwrap().element();
        let found = found.unwrap_or_else(|error| panic!("{selector}: {error}"));
        found.click().await.unwrap();
    }

    /// Opens a conversation from the list, and waits for its messages.
    pub async fn select(&self, conversation: &str) {
        let row = format!("[data-testid=conversations] [data-conversation-id=\"{conversation}\"]");
        self.until_with(
            "the conversation is in the list",
            "return rows().some((row) => row.id === given)",
            &json!(conversation),
        )
        .await;
        self.click(&format!("{row} a, {row} button")).await;
        self.until_with(
            "the conversation is open",
            "return rows().some((row) => row.id === given && row.isOpen) && bubbles().length > 0",
            &json!(conversation),
        )
        .await;
    }

    /// Types into what has the focus.
    pub async fn press(&self, keys: impl Into<TypingData>) {
        let keys = self.driver.action_chain().send_keys(keys);
        keys.perform().await.unwrap();
    }

    /// Types a text into the composer, and leaves it there.
    pub async fn write(&self, text: &str) {
        self.hook("composer").await.click().await.unwrap();
        // As an input method does: a keyboard has no emoji.
        self.tell("Input.insertText", json!({ "text": text })).await;
    }

    /// Types a text and Enter; its bubble is there when this returns.
    pub async fn send(&self, text: &str) {
        self.write(text).await;
        self.press(Key::Enter).await;
        self.has_bubble(text).await;
    }

    /// Waits for a bubble with this text.
    pub async fn has_bubble(&self, text: &str) {
        let what = format!("a bubble says {text:?}");
        let script = "return withText(given).length > 0";
        self.until_with(&what, script, &json!(text)).await;
    }

    /// Waits until the one bubble with this text is of a message that has this status.
    pub async fn becomes(&self, text: &str, status: &str) -> String {
        let what = format!("{text:?} becomes {status}");
        let script = "const found = withText(given[0]);
            return found.length === 1 && found[0].dataset.status === given[1]
              && (given[1] === 'PENDING' || found[0].dataset.messageId.startsWith('msg_'))
              && [found[0].dataset.messageId]";
        let found = self.until_with(&what, script, &json!([text, status])).await;
        found[0].as_str().unwrap().to_owned()
    }

    /// Waits until a row has this many unread; none is an empty text.
    pub async fn has_unread(&self, conversation: &str, unread: &str) {
        let what = format!("{conversation} has {unread:?} unread");
        let script = "return rows().some((row) => row.id === given[0] && row.unread === given[1])";
        let given = json!([conversation, unread]);
        self.until_with(&what, script, &given).await;
    }

    /// What is in the composer.
    pub async fn draft(&self) -> String {
        let draft = self.eval("return one('composer').value").await;
        draft.as_str().unwrap().to_owned()
    }

    pub async fn banner(&self, is_shown: bool) {
        let what = format!("the banner is shown: {is_shown}");
        let script = "return isShown(one('banner')) === given";
        self.until_with(&what, script, &json!(is_shown)).await;
    }

    /// As if the machine had slept for so long.
    pub async fn time_passes(&self, seconds: u32) {
        let milliseconds = json!(u64::from(seconds) * 1000);
        self.eval_with("moveClock(given)", &milliseconds).await;
    }

    pub async fn in_zone(&self, zone: &str) {
        let zone = json!({ "timezoneId": zone });
        self.tell("Emulation.setTimezoneOverride", zone).await;
    }

    pub async fn as_dark(&self, is_dark: bool) {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tell(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    pub async fn as_telephone(&self) {
        let telephone =
            json!({ "width": 390, "height": 780, "deviceScaleFactor": 2, "mobile": true });
        self.tell("Emulation.setDeviceMetricsOverride", telephone)
            .await;
    }

    /// Whether the network is there.
    pub async fn online(&self, is_online: bool) {
        self.tell("Network.enable", json!({})).await;
        let network = json!({ "offline": !is_online, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.tell("Network.emulateNetworkConditions", network).await;
    }

    /// Out of sight, as behind another tab.
    pub async fn hide(&self) {
        self.driver.minimize_window().await.unwrap();
        let script = "return document.visibilityState === 'hidden'";
        self.until("the page is hidden", script).await;
    }

    pub async fn show(&self) {
        self.driver.set_window_rect(0, 0, 1280, 800).await.unwrap();
        let script = "return document.visibilityState === 'visible' && document.hasFocus()";
        self.until("the page is shown", script).await;
    }

    /// What the browser has complained of since it was last asked.
    pub async fn complaints(&self) -> Vec<String> {
        let violations = self.eval("return window.violations ?? []").await;
        let violations = violations.as_array().unwrap().iter().map(Value::to_string);
        let log = self.driver.browser_log().await.unwrap();
        let lines = log
            .iter()
            .map(|line| format!("{}: {}", line.level, line.message));
        let is_expected = |line: &String| self.expected.iter().any(|text| line.contains(text));
        violations
            .chain(lines)
            .filter(|line| !is_expected(line))
            .collect()
    }

    /// Ends the browser, which must have nothing to complain of.
    pub async fn close(self) {
        let complaints = self.complaints().await;
        self.driver.quit().await.unwrap();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

fn string(value: &Value, name: &str) -> String {
    let found = value[name].as_str();
    found.unwrap_or_default().to_owned()
}
