//! A run whose nodes get secrets, use them in every way there is, succeed and fail; and then a look everywhere.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, TestFleet};
use tests::http_target::{HttpTarget, Reply};

/// With what is written otherwise in JSON, in an address and in base64.
const TOKEN: &str = "S3cr3t \"quoted\"/+=&?\\-value-of-0815";
/// No secret: what is looked through is found to hold it.
const CANARY: &str = "a canary \"in\" a run's input";
const PASSWORD: &str = "n0t-the-right-password-4711";

/// What a value looks like, wherever it may show; `parts`: also where it is a part of something.
fn forms(value: &str, parts: bool) -> Vec<String> {
    let percent = |plain: &str| -> String {
        let one = |byte: u8| match char::from(byte) {
            c if c.is_ascii_alphanumeric() || plain.contains(c) => c.to_string(),
            _ => format!("%{byte:02X}"),
        };
        value.bytes().map(one).collect()
    };
    let quoted = json!(value).to_string();
    let escaped = quoted[1..quoted.len() - 1].to_owned();
    let twice = json!(escaped).to_string();
    let mut forms =
        vec![value.to_owned(), escaped, percent("-._~"), percent("*-._").replace("%20", "+")];
    forms.extend([&STANDARD, &STANDARD_NO_PAD, &URL_SAFE].map(|engine| engine.encode(value)));
    if !parts {
        return forms;
    }
    forms.extend([
        twice[1..twice.len() - 1].to_owned(),
        format!("{value:?}").trim_matches('"').to_owned(),
    ]);
    // Also as a part of what is in base64, which begins with any of three bits; the ends differ by what is around it.
    for before in ["", "u:", "ux", "u"] {
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE] {
            let text = engine.encode(format!("{before}{value}"));
            forms.push(text[4..text.len() - 4].to_owned());
        }
    }
    forms
}

/// One node, tried once.
fn node(id: &str, action: &str, input: Value) -> Value {
    let mut config = input;
    config["action"] = json!(action);
    json!({"id": id, "type": "action", "config": config, "retry": {"max_attempts": 1}})
}

fn leaky(target: &HttpTarget) -> Value {
    let token = "{{ secrets.TOKEN }}";
    let says = "printf '%s\\n' \"$S\"; printf %s \"$S\" | base64 -w0; printf '%s\\n' \"$S\" >&2";
    let call =
        |path: &str, auth: Value| json!({"url": target.url(path), "auth": auth, "method": "POST"});
    let sql = |secret: &str, statement: &str| json!({"database": format!("{{{{ secrets.{secret} }}}}"), "statement": statement, "parameters": [token]});
    let mut whole = call("/in", json!({"bearer": token}));
    whole["json"] = json!({"t": token});
    whole["query"] = json!({"t": token});
    whole["headers"] = json!({"x-token": format!("<{token}>")});
    json!({"name": "leaky", "nodes": [
        node("bearer", "call_api", whole),
        node("basic", "call_api", call("/basic", json!({"username": "u", "password": token}))),
        node("shell", "run_command", json!({"argv": ["sh", "-c", says], "env": {"S": token}})),
        node("sql", "sql_query", sql("DATABASE", "select $1::text as said, $1::text || '!' as loud")),
        node("echo", "echo", json!({"said": token, "part": format!("a {token} b")})),
        // What fails says what it was given.
        node("call_refused", "call_api", json!({"url": "http://127.0.0.1:1/", "query": {"t": token}, "auth": {"bearer": token}})),
        node("call_failed", "call_api", call("/bad", json!({"bearer": token}))),
        node("call_unfit", "call_api", json!({"url": token})),
        node("call_header", "call_api", json!({"url": target.url("/in"), "headers": {"x": format!("{token}\nx")}})),
        node("shell_failed", "run_command", json!({"argv": ["sh", "-c", format!("{says}; exit 3")], "env": {"S": token}})),
        node("shell_missing", "run_command", json!({"argv": [token]})),
        node("sql_failed", "sql_query", sql("DATABASE", "select $1::int as n")),
        node("sql_refused", "sql_query", sql("CLOSED", "select $1::text as t")),
        node("sql_password", "sql_query", sql("WRONG", "select $1::text as t")),
    ]})
}

/// Every string of every row of every table, keys of JSON included.
async fn stored(fleet: &TestFleet) -> Vec<(String, String)> {
    let tables =
        "select table_name::text from information_schema.tables where table_schema = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(fleet.database().pool())
        .await
        .expect("tables are listed");
    let mut found = Vec::new();
    for table in tables {
        let rows = sqlx::AssertSqlSafe(format!("select to_jsonb(t) from {table} t"));
        let rows: Vec<Value> = sqlx::query_scalar(rows)
            .fetch_all(fleet.database().pool())
            .await
            .expect("rows are read");
        for row in rows {
            strings(&row, &mut |text| found.push((table.clone(), text.to_owned())));
        }
    }
    found
}

fn strings(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, each)),
        Value::Object(fields) => fields.iter().for_each(|(key, field)| {
            each(key);
            strings(field, each);
        }),
        _ => {}
    }
}

/// All that the api says about the run, and besides.
async fn answers(client: &Client, run: &str, nodes: &[&str]) -> Vec<(String, String)> {
    let mut paths: Vec<String> =
        nodes.iter().map(|node| format!("/v1/runs/{run}/nodes/{node}")).collect();
    paths.extend(["events", "?wait=1s"].map(|rest| match rest.strip_prefix('?') {
        Some(_) => format!("/v1/runs/{run}{rest}"),
        None => format!("/v1/runs/{run}/{rest}"),
    }));
    let others = [
        "runs",
        "pipelines",
        "pipelines/leaky",
        "secrets",
        "audit-events",
        "tools",
        "workers",
        "schedules",
    ];
    paths.extend(others.map(|path| format!("/v1/{path}")));
    let mut answers = Vec::new();
    for path in paths {
        let answer = client.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        answers.push((path, answer.text));
    }
    answers
}

#[tokio::test]
async fn r14_a_secret_that_tools_use_is_found_nowhere() {
    let mut options = FleetOptions::default();
    for role in [Role::Api, Role::Worker, Role::Scheduler] {
        options = options.with(role, "RUST_LOG", "debug");
    }
    let fleet = TestFleet::start(options).await;
    let (client, target) = (fleet.client(), HttpTarget::start().await);
    let taps = [
        fleet.broker().tap("work", &["default"]).await,
        fleet.broker().tap("events", &["#"]).await,
    ];
    let database = fleet.database().url().to_owned();
    let (_, rest) = database.split_once('@').expect("a password");
    let wrong = format!("postgres://gathering:{PASSWORD}@{rest}");
    let closed = format!("postgres://gathering:{PASSWORD}@127.0.0.1:1/d");
    let secrets =
        [("TOKEN", TOKEN), ("DATABASE", &database), ("WRONG", &wrong), ("CLOSED", &closed)];
    for (name, value) in secrets {
        client.post("/v1/secrets", &json!({"name": name, "value": value})).await.expect(201);
    }
    // The other side says it all back, in all forms; once so that a message cuts it in the middle.
    let basic = STANDARD.encode(format!("u:{TOKEN}"));
    let echo = json!({"you": TOKEN, "forms": forms(TOKEN, false)});
    target.answers("/in", [Reply::json(&echo)]);
    target
        .answers("/basic", [Reply::json(&json!({"you": format!("Basic {basic}"), "code": basic}))]);
    target.answers(
        "/bad",
        [Reply::status(400).body(format!("{}{}", "x".repeat(485), TOKEN.repeat(5)))],
    );

    let run = client.run_pipeline(leaky(&target), json!({"canary": CANARY})).await.expect("failed");
    // They had it.
    let received = [target.received("/in"), target.received("/basic")].concat();
    assert!(
        received
            .iter()
            .any(|request| request.headers["authorization"] == format!("Bearer {TOKEN}"))
    );
    assert!(
        received.iter().any(|request| request.headers["authorization"] == format!("Basic {basic}"))
    );
    for (node, state) in [
        ("bearer", "completed"),
        ("basic", "completed"),
        ("shell", "completed"),
        ("sql", "completed"),
    ] {
        assert_eq!(run.node(node).state, state, "{node}: {}", run.node(node).error);
        assert!(run.node(node).output.to_string().contains("***"), "{node}");
    }
    let failed: Vec<_> = run
        .nodes
        .iter()
        .filter(|node| node.state == "failed")
        .map(|node| node.id.as_str())
        .collect();
    assert_eq!(failed.len(), 9, "{failed:?}");

    let nodes: Vec<_> = run.nodes.iter().map(|node| node.id.as_str()).collect();
    let mut seen = answers(&client, &run.id, &nodes).await;
    seen.extend(stored(&fleet).await);
    seen.push(("logs".to_owned(), fleet.logs()));
    for role in [Role::Api, Role::Worker, Role::Scheduler] {
        seen.push((format!("{role:?}"), fleet.metrics(role, 0).await));
    }
    for tap in &taps {
        let messages = fleet.broker().take(tap).await;
        assert!(!messages.is_empty(), "nothing came through {tap}");
        for message in messages {
            let said =
                format!("{} {:?}", String::from_utf8_lossy(&message.data), message.properties);
            seen.push((tap.clone(), said));
        }
        fleet.broker().delete(tap).await;
    }
    for place in ["runs", &format!("/v1/runs/{}?wait=1s", run.id)] {
        let canary = |(at, text): &(String, String)| {
            at == place && forms(CANARY, false).iter().any(|form| text.contains(form))
        };
        assert!(seen.iter().any(canary), "{place} was not looked through");
    }
    for place in ["logs", &taps[0], &taps[1]] {
        let named = |(at, text): &(String, String)| at == place && text.contains(&run.id);
        assert!(seen.iter().any(named), "{place} was not looked through");
    }
    for value in secrets.iter().map(|(_, value)| *value).chain([PASSWORD]) {
        for form in forms(value, true) {
            for (place, text) in &seen {
                assert!(!text.contains(&form), "{place} shows {form}: {}", around(text, &form));
            }
        }
    }
    // Nor the half of it, where a message was cut.
    let cut = run.node("call_failed").error["message"].as_str().expect("a message");
    assert!(!cut.contains("S3cr3"), "{cut}");
    fleet.finish().await;
}

fn around<'a>(text: &'a str, form: &str) -> &'a str {
    let at = text.find(form).unwrap_or(0);
    let floor = |mut ix: usize| {
        while !text.is_char_boundary(ix) {
            ix -= 1;
        }
        ix
    };
    &text[floor(at.saturating_sub(200))..floor((at + form.len() + 100).min(text.len()))]
}
