//! The page's state is what the gateway's is, in whatever order answers and events come.

use crate::stage::play;

const INTERLEAVE: [&str; 2] = [
    include_str!("interleave.js"),
    include_str!("interleave_run.js"),
];
/// So many runs; each is another one.
const RUNS: usize = 2000;

#[tokio::test]
async fn thousands_of_interleavings_end_in_the_state_of_the_gateway() {
    play(async |stage| {
        let page = &stage.page;
        page.open().await;
        let interleave = INTERLEAVE.concat();
        let script = format!(
            "const done = arguments[arguments.length - 1];
            {interleave}
            import('/inbox/store.js').then((store) => {{
              const from = arguments[0];
              for (let seed = from; seed < from + 100; seed += 1) {{
                const wrong = interleave(store, seed);
                if (wrong) return done(wrong);
              }}
              done('');
            }}).catch((error) => done(String(error.stack)));"
        );
        for from in (1..=RUNS).step_by(100) {
            let given = vec![serde_json::json!(from)];
            let wrong = page
                .driver
                .execute_async(script.clone(), given)
                .await
                .unwrap();
            assert_eq!(wrong.json(), "");
        }
    })
    .await;
}
